"""Text of posts: how long a network finds it, and what in it leads somewhere."""

import re
import unicodedata
from typing import Any, Final

#: As templates find them: what ends a sentence does not belong to it.
LINK: Final = re.compile(r"https?://[^\s<>\"')\]]*[^\s<>\"')\].,;:!?]")
_TAG: Final = re.compile(r"(?<!\S)#([^\s#]*[^\s#.,;:!?()\[\]\"'])")
_MOST_OF_A_TAG: Final = 64
_JOINER: Final = "\u200d"
_MARKS: Final = frozenset({"Mn", "Me", "Mc"})
_SKIN: Final = range(0x1F3FB, 0x1F400)
_FLAGS: Final = range(0x1F1E6, 0x1F200)
_TAG_CHARACTERS: Final = range(0xE0020, 0xE0080)


def graphemes(text: str) -> int:
    """How many characters a person sees; where scripts join letters in other ways (UAX 29, GB6 to GB9c) rather more than less.

    >>> graphemes("abc"), graphemes("e\u0301"), graphemes("\U0001f469\u200d\U0001f4bb"), graphemes("\U0001f1e9\U0001f1ea")
    (3, 1, 1, 1)
    """
    count, before, base, flags = 0, "", "", 0
    for each in text:
        if _goes_on(each, before, base, flags):
            flags = flags + 1 if ord(each) in _FLAGS else flags
        else:
            count, base = count + 1, each
            flags = 1 if ord(each) in _FLAGS else 0
        before = each
    return count


def _goes_on(each: str, before: str, base: str, flags: int) -> bool:
    """Whether a character belongs to the one before it."""
    if each == "\n" and before == "\r":
        return True
    if not before or unicodedata.category(before) == "Cc":
        return False
    if each == _JOINER or unicodedata.category(each) in _MARKS or ord(each) in _SKIN or ord(each) in _TAG_CHARACTERS:
        return True
    if before == _JOINER:
        return unicodedata.category(each) == unicodedata.category(base) == "So"
    return ord(each) in _FLAGS and ord(before) in _FLAGS and flags % 2 == 1


def facets(text: str) -> list[dict[str, Any]]:
    """Links and tags of a post as Bluesky has them told: by offsets in its UTF-8 (``app.bsky.richtext.facet``).

    >>> facets("ä https://a.example, #sale")[0]["index"]
    {'byteStart': 3, 'byteEnd': 20}
    """
    found = [(each.span(), {"$type": f"{_FACET}#link", "uri": each.group()}) for each in LINK.finditer(text)]
    for each in _TAG.finditer(text):
        tag = each.group(1)
        if not tag.isdigit() and graphemes(tag) <= _MOST_OF_A_TAG:
            found.append((each.span(), {"$type": f"{_FACET}#tag", "tag": tag}))
    return [{"index": _bytes(text, *span), "features": [feature]} for span, feature in sorted(found, key=_place)]


_FACET: Final = "app.bsky.richtext.facet"


def _place(found: tuple[tuple[int, int], dict[str, Any]]) -> tuple[int, int]:
    return found[0]


def _bytes(text: str, start: int, end: int) -> dict[str, int]:
    first = len(text[:start].encode())
    return {"byteStart": first, "byteEnd": first + len(text[start:end].encode())}
