"""What ``plugins new`` writes passes its own suites as it is, and is taken in by the product."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nexus_marketing.core.errors import Conflict, ValidationError
from nexus_marketing.plugin.scaffold import KINDS, write_plugin

pytestmark = pytest.mark.req("FR-EXT-001", "FR-EXT-002", "FR-EXT-003", "FR-EXT-004", "FR-EXT-006", "US-018")


def test_each_kind_passes_its_suite_at_once(tmp_path: Path) -> None:
    kinds = [kind for kind in KINDS if kind != "channel"]  # the stranger's test begins with that one
    folders = [write_plugin(tmp_path, f"nexus-my-{kind}", kind) for kind in kinds]
    paths = os.pathsep.join([*map(str, folders), str(Path(__file__).parents[3])])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, folders)],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "25 passed" in done.stdout
    for folder, kind in zip(folders, kinds, strict=True):
        assert f"The {kind} my_{kind} for nexus-marketing" in (folder / "README.md").read_text()


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="write channel, condition, strategy, trigger, metric"):
        write_plugin(tmp_path, "nexus-x", "weather")
    write_plugin(tmp_path, "nexus-x", "metric")
    with pytest.raises(Conflict):
        write_plugin(tmp_path, "nexus-x", "metric")
