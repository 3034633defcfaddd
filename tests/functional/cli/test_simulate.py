"""``nexus-marketing simulate``: what it answers, how it refuses, and that it needs nothing but its files."""

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from typer.testing import CliRunner

from nexus_marketing.cli.app import app

pytestmark = pytest.mark.req("FR-P3-011", "MAINT-004")

DEFINITIONS = Path(__file__).parents[2] / "common" / "definitions"
DRIP = str(DEFINITIONS / "email-drip-sequence.json")
JOURNEY = {
    "id": "trial",
    "name": "Trial",
    "quiet_hours": [{"from": "20:00", "to": "08:00"}],
    "goals": [{"id": "bought", "event": "order_placed"}],
    "nodes": {
        "hello": {"type": "message", "channel": "email", "class": "marketing", "template": "hello", "next": "plan"},
        "plan": {
            "type": "branch",
            "branches": [{"when": "seats > 10", "to": "call"}],
            "else": "end",
        },
        "call": {"type": "action", "action": "call_them"},
    },
    "fields": {"seats": "number"},
}
LEADS = """E-Mail;Name;Country;Time zone;seats
ann@example.org;Ann;DE;Europe/Berlin;12
bob@example.org;Bob;US;America/New_York;3
bob@example.org;Bob again;US;America/New_York;3
nobody;No Address;US;;1
"""


@pytest.fixture
def cli(tmp_path, monkeypatch):
    """Run the command in an empty folder, without any configuration."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trial.json").write_text(json.dumps(JOURNEY))
    (tmp_path / "leads.csv").write_text(LEADS)

    def run(*arguments):
        result = CliRunner().invoke(app, ["simulate", *arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout, result.stderr

    return run


@pytest.fixture
def ask(cli):
    """Run the command, which must succeed, with ``--json``; answers its document."""

    def run(*arguments):
        code, out, err = cli(*arguments, "--json")
        assert code == 0, out + err
        return json.loads(out)

    return run


def test_the_command_explains_itself(cli):
    code, out, _ = cli("--help")
    assert (code, "Usage" in out) == (0, True)


def test_a_file_of_leads_goes_through_a_journey(ask, tmp_path):
    document = ask("trial.json", "--leads", "leads.csv", "--from", "2026-12-01T07:30", "--rate", "failures=0")
    assert (document["leads"], document["rejected_rows"], document["entered"]) == (2, 2, 2)
    assert document["from"] == "2026-12-01T07:30:00+00:00"
    # Half past eight in Berlin, half past two at night in New York.
    (day,) = (day for day in document["calendar"] if day["sent"])
    assert (day["date"], day["sent"], day["quiet_held"], day["channels"]) == ("2026-12-01", 2, 1, {"email": 2})
    nodes = {each["id"]: each for each in document["nodes"]}
    assert [edge["runs"] for edge in nodes["plan"]["edges"]] == [1, 1]
    assert document["effects"] == {"action call_them": 1}
    assert (document["ended"], document["going_on"]) == ({"end": 2}, 0)
    assert not (tmp_path / "var").exists()


def test_the_same_seed_gives_the_same_answer(cli):
    arguments = (DRIP, "--leads", "200", "--from", "2026-12-01", "--json")
    first, again = cli(*arguments, "--seed", "4"), cli(*arguments, "--seed", "4")
    assert first == again
    assert first != cli(*arguments, "--seed", "5")


def test_the_requirements_drip_runs_as_it_stands(cli):
    code, out, err = cli(DRIP, "--leads", "100", "--from", "2026-12-01", "--cost", "email=0.8", "--currency", "USD")
    assert (code, err) == (0, "")
    assert "Welcome Drip Campaign: 100 of 100 leads entered" in out
    assert "2026-12-08" in out
    assert "Cost: 0.2" in out
    assert "USD" in out
    assert "warning: No template was looked at: welcome-1, welcome-2, welcome-3." in out
    assert "nothing was sent" in out


def test_a_tenants_folder_gives_caps_quiet_hours_fields_and_zone(ask, tmp_path):
    folder = tmp_path / "tenants" / "acme"
    folder.mkdir(parents=True)
    (folder / "tenant.toml").write_text(
        'name = "Acme"\n[settings]\ndefault_time_zone = "Europe/Berlin"\n[settings.fields]\nseats = "number"\n'
        '[[settings.frequency_caps]]\ncount = 1\nwindow = "week"\n'
    )
    own = {key: value for key, value in JOURNEY.items() if key != "fields"}
    twice = {**own["nodes"], "call": {**own["nodes"]["hello"], "next": "end"}}
    (tmp_path / "own.json").write_text(json.dumps({**own, "nodes": twice}))
    arguments = ("own.json", "--leads", "leads.csv", "--from", "2026-12-01T09:00", "--settings", "tenants/acme")
    document = ask(*arguments, "--rate", "failures=0")
    assert (document["time_zone"], document["from"]) == ("Europe/Berlin", "2026-12-01T08:00:00+00:00")
    assert (document["totals"]["sent"], document["totals"]["cap_skipped"]) == (2, 1)
    assert document["skipped"] == {"cap": 1}


def test_charts_are_written(ask, tmp_path):
    document = ask("trial.json", "--leads", "30", "--from", "2026-12-01", "--plot", "out/charts")
    assert document["plots"] == ["out/charts/sends.svg", "out/charts/journey.svg"]
    for path in document["plots"]:
        assert ET.fromstring((tmp_path / path).read_text(encoding="utf-8")).tag.endswith("svg")


def test_a_journey_may_be_toml(ask, tmp_path):
    text = '[nodes.a]\ntype = "exit"\nreason = "done"\n'
    (tmp_path / "small.toml").write_text(text)
    document = ask("small.toml", "--leads", "3", "--from", "2026-12-01T00:00:00Z")
    assert (document["journey"]["id"], document["ended"]) == ("small", {"done": 3})


def test_json_lines_are_leads_too(ask, tmp_path):
    (tmp_path / "leads.jsonl").write_text('{"email": "ann@example.org", "metadata": {"seats": 11}}\n')
    document = ask("trial.json", "--leads", "leads.jsonl", "--from", "2026-12-01T09:00", "--rate", "failures=0")
    assert (document["leads"], document["effects"]) == (1, {"action call_them": 1})


@pytest.mark.req("BR-011", "FR-P3-011")
def test_a_column_of_consent_is_heeded(ask, tmp_path):
    rows = (
        "email,country,consent,consent_at,consent_source\na@example.org,DE,yes,2026-01-01,form\nb@example.org,DE,,,\n"
    )
    (tmp_path / "consents.csv").write_text(rows)
    document = ask("trial.json", "--leads", "consents.csv", "--from", "2026-12-01T09:00", "--rate", "failures=0")
    assert (document["totals"]["sent"], document["skipped"]) == (1, {"consent_missing": 1})


BAD = {
    "id": "bad",
    "nodes": {
        "a": {"type": "delay", "for": "soon", "next": "b"},
        "b": {"type": "message", "channel": "email"},
        "c": {"type": "split", "ways": [{"weight": 50, "to": "a"}, {"weight": 40, "to": "x"}]},
    },
}


def test_a_bad_file_is_refused_with_all_its_faults(cli, tmp_path):
    (tmp_path / "bad.json").write_text(json.dumps(BAD))
    code, out, err = cli("bad.json", "--leads", "10", "--from", "2026-12-01")
    assert (code, out) == (2, "")
    lines = err.splitlines()
    assert [line.split(": ")[1] for line in lines] == [
        "nodes.a.for",
        "nodes.b.class",
        "nodes.c.ways",
        "nodes.c.ways.1.to",
    ]
    code, out, _ = cli("bad.json", "--leads", "10", "--from", "2026-12-01", "--json")
    problems = json.loads(out)["error"]["problems"]
    assert (code, [each["code"] for each in problems]) == (2, ["not_a_duration", "no_class", "weights", "unknown_node"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.json", "--leads", "10", "--from", "2026-12-01"], "nowhere.json"),
        (["leads.csv", "--leads", "10", "--from", "2026-12-01"], "not JSON at line 1"),
        (["list.json", "--leads", "10", "--from", "2026-12-01"], "no object"),
        (["broken.toml", "--leads", "10", "--from", "2026-12-01"], "cannot be read"),
        (["trial.json", "--leads", "nowhere.csv", "--from", "2026-12-01"], "There is no file 'nowhere.csv'"),
        (["trial.json", "--leads", "empty.csv", "--from", "2026-12-01"], "empty"),
        (["trial.json", "--leads", "header.csv", "--from", "2026-12-01"], "no row that is a lead"),
        (["trial.json", "--leads", "0", "--from", "2026-12-01"], "make up 1 to"),
        (["trial.json", "--leads", "10", "--from", "soon"], "--from"),
        (["trial.json", "--leads", "10", "--from", "2026-13-01T09:00"], "--from"),
        (["trial.json", "--leads", "10", "--from", "9999-12-01"], "years 1970 to 2999"),
        (["trial.json", "--leads", "10", "--from", "0001-01-01T00:00"], "--from"),
        (["trial.json", "--leads", "10"], "--from"),
        (["round.json", "--leads", "2000", "--from", "2026-12-01"], "put a longer delay into the circle"),
        (["trial.json", "--leads", "10", "--from", "2026-12-01", "--rate", "clicks=2"], "clicks=2"),
        (["trial.json", "--leads", "10", "--from", "2026-12-01", "--cost", "sms"], "CHANNEL=AMOUNT"),
        (["trial.json", "--leads", "10", "--from", "2026-12-01", "--cost", "sms=0.001"], "--cost sms"),
        (["trial.json", "--leads", "10", "--from", "2026-12-01", "--settings", "."], "no <name>/tenant.toml"),
        (["trial.json", "--leads", "10", "--from", "2026-12-01", "--settings", "two"], "name one of a, b"),
    ],
)
def test_a_command_that_is_wrong_says_why(cli, tmp_path, monkeypatch, arguments, said):
    monkeypatch.setattr("nexus_marketing.core.engine.simulation.world._MOST_STEPS", (1_000, 1, 1))
    circle = {"a": {"type": "delay", "for": "1 minute", "next": "b"}, "b": {"type": "jump", "to": "a"}}
    (tmp_path / "round.json").write_text(json.dumps({"id": "round", "nodes": circle}))
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "broken.toml").write_text("= 3")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "header.csv").write_text("email\nnobody\n")
    for name in ("a", "b"):
        (tmp_path / "two" / name).mkdir(parents=True)
        (tmp_path / "two" / name / "tenant.toml").write_text(f'name = "{name}"\n')
    code, out, err = cli(*arguments)
    assert (code, out) == (2, "")
    assert said in " ".join(err.replace("│", " ").split())
