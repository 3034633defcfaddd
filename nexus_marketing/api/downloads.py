"""Answers of any size: written out as they are read, and offered as a file."""

from collections.abc import Iterable, Iterator

from pyramid.response import Response

from nexus_marketing.api.replies import ApiResponse

_BLOCK = 65_536


def download(lines: Iterable[str], content_type: str, name: str) -> Response:
    """A file that is saved, never shown; nothing of it is kept in memory but a block.

    Args:
        lines: text with its line ends; each page of it reads in a transaction of its own.
        name: plain ASCII.
    """
    response = ApiResponse(content_type=content_type, charset="utf-8")
    response.app_iter = _blocks(lines)
    response.headerlist.append(("Content-Disposition", f'attachment; filename="{name}"'))
    return response


def _blocks(lines: Iterable[str]) -> Iterator[bytes]:
    block: list[str] = []
    size = 0
    for line in lines:
        block.append(line)
        size += len(line)
        if size >= _BLOCK:
            yield "".join(block).encode()
            block, size = [], 0
    if block:
        yield "".join(block).encode()
