"""Writes which tests speak for which requirement: id → tests → status.

``--requirements-report PATH`` asks for it; without dates and timings, so that an unchanged
suite writes an unchanged file. Works with and without xdist.
"""

import tomllib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

CATALOGUE = Path(__file__).with_name("requirements.toml")
MARK = "req"
WORST_FIRST = ("failed", "skipped", "passed")
HEADER = """# Requirements and their tests

Written by `make test`; do not edit. A requirement is *passing* when every test that names it passed,
*failing* when one did not, *skipped* when none failed and one was skipped, *open* when no test names it.
"""


@dataclass(slots=True)
class Proofs:
    """Outcomes by requirement and test function; parametrised cases of one test count as one."""

    outcomes: dict[str, dict[str, set[str]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(set)))

    def add(self, requirement: str, test: str, outcome: str) -> None:
        """Note one outcome."""
        self.outcomes[requirement][test].add(outcome)

    def status(self, requirement: str) -> str:
        """``passing``, ``failing``, ``skipped`` or ``open``."""
        outcomes = set().union(*self.outcomes.get(requirement, {}).values())
        words = {"failed": "failing", "skipped": "skipped", "passed": "passing"}
        return next((words[outcome] for outcome in WORST_FIRST if outcome in outcomes), "open")


def catalogue() -> dict[str, str]:
    """The requirements in their order: id → short title."""
    with CATALOGUE.open("rb") as file:
        titles: dict[str, str] = tomllib.load(file)["requirements"]
    return titles


def render(titles: Mapping[str, str], proofs: Proofs) -> str:
    """The report as Markdown."""
    counts: dict[str, int] = defaultdict(int)
    rows = []
    for requirement, title in titles.items():
        status = proofs.status(requirement)
        counts[status] += 1
        tests = "<br>".join(f"`{test}`" for test in sorted(proofs.outcomes.get(requirement, {})))
        rows.append(f"| {requirement} | {title} | {status} | {tests} |")
    summary = ", ".join(f"{counts[status]} {status}" for status in ("passing", "failing", "skipped", "open"))
    table = ["| id | requirement | status | tests |", "|---|---|---|---|", *rows]
    return f"{HEADER}\n{summary}.\n\n" + "\n".join(table) + "\n"


class RequirementsReport:
    """Collects marks and outcomes in the process that prints the results."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.proofs = Proofs()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count the call of each test, and set-ups that failed or skipped."""
        if report.when == "call" or report.outcome != "passed":
            requirements = dict(report.user_properties).get(MARK, ())
            for requirement in requirements if isinstance(requirements, (list, tuple)) else ():
                self.proofs.add(str(requirement), report.nodeid.partition("[")[0], report.outcome)

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Write the file, unless the run was broken off."""
        if exitstatus in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED}:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(render(catalogue(), self.proofs))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.addoption("--requirements-report", metavar="PATH", help="write id → tests → status to this Markdown file")


def pytest_configure(config: pytest.Config) -> None:
    """Describe the mark, and collect where results come together."""
    config.addinivalue_line("markers", f"{MARK}(*ids): the requirements this test proves, e.g. req('US-003', 'SR-007')")
    path = config.getoption("--requirements-report")
    if path and not hasattr(config, "workerinput"):
        config.pluginmanager.register(RequirementsReport(Path(path)), "requirements-report")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse unknown ids, and let each test's report carry its ids (xdist sends them along)."""
    known = catalogue().keys()
    for item in items:
        requirements = sorted(set(marked_requirements(item)))
        unknown = [requirement for requirement in requirements if requirement not in known]
        if unknown:
            raise pytest.UsageError(f"{item.nodeid}: no such requirement {', '.join(unknown)} in {CATALOGUE.name}")
        item.user_properties.append((MARK, requirements))


def marked_requirements(item: pytest.Item) -> Iterable[str]:
    """The ids of every ``req`` mark on a test, its class and its module."""
    for mark in item.iter_markers(MARK):
        yield from mark.args
