"""Scopes as people write them, and what an actor may do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.core.actors import SYSTEM, Actor
from nexus_marketing.core.errors import PermissionDenied, ValidationError
from nexus_marketing.core.permissions import ALL_PERMISSIONS, Permission, parse_scopes

pytestmark = pytest.mark.req("SR-001", "SR-006")


@given(st.sets(st.sampled_from(list(Permission))))
def test_scopes_are_permissions_by_name(chosen):
    assert parse_scopes([str(each) for each in chosen]) == chosen


def test_a_star_stands_for_all():
    assert parse_scopes(["*"]) == parse_scopes(["*", "leads:read"]) == ALL_PERMISSIONS


def test_no_scope_is_no_permission():
    assert parse_scopes([]) == frozenset()


@pytest.mark.parametrize("word", ["leads", "leads:*", "LEADS:READ", "LEADS_READ", "", " leads:read", "*:*"])
def test_an_unknown_scope_is_named_with_those_that_are(word):
    with pytest.raises(ValidationError) as caught:
        parse_scopes(["leads:read", word])
    (problem,) = caught.value.problems
    assert (problem.path, problem.code) == ("scopes", "unknown_scope")
    assert repr(word) in problem.message
    assert "campaigns:launch" in problem.message


def test_every_unknown_scope_is_named():
    with pytest.raises(ValidationError) as caught:
        parse_scopes(["a", "leads:read", "b"])
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize("permission", Permission)
def test_an_actor_may_do_what_its_permissions_say_and_nothing_else(permission):
    Actor("key:1", frozenset({permission})).require(permission)
    with pytest.raises(PermissionDenied, match=str(permission)) as caught:
        Actor("key:1", ALL_PERMISSIONS - {permission}).require(permission)
    assert caught.value.context == {"permission": permission}


def test_writing_includes_neither_reading_nor_launching():
    writer = Actor("key:1", parse_scopes(["campaigns:write"]))
    for permission in (Permission.CAMPAIGNS_READ, Permission.CAMPAIGNS_LAUNCH):
        with pytest.raises(PermissionDenied):
            writer.require(permission)


def test_the_product_itself_may_do_everything():
    for permission in Permission:
        SYSTEM.require(permission)
