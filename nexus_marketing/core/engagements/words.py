"""What search looks through and for: words folded and cut in one place, so that both databases agree.

>>> search_words("Called back, wants a Demo", {"plan": "Pro-Plus", "seats": 12})
'called back wants a demo pro plus 12'
>>> query_words("Pro-PLUS demo")
['pro', 'plus', 'demo']
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from nexus_marketing.core.errors import ValidationError
from nexus_marketing.core.values import fold

_WORD = re.compile(r"[^\W_]+")
#: What the expression does to ASCII, at half the price.
_ASCII_WORDS = {code: chr(code).lower() if chr(code).isalnum() else " " for code in range(128)}
#: Longer words are cut, when they are stored and when they are asked for.
_MAX_WORD = 64
_MAX_QUERY_WORDS = 16
#: Longer texts hardly come twice.
_MAX_KEPT = 128


def search_words(notes: str | None, attributes: Mapping[str, Any]) -> str | None:
    """The distinct words of notes and of the values of metadata, in order; nothing where there are none."""
    texts = [notes] if notes else []
    for value in attributes.values():
        if type(value) is str:  # by far the most
            texts.append(value)
        else:
            texts += _texts(value)
    text = " ".join(texts)
    return (_distinct_words if len(text) <= _MAX_KEPT else _distinct_words.__wrapped__)(text)


def query_words(text: str, path: str = "q") -> list[str]:
    """The words that somebody searches for; all of them must occur.

    Raises:
        ValidationError: there is none, or there are too many.
    """
    words = list(dict.fromkeys(_cut(text)))
    if not 0 < len(words) <= _MAX_QUERY_WORDS:
        raise ValidationError.at(
            path, "out_of_bounds", f"{text[:60]!a}: search for 1 to {_MAX_QUERY_WORDS} words of letters and digits."
        )
    return words


# The same pages and plans are reported again and again.
@lru_cache(maxsize=5_000)
def _distinct_words(text: str) -> str | None:
    return " ".join(dict.fromkeys(_cut(text))) or None


def _cut(text: str) -> list[str]:
    words: list[str] = text.translate(_ASCII_WORDS).split() if text.isascii() else _WORD.findall(fold(text))
    return words if len(text) <= _MAX_WORD else [word[:_MAX_WORD] for word in words]


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for member in value.values() for text in _texts(member)]
    if isinstance(value, Sequence):
        return [text for member in value for text in _texts(member)]
    return [] if value is None or isinstance(value, bool) else [str(value)]
