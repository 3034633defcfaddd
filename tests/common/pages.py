"""Pages of the documentation as somebody follows them: the files that they tell to write, and their commands."""

import importlib
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

HOWTO = Path(__file__).parents[2] / "docs" / "howto"
_FOLDER = TemporaryDirectory(prefix="nexus-page-")
_BLOCK = re.compile(r"^```python\n# (\S+\.py)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def files_of(page: Path) -> dict[str, str]:
    """The text of each file by its path: blocks of code whose first line is a path."""
    return dict(_BLOCK.findall(page.read_text(encoding="utf-8")))


def indented(page: Path, beginning: str) -> str:
    """The first line among those set off by four spaces that begins like this."""
    lines = page.read_text(encoding="utf-8").splitlines()
    return next(each.strip() for each in lines if each.startswith(f"    {beginning}"))


def imported(files: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The names of each of these modules, written into a folder on the import path that is there as long as the process."""
    folder = Path(_FOLDER.name)
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    importlib.invalidate_caches()
    modules = {path: path.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in files}
    return {path: vars(importlib.import_module(name)) for path, name in modules.items()}
