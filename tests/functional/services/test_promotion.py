"""From the object into the database: by the program, by a file, by REST; once, with ids and history."""

import json
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from nexus_marketing import HasMarketing, use_storage
from nexus_marketing.cli.campaigns import kept_campaigns
from nexus_marketing.core.clock import FakeClock
from nexus_marketing.core.errors import ConfigurationError, StorageUnsupported, ValidationError
from nexus_marketing.core.home import HOME
from nexus_marketing.db.models import Campaign, History
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.storage import SqlStorage
from nexus_marketing.tasks.loops import tick_due
from tests.functional.conftest import Client

pytestmark = pytest.mark.req("US-010", "BR-006", "BR-007", "REL-006", "FR-P2-001")


class Product(HasMarketing):
    """With a stage of its own, so that the database must know the program's definition."""

    marketing_config = {  # noqa: RUF012 - as a developer writes it
        "campaigns": {
            "spring": {
                "stages": ["draft", "queued", {"name": "warm-up", "status": "active"}],
                "transitions": {"done": {"from": "warm-up", "to": "completed", "condition": "data.sold >= 10"}},
                "data": {"sold": 0},
            }
        }
    }

    def __init__(self, number: int | None) -> None:
        self.id = number


@pytest.fixture(autouse=True)
def home(clock: FakeClock) -> Iterator[None]:
    before, HOME.clock = HOME.clock, clock
    restore = use_storage(None)
    yield
    restore()
    HOME.clock = before


def launched(number: int, **data: Any) -> Product:
    product = Product(number)
    product.marketing().launch_campaign(data)
    product.marketing().record("poster", metadata={"where": "metro"})
    return product


def counts(runtime: Runtime, tenant: int) -> tuple[int, int]:
    with runtime.work(tenant, mode="read") as ctx:
        of = lambda model: ctx.session.scalars(select(func.count()).select_from(model)).one()  # noqa: E731
        return of(Campaign), of(History)


def test_by_the_program_once_and_for_all(runtime: Runtime, tenant: int) -> None:
    products = [launched(number) for number in (1, 2)]
    before = [(each.marketing().campaign().id, each.marketing().history()) for each in products]
    use_storage(SqlStorage(runtime, tenant))
    assert [[view.stage for view in each.marketing().promote()] for each in products] == [["warm-up"], ["warm-up"]]
    assert counts(runtime, tenant) == (2, 4)
    for _ in range(2):
        assert [(each.marketing().campaign().id, each.marketing().history()) for each in products] == before
        assert products[0].marketing().promote()[0].version == 2
    assert counts(runtime, tenant) == (2, 4)


def test_what_waits_goes_on_under_the_worker(runtime: Runtime, tenant: int, clock: FakeClock) -> None:
    product = launched(1, start_date=(clock.now() + timedelta(days=1)).isoformat())
    use_storage(SqlStorage(runtime, tenant))
    product.marketing().promote()
    assert tick_due(runtime) == 0
    clock.advance(days=1)
    assert tick_due(runtime) == 1
    assert Product(1).marketing().campaign().stage == "warm-up"


def test_a_campaign_that_moved_on_in_the_database_is_not_taken_back(runtime: Runtime, tenant: int) -> None:
    product = launched(1)
    use_storage(SqlStorage(runtime, tenant))
    product.marketing().pause()
    product.marketing().promote()
    assert product.marketing().campaign().status == "paused"


def test_without_a_database_the_remedy_is_named() -> None:
    with pytest.raises(StorageUnsupported, match="campaigns promote"):
        launched(1).marketing().promote()


def test_an_object_without_an_id_cannot_be_known_again() -> None:
    product = Product(None)
    product.marketing().launch_campaign()
    with pytest.raises(ConfigurationError, match="marketing_subject_id"):
        product.marketing().kept()


class TestByRest:
    def test_documents_are_taken_once(self, client: Client, runtime: Runtime, tenant: int) -> None:
        kept = [each.document() for number in (1, 2) for each in launched(number).marketing().kept()]
        body = {"campaigns": json.loads(json.dumps(kept))}
        answer = client.post("/api/v1/campaigns/promote", body, status=200).json
        assert (answer["promoted"], answer["already"]) == (2, 0)
        assert [each["external_id"] for each in answer["campaigns"]] == [each["state"]["id"] for each in kept]
        again = client.post("/api/v1/campaigns/promote", body, status=200).json
        assert (again["promoted"], again["already"], again["campaigns"]) == (0, 2, answer["campaigns"])
        assert counts(runtime, tenant) == (2, 4)
        shown = client.get(f"/api/v1/campaigns/{answer['campaigns'][0]['id']}").json
        assert (shown["stage"], shown["counters"], shown["version"]) == ("warm-up", {"poster": 1}, 2)

    @pytest.mark.parametrize(
        ("change", "path"),
        [
            ({"status": "running"}, "campaigns.1.state.status"),
            ({"subject_id": ""}, "campaigns.1.state.subject_id"),
            ({"version": 1}, "campaigns.1.history.1.version"),
            ({"stage": "unheard-of"}, "campaigns.1.state.stage"),
            ({"status": "completed"}, "campaigns.1.state.status"),
            ({"resumes_to": "unheard-of"}, "campaigns.1.state.resumes_to"),
            ({"started_at": "yesterday"}, "campaigns.1.state.started_at"),
            ({"colour": "red"}, "campaigns.1.state.colour"),
        ],
    )
    def test_a_fault_is_named_and_nothing_is_taken(
        self, client: Client, runtime: Runtime, tenant: int, change: dict[str, Any], path: str
    ) -> None:
        good, bad = (launched(number).marketing().kept()[0].document() for number in (1, 2))
        bad["state"] |= change
        fault = client.post("/api/v1/campaigns/promote", {"campaigns": [good, bad]}, status=422).json
        assert [each["path"] for each in fault["errors"]] == [path]
        assert counts(runtime, tenant) == (0, 0)


class TestTheCommandsSource:
    def test_objects_of_a_module(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "shop_campaigns.py").write_text(
            "from nexus_marketing import HasMarketing\n"
            "class Shop(HasMarketing):\n"
            "    id = 5\n"
            "    marketing_config = {'campaigns': {'spring': {}}}\n"
            "shop = Shop()\n"
            "shop.marketing().launch_campaign()\n"
            "def everything():\n"
            "    return [shop]\n"
        )
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", list(sys.path))
        assert [str(each.state.key) for each in kept_campaigns("shop_campaigns:everything")] == ["Shop 5 spring"]

    def test_a_file_of_documents(self, tmp_path: Path) -> None:
        kept = launched(1).marketing().kept()
        file = tmp_path / "kept.jsonl"
        file.write_text("".join(f"{json.dumps(each.document())}\n" for each in kept))
        assert list(kept_campaigns(str(file))) == kept
        file.write_text(file.read_text() + '{"state": {}}\n')
        with pytest.raises(ValidationError, match="line 2"):
            list(kept_campaigns(str(file)))

    @pytest.mark.parametrize("source", ["no_such_module:all", "json:no_such_name", "nonsense", ":x"])
    def test_a_source_that_is_not_there_names_the_remedy(self, source: str) -> None:
        with pytest.raises(ConfigurationError, match="module:name"):
            list(kept_campaigns(source))
