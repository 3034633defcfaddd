"""What a key or member may do, as one vocabulary (SR-001, SR-006).

A key's scopes are permissions; every REST route and GraphQL field names exactly one.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final

from nexus_marketing.core.errors import Problem, ValidationError


class Permission(StrEnum):
    """``topic:action``; ``write`` includes neither ``read`` nor ``launch``."""

    LEADS_READ = "leads:read"
    LEADS_WRITE = "leads:write"
    #: What people agreed to: imports that say something about consent need it beside ``leads:write``.
    CONSENTS_WRITE = "consents:write"
    SEGMENTS_READ = "segments:read"
    SEGMENTS_WRITE = "segments:write"
    SCORES_READ = "scores:read"
    SCORES_WRITE = "scores:write"
    TEMPLATES_READ = "templates:read"
    TEMPLATES_WRITE = "templates:write"
    CHANNELS_READ = "channels:read"
    #: Accounts at providers, with test messages by them: for who looks after sending.
    CHANNELS_WRITE = "channels:write"
    CAMPAIGNS_READ = "campaigns:read"
    CAMPAIGNS_WRITE = "campaigns:write"
    CAMPAIGNS_LAUNCH = "campaigns:launch"
    #: Other words for those who are on their way through a journey: what was approved was not these.
    CAMPAIGNS_PATCH = "campaigns:patch"
    ENGAGEMENTS_READ = "engagements:read"
    ENGAGEMENTS_WRITE = "engagements:write"
    #: For keys that anybody can read in a page: events of browsers, and nothing else.
    EVENTS_WRITE_PUBLIC = "events:write_public"
    MEMBERS_READ = "members:read"
    META_READ = "meta:read"


ALL_PERMISSIONS = frozenset(Permission)
#: A key with these alone stands in pages that anybody reads; no person acts with it.
PUBLIC_PERMISSIONS: Final = frozenset({Permission.EVENTS_WRITE_PUBLIC})
_READING: Final = frozenset(each for each in Permission if each.endswith(":read"))
_ALL_OF_A_PERSON: Final = ALL_PERMISSIONS - PUBLIC_PERMISSIONS
#: The role of who left: their name stays where they acted.
FORMER: Final = "former"
#: What members may do who come without a key, by their role: accounts at providers, consent, and other words for those who are
#: under way are for those who answer for the tenant.
ROLE_PERMISSIONS: Final[Mapping[str, frozenset[Permission]]] = {
    "owner": _ALL_OF_A_PERSON,
    "admin": _ALL_OF_A_PERSON,
    "marketer": _ALL_OF_A_PERSON - {Permission.CHANNELS_WRITE, Permission.CONSENTS_WRITE, Permission.CAMPAIGNS_PATCH},
    # Answering what a journey asks is launching what follows.
    "approver": _READING | {Permission.CAMPAIGNS_LAUNCH},
    "analyst": _READING,
    FORMER: frozenset(),
}


def parse_scopes(words: Iterable[str]) -> frozenset[Permission]:
    """Read scopes as written by a person; ``*`` stands for all.

    Raises:
        ValidationError: names each word that is no scope, and those that are.
    """
    chosen: set[Permission] = set()
    problems: list[Problem] = []
    for word in words:
        if word == "*":
            chosen |= ALL_PERMISSIONS
        elif word in Permission.__members__.values():
            chosen.add(Permission(word))
        else:
            problems.append(
                Problem("scopes", "unknown_scope", f"{word!r} is no scope: use * or {', '.join(sorted(Permission))}.")
            )
    if problems:
        raise ValidationError(problems=problems)
    return frozenset(chosen)
