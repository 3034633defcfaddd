"""What a ``command_status`` means for a message (SMPP 3.4 5.1.3)."""

from enum import IntEnum
from typing import Final

from nexus_marketing.core.contracts import OutcomeKind

_TRANSIENT, _THROTTLED = OutcomeKind.TRANSIENT, OutcomeKind.THROTTLED
_RECIPIENT, _SENDER = OutcomeKind.PERMANENT_RECIPIENT, OutcomeKind.PERMANENT_SENDER


class Status(IntEnum):
    """Those that are written or looked at here."""

    OK = 0x00
    INVALID_COMMAND = 0x03
    ALREADY_BOUND = 0x05
    QUEUE_FULL = 0x14
    THROTTLED = 0x58
    #: Of ours, to what the centre says: try again.
    TEMPORARY = 0x64
    #: And: it will never be understood.
    PERMANENT = 0x65


#: Every other says that nothing was taken, and nothing of why: those of a provider's own (0x400 to 0x4FF) among them.
_MEANINGS: Final[dict[int, tuple[str, OutcomeKind]]] = {
    0x01: ("ESME_RINVMSGLEN", _RECIPIENT),  # this text, with this name in it
    0x02: ("ESME_RINVCMDLEN", _SENDER),
    0x03: ("ESME_RINVCMDID", _SENDER),
    0x04: ("ESME_RINVBNDSTS", _TRANSIENT),  # it has forgotten the bind
    0x06: ("ESME_RINVPRTFLG", _SENDER),
    0x07: ("ESME_RINVREGDLVFLG", _SENDER),
    0x08: ("ESME_RSYSERR", _TRANSIENT),
    0x0A: ("ESME_RINVSRCADR", _SENDER),
    0x0B: ("ESME_RINVDSTADR", _RECIPIENT),
    0x0D: ("ESME_RBINDFAIL", _SENDER),
    0x0E: ("ESME_RINVPASWD", _SENDER),
    0x0F: ("ESME_RINVSYSID", _SENDER),
    0x14: ("ESME_RMSGQFUL", _THROTTLED),
    0x15: ("ESME_RINVSERTYP", _SENDER),
    0x33: ("ESME_RINVNUMDESTS", _SENDER),
    0x42: ("ESME_RINVSUBREP", _SENDER),
    0x43: ("ESME_RINVESMCLASS", _SENDER),  # long messages by header are not taken
    0x44: ("ESME_RCNTSUBDL", _SENDER),
    0x45: ("ESME_RSUBMITFAIL", _TRANSIENT),
    0x48: ("ESME_RINVSRCTON", _SENDER),
    0x49: ("ESME_RINVSRCNPI", _SENDER),
    0x50: ("ESME_RINVDSTTON", _SENDER),
    0x51: ("ESME_RINVDSTNPI", _SENDER),
    0x53: ("ESME_RINVSYSTYP", _SENDER),
    0x58: ("ESME_RTHROTTLED", _THROTTLED),
    0x64: ("ESME_RX_T_APPN", _TRANSIENT),
    0x65: ("ESME_RX_P_APPN", _RECIPIENT),
    0x66: ("ESME_RX_R_APPN", _RECIPIENT),
    0xC0: ("ESME_RINVOPTPARSTREAM", _SENDER),
    0xC1: ("ESME_ROPTPARNOTALLWD", _SENDER),  # long messages as payload are not taken
    0xC2: ("ESME_RINVPARLEN", _SENDER),
    0xC3: ("ESME_RMISSINGOPTPARAM", _SENDER),
    0xC4: ("ESME_RINVOPTPARAMVAL", _SENDER),
    0xFE: ("ESME_RDELIVERYFAILURE", _TRANSIENT),
    0xFF: ("ESME_RUNKNOWNERR", _TRANSIENT),
}
#: Of a bind, those that only somebody at the provider or a change of the account mends.
_REFUSES_BIND: Final = frozenset({0x0D, 0x0E, 0x0F, 0x15, 0x53, 0x65, 0x66})


def meaning(status: int) -> OutcomeKind:
    """What a message is that was answered with a status other than 0.

    >>> meaning(0x0B), meaning(0x58), meaning(0x45B)
    (<OutcomeKind.PERMANENT_RECIPIENT: 'permanent_recipient'>, <OutcomeKind.THROTTLED: 'throttled'>, <OutcomeKind.TRANSIENT: 'transient'>)
    """
    return _MEANINGS.get(status, ("", _TRANSIENT))[1]


def code_of(status: int) -> str:
    """Its name as the specification has it, else its number.

    >>> code_of(0x58), code_of(0x45B)
    ('ESME_RTHROTTLED', '0x0000045B')
    """
    if status == Status.ALREADY_BOUND:
        return "ESME_RALYBND"
    return _MEANINGS.get(status, (f"0x{status:08X}", _TRANSIENT))[0]


def refuses_bind(status: int) -> bool:
    """Whether a bind that was answered so will be again, until somebody changes something."""
    return status in _REFUSES_BIND
