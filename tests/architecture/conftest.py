"""The sources that the architecture tests read."""

import ast
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Source:
    """A Python file of the repository and its syntax tree."""

    path: str

    @cached_property
    def text(self) -> str:
        return (PROJECT / self.path).read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)

    @cached_property
    def functions(self) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
        return [node for node in ast.walk(self.tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]

    @cached_property
    def classes(self) -> list[ast.ClassDef]:
        return [node for node in ast.walk(self.tree) if isinstance(node, ast.ClassDef)]

    @cached_property
    def imported(self) -> set[str]:
        """Full names of what is imported, whole modules and single names alike."""
        names: set[str] = set()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        return names


@pytest.fixture(scope="session")
def repository_files() -> list[str]:
    """Every file that is or would be committed, relative to the root; links to folders left out."""
    asked = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(asked, cwd=PROJECT, capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        paths = listed.stdout.splitlines()
    else:  # an unpacked archive without .git
        hidden = {".venv", "build", "dist"}
        paths = [str(path.relative_to(PROJECT)) for path in PROJECT.rglob("*") if not hidden & {*path.parts}]
    return sorted(path for path in paths if (PROJECT / path).is_file())


@pytest.fixture(scope="session")
def sources(repository_files: list[str]) -> list[Source]:
    """The Python files of the product: package, migrations and plugins, without their tests."""
    roots = ("nexus_marketing/", "migrations/", "plugins/")
    return [
        Source(path)
        for path in repository_files
        if path.endswith(".py") and path.startswith(roots) and "/tests/" not in path
    ]


@pytest.fixture(scope="session")
def test_sources(repository_files: list[str]) -> list[Source]:
    """The test modules."""
    return [
        Source(path)
        for path in repository_files
        if path.endswith(".py") and path.rpartition("/")[2].startswith("test_")
    ]
