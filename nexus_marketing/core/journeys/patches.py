"""What two versions of a journey say differently, and whether that is words only: a patch (BEHAVIOUR.md 5.1).

>>> before = {"nodes": {"hello": {"channels": [{"channel": "email", "template": "hello"}]}, "wait": {"for": "1 day"}}}
>>> after = {"nodes": {"hello": {"channels": [{"channel": "email", "template": "ahoy"}]}, "wait": {"for": "2 days"}}}
>>> [(each.path, each.is_content) for each in differences(before, after)]
[('nodes.hello.channels.0.template', True), ('nodes.wait.for', False)]
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from nexus_marketing.core.errors import Problem
from nexus_marketing.core.values import join

_CONTENT: Final = re.compile(r"name|description|nodes\.[^.]+\.(channels\.[0-9]+\.template|body)(\..*)?")
#: For people.
CONTENT: Final = "names, descriptions, templates of messages and bodies of webhooks"


@dataclass(frozen=True, slots=True)
class Difference:
    """One place at which two documents differ; ``None`` where one of them says nothing."""

    path: str
    before: Any
    after: Any

    @property
    def is_content(self) -> bool:
        """Whether it is a matter of words: nobody comes, waits, goes or leaves otherwise for it."""
        return _CONTENT.fullmatch(self.path) is not None

    def problem(self) -> Problem:
        """Why it cannot be part of a patch."""
        change = f"{self.before!a:.60} becomes {self.after!a:.60}"
        said = f"A patch changes {CONTENT} only, and here {change}: publish a version, and migrate whom it is to reach."
        return Problem(self.path, "not_content", said)


def differences(before: Any, after: Any, path: str = "") -> Iterator[Difference]:
    """Every place at which two canonical documents differ, in the order of the first one's keys, then the other's."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in dict.fromkeys([*before, *after]):
            yield from differences(before.get(key), after.get(key), join(path, key))
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from differences(old, new, join(path, number))
    elif before != after or type(before) is not type(after):
        yield Difference(path, before, after)
