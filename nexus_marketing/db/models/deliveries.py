"""The send ledger: sends, one narrow row per recipient, and the chunks that workers lease.

Row size and write count are the design: a ledger row is written twice in its life (planned,
outcome), ``claimed`` and ``handed over`` are derived from the chunk (BEHAVIOUR.md 5.2).
"""

from datetime import date, datetime
from typing import Any

from sqlalchemy import Index, SmallInteger, text, true
from sqlalchemy.orm import Mapped

from nexus_marketing.core.deliveries import OPEN_SENDS, SendStatus
from nexus_marketing.db.base import Base, TenantKeyed, TenantScoped, one_of, personal, plain, tenant_fk

_FINISHED = text("finished_at IS NOT NULL")
_UNREPORTED = text("reported_at IS NULL AND status IN ('missed', 'failed', 'paused', 'completed')")
_JOINING = text("legs > 1 AND joined_at IS NULL")
_UNSETTLED = text("status = 'cancelled' AND finished_at IS NULL")
_UNTOLD = text("step <> '' AND settled_at IS NOT NULL AND told_at IS NULL")
_OPEN = text("status IN ({})".format(", ".join(f"'{status}'" for status in OPEN_SENDS)))


class Send(TenantKeyed, Base):
    """One launch of a message to an audience by one channel; everything it needs is pinned when it is planned.

    A launch over several channels is a send for each of them, so that each has its own limits, retries and breaker,
    and none waits for another. The first has the audience, which the others take over from its ledger; it
    remembers when the launch was through.

    ``plan_cursor`` is the last lead planned: planning commits in pieces and goes on from there.
    """

    __tablename__ = "marketing_sends"
    __table_args__ = (
        one_of("status", SendStatus),
        tenant_fk("campaign_id", "marketing_campaigns"),
        tenant_fk(["template_id", "template_version"], "marketing_template_versions", ["template_id", "number"]),
        Index(
            "uq_marketing_sends_open",
            "tenant_id",
            "campaign_id",
            "campaign_version",
            "occurrence_key",
            "channel",
            unique=True,
            postgresql_where=_OPEN,
            sqlite_where=_OPEN,
        ),
        Index(
            "ix_marketing_sends_working",
            "status",
            "tenant_id",
            "id",
            postgresql_where=_OPEN,
            sqlite_where=_OPEN,
        ),
        # For the sweep that tells campaigns how their sends ended: its size is what was not told yet.
        Index(
            "ix_marketing_sends_unreported",
            "tenant_id",
            "id",
            postgresql_where=_UNREPORTED,
            sqlite_where=_UNREPORTED,
        ),
        # The channels of a launch, and launches whose channels somebody waits for.
        Index(
            "ix_marketing_sends_launch",
            "tenant_id",
            "launch_id",
            postgresql_where=text("launch_id IS NOT NULL"),
            sqlite_where=text("launch_id IS NOT NULL"),
        ),
        Index("ix_marketing_sends_joining", "tenant_id", "id", postgresql_where=_JOINING, sqlite_where=_JOINING),
        # What ended of late may hold a use of a frequency cap; what ended long ago need not be looked at.
        Index(
            "ix_marketing_sends_finished",
            "tenant_id",
            "finished_at",
            postgresql_where=_FINISHED,
            sqlite_where=_FINISHED,
        ),
        # For the sweep that settles what was cancelled: its size is what waits, not what was ever cancelled.
        Index(
            "ix_marketing_sends_unsettled",
            "tenant_id",
            "id",
            postgresql_where=_UNSETTLED,
            sqlite_where=_UNSETTLED,
        ),
    )

    campaign_id: Mapped[int] = plain()
    #: Of a journey's message: which journey. Its recipients come one by one, so that it is never through by itself;
    #: ``campaign_version`` is then the journey's version, and ``occurrence_key`` the node.
    journey_id: Mapped[int | None] = plain()
    campaign_version: Mapped[int] = plain()
    occurrence_key: Mapped[str] = plain()
    #: The first send of a launch over several channels; nothing for itself.
    launch_id: Mapped[int | None] = plain()
    #: How many channels the launch has, and how many of them have to be through before the campaign goes on.
    legs: Mapped[int] = plain(SmallInteger, server_default=text("1"))
    wait_for: Mapped[int] = plain(SmallInteger, server_default=text("1"))
    #: When they were; of the first send alone.
    joined_at: Mapped[datetime | None] = plain()
    status: Mapped[str] = plain()
    status_reason: Mapped[str | None] = plain()
    message_class: Mapped[str] = plain()
    channel: Mapped[str] = plain()
    segment_id: Mapped[int | None] = plain()
    template_id: Mapped[int] = plain()
    template_version: Mapped[int] = plain()
    sender: Mapped[dict[str, Any]] = plain()
    #: Of the campaign, as it was at the launch.
    local_start: Mapped[str | None] = plain()
    priority: Mapped[int] = plain(SmallInteger, server_default=text("50"))
    obeys_caps: Mapped[bool] = plain(server_default=true())
    counts_toward_caps: Mapped[bool] = plain(server_default=true())
    #: Of a journey's message beside the tenant's; and whether it keeps any, where the message's class does not say it.
    quiet_hours: Mapped[list[Any] | None] = plain()
    obeys_quiet_hours: Mapped[bool | None] = plain()
    plan_cursor: Mapped[int] = plain(server_default=text("0"))
    planned: Mapped[int] = plain(server_default=text("0"))
    #: When the audience was frozen whole; nobody is added after it.
    planned_at: Mapped[datetime | None] = plain()
    send_not_after: Mapped[datetime] = plain()
    created_at: Mapped[datetime] = plain()
    started_at: Mapped[datetime | None] = plain()
    finished_at: Mapped[datetime | None] = plain()
    #: When its campaign was told how it ended.
    reported_at: Mapped[datetime | None] = plain()
    #: Of a post: what its network showed of it last (``services.reactions``).
    reactions: Mapped[dict[str, Any] | None] = plain()


class Delivery(TenantScoped, Base):
    """What became of one recipient of one send."""

    __tablename__ = "marketing_deliveries"
    __table_args__ = (
        tenant_fk("send_id", "marketing_sends"),
        Index(
            "uq_marketing_deliveries_recipient",
            "tenant_id",
            "send_id",
            "step",
            "occurrence",
            "lead_id",
            "channel",
            unique=True,
        ),
        Index(
            "uq_marketing_deliveries_address",
            "tenant_id",
            "send_id",
            "channel",
            "address_hash",
            unique=True,
            postgresql_where=text("address_hash IS NOT NULL"),
            sqlite_where=text("address_hash IS NOT NULL"),
        ),
        Index(
            "ix_marketing_deliveries_due",
            "tenant_id",
            "send_id",
            "due_at",
            postgresql_where=text("due_at IS NOT NULL"),
            sqlite_where=text("due_at IS NOT NULL"),
        ),
        # With the send: the gate asks what a lead got of late, and sends that are over for long need not be read.
        Index("ix_marketing_deliveries_lead", "tenant_id", "lead_id", "send_id"),
        # For the sweep that tells runs of journeys what became of their messages: its size is what was not told yet.
        Index(
            "ix_marketing_deliveries_untold",
            "tenant_id",
            "send_id",
            "seq",
            postgresql_where=_UNTOLD,
            sqlite_where=_UNTOLD,
        ),
    )

    send_id: Mapped[int] = plain(primary_key=True, autoincrement=False)
    seq: Mapped[int] = plain(primary_key=True, autoincrement=False)
    lead_id: Mapped[int] = plain()
    occurrence: Mapped[int] = plain(server_default=text("0"))
    attempts: Mapped[int] = plain(SmallInteger, server_default=text("0"))
    step: Mapped[str] = plain(server_default=text("''"))
    channel: Mapped[str] = plain()
    state: Mapped[str] = plain()
    reason: Mapped[str | None] = plain()
    address_hash: Mapped[bytes | None] = personal()
    due_at: Mapped[datetime | None] = plain()
    settled_at: Mapped[datetime | None] = plain()
    provider_code: Mapped[str | None] = plain()
    #: When the run of the journey that wrote it was told.
    told_at: Mapped[datetime | None] = plain()


class DeliveryChunk(TenantScoped, Base):
    """A piece of a send that one worker holds at a time.

    ``fence`` grows with each claim and recovery: a commit under an old fence changes nothing.
    ``intent_lo``..``intent_hi`` are the ``seq`` that may be on the wire. ``seqs`` lists the rows of
    a retry chunk; an ordinary chunk covers ``seq_lo``..``seq_hi``.
    """

    __tablename__ = "marketing_delivery_chunks"
    __table_args__ = (
        tenant_fk("send_id", "marketing_sends"),
        Index(
            "ix_marketing_delivery_chunks_open",
            "tenant_id",
            "send_id",
            "chunk_no",
            postgresql_where=text("closed_at IS NULL"),
            sqlite_where=text("closed_at IS NULL"),
        ),
        Index(
            "ix_marketing_delivery_chunks_leased",
            "lease_until",
            postgresql_where=text("closed_at IS NULL AND lease_until IS NOT NULL"),
            sqlite_where=text("closed_at IS NULL AND lease_until IS NOT NULL"),
        ),
        Index(
            "ix_marketing_delivery_chunks_waiting",
            "tenant_id",
            "send_id",
            "waits_for",
            "chunk_no",
            postgresql_where=text("closed_at IS NULL AND waits_for IS NOT NULL"),
            sqlite_where=text("closed_at IS NULL AND waits_for IS NOT NULL"),
        ),
    )

    send_id: Mapped[int] = plain(primary_key=True, autoincrement=False)
    chunk_no: Mapped[int] = plain(primary_key=True, autoincrement=False)
    seq_lo: Mapped[int] = plain()
    seq_hi: Mapped[int] = plain()
    seqs: Mapped[list[Any] | None] = plain()
    worker: Mapped[str | None] = plain()
    fence: Mapped[int] = plain(server_default=text("0"))
    claims: Mapped[int] = plain(SmallInteger, server_default=text("0"))
    lease_until: Mapped[datetime | None] = plain()
    #: The channel account that its messages leave by under this claim.
    account: Mapped[int | None] = plain()
    intent_lo: Mapped[int | None] = plain()
    intent_hi: Mapped[int | None] = plain()
    closed_at: Mapped[datetime | None] = plain()
    #: Workers that ended one after the other over these recipients, while they made their messages.
    crashes: Mapped[int] = plain(SmallInteger, server_default=text("0"))
    doubt_lo: Mapped[int | None] = plain()
    doubt_hi: Mapped[int | None] = plain()
    #: All that is left of it waits for the rate of this domain, or of others that fall under the same limits.
    waits_for: Mapped[str | None] = plain()


class SendGrant(TenantKeyed, Base):
    """So many messages were allowed to leave then: what the windows of send rates are counted from."""

    __tablename__ = "marketing_send_grants"
    __table_args__ = (Index("ix_marketing_send_grants_at", "tenant_id", "channel", "send_id", "at"),)

    channel: Mapped[str] = plain()
    #: The address that they leave from, and where a limit names it the domain that they go to.
    sender: Mapped[str | None] = plain()
    domain: Mapped[str | None] = plain()
    #: The channel account that they leave by, where the tenant has one.
    account: Mapped[int | None] = plain()
    #: Of the windows of this send's own rates; nothing: of those that sends share.
    send_id: Mapped[int | None] = plain()
    at: Mapped[datetime] = plain()
    granted: Mapped[int] = plain()


class SenderWarmUp(TenantScoped, Base):
    """Where a new sender stands in its plan of warming up: ``step`` is the number of its day, ``day`` when it is that."""

    __tablename__ = "marketing_warm_ups"

    sender: Mapped[str] = plain(primary_key=True)
    step: Mapped[int] = plain(SmallInteger)
    day: Mapped[date] = plain()


class SendFeedback(TenantScoped, Base):
    """What providers told of a send: ``moves`` counts rows that went on, the others rows that stand there now.

    ``forgiven_…`` are the numbers at which the send last stopped itself: whoever resumed it gave it a new chance.
    """

    __tablename__ = "marketing_send_feedback"
    __table_args__ = (tenant_fk("send_id", "marketing_sends"),)

    send_id: Mapped[int] = plain(primary_key=True, autoincrement=False)
    moves: Mapped[int] = plain(server_default=text("0"))
    bounced: Mapped[int] = plain(server_default=text("0"))
    complained: Mapped[int] = plain(server_default=text("0"))
    forgiven_taken: Mapped[int] = plain(server_default=text("0"))
    forgiven_bounced: Mapped[int] = plain(server_default=text("0"))
    forgiven_complained: Mapped[int] = plain(server_default=text("0"))


class ProviderReport(TenantKeyed, Base):
    """Something that a provider told, as the web process took it in; a worker acts on it and takes it out.

    ``tries`` counts how often it was put back because its message was not settled yet.
    """

    __tablename__ = "marketing_provider_reports"
    __table_args__ = (Index("ix_marketing_provider_reports_due", "tenant_id", "due_at"),)

    received_at: Mapped[datetime] = plain()
    due_at: Mapped[datetime] = plain()
    tries: Mapped[int] = plain(SmallInteger, server_default=text("0"))
    channel: Mapped[str] = plain()
    provider: Mapped[str] = plain()
    body: Mapped[dict[str, Any]] = personal()
