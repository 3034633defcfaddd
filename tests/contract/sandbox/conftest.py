"""Sandboxed plugins that end with the test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.common.sandboxes import Start, sandboxes


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with sandboxes(tmp_path) as start:
        yield start
