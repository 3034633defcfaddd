"""Who opened and clicked: people, machines, or nobody can say."""

from datetime import UTC, datetime, timedelta

import pytest

from nexus_marketing.core.engagements import EngagementType, HitFact, MachineHint, Verdict, judge, machine_hint

pytestmark = pytest.mark.req("FR-P2-007")

SENT = datetime(2026, 3, 2, 10, tzinfo=UTC)


def hit(number: int, seconds: float, link: int | None = None, hint: MachineHint | None = None) -> HitFact:
    type_ = EngagementType.EMAIL_OPENED if link is None else EngagementType.EMAIL_CLICKED
    return HitFact(number, type_, SENT + timedelta(seconds=seconds), link, hint)


@pytest.mark.parametrize(
    ("agent", "hint"),
    [
        ("Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:140.0) Gecko/20100101 Firefox/140.0", None),
        ("Mozilla/5.0 (via ggpht.com GoogleImageProxy)", MachineHint.PROXY),
        ("Barracuda Sentinel (EE)", MachineHint.SCANNER),
        ("python-requests/2.32", MachineHint.SCANNER),
        ("", MachineHint.SCANNER),
    ],
)
def test_agents_give_themselves_away(agent: str, hint: MachineHint | None) -> None:
    assert machine_hint(agent) is hint


def test_a_person_reads_after_a_while() -> None:
    assert judge([hit(1, 60), hit(2, 75, link=0)], SENT) == {1: Verdict.HUMAN, 2: Verdict.HUMAN}


def test_all_links_within_seconds_is_a_scanner_and_a_later_click_is_not() -> None:
    verdicts = judge([hit(1, 30, 0), hit(2, 30.4, 1), hit(3, 30.9, 2), hit(4, 600, 1)], SENT)
    assert verdicts == {1: Verdict.MACHINE, 2: Verdict.MACHINE, 3: Verdict.MACHINE, 4: Verdict.HUMAN}


def test_a_proxy_open_proves_nothing() -> None:
    assert judge([hit(1, 60, hint=MachineHint.PROXY)], SENT) == {1: Verdict.UNKNOWN}


def test_an_open_at_the_moment_of_delivery_proves_nothing() -> None:
    assert judge([hit(1, 0.5)], SENT) == {1: Verdict.UNKNOWN}
