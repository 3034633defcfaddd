"""The format of API keys: ``nmk_live_<8 id>_<43 secret>_<8 checksum>`` (SECURITY.md, API keys).

The prefix lets secret scanners find a leaked key. The checksum (CRC-32) tells a mistyped key from
an unknown one before any look-up; it protects nothing. The id is public; of the whole only the
SHA-256 is stored, which suffices for 256 random bits.

>>> issued = build_key("ab12cd34", bytes(32))
>>> parse_key(issued.text) == ParsedKey("ab12cd34", issued.secret_hash)
True
>>> parse_key(issued.text[:-1] + "x") is None
True
"""

import re
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final
from zlib import crc32

KEY_ID_CHARACTERS: Final = "abcdefghijklmnopqrstuvwxyz0123456789"
KEY_ID_LENGTH: Final = 8
SECRET_BYTES: Final = 32
_SHAPE: Final = re.compile(r"nmk_live_([a-z0-9]{8})_[A-Za-z0-9_-]{43}_([0-9a-f]{8})")


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A new key; ``text`` is shown once and kept nowhere."""

    key_id: str
    secret_hash: bytes
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ParsedKey:
    """What a presented key claims: its public id and its own SHA-256."""

    key_id: str
    secret_hash: bytes


def build_key(key_id: str, secret: bytes) -> IssuedKey:
    """Put a key together from 8 characters of ``KEY_ID_CHARACTERS`` and 32 random bytes."""
    spelled = urlsafe_b64encode(secret).rstrip(b"=").decode()
    body = f"nmk_live_{key_id}_{spelled}"
    text = f"{body}_{_checksum(body)}"
    return IssuedKey(key_id, sha256(text.encode()).digest(), text)


def parse_key(text: str) -> ParsedKey | None:
    """Read a presented key; ``None`` for anything that cannot be one, so that no look-up is made."""
    match = _SHAPE.fullmatch(text)
    if match is None or _checksum(text[:-9]) != match[2]:
        return None
    return ParsedKey(match[1], sha256(text.encode()).digest())


def _checksum(body: str) -> str:
    return f"{crc32(body.encode()):08x}"
