"""A plugin whose actions are lines of a file: what processes did can be read when they are gone."""

import fcntl
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from nexus_marketing.plugin import API_VERSION, ActionCall, ActionOutcome, ActionResult, Capability, Manifest

PLUGIN: Final = "nexus-deeds"
#: Within the folder that a tenant sets: what was asked for, and what had an effect.
CALLS: Final = "calls.log"
EFFECTS: Final = "effects.log"
#: Before an effect and behind it: somewhere there a worker is killed.
PAUSE_SECONDS: Final = 0.03


@dataclass(frozen=True, slots=True)
class Deed:
    """Does a thing once for a key, as whoever keeps to the contract; refuses what is called ``refused``."""

    name: str

    def run(self, call: ActionCall) -> ActionOutcome:
        """Do it."""
        about = call.data.get("of", {}).get("data", call.data)
        if about.get("refused"):
            return ActionOutcome(ActionResult.PERMANENT, "no such account")
        folder, said = Path(call.settings["folder"]), f"{call.campaign_id} {self.name} {about['n']}"
        _write(folder / CALLS, f"{call.key}\t{said}")
        time.sleep(PAUSE_SECONDS)
        _write(folder / EFFECTS, f"{call.key}\t{said}", once=f"{call.key}\t")
        time.sleep(PAUSE_SECONDS)
        return ActionOutcome(ActionResult.DONE, "did it")


def _write(path: Path, line: str, once: str = "") -> None:
    """A line, unless there is one that begins like ``once``; all of it or nothing, whoever is killed."""
    with path.open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        if not once or not any(each.startswith(once) for each in file):
            os.write(file.fileno(), f"{line}\n".encode())


def read(path: Path) -> list[str]:
    """What was done, in that order."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [line.partition("\t")[2] for line in lines]


def includeme(config: Any) -> None:
    """The plugin as a deployment includes it."""
    settings = {"folder": {"type": "string", "maxlength": 300, "required": True}}
    manifest = Manifest(PLUGIN, "1.0", API_VERSION, frozenset({Capability.ACTION}), settings=settings)
    config.add_marketing_plugin(manifest)
    for name in ("do", "undo"):
        config.add_marketing_action(Deed(name))
