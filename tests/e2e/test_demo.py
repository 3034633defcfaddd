"""The README's first command, as a new user runs it: a process of its own, real mail, real HTTP."""

import json
import subprocess
import sys
from email import message_from_binary_file, policy
from pathlib import Path

import pytest

pytestmark = pytest.mark.req("FR-P2-003", "FR-P2-007", "FR-P2-009", "FR-P2-011", "FR-P2-012")

LEADS = 400


def play(out: Path) -> dict[str, object]:
    command = [str(Path(sys.executable).with_name("nexus-marketing")), "demo", "--no-serve"]
    done = subprocess.run(
        [*command, "--leads", str(LEADS), "--out", str(out)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    summary: dict[str, object] = json.loads((out / "summary.json").read_text())
    return summary


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object]]:
    out = tmp_path_factory.mktemp("demo")
    return out, play(out)


def test_everybody_is_accounted_for(played: tuple[Path, dict[str, object]]) -> None:
    out, summary = played
    skipped = summary["skipped"]
    assert isinstance(skipped, dict)
    total = sum(int(str(summary[name])) for name in ("accepted", "failed", "unknown")) + sum(skipped.values())
    assert summary["planned"] == total
    assert skipped["consent_missing"] > 0
    assert len(list((out / "mail").glob("*.eml"))) == summary["accepted"]


def test_opens_clicks_and_unsubscribes_are_measured(played: tuple[Path, dict[str, object]]) -> None:
    _, summary = played
    opens, clicks = int(str(summary["opens"])), int(str(summary["clicks"]))
    assert 0 < clicks < opens < int(str(summary["accepted"]))
    assert int(str(summary["unsubscribes"])) > 0


@pytest.mark.req("BR-012")
def test_every_message_carries_what_mailbox_providers_ask_for(played: tuple[Path, dict[str, object]]) -> None:
    out, _ = played
    ids = set()
    for path in (out / "mail").glob("*.eml"):
        with path.open("rb") as file:
            message = message_from_binary_file(file, policy=policy.default)
        assert message.defects == []
        assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
        assert str(message["List-Unsubscribe"]).startswith("<http")
        assert {part.get_content_type() for part in message.iter_parts()} == {"text/plain", "text/html"}
        ids.add(message["Message-ID"])
    assert len(ids) == len(list((out / "mail").glob("*.eml")))


def test_a_second_run_in_the_same_folder_works_too(played: tuple[Path, dict[str, object]]) -> None:
    out, first = played
    second = play(out)
    assert second["planned"] == first["planned"]
