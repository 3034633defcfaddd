"""A send stops itself when its recipients complain, or do not exist (BEHAVIOUR.md 5.2, Circuit breakers)."""

from functools import partial

from sqlalchemy import select

from nexus_marketing.core.actors import SYSTEM
from nexus_marketing.core.deliveries import SendStatus
from nexus_marketing.core.pacing.breaker import MAX_BOUNCED
from nexus_marketing.core.pacing.feedback import alarm_of, sample_needed
from nexus_marketing.db.models import Send, Tenant
from nexus_marketing.db.queries.planning import set_send_status
from nexus_marketing.db.queries.provider_reports import feedback_of, forgive
from nexus_marketing.db.tenancy import find
from nexus_marketing.runtime import Runtime
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)


def judge_send(runtime: Runtime, tenant_id: int, send_id: int) -> None:
    """Look at what was told of a send, in a transaction of its own: others wait for its row."""
    with runtime.work(tenant_id, SYSTEM) as ctx:
        settings = ctx.session.scalar(select(Tenant.settings).where(Tenant.id == tenant_id)) or {}
        most = float(settings.get("max_bounced", MAX_BOUNCED))
        heard = feedback_of(ctx.session, send_id, partial(sample_needed, max_bounced=most))
        alarm = None if heard is None else alarm_of(heard.now.since(heard.forgiven), most)
        if heard is None or alarm is None:
            return
        log.warning("recipients_object", tenant_id=tenant_id, send_id=send_id, reason=alarm.reason)
        runtime.telemetry.count("hooks.alarms", paused=str(alarm.must_pause).lower())
        if alarm.must_pause and find(ctx.session, Send, send_id, lock=True).status == SendStatus.RUNNING:
            set_send_status(ctx.session, send_id, SendStatus.PAUSED, alarm.reason[:200])
            forgive(ctx.session, send_id, heard.now)
            runtime.telemetry.count("delivery.send_stopped_itself")
