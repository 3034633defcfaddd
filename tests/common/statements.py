"""What tests see of the statements that a worker sends."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event

from nexus_marketing.runtime import Runtime


@contextmanager
def statements_of(runtime: Runtime) -> Iterator[list[tuple[str, Any]]]:
    """The worker's statements with their parameters."""
    seen: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        seen.append((statement, parameters))

    event.listen(runtime.engines.worker, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(runtime.engines.worker, "before_cursor_execute", note)
