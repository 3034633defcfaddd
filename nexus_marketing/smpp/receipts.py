"""What a centre delivers to us: receipts, and messages from people (SMPP 3.4 4.6, 5.2.12, Appendix B)."""

import re
from enum import StrEnum
from typing import Final

import smpp34

from nexus_marketing.core.contracts import ProviderEvent, ProviderEventKind
from nexus_marketing.core.sms import is_e164
from nexus_marketing.smpp.alphabet import decoded, without_header
from nexus_marketing.smpp.pdus import Tag

_K = ProviderEventKind
_TYPE: Final = 0x3C
_RECEIPT: Final = 0x04
_FROM_A_PERSON: Final = (0x00, 0x08, 0x10)  # as it is; acknowledged by reader; by hand
_HAS_HEADER: Final = 0x40
_INTERNATIONAL: Final = 1
_ID = re.compile(r"\bid:\s*([^\s]{1,64})", re.IGNORECASE).search
_STAT = re.compile(r"\bstat:\s*([A-Za-z]{1,12})", re.IGNORECASE).search
_ERR = re.compile(r"\berr:\s*([0-9A-Za-z]{1,8})", re.IGNORECASE).search
#: Final states by their number (5.2.28) and by the name that stands in a receipt's text.
_STATES: Final = {2: "DELIVRD", 3: "EXPIRED", 4: "DELETED", 5: "UNDELIV", 8: "REJECTD"}
_KINDS: Final = {
    "DELIVRD": _K.DELIVERED,
    "EXPIRED": _K.BOUNCED_SOFT,
    "DELETED": _K.BOUNCED_SOFT,
    "UNDELIV": _K.BOUNCED_SOFT,
    "REJECTD": _K.BOUNCED_SOFT,
}
#: ``network_error_code`` of a GSM network (5.3.2.31, TS 29.002 17.6): nobody has this number, or it may never be reached.
_GSM: Final = 3
_NOBODY: Final = frozenset({1, 9, 12})


class ReceiptIds(StrEnum):
    """How a receipt writes the id that the answer to a message gave: some centres do one in hex and the other not."""

    SAME = "same"
    DECIMAL = "decimal"
    HEX = "hex"

    def as_answered(self, text: str) -> str:
        """The id of a receipt as the answer had written it.

        >>> ReceiptIds.DECIMAL.as_answered("26"), ReceiptIds.HEX.as_answered("001A"), ReceiptIds.SAME.as_answered("x-1")
        ('1a', '26', 'x-1')
        """
        try:
            if self is ReceiptIds.DECIMAL:
                return f"{int(text, 10):x}"
            return str(int(text, 16)) if self is ReceiptIds.HEX else text
        except ValueError:
            return text


def answered_id(text: str, ids: ReceiptIds) -> str:
    """The id of an answer as receipts are compared with it: leading zeros and case are no part of a number.

    >>> answered_id("00A1", ReceiptIds.DECIMAL), answered_id("0012", ReceiptIds.HEX), answered_id("00A1", ReceiptIds.SAME)
    ('a1', '12', '00A1')
    """
    try:
        if ids is ReceiptIds.DECIMAL:
            return f"{int(text, 16):x}"
        return str(int(text, 10)) if ids is ReceiptIds.HEX else text
    except ValueError:
        return text


def event_of(data: bytes, ids: ReceiptIds, unique: str) -> ProviderEvent | None:
    """The event of a ``deliver_sm``; nothing where it means nothing to us, as a receipt on the way does.

    Args:
        data: the whole PDU.
        ids: how receipts write ids.
        unique: what tells this delivery from all others. A person's message has no id of its own, and who writes STOP,
            START and STOP again means all three: what a centre delivers twice is done twice.

    Raises:
        smpp34.SmppError: it cannot be read.
    """
    message = smpp34.decode(data)
    assert isinstance(message, smpp34.DeliverSm)
    kind = message.esm_class & _TYPE
    if kind == _RECEIPT:
        return _receipt(message, ids)
    return _from_person(message, unique) if kind in _FROM_A_PERSON else None


def _receipt(message: smpp34.DeliverSm, ids: ReceiptIds) -> ProviderEvent | None:
    said = _octets(message)[0].decode("latin-1")
    found, stated, cause = _ID(said), _STAT(said), _ERR(said)
    number = _tlv_text(message, Tag.RECEIPTED_MESSAGE_ID) or (found[1] if found else "")
    state = _STATES.get(_tlv_number(message, Tag.MESSAGE_STATE)) or (stated[1].upper() if stated else "")
    if not number or state not in _KINDS:
        return None
    code, address = ids.as_answered(number)[:64], as_e164(message.source_addr, message.source_addr_ton)
    kind = _KINDS[state]
    network = _tlv(message, Tag.NETWORK_ERROR_CODE)
    if kind is _K.BOUNCED_SOFT and len(network) == 3 and network[0] == _GSM:
        kind = _K.BOUNCED_HARD if int.from_bytes(network[1:]) in _NOBODY else kind
    # Ids are used again after a while: with the number they are not.
    event_id = f"{code}:{address}:{state}"
    return ProviderEvent(
        kind, event_id, code=code, address=address, detail=f"{state} {cause[1] if cause else ''}".strip()
    )


def _from_person(message: smpp34.DeliverSm, unique: str) -> ProviderEvent | None:
    octets, part = _octets(message)
    part = _tlv_number(message, Tag.SEGMENT_NUMBER) or part
    if part > 1:
        return None  # the rest of a long message: the wish stands at its beginning
    address = as_e164(message.source_addr, message.source_addr_ton)
    return ProviderEvent(
        _K.INBOUND_MESSAGE, f"mo:{unique}", address=address, detail=decoded(octets, message.data_coding)
    )


def as_e164(text: str, ton: int) -> str:
    """A number as leads have it, where it can be told; else as it came.

    >>> as_e164("493012345678", 1), as_e164("00493012345678", 0), as_e164("12345", 3)
    ('+493012345678', '+493012345678', '12345')
    """
    digits = text.removeprefix("+")
    if ton != _INTERNATIONAL:
        digits = digits.removeprefix("00")
    # National, network specific, short or letters: nobody knows in which country.
    return f"+{digits}" if (ton in (0, _INTERNATIONAL) or text[:1] == "+") and is_e164(f"+{digits}") else text


def _octets(message: smpp34.DeliverSm) -> tuple[bytes, int]:
    """The text without its header, and which part it is."""
    octets = message.short_message or _tlv(message, Tag.MESSAGE_PAYLOAD)
    return without_header(octets) if message.esm_class & _HAS_HEADER else (octets, 1)


def _tlv(message: smpp34.DeliverSm, tag: int) -> bytes:
    return next((each.value for each in message.tlvs if each.tag == tag), b"")


def _tlv_number(message: smpp34.DeliverSm, tag: int) -> int:
    return int.from_bytes(_tlv(message, tag)[:4])


def _tlv_text(message: smpp34.DeliverSm, tag: int) -> str:
    return _tlv(message, tag).partition(b"\0")[0].decode("latin-1").strip()
