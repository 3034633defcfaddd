"""Signed tokens in messages: which recipient row, which link, and nothing personal.

A token is 28 bytes and a 12-byte keyed BLAKE2b tag, base64url without padding: 54 characters,
under 2 us to make. The destination of a click is *stored* with the template version and found by
link number, so a token can never redirect elsewhere (S13). Tokens do not expire: an unsubscribe
link must work for as long as somebody keeps the mail.
"""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from struct import Struct

_LAYOUT = Struct(">BcIQIQH")
_TAG_BYTES = 12
_TOKEN_CHARACTERS = 54
_PERSON = b"nexus-track"


class TokenKind(StrEnum):
    """What a token may be used for; part of what is signed."""

    OPEN = "o"
    CLICK = "c"
    UNSUBSCRIBE = "u"


@dataclass(frozen=True, slots=True)
class Token:
    """What a signed token says. ``link`` counts from 0 within the template version."""

    kind: TokenKind
    tenant_id: int
    send_id: int
    seq: int
    lead_id: int
    link: int = 0


class TokenSigner:
    """Makes and reads tokens; ``keys`` newest first, so that older messages stay valid after rotation.

    >>> signer = TokenSigner([b"k" * 32])
    >>> token = Token(TokenKind.CLICK, tenant_id=1, send_id=2, seq=3, lead_id=4, link=5)
    >>> signer.read(signer.sign(token), TokenKind.CLICK) == token
    True
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._bases = [blake2b(key=key, digest_size=_TAG_BYTES, person=_PERSON) for key in keys]

    def sign(self, token: Token) -> str:
        """The token as text that may stand in a URL."""
        return self.sign_packed(
            _LAYOUT.pack(
                1, token.kind.encode(), token.tenant_id, token.send_id, token.seq, token.lead_id, token.link
            )
        )

    def sign_packed(self, payload: bytes) -> str:
        """Sign a payload already packed (see :func:`pack`): the sender's inner loop."""
        tag = self._bases[0].copy()
        tag.update(payload)
        return urlsafe_b64encode(payload + tag.digest()).rstrip(b"=").decode()

    def read(self, text: str, kind: TokenKind) -> Token | None:
        """What a token says, or ``None`` for anything that we did not sign for this use."""
        if len(text) != _TOKEN_CHARACTERS or not text.isascii():
            return None
        try:
            raw = urlsafe_b64decode(text + "==")
        except ValueError:
            return None
        payload, tag = raw[: _LAYOUT.size], raw[_LAYOUT.size :]
        # Only the canonical spelling counts: the last character has unused bits.
        if urlsafe_b64encode(raw).rstrip(b"=").decode() != text or not self._is_ours(payload, tag):
            return None
        version, letter, *numbers = _LAYOUT.unpack(payload)
        if version != 1 or letter.decode() != kind:
            return None
        return Token(kind, *numbers)

    def _is_ours(self, payload: bytes, tag: bytes) -> bool:
        for base in self._bases:
            expected = base.copy()
            expected.update(payload)
            if hmac.compare_digest(expected.digest(), tag):
                return True
        return False


def pack(kind: TokenKind, tenant_id: int, send_id: int, seq: int, lead_id: int, link: int = 0) -> bytes:
    """The bytes that :meth:`TokenSigner.sign_packed` signs."""
    return _LAYOUT.pack(1, kind.encode(), tenant_id, send_id, seq, lead_id, link)
