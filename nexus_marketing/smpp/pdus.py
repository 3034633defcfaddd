"""PDUs on a stream (SMPP 3.4 3.2, 4): messages are the library's, what holds a few strings is put together here.

``smpp34`` (the extra ``smpp``) also has a client. It is not used: it answers ``deliver_sm`` by itself, before anybody has
kept what it said, looks names up without our guard, and does not tell what of a message had left when a connection ends.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from struct import Struct
from typing import Final, NamedTuple

import smpp34

RESPONSE: Final = 0x8000_0000
_HEADER: Final = Struct(">IIII")
_SEQUENCE: Final = Struct(">I")
#: A message has at most 64 KiB of payload, and some strings beside it.
_LONGEST: Final = 80_000
_VERSION: Final = 0x34
_HAS_HEADER: Final = 0x40
#: Octets of a single segment, septets and of UCS-2.
_ROOM, _ROOM_WIDE = 160, 140


class Command(IntEnum):
    """Those that are spoken here; a response has ``RESPONSE`` in it."""

    GENERIC_NACK = 0x8000_0000
    BIND_RECEIVER = 0x01
    BIND_TRANSMITTER = 0x02
    SUBMIT_SM = 0x04
    DELIVER_SM = 0x05
    UNBIND = 0x06
    BIND_TRANSCEIVER = 0x09
    ENQUIRE_LINK = 0x15
    ALERT_NOTIFICATION = 0x102


class Tag(IntEnum):
    """Optional parameters (5.3.2) that are written or looked at here."""

    RECEIPTED_MESSAGE_ID = 0x001E
    SEGMENT_NUMBER = 0x020F
    NETWORK_ERROR_CODE = 0x0423
    MESSAGE_PAYLOAD = 0x0424
    MESSAGE_STATE = 0x0427


class Mode(StrEnum):
    """What a bind is for."""

    TRANSCEIVER = "transceiver"
    TRANSMITTER = "transmitter"
    RECEIVER = "receiver"


BINDS: Final = {
    Mode.TRANSCEIVER: Command.BIND_TRANSCEIVER,
    Mode.TRANSMITTER: Command.BIND_TRANSMITTER,
    Mode.RECEIVER: Command.BIND_RECEIVER,
}


class Pdu(NamedTuple):
    """One as it arrived; ``data`` is all of it."""

    command: int
    status: int
    sequence: int
    data: bytes

    @property
    def string(self) -> str:
        """The C-Octet-String that its body begins with: of a response to a message the provider's id."""
        return self.data[_HEADER.size :].partition(b"\0")[0].decode("latin-1")


class Garbage(Exception):
    """What came is no PDU; nothing behind it can be read."""


class Stream:
    """Cuts what arrives into PDUs."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Pdu]:
        """Those that are whole now.

        Raises:
            Garbage: a length that no PDU has.
        """
        self._rest += data
        while len(self._rest) >= _HEADER.size:
            length, command, status, sequence = _HEADER.unpack_from(self._rest)
            if not _HEADER.size <= length <= _LONGEST:
                raise Garbage(f"a length of {length} where a PDU was expected")
            if len(self._rest) < length:
                return
            data, self._rest = self._rest[:length], self._rest[length:]
            yield Pdu(command, status, sequence, data)


def packed(command: int, sequence: int, status: int = 0, body: bytes = b"") -> bytes:
    """A PDU of a body that is octets already."""
    return _HEADER.pack(_HEADER.size + len(body), command, status, sequence) + body


def numbered(data: bytes, sequence: int) -> bytes:
    """The same PDU with another sequence number."""
    return data[:12] + _SEQUENCE.pack(sequence) + data[16:]


def delivered(sequence: int, status: int = 0) -> bytes:
    """The answer to a ``deliver_sm``."""
    return packed(Command.DELIVER_SM | RESPONSE, sequence, status, b"\0")


@dataclass(frozen=True, slots=True)
class Address:
    """A number or name with its type (5.2.5) and plan (5.2.6)."""

    text: str
    ton: int
    npi: int


def bind_request(mode: Mode, strings: Sequence[str], address_range: str) -> bytes:
    """``strings`` are ``system_id``, ``password`` and ``system_type``; all of it is Latin-1."""
    texts = b"".join(each.encode("latin-1", "replace") + b"\0" for each in strings)
    body = texts + bytes([_VERSION, 0, 0]) + address_range.encode("latin-1", "replace") + b"\0"
    return packed(BINDS[mode], 0, body=body)


@dataclass(frozen=True, slots=True)
class Sending:
    """What all messages of an account have in common; ``receipts`` as ``registered_delivery`` has it."""

    source: Address
    dest_ton: int = 1
    dest_npi: int = 1
    service_type: str = ""
    receipts: int = 1


def submit_request(
    sending: Sending, to: str, octets: bytes, coding: int, *, is_part: bool = False, is_last: bool = True
) -> bytes:
    """A ``submit_sm``. What is too long for ``short_message`` goes as ``message_payload``.

    Args:
        sending: of the account.
        to: digits alone.
        octets: the text as it travels, in ``coding``.
        coding: ``data_coding``.
        is_part: whether it begins with a header.
        is_last: whether a receipt is asked for: of a long message for its last part alone.
    """
    is_payload = not is_part and len(octets) > (_ROOM if coding == 0 else _ROOM_WIDE)
    source = sending.source
    message = smpp34.SubmitSm(
        source.text,
        to,
        b"" if is_payload else octets,
        service_type=sending.service_type,
        source_addr_ton=source.ton,
        source_addr_npi=source.npi,
        dest_addr_ton=sending.dest_ton,
        dest_addr_npi=sending.dest_npi,
        esm_class=_HAS_HEADER if is_part else 0,
        registered_delivery=sending.receipts if is_last else 0,
        data_coding=coding,
        tlvs=[smpp34.Tlv(Tag.MESSAGE_PAYLOAD, octets)] if is_payload else [],
    )
    return message.encode()
