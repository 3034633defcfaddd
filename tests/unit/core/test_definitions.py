"""Definitions: the requirements' JSON loads unchanged, and what is wrong is told with its path."""

import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.core.campaigns import CampaignKey, CampaignStatus
from nexus_marketing.core.definitions import STANDARD, parse_definition, split
from nexus_marketing.core.engine import lifecycle
from nexus_marketing.core.engine.lifecycle import Move
from nexus_marketing.core.errors import ValidationError

pytestmark = pytest.mark.req("FR-P2-001", "FR-P2-002", "FR-P2-008", "US-017", "US-011")

EXAMPLES = Path(__file__).parents[2] / "common" / "definitions"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def example(name: str) -> dict[str, Any]:
    return json.loads((EXAMPLES / f"{name}.json").read_text())


def faults(document: dict[str, Any], **options: Any) -> dict[str, str]:
    with pytest.raises(ValidationError) as caught:
        parse_definition(document, code="c", **options)
    return {problem.path: problem.code for problem in caught.value.problems}


class TestTheRequirementsExamples:
    def test_the_drip_sequence_drives_the_machine(self):
        definition = parse_definition(example("email-drip-sequence"))
        assert (definition.code, definition.version, definition.title) == (
            "email-drip-sequence",
            "1.0.0",
            "Welcome Drip Campaign",
        )
        assert [use.name for use in definition.channels] == ["email"]
        assert definition.channels[0].template == "welcome-series"
        assert [step.delay for step in definition.automation.sequence] == [
            timedelta(hours=1),
            timedelta(days=2),
            timedelta(days=5),
        ]
        key = CampaignKey("Subscriber", "1", definition.code)
        data = {"subscriber_email": "a@example.org", "subscriber_name": "A", "subscription_date": "2026-03-02"}
        move = Move("launch", NOW, data)
        fresh = lifecycle.new_state(definition, key, NOW)
        queued = lifecycle.decide(definition, lifecycle.prospect(definition, fresh, move), move).state
        assert queued.status is CampaignStatus.QUEUED
        assert lifecycle.next_look(definition, queued, NOW) == datetime(2026, 3, 2, tzinfo=UTC)
        assert lifecycle.due(definition, queued, NOW) is None
        assert lifecycle.due(definition, queued, datetime(2026, 3, 2, tzinfo=UTC)) == "activate"
        assert "start" not in definition.transitions

    def test_its_data_are_held_against_its_schema(self):
        form = parse_definition(example("email-drip-sequence")).form
        found = form.faults({"subscriber_email": 5, "subscription_date": "2026-02-30", "colour": "red"})
        assert {problem.path: problem.code for problem in found} == {
            "subscriber_email": "wrong_type",
            "subscriber_name": "required",
            "subscription_date": "not_a_date",
            "colour": "unknown_field",
        }

    @pytest.mark.parametrize("value", [[], ["a"], 1.0, True, "A", None])
    def test_an_enum_takes_its_values_and_nothing_like_them(self, value):
        form = parse_definition({"dataSchema": {"kind": {"type": "enum", "values": ["a", 1]}}}, code="c").form
        assert form.faults({"kind": "a"}) == form.faults({"kind": 1}) == []
        assert [problem.path for problem in form.faults({"kind": value})] == ["kind"]

    def test_the_enterprise_campaign_loads_and_says_what_nobody_registered(self):
        definition = parse_definition(example("enterprise-campaign"))
        assert [use.name for use in definition.channels] == ["email", "sms", "webhook"]
        assert definition.roi["threshold"] == "2x"
        assert definition.compliance["data_retention_days"] == 365
        assert definition.automation.escalation[0].after == timedelta(hours=24)
        assert {problem.path: problem.code for problem in definition.notices} == {
            "roi.breach_action": "unknown_action",
            "automation.escalation.0.action": "unknown_action",
            "automation.triggers.0.action": "unknown_action",
            "targeting.segment.conditions.1.field": "unknown_field",
        }
        assert "reassign_to_manager" in next(
            problem.message for problem in definition.notices if "escalation" in problem.path
        )

    def test_a_registered_action_is_not_reported(self):
        actions = {"pause_and_alert", "reassign_to_manager", "send_to_sales_team"}
        definition = parse_definition(example("enterprise-campaign"), actions=actions)
        assert [problem.code for problem in definition.notices] == ["unknown_field"]

    def test_the_model_array_loads(self):
        config = {"name": "Product Launch Campaign", "channels": ["email", "social"], "budget": 5000}
        document, _ = split(config)
        definition = parse_definition(document, code="product_launch")
        assert [use.name for use in definition.channels] == ["email", "social"]
        assert definition.defaults == {"budget": 5000}


FAULTS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "a misspelt key": ({"budgets": 5}, {"budgets": "unknown_field"}),
    "a stage that means nothing": ({"stages": ["draft", "warm-up"]}, {"stages.1": "unknown_status"}),
    "a status that there is not": ({"stages": {"warm-up": "activ"}}, {"stages.warm-up": "unknown_status"}),
    "a stage twice": ({"stages": ["active", "active"]}, {"stages.1": "duplicate_stage"}),
    "a stage that is a number": ({"stages": [5]}, {"stages.0": "wrong_type"}),
    "a move from nowhere": (
        {"transitions": {"go": {"from": "drafts", "to": "active"}}},
        {"transitions.go.from": "unknown_stage"},
    ),
    "a move without a target": ({"transitions": {"go": {"from": "draft"}}}, {"transitions.go.to": "required"}),
    "a move that leads where it begins": (
        {"transitions": {"again": {"from": "active", "to": "active", "condition": "budget > 0"}}},
        {"transitions.again.to": "circle"},
    ),
    "a start date that is a number": (
        {"dataSchema": {"start_date": {"type": "integer"}}},
        {"dataSchema.start_date.type": "not_acceptable"},
    ),
    "a budget beyond numbers": ({"budget": "1e999999"}, {"budget": "not_money"}),
    "a move out of the end": (
        {"transitions": {"again": {"from": "completed", "to": "active"}}},
        {"transitions.again.from": "final_stage"},
    ),
    "a condition with a syntax error": (
        {"transitions": {"go": {"from": "active", "to": "completed", "condition": "data.x >= "}}},
        {"transitions.go.condition": "syntax"},
    ),
    "a condition on what nobody declared": (
        {
            "dataSchema": {"opens": {"type": "number"}},
            "transitions": {"go": {"from": "active", "to": "completed", "condition": "data.open >= 5"}},
        },
        {"transitions.go.condition": "unknown_field"},
    ),
    "a type that there is not": ({"dataSchema": {"a": {"type": "text"}}}, {"dataSchema.a.type": "not_allowed"}),
    "an enum without values": ({"dataSchema": {"a": {"type": "enum"}}}, {"dataSchema.a.values": "not_acceptable"}),
    "a bound on the wrong type": (
        {"dataSchema": {"a": {"type": "date", "min": 5}}},
        {"dataSchema.a.min": "not_acceptable"},
    ),
    "a delay that is no time": (
        {"automation": {"sequence": [{"delay": "soon", "action": "send_email"}]}},
        {"automation.sequence.0.delay": "not_a_duration"},
    ),
    "a threshold that is none": ({"roi": {"threshold": "twice"}}, {"roi.threshold": "not_acceptable"}),
    "a budget that is none": ({"budget": "much"}, {"budget": "not_money"}),
    "a budget finer than its currency": ({"budget": "1.5", "currency": "JPY"}, {"budget": "not_money"}),
    "a channel with a wrong setting": (
        {"channels": {"email": {"priorty": 1}}},
        {"channels.email.priorty": "unknown_field"},
    ),
    "a channel that is a number": ({"channels": [5]}, {"channels.0": "wrong_type"}),
    "a url that is none": ({"channels": {"webhook": {"url": "ftp://x"}}}, {"channels.webhook.url": "not_well_formed"}),
    "a zone that is none": ({"time_zone": "Mars/Olympus"}, {"time_zone": "unknown_zone"}),
    "a guard of a move that there is not": ({"guards": {"lunch": "budget > 0"}}, {"guards.lunch": "unknown_action"}),
    "several at once": (
        {"id": "no spaces", "version": "new", "compliance": {"data_retention_days": 0}},
        {"id": "not_well_formed", "version": "not_well_formed", "compliance.data_retention_days": "too_small"},
    ),
}


@pytest.mark.parametrize(("document", "expected"), FAULTS.values(), ids=FAULTS)
def test_what_is_wrong_is_told_with_its_path(document, expected):
    assert faults(document) == expected


def test_paths_begin_where_the_document_lies():
    assert faults({"budgets": 1}, path="marketing_config.campaigns.c") == {
        "marketing_config.campaigns.c.budgets": "unknown_field"
    }


def test_the_nearest_name_is_the_remedy():
    with pytest.raises(ValidationError, match="did you mean budget"):
        parse_definition({"budgett": 5}, code="c")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda s: st.lists(s) | st.dictionaries(st.text(max_size=8), s),
    )
)
def test_no_document_breaks_the_reader(value):
    for name in ("stages", "channels", "transitions", "automation", "dataSchema", "guards", "targeting", "roi", "data"):
        with suppress(ValidationError):
            parse_definition({name: value}, code="c")


@given(
    st.lists(
        st.tuples(st.text("abcxyz-", min_size=1, max_size=6), st.sampled_from(list(CampaignStatus))),
        unique_by=lambda pair: pair[0],
        max_size=12,
    )
)
def test_every_status_has_a_stage_whatever_is_declared(pairs):
    definition = parse_definition(
        {"stages": [{"name": name, "status": str(status)} for name, status in pairs]}, code="c"
    )
    for status in CampaignStatus:
        assert definition.status_of(definition.entry(status)) is status
    for transition in definition.transitions.values():
        assert transition.sources <= definition.stages.keys()
        assert transition.target in definition.stages or not transition.target


class TestCodeBesideTheDocument:
    def test_callables_and_conditions_are_parted(self):
        positive = lambda c: c.budget > 0  # noqa: E731 - as a developer writes it
        document, handlers = split({"budget": 5, "guards": {"launch": [positive, "budget > 1"]}})
        assert document == {"budget": 5, "guards": {"launch": ["budget > 1"]}}
        assert handlers.guards == {"launch": (positive,)}
        assert handlers.attended == {"launch"}

    @pytest.mark.parametrize(
        ("config", "path", "code"),
        [
            ({"hooks": {"launch": print}}, "hooks.launch", "unknown_hook"),
            ({"hooks": {"before_launch": 5}}, "hooks.before_launch", "wrong_type"),
            ({"hooks": [print]}, "hooks", "wrong_type"),
            ({"validators": {"budget": 5}}, "validators.budget", "wrong_type"),
        ],
    )
    def test_what_is_no_code_is_refused(self, config, path, code):
        with pytest.raises(ValidationError) as caught:
            split(config)
        assert [(problem.path, problem.code) for problem in caught.value.problems] == [(path, code)]


def test_a_campaign_without_a_definition_has_the_six_statuses():
    assert list(STANDARD.stages) == [str(status) for status in CampaignStatus]
    assert sorted(STANDARD.transitions) == ["cancel", "complete", "launch", "pause", "resume", "start"]
