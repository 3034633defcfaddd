"""Channel accounts on the command line."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from nexus_marketing.cli.app import app
from nexus_marketing.runtime import Runtime
from tests.common.servers import free_port
from tests.common.smsc import Smsc

pytestmark = [pytest.mark.req("US-018", "SR-004"), pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)]

CANARY = "c4n4rybird-0815"


@pytest.fixture
def run(runtime: Runtime, tenant: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run a command of the tenant acme; answers exit code and document."""
    monkeypatch.chdir(tmp_path)
    ini = tmp_path / "test.ini"
    settings = runtime.settings
    lines = {
        "use": "egg:nexus-marketing",
        "nexus.database_url": settings.database_url,
        "nexus.secret_key": "x" * 40,
        "nexus.state_dir": str(tmp_path),
        "nexus.smtp.port": str(free_port()),
    }
    ini.write_text("[app:main]\n" + "".join(f"{key} = {value}\n" for key, value in lines.items()))

    def invoke(*arguments: str, typed: str = "") -> tuple[int, dict[str, Any]]:
        result = CliRunner().invoke(app, ["-c", str(ini), *arguments, "--json"], input=typed)
        assert CANARY not in result.output
        assert result.stdout, result.output
        return result.exit_code, json.loads(result.stdout)

    invoke.ini = ini  # type: ignore[attr-defined]
    return invoke


def test_an_account_is_made_changed_looked_at_and_removed(run: Any, tenant: int) -> None:
    about = ("--tenant", "acme")
    server = ("--set", "host=mail.example.org", "--set", "port=2525", "--set", "username=shop", "--secret", "password")
    code, made = run(
        "channels", "add", "email", "relay", *about, "--set", "from_email=a@shop.example", *server, typed=f"{CANARY}\n"
    )
    assert (code, made["config"]["port"], made["secrets_set"]) == (0, 2525, ["password"])
    code, changed = run("channels", "change", made["id"], *about, "--weight", "0", "--disabled")
    assert (code, changed["weight"], changed["enabled"], changed["version"]) == (0, 0, False, 2)
    code, said = run("channels", "change", made["id"], *about, "--set", "host=other.example.org")
    assert (code, said["error"]["problems"][0]["code"]) == (1, "required_again")
    code, said = run(
        "channels", "add", "email", "inside", *about, "--set", "from_email=a@b.example", "--set", "host=127.0.0.1"
    )
    assert (code, said["error"]["problems"][0]["path"]) == (1, "config.host")
    assert [each["name"] for each in run("channels", "list", *about)[1]["data"]] == ["relay"]
    assert run("channels", "remove", made["id"], *about) == (0, {"id": made["id"], "removed": True})
    assert run("channels", "list", *about)[1]["data"] == []
    assert "email" in {each["type"] for each in run("channels", "types")[1]["data"]}


def test_a_test_through_a_relay_that_is_away_fails(run: Any, tenant: int) -> None:
    _, made = run("channels", "add", "email", "main", "--tenant", "acme", "--set", "from_email=a@shop.example")
    code, tried = run("channels", "health", made["id"], "--tenant", "acme")
    assert (code, tried["ok"], tried["health"]) == (1, False, "unreachable")
    assert run("channels", "list", "--tenant", "acme")[1]["data"][0]["health"] == "unreachable"
    checks = {each["part"]: each["finding"] for each in run("doctor")[1]["checks"]}
    assert "email main of acme is unreachable" in checks["channel accounts"]
    assert checks["stored secrets"] == "there are none"


def test_an_account_at_a_message_centre(run: Any, tenant: int) -> None:
    with Smsc() as centre:
        run.ini.write_text(
            f"{run.ini.read_text()}nexus.smpp.enabled = true\nnexus.smpp.allow_hosts = {centre.allowed}\n"
        )
        own = {"provider": "smpp", "from": "Shop", "host": "127.0.0.1", "port": centre.port, "tls": "false"}
        options = [part for name, value in own.items() for part in ("--set", f"{name}={value}")]
        about = ("--tenant", "acme", *options, "--secret", "password")
        code, said = run("channels", "add", "sms", "carrier", *about, typed=f"{centre.password}\n")
        assert (code, said["error"]["problems"][0]["path"]) == (1, "config.system_id")
        code, made = run(
            "channels", "add", "sms", "carrier", *about, "--set", "system_id=shop", typed=f"{centre.password}\n"
        )
        assert (code, made["config"]["port"], made["secrets_set"]) == (0, centre.port, ["password"])
        code, tried = run("channels", "test", made["id"], "--tenant", "acme", "--to", "+491701234567")
        assert (code, tried["ok"], tried["health"], centre.submitted[0].to) == (0, True, "ok", "491701234567")
        assert centre.parted.wait(5)
    assert {"name": "tls", "secret": False, "required": False, "type": "boolean"} in next(
        each["settings"] for each in run("channels", "types")[1]["data"] if each["type"] == "sms"
    )


def test_keys_rotate(run: Any, tenant: int) -> None:
    options = ("--set", "host=mail.example.org", "--set", "username=shop", "--secret", "password")
    run(
        "channels",
        "add",
        "email",
        "main",
        "--tenant",
        "acme",
        "--set",
        "from_email=a@b.example",
        *options,
        typed=f"{CANARY}\n",
    )
    ini: Path = run.ini
    for keys, expected in ((f"{'n' * 40} {'x' * 40}", (0, 1, 0)), ("z" * 40, (1, 0, 1))):
        ini.write_text(re.sub("secret_key = .*", f"secret_key = {keys}", ini.read_text()))
        code, done = run("keys", "rotate")
        assert (code, done["renewed"], done["unreadable"]) == expected
