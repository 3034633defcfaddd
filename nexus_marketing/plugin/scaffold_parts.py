"""What ``plugins new`` writes for conditions, strategies, triggers and metrics: one package, one test and a page each."""

from collections.abc import Mapping
from typing import Final

_CONDITION = '''\
"""The condition $channel for nexus-marketing."""

from nexus_marketing.plugin import Capability, Manifest, Parameter, ValueKind

MANIFEST = Manifest(
    name="$name",
    version="0.1.0",
    api="$api",
    capabilities=frozenset({Capability.CONDITION}),
)


class $kind:
    """$channel('example.com'): the lead's address is there. Put your own question in its place."""

    name = "$channel"
    # Raise it with every change of what it answers: those whom it chose before are looked at again.
    version = 1
    parameters = (Parameter("domain", ValueKind.TEXT),)
    # What it is given of a lead, and nothing else: country, tags, metadata.plan, ...
    reads = frozenset({"email"})
    reads_clock = False

    def evaluate(self, context):
        """A lead may lack anything, and its metadata may hold anything: never raise."""
        email = context.values.get("email")
        return isinstance(email, str) and email.lower().endswith("@" + context.arguments["domain"].lower())


def includeme(config):
    """Called once by every process that names $module in nexus.includes."""
    config.add_marketing_plugin(MANIFEST)
    config.add_marketing_condition($kind)
'''
_CONDITION_TESTS = '''\
"""The condition against the suite of nexus-marketing, and what it alone does."""

from datetime import date

import pytest
from nexus_marketing.plugin import ConditionContext
from nexus_marketing.plugin.testing import ConditionConformance, hosted

from $module import $kind


class TestCondition(ConditionConformance):
    @pytest.fixture
    def condition(self):
        return $kind()

    @pytest.fixture
    def arguments(self):
        return [{"domain": "example.com"}, {"domain": ""}]

    @pytest.fixture
    def leads(self):
        return [{"email": "ann@example.com"}, {"email": "bob@example.org"}]


def test_who_has_an_address_there():
    def has(email):
        return $kind().evaluate(ConditionContext({"domain": "example.com"}, {"email": email}, date(2026, 1, 1)))

    assert has("Ann@Example.com") is True
    assert has("ann@badexample.com") is False


def test_the_product_takes_it_in():
    with hosted("$module") as registry:
        assert list(registry.of("condition")) == ["$channel"]
'''
_STRATEGY = '''\
"""The approval strategy $channel for nexus-marketing."""

from nexus_marketing.plugin import Capability, Manifest

MANIFEST = Manifest(
    name="$name",
    version="0.1.0",
    api="$api",
    capabilities=frozenset({Capability.APPROVAL_STRATEGY}),
    # What a tenant sets: a Cerberus schema. It comes with every question, as approvals.settings.
    settings={"wanted": {"type": "integer", "min": 1}},
)


class $kind:
    """So many of those who were asked agreed, and nobody refused. Put your own rule in its place."""

    name = "$channel"

    def can_proceed(self, approvals):
        """The last word of each counts."""
        said = {each.approver_id: each.is_granted for each in approvals.given}
        wanted = approvals.settings.get("wanted", len(approvals.asked))
        return all(said.values()) and 0 < wanted <= sum(said.values())


def includeme(config):
    """Called once by every process that names $module in nexus.includes."""
    config.add_marketing_plugin(MANIFEST)
    config.add_marketing_approval_strategy($kind)
'''
_STRATEGY_TESTS = '''\
"""The strategy against the suite of nexus-marketing, and what it alone does."""

from dataclasses import replace
from datetime import datetime, timezone

import pytest
from nexus_marketing.plugin import Approval, Approvals
from nexus_marketing.plugin.testing import ApprovalStrategyConformance, hosted

from $module import $kind

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


class TestStrategy(ApprovalStrategyConformance):
    @pytest.fixture
    def strategy(self):
        return $kind()


def test_so_many_as_the_tenant_wants_are_enough():
    some = Approvals((1, 2, 3), (Approval(1, True, NOW), Approval(2, True, NOW)), NOW)
    assert $kind().can_proceed(some) is False
    assert $kind().can_proceed(replace(some, settings={"wanted": 2})) is True


def test_the_product_takes_it_in():
    with hosted("$module") as registry:
        assert list(registry.of("approval_strategy")) == ["$channel"]
'''
_TRIGGER = '''\
"""The trigger $channel for nexus-marketing."""

from nexus_marketing.plugin import Capability, Firing, Manifest, OccasionKind

MANIFEST = Manifest(
    name="$name",
    version="0.1.0",
    api="$api",
    capabilities=frozenset({Capability.TRIGGER}),
    # What a tenant sets: a Cerberus schema. It comes with every occasion, as occasion.settings.
    settings={"event": {"type": "string", "maxlength": 100}},
)


class $kind:
    """Goes off for the lead of an event of the name that the tenant sets. Put your own rule in its place."""

    name = "$channel"
    kinds = frozenset({OccasionKind.EVENT})

    def fire(self, occasion):
        """At most one, with a key that is the same when the event is told twice."""
        if occasion.name != occasion.settings.get("event", "purchase"):
            return []
        return [Firing(occasion.key, occasion.data.get("lead_id"), occasion.data)]


def includeme(config):
    """Called once by every process that names $module in nexus.includes."""
    config.add_marketing_plugin(MANIFEST)
    config.add_marketing_trigger($kind)
'''
_TRIGGER_TESTS = '''\
"""The trigger against the suite of nexus-marketing, and what it alone does."""

from datetime import datetime, timezone

import pytest
from nexus_marketing.plugin import Occasion, OccasionKind
from nexus_marketing.plugin.testing import TriggerConformance, hosted

from $module import $kind

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


def occasion(name):
    return Occasion(1, OccasionKind.EVENT, name, "e1", NOW, {"lead_id": 7})


class TestTrigger(TriggerConformance):
    @pytest.fixture
    def trigger(self):
        return $kind()

    @pytest.fixture
    def occasions(self):
        return [occasion("purchase"), occasion("visit")]


def test_it_goes_off_for_the_lead_of_its_event_alone():
    (firing,) = $kind().fire(occasion("purchase"))
    assert (firing.key, firing.lead_id) == ("e1", 7)
    assert $kind().fire(occasion("visit")) == []


def test_the_product_takes_it_in():
    with hosted("$module") as registry:
        assert list(registry.of("trigger")) == ["$channel"]
'''
_METRIC = '''\
"""The metric $channel for nexus-marketing."""

from nexus_marketing.plugin import Capability, Manifest

MANIFEST = Manifest(
    name="$name",
    version="0.1.0",
    api="$api",
    capabilities=frozenset({Capability.METRIC}),
)


class $kind:
    """What a click cost. Put your own formula in its place."""

    name = "$channel"
    unit = "minor units of the currency"

    def calculate(self, figures):
        """Nothing where there was no click: a cost of nothing is not defined."""
        clicks = figures.counts.get("clicked", 0)
        return figures.cost_minor / clicks if clicks else None


def includeme(config):
    """Called once by every process that names $module in nexus.includes."""
    config.add_marketing_plugin(MANIFEST)
    config.add_marketing_metric($kind)
'''
_METRIC_TESTS = '''\
"""The metric against the suite of nexus-marketing, and what it alone does."""

from datetime import datetime, timezone

import pytest
from nexus_marketing.plugin import Figures
from nexus_marketing.plugin.testing import MetricConformance, hosted

from $module import $kind

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


class TestMetric(MetricConformance):
    @pytest.fixture
    def metric(self):
        return $kind()


def test_a_click_costs_what_was_paid_for_all_of_them():
    assert $kind().calculate(Figures(NOW, {"clicked": 4}, cost_minor=100)) == 25
    assert $kind().calculate(Figures(NOW, {}, cost_minor=100)) is None


def test_the_product_takes_it_in():
    with hosted("$module") as registry:
        assert list(registry.of("metric")) == ["$channel"]
'''
_README = """\
# $name

The $label for nexus-marketing. As it stands it is an example; put your own rule in its place in `$module/__init__.py`.

    pip install -e '.[test]'
    pytest
    nexus-marketing plugins check $name

In the ini file of every web process and worker:

    nexus.includes = $module

For each tenant that is to have it:

    nexus-marketing plugins enable $name --tenant SLUG
"""


def _files(package: str, tests: str) -> Mapping[str, str]:
    return {"README.md": _README, "$module/__init__.py": package, "tests/test_$module.py": tests}


CONDITION: Final = _files(_CONDITION, _CONDITION_TESTS)
STRATEGY: Final = _files(_STRATEGY, _STRATEGY_TESTS)
TRIGGER: Final = _files(_TRIGGER, _TRIGGER_TESTS)
METRIC: Final = _files(_METRIC, _METRIC_TESTS)
