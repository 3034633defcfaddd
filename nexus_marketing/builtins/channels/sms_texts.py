"""What every way to send a text message has in common: who it may be from, its text, and how long that may be."""

import re
from collections.abc import Sequence
from typing import Final

from nexus_marketing.core.contracts import Outcome, OutcomeKind, Submission
from nexus_marketing.core.deliveries import SkipReason
from nexus_marketing.core.messages import Piece, plain_text
from nexus_marketing.core.sms import is_e164, measure

#: A number, a short code, or letters (at most 11, TS 23.040 9.1.2.5).
SENDERS: Final = "+493012345678, a short code, up to 11 letters"
is_short_code = re.compile(r"[0-9]{3,8}").fullmatch
_LETTERS = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9 &+_-]{1,11}").fullmatch


def is_sender(text: str) -> bool:
    """Whether messages may come from this.

    >>> is_sender("+493012345678"), is_sender("12345"), is_sender("Shop & Co"), is_sender("Twelve chars")
    (True, True, True, False)
    """
    return bool(is_e164(text) or is_short_code(text) or _LETTERS(text))


def text_of(pieces: Sequence[Piece], submission: Submission) -> str:
    """The text of one message."""
    return plain_text(pieces, submission.values).strip()


def unfit(submission: Submission, text: str, max_segments: int) -> Outcome | None:
    """Why a text cannot be sent; it has no more segments than the operator pays for."""
    if not is_e164(submission.address):
        return Outcome(submission.ref, OutcomeKind.REFUSED, SkipReason.UNSUPPORTED_ADDRESS, "not an E.164 number")
    segments = measure(text).segments
    if not 1 <= segments <= max_segments:
        said = f"{segments} segments: from 1 to {max_segments} are sent"
        return Outcome(submission.ref, OutcomeKind.REFUSED, SkipReason.RENDER_ERROR, said)
    return None
