"""Files of leads as we write them: their columns, and cells that no spreadsheet runs (S12).

What is written can be read again without a loss: :func:`restored` takes back what :func:`neutral` did.

>>> neutral("=1+1"), restored("'=1+1"), restored("'t was")
("'=1+1", '=1+1', "'t was")
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final

import orjson

#: What an export tells of a lead.
EXPORTED: Final = (
    "id",
    "email",
    "name",
    "first_name",
    "last_name",
    "external_id",
    "phone",
    "country",
    "locale",
    "time_zone",
    "score",
    "tags",
    "metadata",
    "created_at",
    "updated_at",
)
#: Of these, what nobody but us decides.
OURS: Final = ("id", "created_at", "updated_at")
#: Columns in which somebody's own words may stand, beside tags.
WORDS: Final = ("email", "name", "first_name", "last_name", "external_id")
#: What Excel, LibreOffice and Google Sheets take for a formula, also behind white space. An apostrophe before it is
#: doubled, so that ours can be told from the lead's.
_LIVE: Final = re.compile(r"'*[\s\x00]*[=+\-@|%\uff1d\uff0b\uff0d\uff20]")
_PLAIN_NUMBER: Final = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?")
#: What separates tags in a cell.
TAG_BREAK: Final = re.compile(r"[,;|]")


def is_our_own(header: Iterable[str]) -> bool:
    """Whether a file has the columns that we write: then it is read as it was meant."""
    return frozenset(EXPORTED) <= frozenset(header)


def neutral(cell: str) -> str:
    """A cell that no spreadsheet runs: an apostrophe stands before what would be a formula.

    Plain numbers, negative ones and phone numbers included, stay as they are.
    """
    if _LIVE.match(cell) and not _PLAIN_NUMBER.fullmatch(cell):
        return "'" + cell
    return cell


def restored(cell: str) -> str:
    """The cell as it was before :func:`neutral`."""
    return cell[1:] if cell[:1] == "'" and neutral(cell[1:]) == cell else cell


def joined_tags(tags: Sequence[str]) -> str:
    """Tags as one cell: separated by semicolons, or as a JSON list where a tag has a separator of its own."""
    if any(TAG_BREAK.search(tag) or tag[0] == "[" for tag in tags):
        return orjson.dumps(tags).decode()
    return ";".join(tags)
