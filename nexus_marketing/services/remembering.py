"""Values that take long to compute and may be asked for often, kept in the runtime's cache (SCL-006).

Nothing is ever removed from the cache to keep it true. Either the key names everything that the value was computed from, or
the value is an estimate that says when it was made. Consent, suppression and membership are read from their tables, always.
"""

import hashlib
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import orjson

from nexus_marketing.runtime import Context
from nexus_marketing.version import __version__


def key_of(kind: str, *parts: Any) -> str:
    """A key that holds no text of a tenant's, and is another one for other parts and in another version of the product."""
    digest = hashlib.blake2b(
        orjson.dumps([__version__, *parts], default=str, option=orjson.OPT_SORT_KEYS), digest_size=16
    )
    return f"{kind}:{digest.hexdigest()}"


def remembered(
    ctx: Context, key: str, lifetime: timedelta, compute: Callable[[], Any], *, keep: Callable[[Any], bool] = bool
) -> Any:
    """A value of the tenant's, computed where it is not known.

    Args:
        ctx: the unit of work; it should only read: what it has not committed must not get into the cache.
        key: of :func:`key_of`.
        lifetime: how long it is kept.
        compute: what makes it; anything that JSON can say.
        keep: whether the computed value is one to keep.
    """
    cache, tenant_id = ctx.runtime.cache, ctx.tenant_id
    if tenant_id is None:
        return compute()
    found = cache.get(tenant_id, key)
    if found is not None:
        return orjson.loads(found)
    value = compute()
    if keep(value):
        cache.put(tenant_id, key, orjson.dumps(value), lifetime)
    return value
