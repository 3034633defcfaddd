"""What a blob's key may be."""

import re

from nexus_marketing.core.errors import ConfigurationError

_KEY = re.compile(r"[0-9]{1,19}/[0-9a-f]{32,64}")


def checked(key: str) -> str:
    """A key as this product makes them, so that none leads out of its tenant's place.

    Raises:
        ConfigurationError: it is no such key.
    """
    if not _KEY.fullmatch(key):
        raise ConfigurationError(f"{key[:80]!r} is no key of this store: write tenant/hexadecimal.")
    return key
