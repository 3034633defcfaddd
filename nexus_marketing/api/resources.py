"""What every resource's views share: the id in the path, the answer to a change, the page of a list."""

from collections.abc import Callable, Mapping
from typing import Any

from pyramid.request import Request
from pyramid.response import Response

from nexus_marketing.api.replies import Reply, show
from nexus_marketing.core.ids import parse_id
from nexus_marketing.db.base import Base
from nexus_marketing.db.tenancy import find

Document = dict[str, Any]


def path_id(request: Request, what: str) -> int:
    """The id in the path; what cannot be an id is simply not found."""
    return parse_id(request.matchdict["id"], what)


def document_of(row: Base, fields: Mapping[str, str], ids: frozenset[str]) -> Document:
    """A row as the API shows it: the same fields as in its list.

    Args:
        row: a loaded entity.
        fields: API name → column.
        ids: the names that leave as text.
    """
    mapper = row.__mapper__
    document: Document = {}
    for name, column in fields.items():
        value = getattr(row, mapper.get_property_by_column(mapper.local_table.c[column]).key)
        document[name] = str(value) if name in ids and value is not None else value
    return document


def shows(model: type[Base], what: str, render: Callable[[Any], Document]) -> Callable[[Request], Response]:
    """The view of one resource."""

    def view(request: Request) -> Response:
        row = find(request.nexus.session, model, path_id(request, what))
        document = render(row)
        return show(document, document.get("version"))

    return view


def created(document: Document, collection: str) -> Reply:
    """201 with the new resource, its address and its ETag."""
    return Reply(document, 201, f"{collection}/{document['id']}", document.get("version"))


def changed(document: Document, collection: str) -> Reply:
    """200 with the resource as it is now."""
    return Reply(document, 200, f"{collection}/{document['id']}", document.get("version"))
