"""DKIM signatures over finished messages (RFC 6376; Ed25519 by RFC 8463), relaxed in header and body.

A message is signed as it leaves: whatever changes a byte comes before. The signature covers From twice, so that nobody adds
another (RFC 6376 8.15), and never a part of the body alone (no ``l=``).
"""

import re
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

from nexus_marketing.core.errors import ValidationError

#: What receivers look at (SECURITY.md, Mail standards), where the message has it.
_SIGNED: Final = (
    b"from",
    b"to",
    b"subject",
    b"date",
    b"message-id",
    b"reply-to",
    b"mime-version",
    b"content-type",
    b"content-transfer-encoding",
    b"list-id",
    b"list-unsubscribe",
    b"list-unsubscribe-post",
)
_LEAST_RSA_BITS: Final = 1024
_MOST_RSA_BITS: Final = 4096
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DOMAIN = re.compile(rf"(?:{_LABEL}\.)+{_LABEL}").fullmatch
_SELECTOR = re.compile(rf"{_LABEL}(?:\.{_LABEL})*").fullmatch
_SPACES = re.compile(rb"[ \t]+")
_HEADER = re.compile(rb"([!-9;-~]+)[ \t]*:((?:[^\r\n]|\r\n[ \t])*)\r\n")
_WIDTH: Final = 72

Sign = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs for one domain; any number of threads may use it at once."""

    domain: str
    selector: str
    algorithm: str
    _sign: Sign = field(repr=False)

    def signed(self, message: bytes) -> bytes:
        """The message with its signature on top. CRLF line ends only; no line of what is added begins with a dot."""
        head, _, body = message.partition(b"\r\n\r\n")
        found = {match[1].lower(): match for match in _HEADER.finditer(head + b"\r\n")}
        names = [name for name in _SIGNED if name in found]
        lines = [_relaxed(found[name][1], found[name][2]) for name in names]
        listed = b":".join([b"from", *names])
        value = (
            f"v=1; a={self.algorithm}; c=relaxed/relaxed; d={self.domain}; s={self.selector};\r\n"
            f" h={listed.decode('ascii')};\r\n bh={_body_hash(body)};\r\n b="
        ).replace(":content-type:", ":content-type:\r\n ")
        signature_line = _relaxed(b"DKIM-Signature", b" " + value.encode("ascii"))
        signature = b64encode(self._sign(b"\r\n".join([*lines, signature_line]))).decode("ascii")
        folded = "\r\n ".join(signature[at : at + _WIDTH] for at in range(0, len(signature), _WIDTH))
        return b"DKIM-Signature: " + f"{value}{folded}\r\n".encode("ascii") + message


def make_signer(domain: str, selector: str, key: str) -> Signer:
    """A signer from a private key.

    Args:
        domain: that signs (``d=``).
        selector: below which the public key stands in DNS: ``selector._domainkey.domain``.
        key: PEM, PKCS #8 or the older form of RSA, without a password; RSA of 1024 to 4096 bits or Ed25519.

    Raises:
        ValidationError: names what is wrong (``dkim_domain``, ``dkim_selector``, ``dkim_key``); nothing of the key is said.
    """
    if not _DOMAIN(domain) or len(domain) > 253:
        raise ValidationError.at("dkim_domain", "not_a_domain", f"{domain[:80]!r} is no domain such as example.org.")
    if not _SELECTOR(selector) or len(selector) > 63:
        said = f"{selector[:80]!r} is no selector: write what stands before ._domainkey in DNS, such as s2026."
        raise ValidationError.at("dkim_selector", "not_a_selector", said)
    algorithm, sign = _signing(_loaded(key))
    return Signer(domain.lower(), selector, algorithm, sign)


def _loaded(key: str) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - loads only where something is signed
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415 - see above

    try:
        return load_pem_private_key(key.strip().encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        said = "This is no private key: paste the PEM, -----BEGIN PRIVATE KEY----- and all, without a password."
        raise ValidationError.at("dkim_key", "not_a_key", said) from None


def _signing(key: Any) -> tuple[str, Sign]:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 - see _loaded
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15  # noqa: PLC0415 - see _loaded
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey  # noqa: PLC0415 - see _loaded
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415 - see _loaded

    if isinstance(key, Ed25519PrivateKey):
        # RFC 8463 3: what is signed is the hash.
        return "ed25519-sha256", lambda data: key.sign(sha256(data).digest())
    if isinstance(key, RSAPrivateKey) and _LEAST_RSA_BITS <= key.key_size <= _MOST_RSA_BITS:
        return "rsa-sha256", lambda data: key.sign(data, PKCS1v15(), SHA256())
    said = f"Sign with RSA of {_LEAST_RSA_BITS} to {_MOST_RSA_BITS} bits (2048 is usual), or with Ed25519."
    raise ValidationError.at("dkim_key", "unsupported_key", said)


def _relaxed(name: bytes, value: bytes) -> bytes:
    """A header in the relaxed form (RFC 6376 3.4.2), without its line end."""
    return name.lower() + b":" + _SPACES.sub(b" ", value.replace(b"\r\n", b"")).strip(b" \t")


def _body_hash(body: bytes) -> str:
    """Of the body in the relaxed form (RFC 6376 3.4.4)."""
    # Most bodies hold neither, and looking is a hundredth of replacing.
    text = _SPACES.sub(b" ", body) if b"  " in body or b"\t" in body else body
    text = text.replace(b" \r\n", b"\r\n").rstrip(b"\r\n")
    return b64encode(sha256(text + b"\r\n" if text else b"").digest()).decode("ascii")
