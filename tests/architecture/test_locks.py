"""The locks: complete, hashed, without an address, and one a part of the other."""

import configparser
import re
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytestmark = pytest.mark.req("MAINT-006")

PROJECT = Path(__file__).parents[2]


def locked(name: str) -> dict[str, str]:
    """Package → its whole entry, by name, version and marker."""
    text = (PROJECT / "requirements" / name).read_text()
    return {entry[0]: entry[0] + entry[1] for entry in re.findall(r"(?m)^([\w.-]+==[^\\]+)\\\n((?:    .*\n?)+)", text)}


def names(entries: dict[str, str]) -> set[str]:
    return {canonicalize_name(entry.partition("==")[0]) for entry in entries}


def closure(requirements: list[Requirement]) -> set[str]:
    """What installing these brings on this machine."""
    found: set[str] = set()
    done: set[tuple[str, frozenset[str]]] = set()
    while requirements:
        requirement = requirements.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if (name, extras) in done:
            continue
        done.add((name, extras))
        found.add(name)
        try:
            further = [Requirement(text) for text in requires(name) or ()]
        except PackageNotFoundError:
            continue
        requirements += [
            each
            for each in further
            if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in ("", *extras))
        ]
    return found


@pytest.mark.parametrize("name", ["core.txt", "dev.txt"])
def test_every_locked_package_has_hashes_and_no_address(name):
    entries = locked(name)
    assert entries
    assert all("--hash=sha256:" in entry for entry in entries.values())
    assert "://" not in (PROJECT / "requirements" / name).read_text()


def test_the_lock_of_the_product_is_part_of_the_lock_of_development():
    assert locked("core.txt").items() <= locked("dev.txt").items()


def test_the_lock_of_the_product_holds_all_that_it_needs():
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(PROJECT / "setup.cfg")
    wanted = [Requirement(line) for line in setup["options"]["install_requires"].strip().splitlines()]
    assert closure(wanted) <= names(locked("core.txt"))
