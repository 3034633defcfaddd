"""Makes a message again as it left: from the values that were kept and all that a send pins (DESIGN.md 4.20).

A block holds, for everybody in one claim of a chunk, the lead's columns that the message uses; of its document only the
values that the message names. With the template version, the sender, our URLs, the key that signed the links and the moment
of the claim, that is every byte. Tokens are signed again, so that no block holds one.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

import orjson
from sqlalchemy.orm import Session

from nexus_marketing.core.contracts import Rendered, RenderingChannel
from nexus_marketing.core.errors import Gone, NotFound
from nexus_marketing.core.values import parse_datetime
from nexus_marketing.db.models import Send
from nexus_marketing.db.queries.deliveries import ChunkClaim, Recipient
from nexus_marketing.db.queries.renders import (
    blocks_about,
    blocks_of,
    forget_blocks,
    keep_block,
    old_blocks,
    replace_block,
)
from nexus_marketing.db.tenancy import open_session
from nexus_marketing.db.types import read_json
from nexus_marketing.delivery.composing import Composer, load_content
from nexus_marketing.runtime import Runtime
from nexus_marketing.version import __version__

#: Fast rather than small: a block is written before each chunk.
_LEVEL = 1
#: Blocks that are looked up to be deleted, at a time.
_PIECE = 500


class Kept(NamedTuple):
    """One recipient of a block, and what holds for all of it."""

    seq: int
    lead_id: int
    address: str | None
    lead: tuple[Any, ...]
    at: datetime
    public_url: str
    key: str
    version: str


@dataclass(frozen=True, slots=True)
class Again:
    """A message that was made again: ``made_by`` and ``sent_by`` are versions of the product."""

    rendered: Rendered
    at: datetime
    made_by: str
    sent_by: str


def keep(session: Session, claim: ChunkClaim, rows: Sequence[Recipient], composer: Composer) -> None:
    """Write down what the messages of a claim will be made of; in the transaction of the claim."""
    if not rows:
        return
    head = {
        "at": composer.at.isoformat(),
        "public_url": composer.public_url,
        "key": composer.key,
        "version": __version__,
        "rows": [[row.seq, row.lead_id, row.address, composer.used(row.lead)] for row in rows],
    }
    keep_block(session, claim, [row.seq for row in rows], composer.at, zlib.compress(orjson.dumps(head), _LEVEL))


def make_again(runtime: Runtime, session: Session, send: Send, seq: int) -> Again:
    """The message of one recipient of a send.

    Raises:
        NotFound: what it was made of was not kept, or its channel is not here or makes no bytes.
        Gone: it was erased.
    """
    kept = _kept(session, send, seq)
    channel = runtime.channels.get(send.channel)
    settings = runtime.channel_settings(session, send.channel)
    if channel is None or settings is None or not isinstance(channel, RenderingChannel):
        raise NotFound(f"Nothing here can make messages of {send.channel} again.")
    content = load_content(session, send, channel.capabilities.address_kind)
    try:
        composer = Composer(runtime, content, public_url=kept.public_url, key=kept.key)
    except KeyError:
        raise NotFound("The key that signed the message's links is in nexus.secret_key no more.") from None
    composer.at = kept.at
    row = Recipient(kept.seq, kept.lead_id, 0, None, kept.address, None, None, None, kept.lead)
    (submission,) = composer.compose([row], [0])
    if isinstance(submission, str):
        raise NotFound(f"The message cannot be made again: {submission} is missing.")
    rendered = channel.render({**content.sender, **settings}, content.content(kept.public_url), submission)
    return Again(rendered, kept.at, __version__, kept.version)


def erase_renders(session: Session, lead_ids: Sequence[int], size: int) -> int:
    """Take these leads out of up to ``size`` blocks; answers of how many, fewer when none are left."""
    found = blocks_about(session, lead_ids, size)
    blocks: dict[tuple[int, int, int], list[Any]] = {}
    for row in found:
        blocks.setdefault((row.send_id, row.chunk_no, row.fence), []).append(row)
    for rows in blocks.values():
        gone = {row.seq for row in rows}
        head = orjson.loads(zlib.decompress(rows[0].block))
        head["rows"] = [each for each in head["rows"] if each[0] not in gone]
        erased = sorted(gone | set(read_json(rows[0].erased)))
        replace_block(session, rows[0], zlib.compress(orjson.dumps(head), _LEVEL), erased)
    return len(found)


def _kept(session: Session, send: Send, seq: int) -> Kept:
    for row in blocks_of(session, send.id, seq):
        if seq in read_json(row.erased):
            raise Gone("What the message was made of has been erased with its lead.")
        head = orjson.loads(zlib.decompress(row.block))
        for found, lead_id, address, lead in head["rows"]:
            if found == seq:
                about = (parse_datetime(head["at"]), head["public_url"], head["key"], head["version"])
                return Kept(seq, lead_id, address, tuple(lead), *about)
    raise NotFound("What the message was made of was not kept, or not for so long (nexus.keep_renders_days).")


def forget_renders(runtime: Runtime) -> None:
    """Let go of what was kept for longer than the settings say."""
    before = runtime.clock.now() - timedelta(days=runtime.settings.keep_renders_days)
    found: list[Any] = [None] * _PIECE
    while len(found) == _PIECE:
        with open_session(runtime.engines.worker, tenant_id=None, mode="read") as session:
            found = old_blocks(session, before, _PIECE)
        for tenant_id, rows in groupby(sorted(found), key=itemgetter(0)):
            with open_session(runtime.engines.worker, tenant_id=tenant_id) as session, session.begin():
                forget_blocks(session, list(rows))
