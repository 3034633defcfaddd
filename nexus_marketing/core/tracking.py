"""Signed tokens in messages: which recipient row, which link, and nothing personal.

A token is 27 bytes that name the recipient, 3 bytes that name the use and a 12-byte tag, base64url:
56 characters. Tags are slices of keyed BLAKE2b blocks over the recipient's bytes and the block's
number, five tags to a block: every use has a tag of its own that nobody without the key can make, at
a fifth of the price. The destination of a click is *stored* with the template version and found by
link number, so a token can never redirect elsewhere (S13). Tokens do not expire: an unsubscribe
link must work for as long as somebody keeps the mail.
"""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import b2a_base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from struct import Struct
from typing import NamedTuple

_RECIPIENT = Struct(">BIQQIxx")
_USE = Struct(">cH")
_TAG_BYTES = 12
_BLOCK_BYTES = 60
_TAGS_PER_BLOCK = _BLOCK_BYTES // _TAG_BYTES
_TAGS = Struct(f"{_TAG_BYTES}s" * _TAGS_PER_BLOCK)
_HEAD_CHARACTERS = _RECIPIENT.size // 3 * 4
_TAG_CHARACTERS = _TAG_BYTES // 3 * 4
_TOKEN_CHARACTERS = _HEAD_CHARACTERS + _USE.size // 3 * 4 + _TAG_CHARACTERS
_PERSON = b"nexus-track"
_URL_SAFE = bytes.maketrans(b"+/", b"-_")


class TokenKind(StrEnum):
    """What a token may be used for; part of what is signed."""

    OPEN = "o"
    CLICK = "c"
    UNSUBSCRIBE = "u"
    #: Says whose browser it is, on pages of the tenant's own; of no message.
    LEAD = "l"


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
        self._bases = [blake2b(key=key, digest_size=_BLOCK_BYTES, person=_PERSON) for key in keys]

    def sign(self, token: Token) -> str:
        """The token as text that may stand in a URL."""
        signing = self.signing([TokenUse.of(token.kind, token.link)])
        ((found,),) = signing.tokens(token.tenant_id, token.send_id, [(token.seq, token.lead_id)])
        return found

    @property
    def key(self) -> str:
        """The name of the key that signs: what was signed can be signed again when others came after it."""
        return _key_name(self._bases[0])

    def signing(self, uses: Sequence["TokenUse"], key: str = "") -> "TokenSheet":
        """What makes the tokens of many recipients for the same uses.

        Args:
            uses: the order of a recipient's tokens.
            key: the name of the key; the newest where it is left out.

        Raises:
            KeyError: there is no key of that name any more.
        """
        bases = {_key_name(base): base for base in self._bases} if key else {"": self._bases[0]}
        return TokenSheet(bases[key], uses)

    def read(self, text: str, kind: TokenKind) -> Token | None:
        """What a token says, or ``None`` for anything that we did not sign for this use."""
        if len(text) != _TOKEN_CHARACTERS or not text.isascii():
            return None
        try:
            raw = urlsafe_b64decode(text)
        except ValueError:
            return None
        # Only our own spelling counts: decoders ignore characters that are not of the alphabet.
        if len(raw) != _RECIPIENT.size + _USE.size + _TAG_BYTES or urlsafe_b64encode(raw).decode() != text:
            return None
        version, tenant_id, send_id, lead_id, seq = _RECIPIENT.unpack_from(raw)
        letter, link = _USE.unpack_from(raw, _RECIPIENT.size)
        if version != 1 or letter != kind.encode() or (link and kind is not TokenKind.CLICK):
            return None
        if not self._is_ours(raw, TokenUse.of(kind, link)):
            return None
        return Token(kind, tenant_id, send_id, seq, lead_id, link)

    def _is_ours(self, raw: bytes, purpose: "TokenUse") -> bool:
        for base in self._bases:
            state = base.copy()
            # The recipient's bytes exactly as they came: padding that was touched is not ours.
            state.update(raw[: _RECIPIENT.size] + _block_name(purpose.block))
            if hmac.compare_digest(_TAGS.unpack(state.digest())[purpose.tag], raw[-_TAG_BYTES:]):
                return True
        return False


def _key_name(base: "blake2b") -> str:
    return base.hexdigest()[:16]


class TokenSheet:
    """Tokens of many recipients for the same uses: the sender's inner loop."""

    __slots__ = ("_base", "_blocks", "_parts", "_width")

    def __init__(self, base: "blake2b", uses: Sequence["TokenUse"]) -> None:
        self._base = base
        numbers = sorted({use.block for use in uses})
        self._blocks = [_block_name(number) for number in numbers]
        places = [numbers.index(use.block) * _TAGS_PER_BLOCK + use.tag for use in uses]
        starts = [_HEAD_CHARACTERS + place * _TAG_CHARACTERS for place in places]
        # Of each token: what says its use, and where its tag stands among all of a recipient that were encoded.
        self._parts = [
            (urlsafe_b64encode(use.purpose).decode(), start) for use, start in zip(uses, starts, strict=True)
        ]
        self._width = _HEAD_CHARACTERS + len(numbers) * _TAGS_PER_BLOCK * _TAG_CHARACTERS

    def tokens(self, tenant_id: int, send_id: int, recipients: Iterable[tuple[int, int]]) -> list[list[str]]:
        """By use, in their order: the tokens of all recipients, who are given as (seq, lead id)."""
        raw, copy, pack = [], self._base.copy, _RECIPIENT.pack
        for seq, lead_id in recipients:
            payload = pack(1, tenant_id, send_id, lead_id, seq)
            state = copy()
            state.update(payload)
            raw.append(payload)
            for name in self._blocks:
                block = state.copy()
                block.update(name)
                raw.append(block.digest())
        # All parts are multiples of three bytes, so they are encoded in one go and cut apart after it.
        text, width = b2a_base64(b"".join(raw), newline=False).translate(_URL_SAFE).decode(), self._width
        heads = [text[start : start + _HEAD_CHARACTERS] for start in range(0, len(text), width)]
        return [
            [
                head + purpose + text[place : place + _TAG_CHARACTERS]
                for head, place in zip(heads, range(start, len(text), width), strict=True)
            ]
            for purpose, start in self._parts
        ]


class TokenUse(NamedTuple):
    """What a token is for: the block its tag lies in, the tag's place there, the bytes that say so in the token."""

    block: int
    tag: int
    purpose: bytes

    @classmethod
    def of(cls, kind: TokenKind, link: int = 0) -> "TokenUse":
        """Opens and unsubscribes have the first two tags, links those after them; leads one that no link reaches."""
        if kind is TokenKind.LEAD:
            return cls(_LAST_BLOCK, 0, _USE.pack(kind.encode(), link))
        place = link + len(_FIXED) if kind is TokenKind.CLICK else _FIXED.index(kind)
        number, tag = divmod(place, _TAGS_PER_BLOCK)
        return cls(number, tag, _USE.pack(kind.encode(), link))


_LAST_BLOCK = 2**16 - 1
_FIXED = (TokenKind.OPEN, TokenKind.UNSUBSCRIBE)


def _block_name(number: int) -> bytes:
    return number.to_bytes(2, "big")
