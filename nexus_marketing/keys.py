"""Secrets of the installation: keyed hashes that must be the same in every process, and what locks tenants' passwords."""

import os
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from hmac import compare_digest
from typing import Any, Final

import orjson

from nexus_marketing.core.errors import SecretsUnreadable
from nexus_marketing.core.tracking import TokenSigner

_FORM: Final = b"\x01"
_NAME_BYTES: Final = 4
_NONCE_BYTES: Final = 12
_HEAD: Final = len(_FORM) + _NAME_BYTES


class Keys:
    """The secrets of an installation, each use under a name of its own."""

    def __init__(self, secret_keys: tuple[bytes, ...]) -> None:
        self.tokens = TokenSigner([_derived(key, b"tokens") for key in secret_keys])
        self.vault = Vault([_derived(key, b"tenant secrets") for key in secret_keys])
        # Address hashes are stored for good, so they stay under the oldest key when keys rotate.
        self._address = blake2b(key=_derived(secret_keys[-1], b"addresses"), digest_size=16)
        self._marks = _derived(secret_keys[-1], b"marks")
        self._entrances = [_derived(key, b"entrances") for key in secret_keys]
        self._cursor = _derived(secret_keys[0], b"cursors")

    def address_hash(self, tenant_id: int, normalised_address: str) -> bytes:
        """16 bytes that stand for an address of a tenant; useless without the key."""
        return self.address_hashes(tenant_id, [normalised_address])[0]

    def address_hashes(self, tenant_id: int, normalised_addresses: Iterable[str]) -> list[bytes]:
        """The same for many addresses."""
        tenant = self._address.copy()
        tenant.update(f"{tenant_id}:".encode())
        hashes = []
        for address in normalised_addresses:
            state = tenant.copy()
            state.update(address.encode())
            hashes.append(state.digest())
        return hashes

    def mark(self, tenant_id: int, named: str) -> str:
        """What stands for something that others name, where it has to be known again and must say nothing: 32 characters.

        Under the oldest key, so that it is the same however keys rotate.
        """
        return blake2b(f"{tenant_id}:{named}".encode(errors="replace"), key=self._marks, digest_size=16).hexdigest()

    def entrance_tag(self, payload: bytes) -> str:
        """What proves that an address at which a journey may be entered is ours: 32 characters."""
        return _entrance_tag(self._entrances[0], payload)

    def is_entrance(self, payload: bytes, tag: str) -> bool:
        """Whether a tag was made for this, by any of the keys."""
        given = tag.encode(errors="replace")
        return any(compare_digest(_entrance_tag(key, payload).encode(), given) for key in self._entrances)

    def cursor_tag(self, payload: bytes) -> bytes:
        """8 bytes that prove a page cursor is ours."""
        return blake2b(payload, key=self._cursor, digest_size=8).digest()


class Vault:
    """Passwords of tenants as they lie in the database: AES-256-GCM under the newest key, read under any of them.

    What is sealed names its key and is bound to its place, so that a row copied over another tenant's opens nothing.
    The libraries load with the first use: most processes have no tenant with a password.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = {_name(key): key for key in reversed(keys)}
        self._newest = _name(keys[0])

    def seal(self, secrets: Mapping[str, Any], place: str) -> bytes | None:
        """Secrets (name → JSON value) for their place; nothing where there are none."""
        if not secrets:
            return None
        nonce = os.urandom(_NONCE_BYTES)
        text = orjson.dumps(dict(secrets), option=orjson.OPT_SORT_KEYS)
        sealed: bytes = _cipher(self._keys[self._newest]).encrypt(nonce, text, place.encode())
        return _FORM + self._newest + nonce + sealed

    def open(self, sealed: bytes | None, place: str) -> dict[str, Any]:
        """What was sealed for this place; empty where there was nothing.

        Raises:
            SecretsUnreadable: its key is not in ``nexus.secret_key``, or these bytes were not sealed for this place.
        """
        if sealed is None:
            return {}
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - see the class

        sealed = bytes(sealed)
        key = self._keys.get(sealed[len(_FORM) : _HEAD]) if sealed.startswith(_FORM) else None
        if key is None:
            raise SecretsUnreadable(
                "Stored secrets are under a key that is not in nexus.secret_key any more: write that key behind the "
                "others, or set the secrets again."
            )
        try:
            text = _cipher(key).decrypt(
                sealed[_HEAD : _HEAD + _NONCE_BYTES], sealed[_HEAD + _NONCE_BYTES :], place.encode()
            )
        except InvalidTag:
            raise SecretsUnreadable("Stored secrets were altered in the database: set them again.") from None
        found: dict[str, Any] = orjson.loads(text)
        return found

    def is_current(self, sealed: bytes) -> bool:
        """Whether it is under the newest key: whatever is not is sealed again before an old key goes."""
        return bytes(sealed[:_HEAD]) == _FORM + self._newest

    def knows(self, sealed: bytes) -> bool:
        """Whether its key is among ours."""
        return sealed[:1] == _FORM and bytes(sealed[len(_FORM) : _HEAD]) in self._keys


def _cipher(key: bytes) -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - see the class

    return AESGCM(key)


def _name(key: bytes) -> bytes:
    """What tells a key from others and says nothing of it."""
    return blake2b(b"name", key=key, digest_size=_NAME_BYTES).digest()


def _entrance_tag(key: bytes, payload: bytes) -> str:
    return blake2b(payload, key=key, digest_size=16).hexdigest()


def _derived(key: bytes, use: bytes) -> bytes:
    return blake2b(use, key=key, digest_size=32).digest()
