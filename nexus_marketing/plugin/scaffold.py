"""``plugins new``: a distribution with a working part of each kind, to begin from; its own tests pass as it is written."""

import re
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Final

from nexus_marketing.core.errors import Conflict, ValidationError
from nexus_marketing.plugin.manifests import API_VERSION, Capability
from nexus_marketing.plugin.scaffold_parts import CONDITION, METRIC, STRATEGY, TRIGGER

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*").fullmatch


def write_plugin(folder: Path, name: str, kind: str = Capability.CHANNEL) -> Path:
    """Write a plugin's distribution below a folder; answers where it lies.

    Args:
        folder: where it is made.
        name: of the distribution and of its plugin, such as ``nexus-echo``; what it adds is named as what follows
            ``nexus-``.
        kind: what it adds: one of :data:`KINDS`.

    Raises:
        ValidationError: it is no name, or there is no beginning for this kind.
        Conflict: there is a file or folder of this name.
    """
    if kind not in KINDS:
        said = f"There is no beginning for {kind!a:.40}: write {', '.join(KINDS)}."
        raise ValidationError.at("kind", "not_allowed", said)
    if not _NAME(name) or not 2 <= len(name) <= 40:
        said = "write 2 to 40 of a-z, 0-9 and single hyphens, a letter first."
        raise ValidationError.at("name", "not_well_formed", f"{name!a:.60} is no name of a plugin: {said}")
    target = folder / name
    if target.exists():
        raise Conflict(f"There is something at {str(target)!r} already: choose another name.")
    files, label = KINDS[kind]
    module = name.replace("-", "_")
    part = module.removeprefix("nexus_")
    title = "".join(each.capitalize() for each in part.split("_")) + label
    gaps = {"name": name, "module": module, "channel": part, "kind": title, "api": API_VERSION}
    for path, text in {**files, **_COMMON}.items():
        file = target / Template(path).substitute(gaps)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(Template(text).substitute(gaps, label=f"{kind} {part}"), encoding="utf-8")
    return target


_SETUP = """\
[metadata]
name = $name
version = 0.1.0
description = The $label for nexus-marketing.

[options]
python_requires = >=3.11
packages = find:
install_requires =
    nexus-marketing

[options.packages.find]
include =
    $module*

[options.extras_require]
test =
    pytest

[options.entry_points]
nexus_marketing.plugins =
    $name = $module:MANIFEST

[tool:pytest]
testpaths = tests
pythonpath = .
"""

_PYPROJECT = """\
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
"""

_PACKAGE = '''\
"""The channel $channel for nexus-marketing."""

from nexus_marketing.plugin import Capability, Manifest

from $module.channels import $kind

MANIFEST = Manifest(
    name="$name",
    version="0.1.0",
    api="$api",
    capabilities=frozenset({Capability.CHANNEL}),
    # What a tenant sets: a Cerberus schema. Secrets belong into the ini file, see includeme.
    settings={"signature": {"type": "string", "maxlength": 200}},
)


def includeme(config):
    """Called once by every process that names $module in nexus.includes."""
    config.add_marketing_plugin(MANIFEST)
    config.add_marketing_channel($kind(config.registry.settings.get("$channel.path", "$channel.jsonl")))
'''

_CHANNEL = '''\
"""Writes messages into a file, a line of JSON each. Put your provider in the place of _hand_over."""

import json
from functools import partial

from nexus_marketing.plugin import (
    AddressKind,
    Capabilities,
    Outcome,
    OutcomeKind,
    SerialSession,
    ValidationError,
    plain_text,
)


class $kind:
    """Reaches people through a file."""

    name = "$channel"
    capabilities = Capabilities(address_kind=AddressKind.NONE, max_in_flight=1)

    def __init__(self, path):
        self.path = path

    def validate(self, settings):
        """Raise ValidationError naming each setting that is missing or wrong."""
        if not str(settings.get("signature", "")).isprintable():
            raise ValidationError.at("signature", "control_character", "The signature is one line of text.")

    def open(self, settings, content):
        """A session for one message text and many recipients; many may be open at a time, one for each thread."""
        return SerialSession(partial(self._hand_over, settings, content))

    def _hand_over(self, settings, content, submission, leaving):
        text = plain_text(content.message.parts["text"], submission.values)
        message = {"id": submission.message_id, "text": text, "signature": settings.get("signature", "")}
        # What raises up to here is tried again.
        with open(self.path, "a", encoding="utf-8") as file:
            # From here on the message may have left: what raises now leaves its fate unknown, and it is not sent twice.
            leaving()
            file.write(json.dumps(message) + "\\n")
        return Outcome(submission.ref, OutcomeKind.ACCEPTED)
'''

_TESTS = '''\
"""The channel against the suite of nexus-marketing, and what it alone does."""

import json

import pytest
from nexus_marketing.plugin.testing import ChannelConformance, WatchingJournal, sample_batch, sample_content

from $module.channels import $kind


class TestChannel(ChannelConformance):
    @pytest.fixture
    def channel(self, tmp_path):
        return $kind(str(tmp_path / "sent.jsonl"))

    @pytest.fixture
    def unreachable(self, tmp_path):
        return $kind(str(tmp_path / "no" / "such" / "folder"))

    @pytest.fixture
    def settings(self):
        return {"signature": "The Shop"}


def test_the_text_is_written_with_the_signature(tmp_path):
    channel = $kind(str(tmp_path / "sent.jsonl"))
    content = sample_content(channel)
    list(channel.open({"signature": "The Shop"}, content).submit(sample_batch(channel, content, 1), WatchingJournal()))
    (line,) = (tmp_path / "sent.jsonl").read_text().splitlines()
    assert json.loads(line)["text"].startswith("Hello Ann!")
    assert json.loads(line)["signature"] == "The Shop"
'''

_README = """\
# $name

The channel `$channel` for nexus-marketing. As it stands it writes messages into a file; put your provider in its place
in `$module/channels.py`.

    pip install -e '.[test]'
    pytest
    nexus-marketing plugins check $name

In the ini file of every web process and worker:

    nexus.includes = $module
    $channel.path = var/$channel.jsonl

For each tenant that is to have it:

    nexus-marketing plugins enable $name --tenant SLUG --set signature="The Shop"

Campaigns with `"channel": "$channel"` and a template of type `text` go out by it.
"""

_COMMON: Final[Mapping[str, str]] = {"setup.cfg": _SETUP, "pyproject.toml": _PYPROJECT}
_FILES: Final[Mapping[str, str]] = {
    "README.md": _README,
    "$module/__init__.py": _PACKAGE,
    "$module/channels.py": _CHANNEL,
    "tests/test_channel.py": _TESTS,
}
#: By kind: what is written, and how its class is called.
KINDS: Final[Mapping[str, tuple[Mapping[str, str], str]]] = {
    Capability.CHANNEL: (_FILES, "Channel"),
    Capability.CONDITION: (CONDITION, "Condition"),
    "strategy": (STRATEGY, "Strategy"),
    Capability.TRIGGER: (TRIGGER, "Trigger"),
    Capability.METRIC: (METRIC, "Metric"),
}
