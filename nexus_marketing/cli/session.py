"""What every command needs: the settings, a runtime, a tenant by name, and one voice for answers."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from nexus_marketing.core.actors import Actor
from nexus_marketing.core.errors import ConfigurationError, ValidationError
from nexus_marketing.db.queries.tenants import require_tenant
from nexus_marketing.runtime import Runtime

DEFAULT_INI = "development.ini"
#: Without any file: one process on an SQLite file, everything below ``var/``.
EMBEDDED = {
    "nexus.database_url": "sqlite:///var/nexus.db",
    "nexus.state_dir": "var",
    "nexus.worker_threads": "2",
}
#: Whoever runs a command on the machine is the operator of all tenants.
OPERATOR = Actor("cli")

AsJson = Annotated[bool, typer.Option("--json", help="Answer as JSON on standard output.")]
TenantName = Annotated[str, typer.Option("--tenant", "-t", metavar="SLUG", help="The tenant's name.")]


class InputRefused(ValidationError):
    """A file or option that a command was given is not as it should be: the command was written wrongly."""


@dataclass(frozen=True, slots=True)
class Cli:
    """The command line's options: which configuration file, if any."""

    config: Path | None

    @property
    def ini(self) -> Path | None:
        """The file that counts: the one named, else ``development.ini`` where there is one.

        Raises:
            ConfigurationError: the file that was named does not exist.
        """
        if self.config is not None:
            if not self.config.is_file():
                raise ConfigurationError(f"There is no file {str(self.config)!r}: check --config.")
            return self.config
        default = Path(DEFAULT_INI)
        return default if default.is_file() else None

    def settings(self) -> Mapping[str, str]:
        """The ``app:main`` section, or the embedded defaults."""
        ini = self.ini
        if ini is None:
            return EMBEDDED
        from nexus_marketing.config import read_settings

        return read_settings(str(ini))

    @contextmanager
    def runtime(self, *, sends: bool = False) -> Iterator[Runtime]:
        """A runtime for one command.

        Args:
            sends: whether messages leave; otherwise no local mail catcher is started.
        """
        from nexus_marketing.config import make_runtime

        settings = dict(self.settings())
        if not sends:
            settings.pop("nexus.catcher_dir", None)
        _make_folder(settings.get("nexus.database_url", ""))
        runtime = make_runtime(settings)
        try:
            yield runtime
        finally:
            runtime.close()


def tenant_id_of(runtime: Runtime, slug: str) -> int:
    """The id behind a tenant's name.

    Raises:
        NotFound: there is no such tenant.
    """
    with runtime.work(None, OPERATOR, mode="read", role="owner") as ctx:
        return require_tenant(ctx.session, slug).id


def answer(document: Any, text: str | Table, *, as_json: bool) -> None:
    """Say the result: the document for machines, the text or table for people."""
    if as_json:
        sys.stdout.write(json.dumps(document, indent=2, default=_plain, ensure_ascii=False) + "\n")
    elif isinstance(text, Table):
        Console().print(text)
    else:
        typer.echo(text)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """A table for people; nothing in its cells is taken for markup."""
    made = Table(title=title, title_justify="left")
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(_escaped(cell) for cell in row))
    return made


def _escaped(cell: object) -> str:
    return "" if cell is None else str(_plain(cell)).replace("[", "\\[")


def _plain(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _make_folder(url: str) -> None:
    if url.startswith("sqlite:///"):
        Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
