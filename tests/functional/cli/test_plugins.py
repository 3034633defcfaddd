"""``nexus-marketing plugins``: what is listed, checked, switched; and the way of a stranger from an empty folder on."""

import json
import os
import subprocess
import sys
import sysconfig
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from nexus_marketing.cli.app import app
from nexus_marketing.db.models import Delivery, Lead
from nexus_marketing.plugin.testing import RecordingServer
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.campaigns.records import create_campaign
from nexus_marketing.services.templates import create_template
from tests.common.factories import make_leads, make_segment
from tests.common.pages import HOWTO, files_of, indented

pytestmark = pytest.mark.req("US-018", "FR-EXT-001", "MAINT-004")

PAGE = HOWTO / "write-a-channel.md"
Run = Callable[..., tuple[int, str, str]]

GOOD = """
from nexus_marketing.plugin import API_VERSION, AddressKind, Capabilities, Capability, Manifest, SerialSession

MANIFEST = Manifest("{name}", "1.2", API_VERSION, frozenset({{Capability.CHANNEL}}), {{"pages": {{"type": "integer"}}}})


class Channel:
    name = "{module}"
    capabilities = Capabilities(AddressKind.NONE, max_in_flight=1)

    def validate(self, settings):
        pass

    def open(self, settings, content):
        return SerialSession(print)


def includeme(config):
    config.add_marketing_plugin(MANIFEST)
    config.add_marketing_channel(Channel)
"""


@pytest.fixture
def ini(runtime: Runtime, tmp_path: Path) -> Path:
    settings = runtime.settings
    lines = {
        "use": "egg:nexus-marketing",
        "nexus.database_url": settings.database_url,
        "nexus.database_worker_url": settings.database_worker_url,
        "nexus.database_owner_url": settings.database_owner_url,
        "nexus.secret_key": "x" * 40,
        "nexus.state_dir": str(tmp_path / "state"),
        "nexus.smtp.port": "1",
    }
    path = tmp_path / "test.ini"
    path.write_text("[app:main]\n" + "".join(f"{key} = {value.replace('%', '%%')}\n" for key, value in lines.items()))
    return path


def add(ini: Path, **lines: str) -> None:
    with ini.open("a") as file:
        file.writelines(f"{name.replace('__', '.')} = {value}\n" for name, value in lines.items())


@pytest.fixture
def run(ini: Path) -> Run:
    def invoke(*arguments: str) -> tuple[int, str, str]:
        result = CliRunner().invoke(app, ["-c", str(ini), *arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout, result.stderr

    return invoke


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Put a distribution on the path, as pip would."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)

    def put(name: str, source: str) -> None:
        module = name.replace("-", "_")
        text = source.replace("{name}", name).replace("{module}", module).replace("{{", "{").replace("}}", "}")
        (folder / f"{module}.py").write_text(text)
        about = folder / f"{module}-1.2.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        (about / "entry_points.txt").write_text(f"[nexus_marketing.plugins]\n{name} = {module}:MANIFEST\n")
        monkeypatch.delitem(sys.modules, module, raising=False)

    return put


def rows(run: Run) -> dict[str, dict[str, Any]]:
    code, out, err = run("plugins", "list", "--json")
    assert code == 0, out + err
    return {row["name"]: row for row in json.loads(out)["data"]}


def findings(run: Run, name: str) -> tuple[int, dict[str, str]]:
    code, out, _ = run("plugins", "check", name, "--json")
    return code, {row["part"]: row["fault"] for row in json.loads(out)["checks"]}


def test_what_is_installed_is_listed_and_not_active(run: Run, install: Any) -> None:
    install("list-one", GOOD)
    install("list-old", GOOD.replace("API_VERSION,", "'0.1',", 2).replace("'0.1', AddressKind", "AddressKind"))
    install("list-broken", "import nowhere_to_be_found\n")
    found = rows(run)
    assert found["email"]["active"] is True
    assert found["email"]["tenants"] == "all"
    one = found["list-one"]
    assert (one["installed"], one["active"], one["compatible"], one["adds"]) == (
        "list-one 1.2",
        False,
        True,
        ["channel"],
    )
    assert "install a release of the plugin for API 1.x" in found["list-old"]["fault"]
    assert "nowhere_to_be_found" in found["list-broken"]["fault"]
    assert found["list-broken"]["compatible"] is False
    assert "list-one" in run("plugins", "list")[1]


def test_an_active_one_is_switched_on_for_a_tenant_and_off(
    run: Run, install: Any, ini: Path, tenant: int, other_tenant: int
) -> None:
    install("list-two", GOOD)
    add(ini, nexus__includes="list_two")
    assert rows(run)["list-two"]["active"] is True
    assert rows(run)["list-two"]["tenants"] == []
    assert run("plugins", "enable", "list-two", "-t", "acme", "--set", "pages=3")[0] == 0
    assert rows(run)["list-two"]["tenants"] == ["acme"]
    assert "was on already" in run("plugins", "enable", "list-two", "-t", "acme")[1]
    assert "write --set key=value" in run("plugins", "enable", "list-two", "-t", "acme", "--set", "pages")[2]
    assert (
        "pages: 'three' is not of type integer"
        in run("plugins", "enable", "list-two", "-t", "acme", "--set", "pages=three")[2]
    )
    assert "There is no field 'page'" in run("plugins", "enable", "list-two", "-t", "acme", "--set", "page=3")[2]
    assert "is off now" in run("plugins", "disable", "list-two", "-t", "acme")[1]
    assert rows(run)["list-two"]["tenants"] == []


def test_what_is_on_and_gone_is_listed(run: Run, install: Any, ini: Path, tenant: int) -> None:
    install("list-gone", GOOD)
    text = ini.read_text()
    add(ini, nexus__includes="list_gone")
    assert run("plugins", "enable", "list-gone", "-t", "acme")[0] == 0
    ini.write_text(text)
    (ini.parent / "site" / "list_gone-1.2.dist-info" / "entry_points.txt").unlink()
    assert rows(run)["list-gone"]["fault"] == "It is neither installed nor active."
    assert rows(run)["list-gone"]["tenants"] == ["acme"]
    checks = {row["part"]: row for row in json.loads(run("doctor", "--json")[1])["checks"]}
    assert checks["plugins"]["status"] == "warning"
    assert "not active: list-gone (on for acme)" in checks["plugins"]["finding"]


def test_a_plugin_is_checked_before_it_is_active(run: Run, install: Any) -> None:
    install("check-one", GOOD)
    assert findings(run, "check-one") == (
        0,
        {"manifest": "", "include check_one": "", "channel check_one": ""},
    )


@pytest.mark.parametrize(
    ("before", "after", "part", "said"),
    [
        ("API_VERSION,", "'9.0',", "manifest", "upgrade nexus-marketing"),
        ("def open", "def opens", "include {module}", "lacks open(settings, content)"),
        ("max_in_flight=1", "max_in_flight=0", "channel {module}", "max_in_flight"),
        ("pass\n", "settings['x']\n", "channel {module}", "KeyError"),
        ("    config.add_marketing_channel(Channel)\n", "", "channel", "adds none"),
        ("def includeme", "def include", "include {module}", "includeme"),
    ],
)
def test_a_check_names_what_is_wrong(run: Run, install: Any, before: str, after: str, part: str, said: str) -> None:
    name = f"check-{abs(hash((before, after))) % 10**6}"
    head, body = GOOD.split("\n\n", 1)
    install(name, head + "\n\n" + body.replace(before, after))
    code, found = findings(run, name)
    assert code == 1
    assert said in found[part.format(module=name.replace("-", "_"))]


def test_a_beginning_is_not_written_over_what_is_there(run: Run, tmp_path: Path) -> None:
    (tmp_path / "nexus-echo").mkdir()
    assert "There is something at" in run("plugins", "new", "nexus-echo", "--out", str(tmp_path))[2]


class Stranger:
    """Somebody with an environment of their own, in which the product is installed."""

    def __init__(self, folder: Path, ini: Path) -> None:
        self.folder, self.ini = folder, ini
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
        self.python = folder / "venv" / "bin" / "python"
        (site,) = (folder / "venv").glob("lib/python*/site-packages")
        paths = [sysconfig.get_path("purelib"), str(Path(__file__).parents[3])]
        (site / "product.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in paths))

    def __call__(self, *arguments: object) -> str:
        done = subprocess.run(
            [str(self.python), "-W", "ignore", *map(str, arguments)],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder)},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def pip_install(self, folder: Path) -> None:
        """What the page says, without the network that a test does not have."""
        options = ["--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "-q"]
        command = [sys.executable, "-m", "pip", "--python", self.python, "install", *options, folder]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=self.folder)
        assert done.returncode == 0, done.stdout + done.stderr

    def nexus(self, *arguments: object) -> Any:
        main = "import sys; from nexus_marketing.cli import main; sys.argv[0] = 'nexus-marketing'; main()"
        return json.loads(self("-c", main, "-c", self.ini, *arguments, "--json"))


@pytest.mark.slow
@pytest.mark.req("FR-EXT-003", "FR-EXT-006", "MAINT-005")
@pytest.mark.parametrize("dialect", ["sqlite"])
def test_the_way_of_a_stranger(
    runtime: Runtime, tenant: int, other_tenant: int, ini: Path, run: Run, tmp_path: Path
) -> None:
    """What docs/howto/write-a-channel.md tells to do, from an empty folder to messages at the provider."""
    stranger, folder = Stranger(tmp_path, ini), tmp_path / "nexus-push"
    made = stranger.nexus(*indented(PAGE, "nexus-marketing plugins new").split()[1:], "--out", tmp_path)
    assert "nexus_push/channels.py" in made["files"]
    stranger.pip_install(folder)
    pytest_ = ("-m", "pytest", "-q", "-p", "no:cacheprovider", folder)
    assert "passed" in stranger(*pytest_)
    for path, text in files_of(PAGE).items():
        (folder / path).write_text(text, encoding="utf-8")
    stranger.pip_install(folder)
    assert "passed" in stranger(*pytest_)
    with RecordingServer() as provider:
        add(ini, **{indented(PAGE, "nexus.includes")[:14]: "nexus_push", "push.port": str(provider.port)})
        checks = stranger.nexus("plugins", "check", "nexus-push")["checks"]
        parts = ("manifest", "include nexus_push", "channel push")
        assert {row["part"]: row["fault"] for row in checks} == dict.fromkeys(parts, "")
        enable = indented(PAGE, "nexus-marketing plugins enable")
        stranger.nexus(*enable.split()[1:])
        (row,) = [each for each in stranger.nexus("plugins", "list")["data"] if each["name"] == "nexus-push"]
        assert (row["installed"], row["active"], row["tenants"]) == ("nexus-push 0.1.0", True, ["acme"])

        own, others = draft(runtime, tenant), draft(runtime, other_tenant)
        stranger.nexus("campaigns", "launch", str(own), "--tenant", "acme")
        with pytest.raises(AssertionError, match="plugins enable nexus-push --tenant globex"):
            stranger.nexus("campaigns", "launch", str(others), "--tenant", "globex")
        stranger.nexus("worker", "--once")
        messages = [message for found in provider.accepted.values() for message in found]
    assert Counter(each["app"] for each in messages) == Counter({"shop": 20})
    assert {(each["address"], each["text"]) for each in messages} == {
        (f"+49301234{number:03}", f"Hello First{number}") for number in range(1, 21)
    }
    with runtime.work(tenant, mode="read") as ctx:
        assert Counter(ctx.session.scalars(select(Delivery.state))) == Counter(accepted=20)
    with runtime.work(other_tenant, mode="read") as ctx:
        assert ctx.session.scalars(select(Delivery.state)).all() == []


def draft(runtime: Runtime, tenant: int) -> int:
    leads = make_leads(runtime, tenant, 20)
    segment = make_segment(runtime, tenant, leads)
    with runtime.work(tenant) as ctx:
        for number, lead in enumerate(leads, 1):
            ctx.session.get_one(Lead, (tenant, lead)).phone = f"+49301234{number:03}"
        content = {"text": "Hello {{ first_name }}"}
        template = create_template(ctx, {"name": "push", "type": "text", "content": content})
        data = {"name": "push", "channel": "push", "segment_id": segment, "template_id": template.id}
        return create_campaign(ctx, data).id
