"""Hostile leads, a table of them, and a generator of conditions: what the differential tests share."""

import random
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import ClauseElement, Executable

from nexus_marketing.core.conditions import (
    AllOf,
    AnyOf,
    Arithmetic,
    Clock,
    ClockKind,
    Condition,
    Evaluation,
    Field,
    FieldRef,
    FieldType,
    Folding,
    Leaf,
    Literal,
    Not,
    Operator,
    Schema,
    check,
)
from nexus_marketing.core.conditions.evaluate import closures
from nexus_marketing.core.conditions.fastpath import compile_normal
from nexus_marketing.core.conditions.normal import normalise
from nexus_marketing.core.errors import ConditionError
from nexus_marketing.core.values import MAX_INTEGER, canonical, email_norm
from nexus_marketing.db.conditions import compile_condition, wrap_for_select
from nexus_marketing.db.types import Json, Text, UtcDateTime

LEADS = sa.Table(
    "condition_leads",
    sa.MetaData(),
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("score", sa.Double),
    sa.Column("seats", sa.Integer),
    sa.Column("name", Text),
    sa.Column("country", Text),
    sa.Column("email", Text),
    sa.Column("email_norm", Text),
    sa.Column("time_zone", Text),
    sa.Column("active", sa.Boolean),
    sa.Column("born", sa.Date),
    sa.Column("created_at", UtcDateTime),
    sa.Column("updated_at", UtcDateTime),
    sa.Column("tags", Json),
    sa.Column("metadata", Json),
)
SCHEMA = Schema.of(
    [
        Field("id", FieldType.NUMBER, indexed=True),
        Field("score", FieldType.NUMBER, indexed=True),
        Field("seats", FieldType.NUMBER, indexed=True),
        Field("name", FieldType.TEXT, indexed=True),
        Field("country", FieldType.TEXT),
        Field("email", FieldType.TEXT, folded="email_norm", folding=Folding.EMAIL),
        Field("email_norm", FieldType.TEXT, indexed=True),
        Field("time_zone", FieldType.TEXT),
        Field("active", FieldType.BOOLEAN),
        Field("born", FieldType.DATE),
        Field("created_at", FieldType.DATETIME, indexed=True),
        Field("updated_at", FieldType.DATETIME),
        Field("tags", FieldType.LIST),
        Field("metadata", FieldType.JSON),
        Field("plan", FieldType.TEXT, ("metadata", "plan")),
        Field("amount", FieldType.NUMBER, ("metadata", "amount")),
        Field("vip", FieldType.BOOLEAN, ("metadata", "vip")),
        Field("signup", FieldType.DATE, ("metadata", "signup")),
        Field("renewal", FieldType.DATE, ("metadata", "renewal")),
        Field("seen", FieldType.DATETIME, ("metadata", "seen")),
        Field("interests", FieldType.LIST, ("metadata", "interests")),
        Field("city", FieldType.TEXT, ("metadata", "address", "city")),
    ],
    {"lead_score": "score"},
)
NOW = datetime(2026, 3, 29, 0, 30, tzinfo=UTC)
EVALUATION = Evaluation(NOW, "Europe/Berlin")
ZONES = ["UTC", "Europe/Berlin", "Pacific/Auckland", "Pacific/Pago_Pago", "America/New_York", "Asia/Kolkata"]

TEXTS = [
    "", " ", "a", "A", "ab", "Ab", "abc", "a%", "a_b", "%", "_", "\\", "'", '"', "''", "a\nb", "a\tb", "\n", "0", "1", "12",
    "1_000", "١", "-1", "1e400", "NaN", "Infinity", "true", "false", "null", "pro", "Pro", "PRO", "İ", "i̇", "ı", "I", "ΣΑΣ",
    "σας", "σασ", "ß", "ss", "SS", "é", "e", "ǅ", "ﬁ", "Å", "😀", "\U0010ffff", "\ue000", "\ud7ff", "\ud7ffz", "\x7f", "\x01",
    "2026-02-30", "2026-03-29", "2026-03-28", "0001-01-01", "9999-12-31", "2026-03-29T01:30:00.000000Z",
    "2026-03-29T24:00:00.000000Z", "2026-3-9", "2026-03-29\n", '{"a": 1}', "[1]", '["a"]', '"a"', "x" * 4096, "x" * 4097,
    "é" * 2049, "é" * 2048, "Ann@Example.com", "ann@example.com", "Ünï@München.de", "US", "DE", "us", "tech", "zz", "$.a", "a.b",
    "{}", "(", "[a-z]", ".", "^a$", "a|b", "\u200b", "\u2028", "a" * 1000,
]  # fmt: skip
NUMBERS = [
    0, 1, -1, 2, 3, 7, 50, 100, 3.5, 2.5, 0.1, 0.2, 0.30000000000000004, 0.3, 1e-7, 1e-30, 9e-31, 1e-300, 5e-324, -0.5,
    2.2250738585072014e-308, 1.7976931348623157, 4503599627370495.5, 99999.99, 1234567.891, MAX_INTEGER, -MAX_INTEGER,
    MAX_INTEGER - 1, 2147483647, 2147483648, 0.1 + 0.7, 1 / 3, 123456789.12345679, 1e15 + 0.125,
]  # fmt: skip
DATES = ["2026-03-29", "2026-03-28", "2026-03-30", "2026-02-28", "0001-01-01", "9999-12-31", "2024-02-29", "2026-02-27"]
MOMENTS = [
    "2026-03-29T00:30:00.000000Z", "2026-03-29T00:29:59.999999Z", "2026-03-28T23:00:00.000000Z", "0001-01-03T00:00:00.000000Z",
    "9999-12-28T23:59:59.999999Z", "2026-02-27T00:30:00.000000Z", "2026-03-22T00:30:00.000000Z", "2025-12-31T23:59:59.999999Z",
]  # fmt: skip
PATTERNS = [
    "^a", "a$", "^$", "a.b", "[a-z]+", "^[^a]*$", r"\d+", r"^\w+$", r"\s", r"^\S*$", "a|b", "(a|ab)(c|bcd)*", "x{3,5}", "^x*$",
    ".", "^.$", "é", "[é-ü]", r"\.", "(a|)b", "^(a?){3}$", r"^\d{4}-\d{2}-\d{2}$", "[^\\w]", "I|ı", "[A-Z]", "😀", "", "()", "(a*)*$",
    r"[\d.]+", "^a\nb$", r"\n", "[$%]", r"^[\-\]]", "\ue000", r"\D\W",
]  # fmt: skip
JSON_KEYS = ["plan", "amount", "vip", "signup", "renewal", "seen", "interests", "x", "a key", "0"]


def random_json(rng: random.Random, depth: int = 0) -> Any:
    """Any canonical JSON value, missing more often than not being the exception it deserves."""
    kind = rng.randrange(10 if depth < 2 else 7)
    if kind < 2:
        return rng.choice(TEXTS)
    if kind < 4:
        return rng.choice(NUMBERS)
    if kind == 4:
        return rng.choice([True, False])
    if kind == 5:
        return None
    if kind == 6:
        return rng.choice(DATES + MOMENTS)
    if kind < 9:
        return [random_json(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {key: random_json(rng, depth + 1) for key in rng.sample(["a", "b", "city", "plan"], rng.randrange(3))}


def hostile_leads(count: int, rng: random.Random) -> list[dict[str, Any]]:
    """Records as the database layer hands them to predicates; the first ones go through every hostile value."""
    leads = []
    for number in range(count):
        lead = _random_lead(rng)
        lead["id"] = number
        if number < len(TEXTS):
            lead["name"] = lead["metadata"]["plan"] = lead["metadata"]["x"] = TEXTS[number]
        if number < len(NUMBERS):
            lead["score"], lead["metadata"]["amount"] = float(NUMBERS[number]), NUMBERS[number]
        if number % 23 == 0:
            lead = {**dict.fromkeys(lead), "id": number, "metadata": {}}
        email = lead["email"]
        lead["email_norm"] = email_norm(email) if email is not None else None
        leads.append({key: _canonical(value) for key, value in lead.items()})
    return leads


def _canonical(value: Any) -> Any:
    return value if isinstance(value, date) else canonical(value)


def _random_lead(rng: random.Random) -> dict[str, Any]:
    def maybe(value: Any) -> Any:
        return None if rng.random() < 0.1 else value

    metadata = {key: random_json(rng) for key in rng.sample(JSON_KEYS, rng.randrange(len(JSON_KEYS)))}
    if rng.random() < 0.6:
        metadata |= {"signup": rng.choice(DATES), "renewal": rng.choice(DATES), "seen": rng.choice(MOMENTS)}
        metadata["amount"] = rng.choice([rng.choice(NUMBERS), round(rng.random() * 100, 2), rng.random()])
    if rng.random() < 0.5:
        metadata["interests"] = [
            rng.choice([*TEXTS[:12], 1, 0, True, False, 2.5, None]) for _ in range(rng.randrange(5))
        ]
        metadata["address"] = maybe({"city": random_json(rng, 2)}) if rng.random() < 0.8 else random_json(rng)
    return {
        "score": maybe(rng.choice([float(rng.choice(NUMBERS)), float(rng.randrange(100)), rng.random() * 100])),
        "seats": maybe(rng.choice([0, 1, -1, 7, 50, 100, 2147483647])),
        "name": maybe(rng.choice(TEXTS)),
        "country": maybe(rng.choice(["US", "DE", "us", ""])),
        "email": maybe(rng.choice(TEXTS)),
        "time_zone": maybe(rng.choice([*ZONES, "Mars/Olympus", ""])),
        "active": maybe(rng.choice([True, False])),
        "born": maybe(date.fromisoformat(rng.choice(DATES))),
        "created_at": maybe(datetime.fromisoformat(rng.choice(MOMENTS))),
        "updated_at": maybe(NOW - timedelta(days=rng.randrange(60), microseconds=rng.randrange(3))),
        "tags": maybe(
            [rng.choice([*TEXTS[:12], 1, 0, True, False, 3.5, None, ["a"]]) for _ in range(rng.randrange(4))]
        ),
        "metadata": metadata,
    }


NUMBER_FIELDS = [
    "score",
    "seats",
    "amount",
    "metadata.x",
    "metadata.amount",
    "lead_score",
    "metadata.plan",
    "metadata.vip",
]
TEXT_FIELDS = [
    "name",
    "country",
    "plan",
    "metadata.x",
    "city",
    "email",
    "metadata.signup",
    "metadata.`a key`".replace("`", ""),
]
DATE_FIELDS = ["born", "signup", "renewal"]
MOMENT_FIELDS = ["created_at", "updated_at", "seen"]
ALL_FIELDS = [
    *NUMBER_FIELDS,
    *TEXT_FIELDS,
    *DATE_FIELDS,
    *MOMENT_FIELDS,
    "tags",
    "interests",
    "active",
    "vip",
    "metadata.0",
    "metadata",
]
COMPARISONS = [
    Operator.EQUAL, Operator.NOT_EQUAL, Operator.LESS, Operator.LESS_EQUAL, Operator.GREATER, Operator.GREATER_EQUAL,
]  # fmt: skip


class Conditions:
    """A stream of random valid conditions."""

    def __init__(self, rng: random.Random, schema: Schema = SCHEMA) -> None:
        self.rng = rng
        self.schema = schema

    def __iter__(self) -> Iterator[Condition]:
        return self

    def __next__(self) -> Condition:
        while True:
            try:
                return check(self.tree(3), self.schema)
            except ConditionError:
                continue

    def tree(self, depth: int) -> Condition:
        """A tree of at most ``depth`` levels, not necessarily valid."""
        roll = self.rng.random()
        if depth == 0 or roll < 0.45:
            return self.leaf()
        if roll < 0.6:
            return Not(self.tree(depth - 1))
        terms = tuple(self.tree(depth - 1) for _ in range(self.rng.randrange(2, 4)))
        return AllOf(terms) if roll < 0.8 else AnyOf(terms)

    def leaf(self) -> Leaf:
        """One comparison."""
        make = self.rng.choice(
            [self.numeric, self.numeric, self.textual, self.textual, self.dated, self.momentary, self.member,
             self.containing, self.caseless, self.existing, self.arithmetic, self.boolean, self.between_fields]
        )  # fmt: skip
        return make()

    def literal(self, values: Sequence[Any]) -> Literal:
        return Literal(canonical(self.rng.choice(values)))

    def number(self) -> Literal:
        return self.literal([*NUMBERS, self.rng.randrange(100), self.rng.randrange(100) + 0.5])

    def field(self, names: Sequence[str]) -> FieldRef:
        return FieldRef(self.rng.choice(names))

    def numeric(self) -> Leaf:
        if self.rng.random() < 0.2:
            low, high = sorted([self.number().value, self.number().value])
            return Leaf(self.field(NUMBER_FIELDS), Operator.BETWEEN, (Literal(low), Literal(high)))
        operator, number = self.rng.choice(COMPARISONS), self.number()
        if self.rng.random() < 0.1:
            return Leaf(number, operator, (self.field(NUMBER_FIELDS),))
        return Leaf(self.field(NUMBER_FIELDS), operator, (number,))

    def textual(self) -> Leaf:
        operators = [*COMPARISONS, Operator.STARTS_WITH, Operator.ENDS_WITH, Operator.MATCHES, Operator.MATCHES]
        operator = self.rng.choice(operators)
        wanted = self.literal(PATTERNS) if operator is Operator.MATCHES else self.text()
        return Leaf(self.field(TEXT_FIELDS), operator, (wanted,))

    def text(self) -> Literal:
        text = self.rng.choice(TEXTS)
        return Literal(text[: self.rng.randrange(1000)] if len(text) > 1000 or self.rng.random() < 0.3 else text)

    def day(self) -> Any:
        kinds = [ClockKind.NOW, ClockKind.TODAY, ClockKind.LOCAL_TODAY, ClockKind.LOCAL_TODAY]
        clock = Clock(self.rng.choice(kinds), 86_400 * self.rng.choice([0, 0, -1, 1, -30, 30, -36_500, 36_500]))
        return self.rng.choice([Literal(date.fromisoformat(self.rng.choice(DATES))), clock])

    def dated(self) -> Leaf:
        operator = self.rng.choice([*COMPARISONS, Operator.BEFORE, Operator.AFTER, Operator.BETWEEN])
        operands = (self.day(), self.day()) if operator is Operator.BETWEEN else (self.day(),)
        return Leaf(self.field(DATE_FIELDS), operator, operands)

    def momentary(self) -> Leaf:
        def moment() -> Any:
            clock = Clock(ClockKind.NOW, self.rng.choice([0, 1, -86_400, -7 * 86_400, -30 * 86_400]))
            today = Clock(ClockKind.TODAY, 86_400 * self.rng.choice([0, -1, 1]))
            return self.rng.choice([Literal(datetime.fromisoformat(self.rng.choice(MOMENTS))), clock, today])

        operator = self.rng.choice([*COMPARISONS, Operator.BEFORE, Operator.AFTER, Operator.BETWEEN])
        operands = (moment(), moment()) if operator is Operator.BETWEEN else (moment(),)
        return Leaf(self.field(MOMENT_FIELDS), operator, operands)

    def member(self) -> Leaf:
        operator = self.rng.choice([Operator.IN, Operator.NOT_IN])
        name = self.rng.choice([*NUMBER_FIELDS, *TEXT_FIELDS, "vip", "active", "signup", "born", "seen", "created_at"])
        pools: list[Sequence[Any]] = [
            NUMBERS,
            TEXTS[:60],
            [True, False],
            DATES,
            MOMENTS,
            [*NUMBERS, *TEXTS[:60], True, False],
        ]
        pool = self.rng.choice(pools)
        operands = tuple(self.literal(pool) for _ in range(self.rng.randrange(1, 6)))
        return Leaf(FieldRef(name), operator, operands)

    def containing(self) -> Leaf:
        operator = self.rng.choice([Operator.CONTAINS, Operator.NOT_CONTAINS])
        wanted = self.rng.choice([self.text(), self.number(), self.literal([True, False, 1, 0, "a", "A", ""])])
        return Leaf(self.field(["tags", "interests", "metadata.interests", *TEXT_FIELDS]), operator, (wanted,))

    def caseless(self) -> Leaf:
        operators = [
            Operator.EQUAL, Operator.NOT_EQUAL, Operator.IN, Operator.NOT_IN, Operator.CONTAINS, Operator.NOT_CONTAINS,
            Operator.STARTS_WITH, Operator.ENDS_WITH,
        ]  # fmt: skip
        return Leaf(FieldRef("email"), self.rng.choice(operators), (self.text(),), ignore_case=True)

    def existing(self) -> Leaf:
        return Leaf(self.field(ALL_FIELDS), self.rng.choice([Operator.IS_MISSING, Operator.IS_PRESENT]))

    def boolean(self) -> Leaf:
        operator = self.rng.choice([Operator.EQUAL, Operator.NOT_EQUAL])
        return Leaf(self.field(["active", "vip", "metadata.x"]), operator, (self.literal([True, False]),))

    def arithmetic(self) -> Leaf:
        def term(depth: int) -> Any:
            if depth == 0 or self.rng.random() < 0.4:
                return self.rng.choice([self.field(NUMBER_FIELDS), self.field(NUMBER_FIELDS), self.number()])
            return Arithmetic(self.rng.choice("+-*/"), term(depth - 1), term(depth - 1))

        return Leaf(term(2), self.rng.choice(COMPARISONS), (self.rng.choice([self.number(), term(1)]),))

    def between_fields(self) -> Leaf:
        names = self.rng.choice(
            [["score", "amount", "seats", "metadata.x"], ["name", "plan", "country", "metadata.x"], ["signup", "renewal"],
             ["created_at", "updated_at"], ["vip", "active", "metadata.vip"]]
        )  # fmt: skip
        return Leaf(self.field(names), self.rng.choice(COMPARISONS), (self.field(names),))


def python_verdicts(conditions: Sequence[Condition], leads: Sequence[dict[str, Any]]) -> list[list[bool]]:
    """One row of verdicts per lead; the closures and the compiled code must agree on the way."""
    columns = []
    for condition in conditions:
        normal = normalise(condition, SCHEMA)
        exact, quick = closures(normal, SCHEMA), compile_normal(normal, SCHEMA)
        answers = [exact(lead, EVALUATION) for lead in leads]
        assert [quick(lead, EVALUATION) for lead in leads] == answers, condition
        columns.append(answers)
    return [list(row) for row in zip(*columns, strict=True)]


def sql_verdicts(connection: sa.Connection, conditions: Sequence[Condition]) -> list[list[bool]]:
    """The same, from one statement."""
    columns = {column.name: column for column in LEADS.c}
    tests = [
        wrap_for_select(
            compile_condition(condition, SCHEMA, columns, connection.dialect.name, EVALUATION, zones=ZONES)
        ).label(f"c{number}")
        for number, condition in enumerate(conditions)
    ]
    rows = connection.execute(sa.select(*tests).order_by(LEADS.c.id))
    return [[bool(answer) for answer in row] for row in rows]


def store(connection: sa.Connection, leads: Sequence[dict[str, Any]]) -> None:
    """Create and fill the table."""
    LEADS.metadata.create_all(connection)
    connection.execute(sa.insert(LEADS), list(leads))


class _Explain(Executable, ClauseElement):
    """EXPLAIN of a statement with its own bound values."""

    inherit_cache = False

    def __init__(self, prefix: str, statement: sa.Select[Any]) -> None:
        self.prefix = prefix
        self.statement = statement


@compiles(_Explain)
def _compile_explain(element: _Explain, compiler: Any, **options: Any) -> str:
    return element.prefix + compiler.process(element.statement, **options)


def plan_of(connection: sa.Connection, statement: sa.Select[Any]) -> str:
    """The plan of a statement under the connection's role and settings.

    Small tables tempt the planner to scan, so scans are made expensive where the database lets us.
    """
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        connection.exec_driver_sql("SET LOCAL enable_indexonlyscan = off")
        prefix = "EXPLAIN (COSTS OFF) "
    else:
        prefix = "EXPLAIN QUERY PLAN "
    rows = connection.execute(_Explain(prefix, statement))
    return "\n".join(str(row) for row in rows)


def uses_index(connection: sa.Connection, statement: sa.Select[Any], index: str) -> bool:
    """Whether the plan of a statement, under the connection's role, searches the index."""
    return index in plan_of(connection, statement)


def catastrophic_patterns() -> list[str]:
    """Two hundred patterns known to take backtracking engines (or counting ones) down."""
    cores = [
        "(a+)+$", "(a*)*$", "(a|a)*$", "(a|aa)+$", "(a|a?)+$", "(.*)*$", "(.*a)*$", "(.+)+$", "([a-zA-Z]+)*$", "(a+)+b",
        "(a|b|ab)*c", "^(a?){20}a{20}$", "(x+x+)+y", "(a+a+)+$", r"(\w+\s?)*$", r"^(\d+)*$", r"(\s*\w*)*!", "((a+)+)+$",
        "(((a*)*)*)*$", "(a{1,3})*$", "(a{0,20}){20}$", "^(([a-z])+.)+[A-Z]([a-z])+$", "(.*)(.*)(.*)(.*)$", "a*a*a*a*a*a*a*b",
        "(a|ab|abc)*d", r"(\w|\d)*\.", "(.|a)*$", "(.|.)*z", "a.{200}b", "(a.{20}){10}b", "(a|.{9}){20}$", "^(.?){200}$",
        "(a*){100}b", "((a|b)*c|(a|b)*d)*e", "(.*,){20}P", r"^\s+|\s+$", "[^b]*[^c]*[^d]*e", "(a?a?a?){60}b", "(ab|a)*(b|c){100}$",
        ".*.*.*.*.*.*=.*",
    ]  # fmt: skip
    wraps = ["{}", "^{}", "({})x", "z?{}", "({}|q)"]
    return [wrap.format(core) for core in cores for wrap in wraps]


def catastrophic_subjects() -> list[str]:
    """Subjects that make them suffer."""
    return ["a" * 30_000, "ab" * 15_000, "a " * 15_000, "x" * 29_999 + "!", "1" * 30_000]
