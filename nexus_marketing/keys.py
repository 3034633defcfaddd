"""Keyed hashes that must be the same in every process: addresses for suppression and uniqueness."""

from collections.abc import Iterable
from hashlib import blake2b

from nexus_marketing.core.tracking import TokenSigner


class Keys:
    """The secrets of an installation, each use under a name of its own."""

    def __init__(self, secret_keys: tuple[bytes, ...]) -> None:
        self.tokens = TokenSigner([_derived(key, b"tokens") for key in secret_keys])
        # Address hashes are stored for good, so they stay under the oldest key when keys rotate.
        self._address = blake2b(key=_derived(secret_keys[-1], b"addresses"), digest_size=16)
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

    def cursor_tag(self, payload: bytes) -> bytes:
        """8 bytes that prove a page cursor is ours."""
        return blake2b(payload, key=self._cursor, digest_size=8).digest()


def _derived(key: bytes, use: bytes) -> bytes:
    return blake2b(use, key=key, digest_size=32).digest()
