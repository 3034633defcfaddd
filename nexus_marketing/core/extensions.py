"""What plugins may add beside channels and storages: actions, conditions, triggers, metrics, approval strategies, erasers,
audit sinks, a tenant resolver.

An implementation needs neither a base class nor Pyramid; frozen dataclasses go in and come out.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from typing import Any, Final, Protocol

_SENDS: Final = re.compile(r"send_([a-z][a-z0-9_]*)\Z")
#: ``send_to_sales_team`` is an action like any other.
_NOT_A_CHANNEL: Final = ("to_",)


class ActionResult(StrEnum):
    """How an action ended; only ``transient`` is tried again."""

    DONE = "done"
    TRANSIENT = "transient"
    PERMANENT = "permanent"


@dataclass(frozen=True, slots=True)
class ActionCall:
    """One call of an action; ``key`` is the same on every attempt, so that what was done is not done twice."""

    tenant_id: int
    key: str
    now: datetime
    lead_id: int | None = None
    campaign_id: int | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ActionOutcome:
    """The answer of an action; ``detail`` is for people."""

    result: ActionResult
    detail: str = ""
    retry_after_seconds: float | None = None


class Action(Protocol):
    """Something that is done by its name: by a trigger, an escalation, a breach, a step."""

    name: str

    def run(self, call: ActionCall) -> ActionOutcome:
        """Do it, at most once for a ``key``."""
        ...


def channel_of_action(name: str) -> str | None:
    """The channel that a step of a sequence writes by; nothing for other actions.

    >>> channel_of_action("send_email"), channel_of_action("send_to_sales_team")
    ('email', None)
    """
    match = _SENDS.match(name)
    return None if match is None or match[1].startswith(_NOT_A_CHANNEL) else match[1]


class ValueKind(StrEnum):
    """What a condition may be told in parentheses."""

    NUMBER = "number"
    TEXT = "text"
    BOOLEAN = "boolean"
    DATE = "date"
    DATETIME = "datetime"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One thing that a condition is told, in the order in which they are written; those that may be left out come last."""

    name: str
    kind: ValueKind
    is_required: bool = True


@dataclass(frozen=True, slots=True)
class ConditionContext:
    """All that a condition decides from: what it was told, what it reads of the lead, and the day.

    Both are by name, without what is missing; dates and moments are canonical text (``2026-03-29``,
    ``2026-03-29T01:30:00.000000Z``), on either side of the sandbox.
    """

    arguments: Mapping[str, Any]
    values: Mapping[str, Any]
    today: date


class ConditionEvaluator(Protocol):
    """A word of one's own in the language of conditions (FR-EXT-002): ``name(argument, …)`` is true or false of a lead.

    It is asked about many leads, in any order and as often as one likes, and answers the same to the same.
    """

    name: str
    #: Raised with every change of what it answers: leads that it chose before are looked at again.
    version: int
    parameters: tuple[Parameter, ...]
    #: The fields of leads that it is given, as conditions spell them: ``country``, ``metadata.plan``.
    reads: frozenset[str]
    #: Whether the day alone may change its answer; it is asked again at midnight then.
    reads_clock: bool

    def evaluate(self, context: ConditionContext) -> bool:
        """Whether it is true; never raises, whatever the values are."""
        ...


class SqlCondition(ConditionEvaluator, Protocol):
    """One that can say itself in the language; the databases then answer it, and ``evaluate`` is its proof."""

    def to_sql(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """The same as JSON of the language: ``{"field": "score", "operator": ">", "value": 50}``, no plugin's word in it."""
        ...


class OccasionKind(StrEnum):
    """What a trigger is asked about."""

    EVENT = "event"
    WEBHOOK = "webhook"
    SCHEDULED = "scheduled"


@dataclass(frozen=True, slots=True)
class Occasion:
    """Something happened, or it is time: ``name`` is that of the event or the hook; ``key`` is the same when told twice.

    Journeys ask about an ``event`` with its metadata in ``data``, beside ``lead_id``, ``at`` and ``type``; ``scheduled`` with
    the moment ``planned``; about a ``webhook`` with what the program said, and ``lead_id`` where it named one. Of the
    latter two ``name`` is the journey's.
    """

    tenant_id: int
    kind: OccasionKind
    name: str
    key: str
    now: datetime
    data: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Firing:
    """A trigger goes off, for a lead or for none; of several with one ``key`` the first counts."""

    key: str
    lead_id: int | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


class Trigger(Protocol):
    """Decides what an occasion sets off (FR-EXT-004)."""

    name: str
    #: What it wants to be asked about.
    kinds: frozenset[OccasionKind]

    def fire(self, occasion: Occasion) -> Sequence[Firing]:
        """What goes off; the same for the same occasion."""
        ...


@dataclass(frozen=True, slots=True)
class Figures:
    """The numbers of a campaign: ``counts`` by event (``accepted``, ``opened``, …), money in minor units of ``currency``."""

    now: datetime
    counts: Mapping[str, int]
    cost_minor: int = 0
    revenue_minor: int = 0
    currency: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


class MetricCalculator(Protocol):
    """Computes a number of a tenant's own (FR-EXT-006); ``unit`` is shown beside it, such as ``%``."""

    name: str
    unit: str

    def calculate(self, figures: Figures) -> float | None:
        """The value; nothing where it is not defined, as a rate of nothing is."""
        ...


@dataclass(frozen=True, slots=True)
class Approval:
    """What somebody said to a request."""

    approver_id: int
    is_granted: bool
    at: datetime
    role: str = ""


@dataclass(frozen=True, slots=True)
class Approvals:
    """All that was said so far, oldest first, of those who were asked."""

    asked: tuple[int, ...]
    given: tuple[Approval, ...]
    now: datetime
    settings: Mapping[str, Any] = field(default_factory=dict)


class ApprovalStrategy(Protocol):
    """Decides when enough has been said (FR-EXT-003)."""

    name: str

    def can_proceed(self, approvals: Approvals) -> bool:
        """Whether the campaign may go on."""
        ...


@dataclass(frozen=True, slots=True)
class Erasure:
    """A lead is erased (GDPR 17): ``lead_ids`` are its own id and those of leads that were merged into it."""

    tenant_id: int
    lead_ids: tuple[int, ...]


class Eraser(Protocol):
    """Clears what a plugin keeps about people. It is asked for every tenant: also those that have the plugin off by now."""

    name: str

    def erase(self, erasure: Erasure) -> int:
        """Clear everything about them; answers how much. May be asked again for the same; raising means later."""
        ...


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One change, as the audit holds it: without personal values, of which there are salted commitments.

    ``id`` is the record's own among those of all tenants, and the same whenever it is told again; ``body`` has for each
    changed field what was ``before`` and ``after``, or a ``commitment``; ``body_hash`` is SHA-256 of it in hexadecimal.
    """

    id: str
    at: datetime
    actor: str
    action: str
    subject_type: str
    subject_id: str
    request_id: str | None
    body: Mapping[str, Any]
    body_hash: str


@dataclass(frozen=True, slots=True)
class AuditBatch:
    """Up to 500 records of one tenant, the oldest first, and what the tenant set for the plugin."""

    tenant_id: int
    settings: Mapping[str, Any]
    records: Sequence[AuditRecord]


class AuditSink(Protocol):
    """Takes a copy of the audit elsewhere: of the tenants that have the plugin on, from then on.

    Each record is told until it was taken, and so perhaps twice. A tenant's records come in the order in which their
    transactions were seen: one that took long may come after a later one.
    """

    name: str

    def write(self, batch: AuditBatch) -> None:
        """Take these for good; raising means that none was taken, and that they are told again later."""
        ...


class Heartbeat(Protocol):
    """A part of ``/__heartbeat__``."""

    name: str

    def answers(self) -> bool:
        """Whether what the plugin needs is there; answers within a second."""
        ...


@dataclass(frozen=True, slots=True)
class TenantMember:
    """Who is signed in, as the application around the product knows it: a member of one tenant.

    ``tenant`` is its name in commands (its slug), ``member`` the e-mail address of the member, which the application must have
    verified, or the member's id as a number. ``scopes`` narrows what the session may do, in the words that keys have; it never
    may more than the member's role.
    """

    tenant: str
    member: str | int
    scopes: frozenset[str] | None = None


class TenantResolver(Protocol):
    """Says for whom a request acts that brings no API key: by a signed session, a client certificate, a single sign-on."""

    def resolve(self, request: Any) -> TenantMember | None:
        """Who is signed in, and for which tenant; nothing where nobody is.

        Args:
            request: Pyramid's, whole. Believe only what is signed or what your own server has put there: never a header, a
                parameter or a cookie that anybody may write.
        """
        ...


@dataclass(frozen=True, slots=True)
class Route:
    """A method of a path below a resource: ``""`` is the resource itself, ``/{id}/lines`` something in it.

    ``permission`` is one that keys have, such as ``leads:read``; ``schema`` is what Cerberus holds a body against.
    """

    method: str
    permission: str
    path: str = ""
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ResourceCall:
    """A request of a tenant whose key has the permission.

    ``names`` are what stands in the path's braces, ``key`` is the caller's ``Idempotency-Key``: the same one means the same
    request again. ``actor`` is who calls, without personal data.
    """

    tenant_id: int
    actor: str
    now: datetime
    method: str
    path: str = ""
    names: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    key: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ResourceAnswer:
    """What goes back, as JSON; with no body the answer is 204. ``status`` is from 200 to 499."""

    body: Any = None
    status: int = 200


class Resource(Protocol):
    """Something of a plugin's own in the API, at ``/api/v1/x/{plugin}/{name}``, for tenants that have the plugin on."""

    name: str
    routes: tuple[Route, ...]

    def answer(self, call: ResourceCall) -> ResourceAnswer:
        """Do it. Refuse with ``ValidationError``, ``NotFound`` or ``Conflict``, in the sandbox with a status from 400."""
        ...
