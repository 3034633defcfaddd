"""The wheel: complete, and at home in an environment without the checkout."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.req("MAINT-002", "FR-P1-001")]

PROJECT = Path(__file__).parents[2]
DATA_KINDS = (".lark", ".mako", ".typed", ".html", ".css", ".js", ".json", ".sql", ".txt")


def links() -> list[Path]:
    """The folders of the root that are part of the package: migrations and tenants."""
    return sorted(path for path in (PROJECT / "nexus_marketing").iterdir() if path.is_symlink())


def run(*command: object, cwd: Path) -> str:
    # Nothing of the checkout may help: no PYTHONPATH, an empty folder to stand in.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory, repository_files) -> Path:
    """A wheel built from a copy of what is committed, without network."""
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("wheel")
    for path in repository_files:
        if path.startswith(("nexus_marketing/", "migrations/", "tenants/")) or "/" not in path:
            target = copy / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((PROJECT / path).read_bytes())
    for link in links():
        (copy / "nexus_marketing" / link.name).symlink_to(link.readlink())
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, cwd=copy)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(tmp_path_factory, wheel) -> Path:
    """The Python of a new environment with the wheel; its dependencies are lent by ours."""
    environment = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=environment)
    python = environment / "bin" / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=environment).strip())
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--no-deps",
        "--no-index",
        "--quiet",
        wheel,
        cwd=site,
    )
    # A path file comes after the environment's own packages, and does not obey further path files:
    # the editable install of the checkout stays invisible.
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def test_the_wheel_holds_every_data_file_of_the_package(wheel, repository_files):
    packed = set(zipfile.ZipFile(wheel).namelist())
    package = "nexus_marketing/"
    linked = {f"{link.readlink().name}/": f"{package}{link.name}/" for link in links()}
    wanted = set()
    for path in repository_files:
        top = f"{path.partition('/')[0]}/"
        if top in linked:
            wanted.add(linked[top] + path.removeprefix(top))
        elif top == package and path.endswith(DATA_KINDS):
            wanted.add(path)
    assert wanted
    assert wanted - packed == set()


def test_the_wheel_holds_no_tests_and_no_development_files(wheel):
    roots = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {root for root in roots if not root.startswith("nexus_marketing")} == set()


def test_the_command_runs_from_the_wheel(installed, tmp_path):
    assert "demo" in run(installed.with_name("nexus-marketing"), "--help", cwd=tmp_path)


def test_a_database_is_migrated_from_the_wheel(installed, tmp_path):
    script = """
import nexus_marketing, sys
from nexus_marketing.db.engines import DatabaseSettings, build_engines
from nexus_marketing.db.upgrade import current_revision, head_revision, upgrade
engines = build_engines(DatabaseSettings(*["sqlite:///new.db"] * 3))
upgrade(engines)
assert current_revision(engines) == head_revision()
print(nexus_marketing.__file__)
"""
    assert Path(run(installed, "-c", script, cwd=tmp_path).strip()).is_relative_to(installed.parents[1])
