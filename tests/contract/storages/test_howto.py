"""The storage of the how-to page is one: its own suite, as the page writes it, is collected here."""

import re
from pathlib import Path
from typing import Any

import pytest

from nexus_marketing import HasMarketing, use_storage
from nexus_marketing.core.campaigns import CampaignStatus

PAGE = Path(__file__).parents[3] / "docs" / "howto" / "write-a-storage.md"

pytestmark = pytest.mark.req("FR-EXT-005", "MAINT-005")


def code_of_the_page() -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": __name__}
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    for number, block in enumerate(blocks, 1):
        exec(compile(block, f"{PAGE.name}, block {number}", "exec"), names)
    return names


NAMES = code_of_the_page()
TestFileStorage = NAMES["TestFileStorage"]


class Product(HasMarketing):
    id = 7
    marketing_config = {"campaigns": {"spring": {"channels": ["email"]}}}  # noqa: RUF012 - as a program writes it


def test_a_program_runs_on_it(tmp_path):
    restore = use_storage(NAMES["FileStorage"](tmp_path / "campaigns.db"))
    Product().marketing().launch_campaign()
    assert Product().marketing().campaign().status is CampaignStatus.ACTIVE
    restore()
