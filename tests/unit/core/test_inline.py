"""Campaigns on plain objects: any class, nothing to set up, one state, one success."""

import copy
import json
import pickle
import subprocess
import sys
from dataclasses import asdict, dataclass, field, replace
from threading import Barrier, Thread
from typing import Any

import pytest

from nexus_marketing import HasMarketing, use_storage
from nexus_marketing.core import marketing as marketing_module
from nexus_marketing.core.errors import ConfigurationError, Conflict, TransitionRefused, ValidationError
from nexus_marketing.core.memory import MemoryStorage

pytestmark = pytest.mark.req("US-001", "US-002", "US-003", "FR-P1-001", "FR-P1-002")

CONFIG = {"campaigns": {"spring": {"channels": ["email"], "budget": 5000}}}


@pytest.fixture(autouse=True)
def _on_the_objects():
    restore = use_storage(None)
    yield
    restore()


class Product(HasMarketing):
    marketing_config = CONFIG

    def __init__(self, number=7):
        self.id = number


@dataclass
class Offer(HasMarketing):
    id: int | None = None
    tags: list[str] = field(default_factory=list)
    marketing_state: dict[str, Any] | None = None

    marketing_config = CONFIG


@dataclass(frozen=True)
class Fixed(HasMarketing):
    id: int = 7
    box: dict[str, Any] = field(default_factory=dict)

    marketing_config = CONFIG


class Slotted(HasMarketing):
    __slots__ = ("id",)

    marketing_config = CONFIG

    def __init__(self):
        self.id = 7


KINDS = [Product, lambda: Offer(7), Slotted]


@pytest.fixture(params=KINDS, ids=["class", "dataclass", "slots"])
def subject(request):
    return request.param()


def test_any_class_has_campaigns_at_once(subject):
    marketing = subject.marketing()
    assert marketing.launch_campaign({"budget": 10}).is_active()
    marketing.pause(actor="user:3", reason="out of stock")
    assert [(line.event, line.actor) for line in marketing.history()] == [("launch", "system"), ("pause", "user:3")]
    assert marketing.campaign().budget == 10


@pytest.mark.req("BR-007")
def test_an_object_has_one_manager(subject):
    assert subject.marketing() is subject.marketing()


def test_the_state_is_json_and_lies_beside_what_is_there():
    offer = Offer(7, marketing_state={"mine": 1})
    offer.marketing().launch_campaign()
    kept = json.loads(json.dumps(offer.marketing_state))
    assert kept["mine"] == 1
    again = Offer(7, marketing_state=kept)
    assert again.marketing().campaign().is_active()
    assert again.marketing().history() == offer.marketing().history()


def test_another_attribute_may_hold_it():
    class Elsewhere(Product):
        marketing_state_attribute = "box"

    product = Elsewhere()
    product.marketing().launch_campaign()
    assert set(vars(product)) >= {"box"}
    assert not hasattr(product, "marketing_state")


@pytest.mark.parametrize("held", [[], "text", {"marketing": 5}, {"marketing": {"format": 99}}])
def test_an_attribute_that_holds_something_else_is_named(held):
    offer = Offer(7, marketing_state=held)
    with pytest.raises(ConfigurationError, match=r"^Offer\.marketing_state holds"):
        offer.marketing().launch_campaign()
    assert offer.marketing_state == held


def test_a_frozen_dataclass_says_what_to_do():
    with pytest.raises(ConfigurationError, match=r"Fixed\.marketing_state cannot be written .* marketing_state_attrib"):
        Fixed().marketing().launch_campaign()
    restore = use_storage(MemoryStorage())
    assert Fixed().marketing().launch_campaign().is_active()
    restore()


def test_a_frozen_dataclass_can_keep_it_in_a_dict_it_has():
    class Boxed(Fixed):
        @property
        def state(self):
            return self.box

        @state.setter
        def state(self, value):
            self.box.update(value)

        marketing_state_attribute = "state"

    boxed = Boxed()
    boxed.marketing().launch_campaign()
    assert Boxed(box=json.loads(json.dumps(boxed.box))).marketing().campaign().is_active()


def test_dataclass_tools_see_the_state_and_no_manager():
    offer = Offer(7, ["new"])
    offer.marketing().launch_campaign()
    assert set(asdict(offer)) == {"id", "tags", "marketing_state"}
    assert offer == Offer(**asdict(offer))
    other = replace(offer, tags=[])
    assert other.marketing() is not offer.marketing()
    assert other.marketing().campaign().is_active()


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))])
def test_a_copy_goes_its_own_way(subject, copied):
    subject.marketing().launch_campaign()
    other = copied(subject)
    assert other.marketing().subject is other
    other.marketing().pause()
    assert (subject.marketing().campaign().status, other.marketing().campaign().status) == ("active", "paused")
    assert len(subject.marketing().history()) == 1


@pytest.mark.req("BR-007")
def test_an_id_that_comes_later_is_taken_on():
    offer = Offer()
    offer.marketing().launch_campaign()
    before = offer.marketing().campaign().id
    offer.id = 7
    assert [each.name for each in offer.marketing().active_campaigns()] == ["spring"]
    restore = use_storage(MemoryStorage())
    there = offer.marketing().campaign().id
    restore()
    assert offer.marketing().campaign().id == there != before


def test_an_object_with_a_meta_of_its_own_is_no_django_model():
    class Described(Product):
        _meta = object()

    assert Described().marketing().launch_campaign().is_active()


class TestConfiguration:
    def test_may_be_a_method_a_property_or_an_attribute(self):
        class ByMethod(Product):
            def marketing_config(self):
                return {"campaigns": {f"sale_{self.id}": {}}}

        class ByProperty(Product):
            marketing_config = property(lambda self: {"campaigns": {f"sale_{self.id}": {}}})

        stored = Product()
        stored.marketing_config = json.loads('{"campaigns": {"sale_7": {}}}')
        for product in (ByMethod(), ByProperty(), stored):
            assert [each.name for each in product.marketing().campaigns()] == ["sale_7"]

    def test_an_edit_is_enough(self):
        product = Product()
        product.marketing_config = copy.deepcopy(CONFIG)
        assert product.marketing().campaign().budget == 5000
        product.marketing_config["campaigns"]["spring"]["budget"] = 6000
        assert product.marketing().launch_campaign().budget == 6000

    @pytest.mark.parametrize(
        ("config", "code"),
        [
            (None, "configuration"),
            ([], "validation_failed"),
            ({"campaign": {}}, "validation_failed"),
            ({"campaigns": {"spring": {"chanels": ["email"]}}}, "validation_failed"),
        ],
    )
    def test_a_wrong_one_is_told_where_it_is_wrong(self, config, code):
        product = Product()
        product.marketing_config = config
        with pytest.raises((ConfigurationError, ValidationError)) as caught:
            product.marketing().launch_campaign("spring")
        assert caught.value.code == code
        assert "marketing_config" in str(caught.value)
        assert not hasattr(product, "marketing_state")


@pytest.mark.req("US-004", "US-006", "US-007", "FR-P1-004", "FR-P1-006", "FR-P1-007", "FR-P1-008")
class TestCode:
    def launched(self, **keys):
        product = Product()
        product.heard = []
        product.marketing_config = {"campaigns": {"spring": {"budget": 5, **keys}}}
        return product, product.marketing()

    def test_a_guard_decides_and_a_question_changes_nothing(self):
        product, marketing = self.launched(guards={"launch": [lambda c: c.budget > 10, "data.budget < 100"]})
        assert not marketing.can("launch")
        assert marketing.can("launch", data={"budget": 50})
        assert [each.code for each in marketing.why_not("launch")] == ["guard_refused"]
        assert not hasattr(product, "marketing_state")
        with pytest.raises(TransitionRefused):
            marketing.launch_campaign()
        assert not hasattr(product, "marketing_state")

    def test_hooks_run_before_and_after(self):
        product, marketing = self.launched(
            hooks={
                "before_launch": lambda c: product.heard.append(("before", c.status)),
                "after_launch": lambda c: product.heard.append(("after", c.status)),
            }
        )
        marketing.launch_campaign()
        assert product.heard == [("before", "draft"), ("after", "active")]

    def test_a_failing_hook_before_leaves_the_object_and_after_undoes_nothing(self):
        product, marketing = self.launched(
            hooks={"before_launch": lambda _c: 1 / 0, "after_cancel": lambda _c: 1 / 0},
        )
        with pytest.raises(ZeroDivisionError):
            marketing.launch_campaign()
        assert not hasattr(product, "marketing_state")
        cancelled = marketing.cancel()
        assert (cancelled.status, [each.code for each in cancelled.problems]) == ("cancelled", ["hook_failed"])

    def test_required_types_and_validators_hold_the_data(self):
        def short(text):
            if len(text) > 5:
                raise ValueError("at most five letters")

        product, marketing = self.launched(
            data_schema={"headline": {"type": "string", "required": True}}, validators={"headline": short}
        )
        faults = []
        for data in ({}, {"headline": 5}, {"headline": "much too long"}):
            with pytest.raises(ValidationError) as caught:
                marketing.launch_campaign(data)
            faults += [(each.path, each.code) for each in caught.value.problems]
        assert faults == [
            ("data.headline", "required"),
            ("data.headline", "wrong_type"),
            ("data.headline", "validator_refused"),
        ]
        assert not hasattr(product, "marketing_state")
        assert marketing.launch_campaign({"headline": "Spring"[:5]}).headline == "Sprin"


@pytest.mark.req("REL-001", "REL-003", "BR-007")
@pytest.mark.parametrize("round_", range(10))
def test_of_threads_that_race_one_wins_and_the_others_are_told(round_):
    subject = KINDS[round_ % 3]()
    barrier, outcomes, managers = Barrier(8), [], []

    def launch():
        barrier.wait()
        managers.append(subject.marketing())
        try:
            outcomes.append(subject.marketing().launch_campaign().version)
        except Conflict as error:
            outcomes.append(error.code)

    threads = [Thread(target=launch) for _ in range(8)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    finally:
        sys.setswitchinterval(interval)
    assert outcomes.count(1) == 1
    assert set(outcomes) <= {1, "stale_version", "transition_refused"}
    assert len({*map(id, managers)}) == 1
    assert [line.event for line in subject.marketing().history()] == ["launch"]


@pytest.mark.req("REL-001", "BR-007")
def test_threads_that_come_first_share_the_storage_of_the_object(monkeypatch):
    """Two storages of one object are two places for one state: the loser would find a campaign that it never kept."""
    subject, barrier, build = Product(), Barrier(2), marketing_module.inline_storage

    def both_at_once(owner):
        barrier.wait(10)
        return build(owner)

    monkeypatch.setattr(marketing_module, "inline_storage", both_at_once)
    manager, found = subject.marketing(), []
    threads = [Thread(target=lambda: found.append(manager._own())) for _ in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert found[0] is found[1] is manager._own()


HEAVY = ("pyramid", "sqlalchemy", "dramatiq", "graphene", "redis", "cerberus", "lark", "re2", "zoneinfo", "django")
PROGRAM = """
import json, sys
before = len(sys.modules)
import nexus_marketing
class Product(nexus_marketing.HasMarketing):
    marketing_config = {"campaigns": {"spring": {}}}
Product()
print(json.dumps([len(sys.modules) - before, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def printed(program, *options):
    command = [sys.executable, *options, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=True)


def import_microseconds(program):
    """What a program's imports take by themselves, summed; the best of five, as a busy machine only adds."""

    def once():
        lines = [line.split("|") for line in printed(program, "-X", "importtime").stderr.splitlines()]
        own = {name.strip(): int(cost.split(":")[1]) for cost, _, name in lines if "[us]" not in cost}
        return sum(own.values())

    return min(once() for _ in range(5))


def test_the_mixin_loads_none_of_the_heavy_libraries():
    _, loaded = json.loads(printed(PROGRAM).stdout)
    assert not set(HEAVY) & set(loaded)


@pytest.mark.slow
def test_the_mixin_costs_under_a_fifth_of_importing_sqlalchemy():
    nothing = import_microseconds("pass")
    ours = import_microseconds(PROGRAM.replace("import json, sys", "import sys").partition("print")[0]) - nothing
    assert ours < (import_microseconds("import sqlalchemy") - nothing) / 5
