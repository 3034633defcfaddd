"""The code of the quickstart and of the upgrade tutorial does what the pages say."""

import re
from pathlib import Path

import pytest

from nexus_marketing import use_storage

DOCS = Path(__file__).parents[2] / "docs"


def run(page: str, **names: object) -> int:
    text = (DOCS / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    namespace: dict[str, object] = {"__name__": "page", **names}
    restore = use_storage(None)
    try:
        for number, block in enumerate(blocks, 1):
            exec(compile(block, f"{page}, block {number}", "exec"), namespace)
    finally:
        restore()
    return len(blocks)


@pytest.mark.req("US-001", "US-003", "US-004", "US-005", "FR-P1-004", "FR-P1-005", "MAINT-005")
def test_the_quickstart(capsys):
    assert run("quickstart.md") > 5
    assert "Product Launch Campaign is active" in capsys.readouterr().out


@pytest.mark.req("US-010", "BR-006", "MAINT-005")
def test_the_upgrade_tutorial(runtime, tenant, tmp_path):
    settings = runtime.settings
    ini = tmp_path / "test.ini"
    lines = {
        "use": "egg:nexus-marketing",
        "nexus.database_url": settings.database_url,
        "nexus.database_worker_url": settings.database_worker_url,
        "nexus.secret_key": "x" * 40,
        "nexus.state_dir": str(tmp_path),
    }
    ini.write_text("[app:main]\n" + "".join(f"{key} = {value.replace('%', '%%')}\n" for key, value in lines.items()))
    assert run("tutorials/upgrade.md", INI=str(ini)) > 4
