"""Consent and suppression as folds of their events, and where consent is needed at all."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final


class ConsentState(StrEnum):
    """What a lead's consent events add up to."""

    GRANTED = "granted"
    REVOKED = "revoked"
    EXPIRED = "expired"


class ConsentPolicy(StrEnum):
    """Whom a tenant asks for consent: ``eu`` where the law does, ``always``, or ``never``."""

    EU = "eu"
    ALWAYS = "always"
    NEVER = "never"


#: EU and EEA members, and countries whose law follows the same rule for e-mail marketing (GDPR 6;
#: ePrivacy directive 13; UK PECR 22; Swiss UWG 3). ISO 3166-1 alpha-2.
_COUNTRIES: Final = "AT BE BG HR CY CZ DK EE FI FR DE GR HU IE IT LV LT LU MT NL PL PT RO SK SI ES SE IS LI NO GB CH"
#: Parts of members that have a code of their own and where EU law holds (Article 355 TFEU).
_TERRITORIES: Final = "AX GF GP MF MQ RE YT"
CONSENT_COUNTRIES: Final = frozenset(f"{_COUNTRIES} {_TERRITORIES}".split())


class SuppressionType(StrEnum):
    """What a suppression keeps out: marketing only, or everything."""

    MARKETING = "marketing"
    ALL = "all"


class SuppressionReason(StrEnum):
    """Why an address is not written to."""

    UNSUBSCRIBED = "unsubscribed"
    COMPLAINED = "complained"
    BOUNCED = "bounced"
    MANUAL = "manual"
    ERASED = "erased"
    IMPORTED = "imported"


@dataclass(frozen=True, slots=True)
class ConsentEvent:
    """One act: exactly one of ``granted_at`` and ``revoked_at`` is set."""

    at: datetime
    id: int
    granted_at: datetime | None
    revoked_at: datetime | None
    expires_at: datetime | None = None


def consent_needed(country: str | None, policy: ConsentPolicy) -> bool:
    """Whether marketing to somebody there needs consent (BR-011); an unknown country counts as EU.

    >>> consent_needed("US", ConsentPolicy.EU), consent_needed(None, ConsentPolicy.EU)
    (False, True)
    """
    if policy is ConsentPolicy.NEVER:
        return False
    return policy is ConsentPolicy.ALWAYS or not country or country.upper() in CONSENT_COUNTRIES


def consent_state(events: Iterable[ConsentEvent], now: datetime) -> ConsentState | None:
    """The state after all events: the newest by ``at``, then ``id``, counts; ``None`` without any."""
    newest = max(events, key=lambda event: (event.at, event.id), default=None)
    if newest is None:
        return None
    if newest.granted_at is None:
        return ConsentState.REVOKED
    is_over = newest.expires_at is not None and newest.expires_at <= now
    return ConsentState.EXPIRED if is_over else ConsentState.GRANTED


def is_suppressed(events: Iterable[tuple[int, bool]]) -> bool:
    """Whether an address is suppressed after all events of one channel and type.

    Args:
        events: (id, whether it suppresses rather than lifts); the newest by id counts.
    """
    return max(events, default=(0, False))[1]
