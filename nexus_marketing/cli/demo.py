"""``nexus-marketing demo``: the whole product in one command."""

from pathlib import Path
from typing import Any

from rich.console import Console

from nexus_marketing.demo.tour import Tour


def demo(leads: int, no_serve: bool, out: Path) -> dict[str, Any]:
    """Play the demonstration in ``out``; without ``no_serve`` the server stays up until Ctrl-C."""
    return Tour(out.absolute(), leads, Console()).run(stay=not no_serve)
