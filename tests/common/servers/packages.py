"""``python -m tests.common.servers.packages``: RabbitMQ and libfaketime from the distribution's packages, without root.

apt downloads and verifies the packages, ``dpkg`` unpacks them below ``.venv``; nothing is installed. Where that cannot
be done the reason is kept, for whoever skips a test. The name of a package as an argument asks for that alone.
"""

import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.common.servers.run import PROJECT

UNPACKED = PROJECT / ".venv" / "rabbitmq"
REASON = PROJECT / ".venv" / "rabbitmq.reason"
PACKAGE = "rabbitmq-server"
CLOCKS = PROJECT / ".venv" / "libfaketime"
CLOCKS_PACKAGE = "libfaketime"
#: Of a program with threads, and of any other.
CLOCKS_LIBRARY = "faketime/libfaketimeMT.so.1"
RELATIONS = ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")
TIMEOUT_SECONDS = 120


def main(wanted: str = PACKAGE) -> None:
    """Unpack RabbitMQ and Erlang, or libfaketime, where neither the machine nor an earlier run has them."""
    if wanted == CLOCKS_PACKAGE:
        if find_clocks() is None:
            fetch(CLOCKS, [CLOCKS_PACKAGE])
    elif not shutil.which(PACKAGE) and not UNPACKED.exists():
        fetch(UNPACKED, [PACKAGE, *erlang()])


def fetch(target: Path, packages: list[str]) -> None:
    """Unpack packages, or keep the reason why not."""
    reason = target.with_suffix(".reason")
    try:
        unpack(target, packages)
        reason.unlink(missing_ok=True)
    except (OSError, subprocess.SubprocessError) as error:
        words = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        reason.write_text(words[-1])
        sys.stdout.write(f"no {packages[0]}, its tests are skipped: {words[-1]}\n")


def find_clocks() -> Path | None:
    """The library that shows a program another time: the machine's, or the unpacked package's."""
    places = (Path("/usr/lib"), Path("/usr/lib64"), CLOCKS / "usr" / "lib")
    patterns = (CLOCKS_LIBRARY, f"*/{CLOCKS_LIBRARY}")
    return next((found for place in places for each in patterns for found in sorted(place.glob(each))), None)


def unpack(target: Path, packages: list[str]) -> None:
    """Download the packages and unpack them into a folder, which appears whole or not at all."""
    with TemporaryDirectory(dir=target.parent) as temporary:
        archives, draft = Path(temporary), Path(temporary, "unpacked")
        said("apt-get", "download", "-o", "APT::Sandbox::User=root", *packages, folder=archives)
        for archive in archives.glob("*.deb"):
            said("dpkg", "-x", str(archive), str(draft), folder=archives)
        for script in draft.glob("usr/lib/erlang/**/bin/erl"):
            relocate(script)
        draft.rename(target)


def erlang() -> list[str]:
    """The packages of Erlang that RabbitMQ depends on, directly or not; libraries are the machine's."""
    without = [f"--no-{relation}" for relation in RELATIONS]
    lines = said("apt-cache", "depends", "--recurse", *without, PACKAGE, folder=PROJECT).splitlines()
    return [line for line in lines if line.startswith("erlang-")]


def relocate(script: Path) -> None:
    """Let ``erl`` find its libraries where it lies: Debian's looks for them in /usr/lib/erlang only."""
    script.write_text(script.read_text().replace("ROOTDIR=/usr/lib/erlang\n", 'ROOTDIR="$dyn_rootdir"\n'))


def said(*command: str, folder: Path) -> str:
    """What a program writes; an error when it fails."""
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=True, timeout=TIMEOUT_SECONDS
    ).stdout


if __name__ == "__main__":
    main(*sys.argv[1:])
