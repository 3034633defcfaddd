"""The documentation builds, and no link in it leads nowhere."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "docs" / "build.py"


@pytest.fixture(scope="module")
def docs():
    spec = importlib.util.spec_from_file_location("docs_build", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_link_of_the_documentation_leads_nowhere(docs, tmp_path):
    assert docs.build(tmp_path) == []


def test_broken_links_and_headings_are_named(docs, tmp_path, monkeypatch):
    (tmp_path / "docs" / "howto").mkdir(parents=True)
    (tmp_path / "README.md").write_text("# Start\n[a](docs/howto/x.md#do-it) [b](docs/howto/x.md#no) [c](gone.md)")
    (tmp_path / "docs" / "howto" / "x.md").write_text("# How\n## Do it!\n[back](../../README.md) [out](https://x.org/)")
    monkeypatch.setattr(docs, "PROJECT", tmp_path)
    assert docs.build(tmp_path / "out") == [
        "README.md: docs/howto/x.md#no: no such heading",
        "README.md: gone.md does not exist",
    ]
    assert 'href="docs/howto/x.html#do-it"' in (tmp_path / "out" / "index.html").read_text()
    assert 'href="../../index.html"' in (tmp_path / "out" / "docs" / "howto" / "x.html").read_text()
