"""Signed tokens in messages: which recipient row, which link, and nothing personal.

A token is 27 bytes for the recipient, 3 for the use and a 12-byte keyed BLAKE2b tag, base64url: 56
characters, about 1 us to make. The destination of a click is *stored* with the template version and found by
link number, so a token can never redirect elsewhere (S13). Tokens do not expire: an unsubscribe
link must work for as long as somebody keeps the mail.
"""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import b2a_base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from struct import Struct

_RECIPIENT = Struct(">BIQQIxx")
_USE = Struct(">cH")
_TAG_BYTES = 12
_TOKEN_CHARACTERS = 56
_PERSON = b"nexus-track"
_URL_SAFE = bytes.maketrans(b"+/", b"-_")


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
        signer = self.for_recipient(token.tenant_id, token.send_id, token.seq, token.lead_id)
        return signer(use(token.kind, token.link))

    def for_recipient(self, tenant_id: int, send_id: int, seq: int, lead_id: int) -> Callable[[bytes], str]:
        """What signs the uses (see :func:`use`) of one recipient: the sender's inner loop.

        The recipient's bytes are hashed and spelled once; each use adds three bytes and its tag.
        """
        payload = _RECIPIENT.pack(1, tenant_id, send_id, lead_id, seq)
        state = self._bases[0].copy()
        state.update(payload)
        head = b2a_base64(payload, newline=False).translate(_URL_SAFE).decode()

        def sign(purpose: bytes) -> str:
            tag = state.copy()
            tag.update(purpose)
            return head + b2a_base64(purpose + tag.digest(), newline=False).translate(_URL_SAFE).decode()

        return sign

    def read(self, text: str, kind: TokenKind) -> Token | None:
        """What a token says, or ``None`` for anything that we did not sign for this use."""
        if len(text) != _TOKEN_CHARACTERS or not text.isascii():
            return None
        try:
            raw = urlsafe_b64decode(text)
        except ValueError:
            return None
        # Only our own spelling counts: decoders ignore characters that are not of the alphabet.
        if urlsafe_b64encode(raw).decode() != text or not self._is_ours(raw[:-_TAG_BYTES], raw[-_TAG_BYTES:]):
            return None
        version, tenant_id, send_id, lead_id, seq = _RECIPIENT.unpack_from(raw)
        letter, link = _USE.unpack_from(raw, _RECIPIENT.size)
        if version != 1 or letter != kind.encode():
            return None
        return Token(kind, tenant_id, send_id, seq, lead_id, link)

    def _is_ours(self, payload: bytes, tag: bytes) -> bool:
        for base in self._bases:
            expected = base.copy()
            expected.update(payload)
            if hmac.compare_digest(expected.digest(), tag):
                return True
        return False


def use(kind: TokenKind, link: int = 0) -> bytes:
    """What a token is for, as the bytes that are signed."""
    return _USE.pack(kind.encode(), link)
