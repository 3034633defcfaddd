"""The benchmark runner: pairs, medians, targets and the report."""

import json

import pytest

from benchmarks import __main__ as runner
from benchmarks.common import Result, paired


def test_sides_run_in_turn_and_in_changing_order():
    order: list[str] = []

    def side(name: str, seconds: list[float]):
        def run() -> float:
            order.append(name)
            return seconds.pop(0)

        return run

    pair = paired(side("ours", [9, 1, 5, 2]), side("reference", [9, 2, 4, 8]), repetitions=3)
    assert order == ["ours", "reference", "ours", "reference", "reference", "ours", "ours", "reference"]
    assert (pair.ours_seconds, pair.reference_seconds, pair.ratio) == (2, 4, 0.5)


def test_a_side_without_an_answer_is_timed():
    pair = paired(lambda: None, lambda: None, repetitions=1)
    assert 0 < pair.ours_seconds < 1


def test_a_result_is_given_per_item_in_its_unit():
    pair = paired(lambda: 3.0, lambda: 2.0, repetitions=1)
    result = pair.result("leads.import", target=2.5, per=1000, unit="ms")
    assert (result.ours, result.reference, result.ratio, result.met) == (3.0, 2.0, 1.5, True)


@pytest.mark.parametrize(
    ("ratio", "missed", "met"), [(1.2, (), True), (1.21, (), False), (1.0, ("120 ms, more than 100 ms",), False)]
)
def test_a_target_is_met_only_with_every_bound(ratio, missed, met):
    assert Result("x", ratio, 1.0, "s", 1.2, 5, missed=missed).met is met


@pytest.fixture
def fake_benchmarks(monkeypatch):
    def broken(_options):
        raise AssertionError("gate decisions and messages differ")

    found = {
        "a.fast": lambda options: Result("a.fast", 1.0, 2.0, "s", 1.0, 3, str(options.size(10, 1))),
        "a.slow": lambda _: Result("a.slow", 3.0, 1.0, "s", 1.5, 3),
        "b": broken,
    }
    monkeypatch.setattr(runner, "discover", lambda: found)


def test_a_missed_target_fails_the_run_and_is_in_the_report(fake_benchmarks, tmp_path, capsys):
    report = tmp_path / "bench.json"
    assert runner.main(["a", "--json", str(report)]) == 1
    rows = json.loads(report.read_text())
    assert [(row["name"], row["ratio"], row["met"], row["notes"]) for row in rows] == [
        ("a.fast", 0.5, True, "10"),
        ("a.slow", 3.0, False, ""),
    ]
    assert list(rows[0]) == ["name", "ours", "reference", "unit", "ratio", "target", "met", "repetitions", "notes"]
    assert "MISSED" in capsys.readouterr().out


def test_small_runs_judge_that_it_works_not_how_fast(fake_benchmarks):
    assert runner.main(["a", "--small"]) == 0
    assert runner.main(["b", "--small"]) == 1


def test_names_are_listed_and_unknown_ones_refused(fake_benchmarks, capsys):
    assert runner.main(["--list"]) == 0
    assert capsys.readouterr().out.split() == ["a.fast", "a.slow", "b"]
    with pytest.raises(SystemExit, match=r"no such benchmark: c; there are a\.fast, a\.slow, b"):
        runner.main(["c"])
