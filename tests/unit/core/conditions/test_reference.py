"""Executes the tables of docs/reference/conditions.md: what the page says is what happens."""

import pytest

from tests.common.conditions_reference import CASES, verdict

pytestmark = pytest.mark.req("FR-P2-003", "US-012")


def test_the_page_has_its_tables():
    assert len(CASES) > 250


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_page_is_right(case):
    assert verdict(case) is case.answer
