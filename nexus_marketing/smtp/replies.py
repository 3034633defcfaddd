"""What goes to a server and what it answers: one envelope in, exactly one reply out, classified by table."""

import re
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple, Self


class ReplyKind(StrEnum):
    """How one message ended, seen from the sender.

    ``number`` is what fits into a byte of a hand-over journal; numbers never change meaning.
    """

    number: int

    def __new__(cls, word: str, number: int) -> Self:
        """A word with its number."""
        member = str.__new__(cls, word)
        member._value_ = word
        member.number = number
        return member

    ACCEPTED = "accepted", 1
    TRANSIENT = "transient", 2
    THROTTLED = "throttled", 3
    PERMANENT_RECIPIENT = "permanent_recipient", 4
    PERMANENT_SENDER = "permanent_sender", 5
    UNKNOWN = "unknown", 6
    NOT_SENT = "not_sent", 7

    @classmethod
    def from_number(cls, number: int) -> "ReplyKind":
        """The kind a journal stored as ``number``; ValueError for a number never given out."""
        for kind in cls:
            if kind.number == number:
                return kind
        raise ValueError(f"{number} is no reply kind: a journal holds 1 to {len(cls)}")


class Phase(StrEnum):
    """The command a reply answers."""

    CONNECT = "connect"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    END = "end"
    RSET = "rset"
    EMPTY = "empty"


class Envelope(NamedTuple):
    """One message for one recipient.

    ``ref`` is the caller's number and comes back in the reply. ``sender`` may be empty (null return path).
    ``data`` is the whole message with CRLF line ends only, the last included, without the final dot.
    ``finished`` vouches for what a skeleton fills: ASCII, and no line begins with a dot. Looking for such lines costs
    as much as half the rest of the hand-over.
    """

    ref: int
    sender: str
    recipient: str
    data: bytes
    finished: bool = False


class Reply(NamedTuple):
    """How one envelope ended. ``code`` is 0 where no server answered; ``text`` then says what happened."""

    ref: int
    kind: ReplyKind
    code: int
    enhanced: str
    text: str


# RFC 3463 subject.detail of class 5 replies, most specific first; "7" stands for every 5.7.x not listed.
# "Sender" codes stop the sender, never the recipient: Gmail 5.7.26, Outlook 5.7.515, bad credentials, blocked address.
_PERMANENT: Mapping[str, ReplyKind] = MappingProxyType(
    {
        "1": ReplyKind.PERMANENT_RECIPIENT,
        "1.7": ReplyKind.PERMANENT_SENDER,
        "1.8": ReplyKind.PERMANENT_SENDER,
        "2": ReplyKind.PERMANENT_RECIPIENT,
        "2.2": ReplyKind.TRANSIENT,
        "3.1": ReplyKind.TRANSIENT,
        "3.2": ReplyKind.TRANSIENT,
        "3.4": ReplyKind.PERMANENT_SENDER,
        "4.3": ReplyKind.TRANSIENT,
        "4.5": ReplyKind.TRANSIENT,
        "4.7": ReplyKind.TRANSIENT,
        "5.3": ReplyKind.TRANSIENT,
        "7": ReplyKind.PERMANENT_SENDER,
        "7.2": ReplyKind.PERMANENT_RECIPIENT,
        "7.13": ReplyKind.PERMANENT_RECIPIENT,
        "7.17": ReplyKind.PERMANENT_RECIPIENT,
        "7.18": ReplyKind.PERMANENT_RECIPIENT,
        "7.19": ReplyKind.PERMANENT_RECIPIENT,
    }
)
_BY_CODE: Mapping[int, ReplyKind] = MappingProxyType(
    {
        421: ReplyKind.THROTTLED,
        530: ReplyKind.PERMANENT_SENDER,
        534: ReplyKind.PERMANENT_SENDER,
        535: ReplyKind.PERMANENT_SENDER,
        538: ReplyKind.PERMANENT_SENDER,
        523: ReplyKind.PERMANENT_SENDER,
        555: ReplyKind.PERMANENT_SENDER,
    }
)
_SENDER_PHASES = frozenset({Phase.CONNECT, Phase.AUTH, Phase.MAIL})
_RATE_WORDS = re.compile(
    r"rate.?limit|too (?:many|much|quickly|fast)|throttl|exceeded the rate|unusual rate", re.IGNORECASE
)
_ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?=\s|$)")


def enhanced_code(text: str) -> str:
    """The RFC 3463 status a reply text begins with, or an empty string."""
    if text[1:2] != ".":
        return ""
    match = _ENHANCED.match(text)
    return match[1] if match else ""


def classify(code: int, enhanced: str, text: str, phase: Phase) -> ReplyKind:
    """What a reply means for the message it answers.

    Permanent only if the basic code *and* the enhanced status say so: retrying a dead address costs little,
    dropping a living one is not undone. Sources: RFC 5321 4.2 and 4.5.3.1.10 (552 after RCPT is temporary),
    RFC 3463, RFC 7372; Gmail's and Outlook's published codes.
    """
    if 200 <= code < 300:
        return ReplyKind.ACCEPTED if phase is Phase.END else ReplyKind.UNKNOWN
    if 400 <= code < 500 or (500 <= code < 600 and enhanced.startswith("4.")):
        return _temporary(code, enhanced, text)
    if 500 <= code < 600:
        return _permanent(code, enhanced, phase)
    return ReplyKind.UNKNOWN if phase is Phase.END else ReplyKind.NOT_SENT


def _temporary(code: int, enhanced: str, text: str) -> ReplyKind:
    if code == 421 or enhanced.startswith(("4.7.", "5.7.")) or _RATE_WORDS.search(text):
        return ReplyKind.THROTTLED
    return ReplyKind.TRANSIENT


def _permanent(code: int, enhanced: str, phase: Phase) -> ReplyKind:
    if code in _BY_CODE:
        return _BY_CODE[code]
    status = enhanced[2:] if enhanced.startswith("5.") else ""
    kind = _PERMANENT.get(status) or _PERMANENT.get(status.partition(".")[0])
    if kind is not None:
        return kind
    if code == 552:
        return ReplyKind.TRANSIENT
    return ReplyKind.PERMANENT_SENDER if phase in _SENDER_PHASES else ReplyKind.PERMANENT_RECIPIENT
