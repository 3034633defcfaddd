"""Comments on engagements, and the files that belong to them."""

from hashlib import sha256

from sqlalchemy import select

from nexus_marketing.core.engagements import search_words
from nexus_marketing.core.errors import NotFound, ValidationError
from nexus_marketing.core.values import canonical_text
from nexus_marketing.db.models import Engagement, EngagementAttachment, EngagementComment
from nexus_marketing.db.tenancy import find, tenant_of
from nexus_marketing.runtime import Context
from nexus_marketing.services.audit import record

_MAX_NAME = 200


def find_engagement(ctx: Context, engagement_id: int) -> Engagement:
    """An engagement by its id alone, whatever month it is of.

    Raises:
        NotFound: there is none.
    """
    row = ctx.session.scalars(select(Engagement).where(Engagement.id == engagement_id)).one_or_none()
    if row is None:
        raise NotFound(f"There is no engagement {engagement_id}.", id=engagement_id)
    return row


def add_comment(ctx: Context, engagement_id: int, text: str) -> EngagementComment:
    """Write something about an engagement; search finds the engagement by it too.

    Raises:
        NotFound: there is no such engagement.
        ValidationError: the text is blank.
    """
    engagement = find_engagement(ctx, engagement_id)
    words = canonical_text(text, "text").strip()
    if not words:
        raise ValidationError.at("text", "required", "A comment says something.")
    comment = EngagementComment(
        engagement_id=engagement.id,
        tracked_at=engagement.tracked_at,
        lead_id=engagement.lead_id,
        author=ctx.actor.label,
        text=words,
        created_at=ctx.now,
    )
    ctx.session.add(comment)
    more = (search_words(words, {}) or "").split()
    engagement.words = " ".join(dict.fromkeys([*(engagement.words or "").split(), *more])) or None
    ctx.session.flush()
    changes = {"text": (None, words)}
    record(
        ctx,
        "engagement.commented",
        "engagement",
        engagement.id,
        changes,
        personal=("text",),
        lead_id=engagement.lead_id,
    )
    return comment


def add_attachment(
    ctx: Context, engagement_id: int, *, blob_key: str, content: bytes, name: str, content_type: str
) -> EngagementAttachment:
    """Note a file whose bytes lie in the blob store already: what is noted is there.

    Raises:
        NotFound: there is no such engagement.
        ValidationError: the file is empty, or its name is.
    """
    engagement = find_engagement(ctx, engagement_id)
    shown = canonical_text(name, "name").strip()
    if not content:
        raise ValidationError.at("", "empty", "Send the file's bytes as the body.")
    if not 0 < len(shown) <= _MAX_NAME or not shown.isprintable() or "/" in shown or "\\" in shown:
        fault = f"{shown[:60]!a}: give a file name of at most {_MAX_NAME} printable characters without a path."
        raise ValidationError.at("name", "not_a_file_name", fault)
    attachment = EngagementAttachment(
        engagement_id=engagement.id,
        tracked_at=engagement.tracked_at,
        lead_id=engagement.lead_id,
        name=shown,
        content_type=content_type,
        size_bytes=len(content),
        sha256=sha256(content).digest(),
        blob_key=blob_key,
        author=ctx.actor.label,
        created_at=ctx.now,
    )
    ctx.session.add(attachment)
    ctx.session.flush()
    changes = {"attachment": (None, attachment.id), "size_bytes": (None, len(content)), "name": (None, shown)}
    record(
        ctx, "engagement.attached", "engagement", engagement.id, changes, personal=("name",), lead_id=engagement.lead_id
    )
    return attachment


def read_attachment(ctx: Context, attachment_id: int) -> tuple[EngagementAttachment, bytes]:
    """A file and its bytes.

    Raises:
        NotFound: there is no such attachment, or its bytes are gone.
    """
    attachment = find(ctx.session, EngagementAttachment, attachment_id)
    content = ctx.runtime.blobs.get(attachment.blob_key)
    if content is None or sha256(content).digest() != attachment.sha256:
        raise NotFound(f"The bytes of attachment {attachment_id} are gone or were changed: upload the file again.")
    return attachment, content


def remove_attachment(ctx: Context, attachment_id: int) -> None:
    """Remove a file: the note of it now, its bytes once that is durable.

    Raises:
        NotFound: there is no such attachment.
    """
    attachment = find(ctx.session, EngagementAttachment, attachment_id, lock=True)
    key = attachment.blob_key
    record(ctx, "engagement.detached", "engagement", attachment.engagement_id, {"attachment": (attachment.id, None)})
    ctx.session.delete(attachment)
    ctx.session.flush()
    assert key.startswith(f"{tenant_of(ctx.session)}/")  # never another tenant's bytes
    ctx.after_commit(lambda: ctx.runtime.blobs.delete(key))
