"""The report of requirements: complete, deterministic, the same with and without xdist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.common.requirements_report import Proofs, catalogue, render

PROJECT = Path(__file__).parents[2]
SUITE = """
import pytest
pytestmark = pytest.mark.req("US-001")
@pytest.mark.req("US-002")
@pytest.mark.parametrize("number", range(3))
def test_numbers(number): assert number < 2
def test_words(): pass
@pytest.mark.req("US-003")
def test_later(): pytest.skip("later")
"""


@pytest.mark.parametrize("workers", [[], ["-n", "2"]])
def test_ids_tests_and_outcomes_come_together(tmp_path, workers):
    (tmp_path / "test_suite.py").write_text(SUITE)
    options = ["-q", "-p", "no:cacheprovider", "-p", "tests.common.requirements_report", f"--rootdir={tmp_path}"]
    report = tmp_path / "requirements.md"
    command = [sys.executable, "-m", "pytest", "-c", "/dev/null", *options, *workers]
    done = subprocess.run(
        [*command, f"--requirements-report={report}", str(tmp_path)], cwd=PROJECT, capture_output=True, text=True
    )
    assert "1 failed, 3 passed, 1 skipped" in done.stdout, done.stdout + done.stderr
    rows = dict(re.findall(r"^\| (US-00\d) \| [^|]+ \| (.*) \|$", report.read_text(), re.MULTILINE))
    numbers, words, later = (f"`test_suite.py::test_{name}`" for name in ("numbers", "words", "later"))
    assert rows["US-001"] == f"failing | {later}<br>{numbers}<br>{words}"
    assert rows["US-002"] == f"failing | {numbers}"
    assert rows["US-003"] == f"skipped | {later}"
    assert rows["US-004"] == "open | "


def test_an_unknown_id_is_refused_by_name(tmp_path):
    (tmp_path / "test_suite.py").write_text('import pytest\n@pytest.mark.req("US-999")\ndef test_it(): pass\n')
    options = ["-q", "-c", "/dev/null", "-p", "tests.common.requirements_report", f"--rootdir={tmp_path}"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tmp_path)], cwd=PROJECT, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "no such requirement US-999" in done.stdout + done.stderr


def test_every_requirement_is_in_the_report_once_and_nothing_depends_on_the_day():
    text = render(catalogue(), Proofs())
    assert [text.count(f"| {requirement} |") for requirement in catalogue()] == [1] * len(catalogue())
    assert not re.search(r"\b20\d\d-|\d+(\.\d+)? ?(s|ms)\b", text.partition("| id |")[0])
