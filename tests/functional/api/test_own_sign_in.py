"""The page on using one's own sign-in, as somebody follows it: an application with signed cookies around the product."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner
from webtest import TestApp

from nexus_marketing.cli.app import app as cli
from nexus_marketing.runtime import Runtime
from tests.common.pages import HOWTO, files_of, imported
from tests.common.plugins import with_plugins

pytestmark = pytest.mark.req("US-018", "SR-001", "SR-006", "MAINT-005")

PAGE = HOWTO / "use-your-own-sign-in.md"
TEXT = PAGE.read_text(encoding="utf-8")
FILES = imported({path: text for path, text in files_of(PAGE).items() if path.startswith("portal/")})


@pytest.fixture
def ini() -> dict[str, str]:
    (block,) = re.findall(r"^```ini\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    return dict(line.split(" = ", 1) for line in block.splitlines())


@pytest.fixture
def runtime(sqlite_only_runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    monkeypatch.setenv("PORTAL_SECRET", "only for tests, 32 bytes or more")
    monkeypatch.setitem(FILES["portal/people.py"]["COST"], "n", 2)
    return with_plugins(sqlite_only_runtime, "portal")


@pytest.fixture
def command(runtime: Runtime, ini: dict[str, str], tmp_path: Path) -> Callable[[str], str]:
    lines = {
        **ini,
        "nexus.database_url": runtime.settings.database_url,
        "nexus.secret_key": "x" * 40,
        "nexus.state_dir": str(tmp_path),
    }
    file = tmp_path / "shop.ini"
    file.write_text("[app:main]\n" + "".join(f"{key} = {value}\n" for key, value in lines.items()))

    def run(line: str) -> str:
        name, *words = shlex.split(line, comments=True)
        assert name == "nexus-marketing"
        result = CliRunner().invoke(cli, ["--config", str(file), *words])
        assert result.exit_code == 0, result.output
        return result.stdout

    return run


def test_the_page_on_ones_own_sign_in(command: Callable[[str], str], app: TestApp, tenant: int) -> None:
    first, last = re.findall(r"^```sh\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    said = [command(line) for line in first.splitlines()]
    assert all(word in said[-1] for word in ("ann@example.org", "Ann Lee", "marketer", "bo@example.org", "analyst"))
    blocks = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    (tried,) = [each for each in blocks if each.startswith("from webtest")]
    names: dict[str, Any] = {"application": app.app}
    exec(compile(tried, PAGE.name, "exec"), names)
    assert names["me"]["tenant_id"] == str(tenant)
    assert command(last.strip()) == "Member 2 is former now.\n"
    bo = names["browser"].get("/api/v1", status="*")  # what was known of him is a second old at most
    names["browser"].app.registry["nexus.sessions"]._memberships._seats.forget(("portal", "acme", "bo@example.org"))
    assert (bo.status_int, names["browser"].get("/api/v1", status=403).json["code"]) == (200, "not_a_member")
