"""Answers of any size: written out as they are read, and offered as a file."""

from collections.abc import Iterable

from pyramid.response import Response

from nexus_marketing.api.replies import ApiResponse


def download(blocks: Iterable[str], content_type: str, name: str) -> Response:
    """A file that is saved, never shown; nothing of it is kept in memory but a block.

    Args:
        blocks: of its text; each reads in a transaction of its own.
        name: plain ASCII.
    """
    response = ApiResponse(content_type=content_type, charset="utf-8")
    response.app_iter = (block.encode() for block in blocks)
    response.headerlist.append(("Content-Disposition", f'attachment; filename="{name}"'))
    return response
