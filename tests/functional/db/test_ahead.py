"""Statements that are sent ahead: all of them are executed, in order, and the first that fails is told of."""

from datetime import UTC, datetime

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from nexus_marketing.core.actors import SYSTEM
from nexus_marketing.db.ahead import Question, answers, ask, sent_ahead
from nexus_marketing.db.retry import is_transient
from nexus_marketing.db.tenancy import run
from nexus_marketing.db.types import UtcDateTime
from nexus_marketing.runtime import Runtime
from tests.common.factories import make_leads, make_tenant

pytestmark = pytest.mark.req("PR-006", "SCL-003")

RENAME = "UPDATE marketing_leads SET country = :country WHERE tenant_id = :tenant_id"
COUNTRY = "SELECT country FROM marketing_leads WHERE tenant_id = :tenant_id"
CREATED = text("SELECT id, created_at FROM marketing_leads WHERE tenant_id = :tenant_id").columns(
    created_at=UtcDateTime()
)
#: Fails in the database, not before.
BROKEN = "UPDATE marketing_leads SET id = NULL WHERE tenant_id = :tenant_id"


@pytest.fixture
def tenant(runtime: Runtime) -> int:
    tenant_id = make_tenant(runtime)
    make_leads(runtime, tenant_id, country="CH")
    return tenant_id


def test_statements_are_executed_in_order_and_committed(runtime: Runtime, tenant: int) -> None:
    with runtime.work(tenant, SYSTEM) as ctx, sent_ahead(ctx.session):
        for country in ("FR", "IT"):
            run(ctx.session, RENAME, {"country": country}, writes=True)
    with runtime.work(tenant, SYSTEM, mode="read") as ctx:
        (countries,) = answers(ctx.session, Question(COUNTRY, {}))
    assert [row.country for row in countries] == ["IT"]


@pytest.mark.parametrize("before", [0, 1, 20])
def test_the_one_that_fails_is_told_of_and_nothing_stays(runtime: Runtime, tenant: int, before: int) -> None:
    with (
        pytest.raises(DBAPIError, match=r"(?i)null") as caught,
        runtime.work(tenant, SYSTEM) as ctx,
        sent_ahead(ctx.session),
    ):
        for statement in (*[RENAME] * before, BROKEN, RENAME, RENAME):
            run(ctx.session, statement, {"country": "IT"} if statement is RENAME else {}, writes=True)
    assert not is_transient(caught.value)
    with runtime.work(tenant, SYSTEM, mode="read") as ctx:
        assert run(ctx.session, COUNTRY, writes=False).scalar_one() == "CH"


def test_several_questions_are_answered_each_by_its_rows(runtime: Runtime, tenant: int) -> None:
    with runtime.work(tenant, SYSTEM) as ctx:
        countries, none, created = answers(
            ctx.session,
            Question(COUNTRY, {}),
            Question(RENAME + " AND country = 'DE' RETURNING id", {"country": "IT"}, writes=True),
            Question(CREATED, {}),
        )
    assert [row.country for row in countries] == ["CH"]
    assert none == []
    moment = created[0].created_at
    assert isinstance(moment, datetime)
    assert moment.tzinfo is UTC


def test_a_question_that_fails_is_told_of(runtime: Runtime, tenant: int) -> None:
    with pytest.raises(DBAPIError, match=r"(?i)null") as caught, runtime.work(tenant, SYSTEM) as ctx:
        answers(ctx.session, Question(COUNTRY, {}), Question(BROKEN, {}, writes=True), Question(COUNTRY, {}))
    assert not is_transient(caught.value)


def test_what_is_asked_ahead_is_answered_after_the_block(runtime: Runtime, tenant: int) -> None:
    with runtime.work(tenant, SYSTEM) as ctx:
        with sent_ahead(ctx.session):
            renamed = ask(ctx.session, Question(f"{RENAME} RETURNING country", {"country": "IT"}, writes=True))
            seen = ask(ctx.session, Question(COUNTRY, {}))
        assert [row.country for row in seen()] == ["IT"]
        assert [tuple(row) for row in renamed()] == [("IT",)]
        assert [row.country for row in ask(ctx.session, Question(COUNTRY, {}))()] == ["IT"]
    with runtime.work(tenant, SYSTEM, mode="read") as ctx:
        assert run(ctx.session, COUNTRY, writes=False).scalar_one() == "IT"


def test_what_is_asked_ahead_and_fails_is_told_of(runtime: Runtime, tenant: int) -> None:
    with (
        pytest.raises(DBAPIError, match=r"(?i)null") as caught,
        runtime.work(tenant, SYSTEM) as ctx,
        sent_ahead(ctx.session),
    ):
        ask(ctx.session, Question(BROKEN, {}, writes=True))
        ask(ctx.session, Question(COUNTRY, {}))
    assert not is_transient(caught.value)
