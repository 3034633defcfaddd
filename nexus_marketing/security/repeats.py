"""Requests that carry an ``Idempotency-Key``: the same for REST and for GraphQL mutations."""

from dataclasses import dataclass
from hashlib import sha256

import orjson
from pyramid.request import Request

from nexus_marketing.core.errors import ValidationError
from nexus_marketing.runtime import Context
from nexus_marketing.services.idempotency import MAX_KEY_CHARACTERS, Answer, keep, recall


@dataclass(frozen=True, slots=True)
class Repeatable:
    """A request whose answer is kept under a key."""

    key: str
    fingerprint: bytes

    def recall(self, context: Context) -> Answer | None:
        """The answer kept, or ``None``: then the key is ours. Must be the context's first statement."""
        return recall(context, self.key, self.fingerprint)

    def keep(self, context: Context, answer: Answer) -> None:
        """Keep the answer in the transaction of the effect."""
        keep(context, self.key, self.fingerprint, answer)


def repeatable(request: Request) -> Repeatable | None:
    """The key of a request, if it carries one; on SQLite it is taken here and let go with the request.

    Raises:
        ValidationError: the key is empty, too long or not plain text.
        KeyInFlight: another request of this process has it.
    """
    key: str | None = request.environ.get("HTTP_IDEMPOTENCY_KEY")
    if key is None:
        return None
    if not 0 < len(key) <= MAX_KEY_CHARACTERS or not key.isascii() or not key.isprintable():
        raise ValidationError.at(
            "Idempotency-Key",
            "bad_idempotency_key",
            f"Idempotency-Key takes 1 to {MAX_KEY_CHARACTERS} printable ASCII characters.",
        )
    registry = request.registry
    if registry["nexus.runtime"].engines.dialect != "postgresql":
        leave = registry["nexus.keys_in_flight"].enter(request.identity.tenant_id, key)
        request.add_finished_callback(lambda _request: leave())
    return Repeatable(key, _fingerprint(request))


def _fingerprint(request: Request) -> bytes:
    """What makes two requests the same one: method, path, condition and the body's meaning."""
    try:
        body = orjson.dumps(orjson.loads(request.body), option=orjson.OPT_SORT_KEYS)
    except orjson.JSONDecodeError:
        body = request.body
    parts = [request.method, request.path_qs, request.environ.get("HTTP_IF_MATCH", "")]
    if request.identity.is_ambient:  # what one person was answered is not for another
        parts.insert(0, request.identity.actor.label)  # where keys have a method, which holds no colon
    return sha256(b"\x00".join([*(part.encode() for part in parts), body])).digest()
