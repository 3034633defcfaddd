"""The rules of a tenant's segments, read once each: as predicates, as SQL, and what they depend on."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import orjson
from sqlalchemy import ColumnElement, Row, select

from nexus_marketing.core.conditions import (
    AllOf,
    AnyOf,
    Condition,
    Consented,
    Custom,
    Evaluation,
    EventCount,
    FieldRef,
    FieldType,
    InSegment,
    Leaf,
    Not,
    Operator,
    Predicate,
    Schema,
    Scored,
    Split,
    Vocabulary,
    compile_predicate,
    dependencies,
    parse,
    segment_schema,
    split,
)
from nexus_marketing.core.conditions import lead_schema as standard_schema
from nexus_marketing.core.conditions.limits import refuse
from nexus_marketing.core.conditions.schema import nearest
from nexus_marketing.core.conditions.tree import ConsentIs, Fact, leaves
from nexus_marketing.core.errors import ConditionUnavailable
from nexus_marketing.core.segments import SegmentKind, names_read, score_name, segments_read
from nexus_marketing.db.conditions import Moving, Related, compile_condition, moving_values
from nexus_marketing.db.models import Score, Segment
from nexus_marketing.db.queries import segments as queries
from nexus_marketing.db.tenancy import tenant_of
from nexus_marketing.runtime import Context
from nexus_marketing.services.leads.fields import declared_fields
from nexus_marketing.services.plugins.conditions import conditions_of

#: Rules kept parsed and compiled in this process: some hundred tenants' worth.
_KEPT: Final = 5_000
#: Kinds whose rule decides for ever.
RULED: Final = (SegmentKind.DYNAMIC, SegmentKind.COMPOSITE)
_Key = tuple[int | None, int, bytes, frozenset[tuple[str, FieldType]], Vocabulary]
_rules: "OrderedDict[_Key, Rule]" = OrderedDict()


def lead_schema(ctx: Context) -> Schema:
    """The names that this tenant's conditions may use: the lead's, those its settings declare, and those of plugins."""
    return standard_schema(declared_fields(ctx)).with_plugins(conditions_of(ctx))


def rule_schema(ctx: Context, *, is_saved: bool = False) -> Schema:
    """The same, and what rules of segments may ask beside: events, segments, consent; ``is_saved`` for those that are."""
    return segment_schema(declared_fields(ctx)).with_plugins(conditions_of(ctx, is_saved=is_saved))


@dataclass(frozen=True)
class Rule:
    """A segment's condition, read with the fields that the tenant declares."""

    segment_id: int
    condition: Condition
    schema: Schema

    @cached_property
    def depends_on(self) -> list[str]:
        """The names that it reads, and its own: what is meant for this segment alone (``core.segments``)."""
        return names_read(dependencies(self.condition, self.schema), self.schema)

    @cached_property
    def predicate(self) -> Predicate:
        """The rule as a function of one lead."""
        return compile_predicate(self.condition, self.schema)

    @cached_property
    def is_of_others(self) -> bool:
        """Whether it asks for events, consent or named scores, which lie in tables of their own."""
        found = dependencies(self.condition, self.schema)
        return bool(found.events or found.consents or found.scores)

    @cached_property
    def scans(self) -> bool:
        """Whether it is answered by reading every lead, and by nothing but the lead."""
        return not (self.names_few or self.is_of_others or segments_read(self.depends_on) or self.asks)

    @cached_property
    def asks(self) -> Split | None:
        """What it asks plugins, taken apart; nothing where the database answers all of it."""
        return split(self.condition, self.schema)

    @cached_property
    def windows(self) -> list[EventCount]:
        """Counts that forget what happened long ago."""
        return [each for each in self._facts if isinstance(each, EventCount) and each.within_seconds is not None]

    @cached_property
    def expiries(self) -> list[Consented]:
        """Questions for consent that may run out."""
        reads_clock = (ConsentIs.GRANTED, ConsentIs.EXPIRED)
        return [each for each in self._facts if isinstance(each, Consented) and each.state in reads_clock]

    @cached_property
    def _facts(self) -> list[Leaf | Custom | Fact]:
        return list(leaves(self.condition))

    @cached_property
    def names_few(self) -> bool:
        """Whether it asks for single values of an indexed field, so that an index finds few leads."""
        return _names_few(self.condition, self.schema)

    def test(self, ctx: Context, *, few: bool = False) -> ColumnElement[bool]:
        """The rule as SQL, with the clock as it is now; ``few`` where it is asked of a handful of leads.

        Raises:
            ConditionError: it asks plugins (:attr:`asks`).
        """
        return self.sql(ctx, self.condition, few=few)

    def sql(
        self, ctx: Context, condition: Condition, *, evaluation: Evaluation | None = None, few: bool = False
    ) -> ColumnElement[bool]:
        """The same of a part of it, with the clock as it was at ``evaluation`` where that is given."""
        zones = queries.zones_present(ctx.session) if "time_zone" in self.depends_on else ()
        return compile_condition(
            condition,
            self.schema,
            queries.LEAD_COLUMNS,
            ctx.runtime.engines.dialect,
            evaluation or Evaluation(ctx.now),
            zones=zones,
            related=Related(queries.LEADS.c.id, few=few),
        )

    def moving(self, dialect: str) -> list[Moving]:
        """The values that it compares with the clock."""
        return moving_values(self.condition, self.schema, queries.LEAD_COLUMNS, dialect)


def named(ctx: Context, condition: Condition) -> Condition:
    """A condition whose segments stand by id, as it is stored: a segment that is renamed stays the same one.

    Raises:
        ConditionError: there is no such segment, or no such score.
    """
    _check_scores(ctx, condition)
    asked = [each for each in leaves(condition) if isinstance(each, InSegment)]
    if not asked:
        return condition
    rows = ctx.session.execute(select(Segment.id, Segment.name))
    ids: dict[int | str, int] = {}
    for row in rows:
        ids[row.id] = ids[row.name] = row.id
    for each in asked:
        if each.segment not in ids:
            hint = nearest(str(each.segment), [name for name in ids if isinstance(name, str)])
            refuse(each.where, "unknown_segment", f"there is no segment {each.segment!r}{hint}", "conditions")
    return _renamed(condition, ids)


def _check_scores(ctx: Context, condition: Condition) -> None:
    asked = [each for each in leaves(condition) if isinstance(each, Scored)]
    if not asked:
        return
    known = set(ctx.session.scalars(select(Score.name).where(Score.removed_at.is_(None))))
    for each in asked:
        if each.score not in known:
            said = f"there is no score {each.score!r}{nearest(each.score, sorted(known))}"
            refuse(each.where, "unknown_score", said, "conditions")


def readers_of_score(ctx: Context, score: str) -> list[str]:
    """The names of the segments whose rule reads a named score."""
    columns = (Segment.name, Segment.depends_on)
    found = ctx.session.execute(select(*columns).where(Segment.conditions.is_not(None)).order_by(Segment.id))
    return [row.name for row in found if score_name(score) in row.depends_on]


def _renamed(condition: Condition, ids: Mapping[int | str, int]) -> Condition:
    match condition:
        case AllOf() | AnyOf():
            return replace(condition, terms=tuple(_renamed(term, ids) for term in condition.terms))
        case Not():
            return replace(condition, term=_renamed(condition.term, ids))
        case InSegment():
            return replace(condition, segment=ids[condition.segment])
    return condition


def rule_of(ctx: Context, segment: Segment | Row[Any]) -> Rule:
    """The rule of a segment.

    Raises:
        ConditionError: it no longer fits the tenant's fields.
        ConditionUnavailable: a plugin that it asks is gone, or off for the tenant.
    """
    found = _read_rule(ctx, segment)
    if found.asks is not None and found.asks.missing is not None:
        ctx.runtime.switches.forget(tenant_of(ctx.session))  # it may have been switched on within this second
        found = _read_rule(ctx, segment)
    if found.asks is not None and found.asks.missing is not None:
        raise ConditionUnavailable(f"The rule cannot be computed, members stay as they are: {found.asks.missing}.")
    return found


def _read_rule(ctx: Context, segment: Segment | Row[Any]) -> Rule:
    declared, vocabulary = declared_fields(ctx), conditions_of(ctx, is_saved=True)
    key = (ctx.tenant_id, segment.id, orjson.dumps(segment.conditions), frozenset(declared.items()), vocabulary)
    found = _rules.get(key)
    if found is None:
        schema = segment_schema(declared).with_plugins(vocabulary)
        found = _rules[key] = Rule(segment.id, parse(segment.conditions, schema, "conditions"), schema)
        if len(_rules) > _KEPT:
            _rules.popitem(last=False)
    return found


def ruled_segments(ctx: Context) -> Mapping[int, Row[Any]]:
    """The tenant's segments that a rule decides, without what is shown of them."""
    columns = (
        Segment.id,
        Segment.version,
        Segment.conditions,
        Segment.depends_on,
        Segment.pending,
        Segment.building_until,
    )
    found = ctx.session.execute(select(*columns).where(Segment.kind.in_(RULED)).order_by(Segment.id))
    return {row.id: row for row in found}


def readers_of(ctx: Context, segment_id: int) -> list[tuple[int, str]]:
    """(id, name) of the segments whose rule reads this one."""
    columns = (Segment.id, Segment.name, Segment.depends_on)
    found = ctx.session.execute(select(*columns).where(Segment.conditions.is_not(None)).order_by(Segment.id))
    return [(row.id, row.name) for row in found if segment_id in segments_read(row.depends_on)]


def _names_few(condition: Condition, schema: Schema) -> bool:
    if isinstance(condition, AllOf):
        return any(_names_few(term, schema) for term in condition.terms)
    if not isinstance(condition, Leaf) or condition.operator not in (Operator.EQUAL, Operator.IN):
        return False
    return isinstance(condition.subject, FieldRef) and schema.resolve(condition.subject.name).indexed
