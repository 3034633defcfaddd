"""Two leads of one person become one; old ids, links and programs find the one that stays.

Consent is never weakened: a withdrawal of either holds for the person, and what keeps messages from one
address because its owner wished so keeps them from the others too.
"""

from collections.abc import Mapping, Sequence

from sqlalchemy import update

from nexus_marketing.core.audience import (
    MERGE_FIELDS,
    MergePolicy,
    RemovalKind,
    merged_values,
    read_policy,
)
from nexus_marketing.core.audience.fields import METADATA_LIMITS
from nexus_marketing.core.errors import NotFound, StaleVersion, ValidationError
from nexus_marketing.core.events import LeadMerged, LeadUpdated
from nexus_marketing.core.privacy import ConsentState, SuppressionReason
from nexus_marketing.core.values import Canonical, canonical
from nexus_marketing.db.models import Lead, LeadRemoval
from nexus_marketing.db.queries import removals as queries
from nexus_marketing.db.queries.privacy import consent_states
from nexus_marketing.db.tenancy import find
from nexus_marketing.runtime import Context
from nexus_marketing.services.audit import record
from nexus_marketing.services.leads.lookup import refuse_gone
from nexus_marketing.services.leads.records import PERSONAL, flush_lead, stored
from nexus_marketing.services.leads.removals import addresses_of, begin_removal, empty_lead
from nexus_marketing.services.privacy import address_hash, record_consent, suppress_hash
from nexus_marketing.services.scores.marks import mark_changed, take_over_points
from nexus_marketing.services.segments.marks import mark_leads

_SOURCE = "merge"
#: A mailbox that does not exist says nothing about its owner's other one.
_OF_THE_ADDRESS = frozenset({SuppressionReason.BOUNCED})
_ANY_CHANNEL = "all"
Values = dict[str, Canonical]


def merge_leads(
    ctx: Context,
    winner_id: int,
    loser_id: int,
    policy: Mapping[str, object] | None = None,
    *,
    expected_version: int | None = None,
) -> Lead:
    """Merge one lead into another, which stays. Again, it changes nothing.

    Messages that were sent keep pointing at the lead that went; engagements, consent, memberships and
    messages still to be sent become the winner's, those that may be many right after commit. Where rules make the
    lead's score, it follows from what both did; the policy's word for it holds where there are none.

    Args:
        winner_id: the lead that stays.
        loser_id: the lead that goes.
        policy: what happens to each field (``core.audience.read_policy``).
        expected_version: of the winner.

    Raises:
        NotFound: there is no winner; ``Merged`` and ``Gone`` where there was.
        ValidationError: at ``from``, there is no such other lead; or a word of the policy is none.
        StaleVersion: ``expected_version`` is not the winner's current one.
    """
    chosen = read_policy(policy or {})
    if winner_id == loser_id:
        raise ValidationError.at("from", "same_lead", "A lead is not merged with itself: name the other one.")
    winner, loser = _lock_both(ctx, winner_id, loser_id)
    if loser.merged_into == winner.id:
        return winner
    if loser.gone_at is not None:
        raise ValidationError.at("from", "gone", f"Lead {loser_id} has been erased or merged elsewhere.")
    if expected_version is not None and winner.version != expected_version:
        raise StaleVersion(
            f"The lead is at version {winner.version}, not {expected_version}: load it and try again.",
            current=winner.version,
        )
    _merge(ctx, winner, loser, chosen)
    return winner


def _lock_both(ctx: Context, winner_id: int, loser_id: int) -> tuple[Lead, Lead]:
    """In the order of their ids, so that two merges of the same leads wait for each other."""
    found: dict[int, Lead] = {}
    missing: dict[int, NotFound] = {}
    for lead_id in sorted((winner_id, loser_id)):
        try:
            found[lead_id] = find(ctx.session, Lead, lead_id, lock=True)
        except NotFound as error:
            missing[lead_id] = error  # both are looked for first: what is missing takes as long as what is not
    if winner_id in missing:
        raise missing[winner_id]
    refuse_gone(found[winner_id])
    if loser_id in missing:
        raise ValidationError.at("from", "not_found", f"There is no lead {loser_id}.")
    return found[winner_id], found[loser_id]


def _merge(ctx: Context, winner: Lead, loser: Lead, policy: Mapping[str, MergePolicy]) -> None:
    values = merged_values(_values(winner), _values(loser), policy)
    values["metadata"] = canonical(values["metadata"], "metadata", METADATA_LIMITS)
    wishes = _wishes(ctx, [*addresses_of(ctx, winner), *addresses_of(ctx, loser)])
    withdrawn = _withdrawn(ctx, winner.id) | _withdrawn(ctx, loser.id)
    before = {name: value for name, value in empty_lead(ctx, loser).items() if value not in (None, [], {})}
    ctx.session.execute(update(Lead).where(Lead.merged_into == loser.id).values(merged_into=winner.id))
    loser.merged_into = winner.id
    counts = {"marketing_consents": queries.move_consents(ctx.session, loser.id, winner.id)}
    joined = queries.move_memberships(ctx.session, loser.id, winner.id)
    counts["marketing_segment_members"] = joined
    queries.follow_messages(ctx.session, loser.id, winner.id)
    queries.leave_segments(ctx.session, [loser.id])
    if take_over_points(ctx, loser.id, winner.id):
        values["score"] = winner.score  # it follows from the points of both
    mark_leads(ctx, [winner.id, loser.id])
    _take_over(ctx, winner, loser.id, values)
    _keep_withdrawals(ctx, winner.id, withdrawn)
    _keep_wishes(ctx, winner, wishes)
    removal = LeadRemoval(
        lead_id=loser.id,
        kind=RemovalKind.MERGED,
        into_id=winner.id,
        actor=ctx.actor.label,
        at=ctx.now,
        policy={name: str(word) for name, word in policy.items()},
        counts=counts,
        before=before,
    )
    begin_removal(ctx, removal)
    ctx.emit(LeadMerged(winner.tenant_id, ctx.now, winner.id, loser.id))
    ctx.emit(LeadUpdated(winner.tenant_id, ctx.now, winner.id))


def _values(lead: Lead) -> Values:
    names = (*MERGE_FIELDS, "email_norm", "first_name", "last_name")
    return {name: stored(lead, name) for name in names}


def _take_over(ctx: Context, winner: Lead, loser_id: int, values: Values) -> None:
    changes: dict[str, tuple[object, object]] = {"from": (None, str(loser_id))}
    for name, after in values.items():
        if stored(winner, name) != after:
            changes[name] = (stored(winner, name), after)
            setattr(winner, "attributes" if name == "metadata" else name, after)
    winner.version += 1
    winner.updated_at = ctx.now
    flush_lead(ctx)
    mark_changed(ctx, [winner.id])
    record(ctx, "lead.merged", "lead", winner.id, changes, personal=PERSONAL, lead_id=winner.id)


def _withdrawn(ctx: Context, lead_id: int) -> set[tuple[str, str]]:
    """(channel, type) of which a lead has withdrawn its consent."""
    folds = queries.consent_folds(ctx.session, lead_id)
    return {
        (row.channel, row.type)
        for row in folds
        if consent_states(ctx.session, [lead_id], row.channel, row.type).get(lead_id) is ConsentState.REVOKED
    }


def _keep_withdrawals(ctx: Context, winner_id: int, withdrawn: set[tuple[str, str]]) -> None:
    """A grant of the one that is newer than a withdrawal of the other does not undo it."""
    for channel, type_ in sorted(withdrawn):
        state = consent_states(ctx.session, [winner_id], channel, type_).get(winner_id)
        if state is not ConsentState.REVOKED:
            record_consent(ctx, winner_id, granted=False, source=_SOURCE, channel=channel, type=type_)


def _wishes(ctx: Context, addresses: Sequence[tuple[str, str]]) -> set[tuple[str, str, str]]:
    """(channel, type, reason) of what people wished for one of these addresses."""
    hashes = [address_hash(ctx, address) for _, address in addresses]
    standing = queries.standing_suppressions(ctx.session, hashes)
    return {(row.channel, row.type, row.reason) for row in standing if row.reason not in _OF_THE_ADDRESS}


def _keep_wishes(ctx: Context, winner: Lead, wishes: set[tuple[str, str, str]]) -> None:
    own = {"email": winner.email_norm, "phone": winner.phone}
    hashes = {kind: address_hash(ctx, address) for kind, address in own.items() if address}
    standing = queries.standing_suppressions(ctx.session, sorted(hashes.values()))
    known = {(bytes(row.address_hash), row.channel, row.type) for row in standing}
    for channel, type_, reason in sorted(wishes):
        for kind, hashed in hashes.items():
            is_meant = channel == _ANY_CHANNEL or (channel == "email") == (kind == "email")
            if is_meant and (hashed, channel, type_) not in known:
                known.add((hashed, channel, type_))
                suppress_hash(ctx, hashed, reason=reason, source=_SOURCE, channel=channel, type=type_)
