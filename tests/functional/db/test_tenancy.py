"""The fences between tenants: each holds alone, and what they cannot see is refused (DATABASE.md, S02)."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import delete, exists, func, insert, select, text, union_all, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Session, aliased, foreign, joinedload, relationship, selectinload

from nexus_marketing.core.errors import ForeignTenant, NotFound, TenantRequired
from nexus_marketing.db.base import TenantScoped
from nexus_marketing.db.models import Campaign, Lead, Member, Segment, SegmentMember, Tenant
from nexus_marketing.db.tenancy import ALL_TENANTS, find, open_session, run, run_for_all, tenant_of
from nexus_marketing.runtime import Runtime
from tests.common.factories import lead_values, make_campaign, make_leads, make_segment

pytestmark = pytest.mark.req("SR-003", "S02")

LEADS = Lead.__table__


class TestBase(DeclarativeBase):
    """Mappings of our tables with relationships, which the product's own models do without."""

    __test__ = False


class LinkedSegment(TenantScoped, TestBase):
    __table__ = Segment.__table__


class LinkedMember(TenantScoped, TestBase):
    """Joined by segment id alone, so that only the tenant criterion keeps others out."""

    __table__ = SegmentMember.__table__
    segment = relationship(
        LinkedSegment,
        primaryjoin=lambda: foreign(LinkedMember.lead_id) != LinkedSegment.id,
        viewonly=True,
        uselist=True,
    )


class LinkedTenant(TestBase):
    """Not scoped itself, so that its relationships are the only way to tenants' rows."""

    __table__ = Tenant.__table__
    leads = relationship(
        lambda: LinkedLead, primaryjoin=lambda: LinkedTenant.id <= foreign(LinkedLead.id), viewonly=True, uselist=True
    )


class LinkedLead(TenantScoped, TestBase):
    __table__ = Lead.__table__


@pytest.fixture
def two(runtime: Runtime, tenant: int, other_tenant: int) -> tuple[int, int]:
    """Two tenants with three leads, a segment and a campaign each."""
    for each in (tenant, other_tenant):
        leads = make_leads(runtime, each, 3)
        make_segment(runtime, each, leads)
        make_campaign(runtime, each)
    return tenant, other_tenant


@contextmanager
def orm_only(runtime: Runtime, tenant_id: int) -> Iterator[Session]:
    """The tenant session under a role whose policies let every row through: row-level security is off."""
    with open_session(runtime.engines.owner, tenant_id=tenant_id) as session, session.begin():
        yield session


@contextmanager
def rls_only(runtime: Runtime, tenant_id: int) -> Iterator[Session]:
    """An ordinary session of the web role without any listener: only row-level security is left."""
    engine = runtime.engines.app.execution_options(nexus_tenant=tenant_id)
    with Session(engine) as session, session.begin():
        yield session


def seen_twice(session: Session) -> list[int]:
    alias = aliased(Lead)
    statement = select(Lead.tenant_id, alias.tenant_id).join(alias, alias.id != Lead.id)
    return [tenant_id for row in session.execute(statement) for tenant_id in row]


def loaded_eagerly(session: Session, how) -> list[int]:
    rows = session.scalars(select(LinkedMember).options(how(LinkedMember.segment))).unique().all()
    return [each.tenant_id for row in rows for each in (row, *row.segment)]


def loaded_lazily(session: Session) -> list[int]:
    return [each.tenant_id for row in session.scalars(select(LinkedMember)) for each in row.segment]


def loaded_from_an_unscoped_row(session: Session) -> list[int]:
    first = session.scalars(select(LinkedTenant).order_by(LinkedTenant.id)).first()
    return [each.tenant_id for each in first.leads]


READS = {
    "entity": lambda s: [lead.tenant_id for lead in s.scalars(select(Lead))],
    "column": lambda s: s.scalars(select(Lead.tenant_id)).all(),
    "alias": lambda s: [lead.tenant_id for lead in s.scalars(select(aliased(Lead)))],
    "self join": seen_twice,
    "join": lambda s: s.scalars(
        select(SegmentMember.tenant_id).join(Campaign, Campaign.id == Campaign.id).join(Lead, Lead.id >= 1)
    ).all(),
    "joined load": lambda s: loaded_eagerly(s, joinedload),
    "select-in load": lambda s: loaded_eagerly(s, selectinload),
    "lazy load": loaded_lazily,
    "lazy load from an unscoped row": loaded_from_an_unscoped_row,
    "subquery": lambda s: s.scalars(select(select(Lead.tenant_id).subquery().c.tenant_id)).all(),
    "common table expression": lambda s: s.scalars(select(select(Lead.tenant_id).cte().c.tenant_id)).all(),
    "union in a subquery": lambda s: s.scalars(
        select(union_all(select(Lead.tenant_id), select(Campaign.tenant_id)).subquery().c.tenant_id)
    ).all(),
    "in": lambda s: s.scalars(select(Tenant.id).where(Tenant.id.in_(select(Lead.tenant_id)))).all(),
    "exists": lambda s: s.scalars(select(Tenant.id).where(exists().where(Lead.tenant_id == Tenant.id))).all(),
    "correlated subquery": lambda s: [
        tenant_id
        for tenant_id in s.scalars(
            select(select(func.min(Lead.tenant_id)).where(Lead.tenant_id == Tenant.id).scalar_subquery())
        )
        if tenant_id is not None
    ],
    "lock": lambda s: s.scalars(select(Lead.tenant_id).with_for_update()).all(),
    "stream": lambda s: [lead.tenant_id for lead in s.scalars(select(Lead).execution_options(yield_per=2))],
    "returning": lambda s: s.scalars(update(Lead).values(score=5.0).returning(Lead.tenant_id)).all(),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_the_orm_fence_alone_hides_other_tenants(runtime, two, read):
    for tenant_id in two:
        with orm_only(runtime, tenant_id) as session:
            assert set(read(session)) == {tenant_id}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_row_level_security_alone_hides_other_tenants(postgres_only_runtime, read):
    runtime = postgres_only_runtime
    two = _two_tenants(runtime)
    for tenant_id in two:
        with rls_only(runtime, tenant_id) as session:
            assert set(read(session)) == {tenant_id}


def _two_tenants(runtime: Runtime) -> tuple[int, int]:
    from tests.common.factories import make_tenant

    two = make_tenant(runtime, "acme"), make_tenant(runtime, "globex")
    for each in two:
        make_segment(runtime, each, make_leads(runtime, each, 3))
        make_campaign(runtime, each)
    return two


RLS_READS = {
    "core": lambda s: s.scalars(select(LEADS.c.tenant_id)).all(),
    "text": lambda s: s.scalars(text("SELECT tenant_id FROM marketing_leads")).all(),
    "cross join": lambda s: s.scalars(text("SELECT b.tenant_id FROM marketing_leads a, marketing_leads b")).all(),
    "tenants": lambda s: s.scalars(text("SELECT id FROM marketing_tenants")).all(),
    "copy": lambda s: _copied(s, "COPY marketing_leads (tenant_id) TO STDOUT"),
    "copy a query": lambda s: _copied(s, "COPY (SELECT tenant_id FROM marketing_campaigns) TO STDOUT"),
}


def _copied(session: Session, statement: str) -> list[int]:
    with session.connection().connection.cursor() as cursor, cursor.copy(statement) as copy:
        return [int(bytes(line)) for line in copy if bytes(line)]


@pytest.mark.parametrize("read", RLS_READS.values(), ids=RLS_READS)
def test_row_level_security_holds_for_what_the_orm_cannot_see(postgres_only_runtime, read):
    runtime = postgres_only_runtime
    for tenant_id in _two_tenants(runtime):
        with rls_only(runtime, tenant_id) as session:
            assert set(read(session)) == {tenant_id}


def checksum(runtime: Runtime, tenant_id: int) -> list[tuple]:
    statement = "SELECT id, score, email, version FROM marketing_leads WHERE tenant_id = :tenant_id ORDER BY id"
    with runtime.work(tenant_id, mode="read", role="owner") as ctx:
        return [tuple(row) for row in run(ctx.session, statement, writes=False)]


WRITES = {
    "update": lambda s, _: s.execute(update(Lead).values(score=77.0)),
    "update by id": lambda s, _: s.execute(update(Lead).where(Lead.id >= 1).values(score=Lead.score + 7)),
    "update by subquery": lambda s, _: s.execute(
        update(Lead).where(Lead.id.in_(select(SegmentMember.lead_id))).values(score=77.0)
    ),
    "update without synchronising": lambda s, _: s.execute(
        update(Lead).values(score=77.0), execution_options={"synchronize_session": False}
    ),
    "delete members": lambda s, _: s.execute(delete(SegmentMember)),
    "delete": lambda s, _: s.execute(delete(Lead).where(Lead.id >= 1)),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_the_orm_fence_alone_keeps_writes_at_home(runtime, two, write):
    mine, foreign_ = two
    before = checksum(runtime, foreign_)
    with orm_only(runtime, mine) as session:
        session.execute(delete(SegmentMember))
        write(session, foreign_)
    assert checksum(runtime, foreign_) == before


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_row_level_security_alone_keeps_writes_at_home(postgres_only_runtime, write):
    runtime = postgres_only_runtime
    mine, foreign_ = _two_tenants(runtime)
    before = checksum(runtime, foreign_)
    with rls_only(runtime, mine) as session:
        session.execute(delete(SegmentMember))
        write(session, foreign_)
    assert checksum(runtime, foreign_) == before


def row_of(runtime: Runtime, tenant_id: int, number: int = 900) -> dict:
    return {
        **lead_values(number),
        "tenant_id": tenant_id,
        "created_at": runtime.clock.now(),
        "updated_at": runtime.clock.now(),
    }


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO marketing_segments (tenant_id, name, kind, created_at, updated_at) VALUES (:t, 'x', 'static', now(), now())",
        "UPDATE marketing_leads SET tenant_id = :t",
        "INSERT INTO marketing_deliveries (tenant_id, send_id, seq, lead_id, channel, state) VALUES (:t, 1, 1, 1, 'e', 'x')",
    ],
)
def test_row_level_security_refuses_to_write_foreign_rows(postgres_only_runtime, statement):
    runtime = postgres_only_runtime
    mine, foreign_ = _two_tenants(runtime)
    with pytest.raises(DBAPIError, match="row-level security"), rls_only(runtime, mine) as session:
        session.execute(text(statement), {"t": foreign_})


ESCAPES = {
    "core select": lambda: select(LEADS.c.id),
    "core count": lambda: select(func.count()).select_from(LEADS),
    "text": lambda: text("SELECT * FROM marketing_leads"),
    "text as a statement of an entity": lambda: select(Lead).from_statement(text("SELECT * FROM marketing_leads")),
    "top-level union": lambda: union_all(select(Lead.id), select(Lead.id)),
    "core table joined to an entity": lambda: select(Tenant.id).join(LEADS, LEADS.c.tenant_id == Tenant.id),
    "core table joined without a column": lambda: select(Tenant.id).join(LEADS, text("true")),
    "core table in from": lambda: select(Campaign.id).select_from(LEADS).where(Campaign.id > 0),
    "core column beside an entity": lambda: select(Campaign.id, LEADS.c.id),
    "core alias": lambda: select(Campaign.id, LEADS.alias().c.id),
    "core join object": lambda: select(func.count()).select_from(LEADS.join(Segment.__table__, LEADS.c.id > 0)),
    "core scalar subquery": lambda: select(Campaign.id).where(select(func.count(LEADS.c.id)).scalar_subquery() > 0),
    "core subquery without a column": lambda: select(Campaign.id).where(
        select(func.count()).select_from(LEADS).scalar_subquery() > 0
    ),
    "core in a common table expression": lambda: select(Campaign.id, select(LEADS.c.id).cte().c.id),
    "core exists": lambda: select(Tenant.id).where(exists().where(LEADS.c.tenant_id == Tenant.id)),
    "text in where": lambda: select(Campaign.id).where(text("EXISTS (SELECT 1 FROM marketing_leads)")),
    "hidden in a literal column": lambda: select(
        Campaign.id, __import__("sqlalchemy").literal_column("(SELECT count(*) FROM marketing_leads)")
    ),
    "update from another table": lambda: update(Lead).where(Lead.id == SegmentMember.lead_id).values(score=1.0),
    "update to a value of another table": lambda: update(Lead).values(score=SegmentMember.generation),
    "update by a core subquery": lambda: update(Lead).where(Lead.id.in_(select(LEADS.c.id))).values(score=1.0),
    "update to a core subquery": lambda: update(Lead).values(score=select(func.max(LEADS.c.score)).scalar_subquery()),
    "delete using another table": lambda: delete(SegmentMember).where(SegmentMember.lead_id == Lead.id),
    "core update": lambda: LEADS.update().values(score=1.0),
    "core delete": LEADS.delete,
    "core insert": lambda: LEADS.insert().values(tenant_id=1),
    "insert from select": lambda: insert(SegmentMember).from_select(
        ["tenant_id", "segment_id", "lead_id"], select(LEADS.c.tenant_id, LEADS.c.id, LEADS.c.id)
    ),
    "insert of several values": lambda: insert(Lead).values([{"tenant_id": 1}, {"tenant_id": 2}]),
}


@pytest.mark.parametrize("statement", ESCAPES.values(), ids=ESCAPES)
def test_what_the_orm_fence_cannot_see_is_refused(runtime, two, statement):
    with orm_only(runtime, two[0]) as session, pytest.raises((TenantRequired, ForeignTenant)):
        session.execute(statement())


@pytest.mark.parametrize("method", ["query", "bulk_save_objects", "bulk_insert_mappings", "bulk_update_mappings"])
def test_legacy_methods_that_pass_the_fences_by_are_refused(runtime, two, method):
    with orm_only(runtime, two[0]) as session, pytest.raises(TenantRequired):
        getattr(session, method)(Lead, [row_of(runtime, two[1])])


class TestWrites:
    def test_new_rows_get_the_tenant(self, runtime, two):
        with runtime.work(two[1], role="app") as ctx:
            row = Segment(name="New", kind="static", created_at=ctx.now, updated_at=ctx.now)
            ctx.session.add(row)
            ctx.session.flush()
            assert row.tenant_id == two[1]

    @pytest.mark.parametrize("role", ["app", "worker", "owner"])
    def test_a_new_row_of_another_tenant_is_refused(self, runtime, two, role):
        with pytest.raises(ForeignTenant), runtime.work(two[0], role=role) as ctx:
            ctx.session.add(Lead(**row_of(runtime, two[1])))

    def test_a_row_cannot_be_given_to_another_tenant(self, runtime, two):
        with pytest.raises(ForeignTenant), runtime.work(two[0]) as ctx:
            ctx.session.scalars(select(Lead)).first().tenant_id = two[1]

    def test_a_foreign_row_smuggled_in_cannot_be_changed_or_deleted(self, runtime, two):
        with runtime.work(two[1], mode="read") as ctx:
            lead = ctx.session.scalars(select(Lead)).first()
        with pytest.raises(ForeignTenant), runtime.work(two[0]) as ctx:
            ctx.session.add(lead)
            lead.score = 99.0
        with runtime.work(two[1], mode="read") as ctx:
            lead = ctx.session.scalars(select(Lead)).first()
        with pytest.raises(ForeignTenant), runtime.work(two[0]) as ctx:
            ctx.session.delete(lead)
            ctx.session.flush()

    def test_merging_a_foreign_row_is_refused(self, runtime, two):
        with pytest.raises(ForeignTenant), runtime.work(two[0]) as ctx:
            ctx.session.merge(Lead(id=4, **row_of(runtime, two[1])))

    def test_bulk_inserts_carry_the_tenant(self, runtime, two):
        with runtime.work(two[0], role="app") as ctx:
            ctx.session.execute(insert(Lead), [row_of(runtime, two[0], n) for n in (901, 902)])
        assert len(checksum(runtime, two[0])) == 5

    @pytest.mark.parametrize("role", ["app", "worker", "owner"])
    def test_one_foreign_row_in_a_bulk_insert_refuses_all(self, runtime, two, role):
        rows = [row_of(runtime, two[0], 901), row_of(runtime, two[1], 902)]
        with pytest.raises(ForeignTenant), runtime.work(two[0], role=role) as ctx:
            ctx.session.execute(insert(Lead), rows)
        assert len(checksum(runtime, two[0])) == 3

    def test_a_bulk_insert_without_a_tenant_is_refused(self, runtime, two):
        row = row_of(runtime, two[0], 901)
        del row["tenant_id"]
        with pytest.raises(ForeignTenant), runtime.work(two[0]) as ctx:
            ctx.session.execute(insert(Lead), [row])

    def test_a_tenant_fixed_in_the_statement_is_refused(self, runtime, two):
        with pytest.raises(ForeignTenant), runtime.work(two[0]) as ctx:
            ctx.session.execute(insert(Lead).values(tenant_id=two[1]), [row_of(runtime, two[0], 901)])

    def test_an_update_of_tenant_id_is_refused(self, runtime, two):
        with pytest.raises(ForeignTenant), runtime.work(two[0]) as ctx:
            ctx.session.execute(update(Lead).values(tenant_id=two[1]))

    def test_bulk_updates_by_key_reach_no_foreign_row(self, runtime, two):
        with pytest.raises(ForeignTenant), runtime.work(two[0]) as ctx:
            ctx.session.execute(update(Lead), [{"tenant_id": two[1], "id": 4, "score": 77.0}])

    def test_bulk_updates_by_key_reach_own_rows(self, runtime, two):
        with runtime.work(two[0]) as ctx:
            ctx.session.execute(update(Lead), [{"tenant_id": two[0], "id": n, "score": 77.0} for n in (1, 2, 3)])
        assert [row[1] for row in checksum(runtime, two[0])] == [77.0] * 3

    @pytest.mark.parametrize("bad", ["target", "assignment"])
    def test_upserts_that_could_touch_foreign_rows_are_refused(self, runtime, two, bad):
        dialect = postgresql if runtime.engines.dialect == "postgresql" else sqlite
        statement = dialect.insert(Lead)
        statement = statement.on_conflict_do_update(
            index_elements=["id"] if bad == "target" else ["tenant_id", "email_norm"],
            set_={"score": 1.0} if bad == "target" else {"tenant_id": statement.excluded.tenant_id},
        )
        with pytest.raises((TenantRequired, ForeignTenant)), runtime.work(two[0]) as ctx:
            ctx.session.execute(statement, [row_of(runtime, two[0], 1)])

    def test_an_upsert_by_a_tenants_key_changes_its_own_row(self, runtime, two):
        dialect = postgresql if runtime.engines.dialect == "postgresql" else sqlite
        statement = dialect.insert(Lead).on_conflict_do_update(
            index_elements=["tenant_id", "email_norm"], set_={"score": 42.0}
        )
        before = checksum(runtime, two[1])
        with runtime.work(two[0], role="app") as ctx:
            ctx.session.execute(statement, [row_of(runtime, two[0], 1)])
        assert [row[1] for row in checksum(runtime, two[0])] == [42.0, 2.0, 3.0]
        assert checksum(runtime, two[1]) == before

    def test_references_cannot_reach_another_tenant(self, runtime, two):
        with pytest.raises(DBAPIError, match=r"(?i)foreign key"), runtime.work(two[0], role="app") as ctx:
            ctx.session.add(SegmentMember(segment_id=1, lead_id=4, entered_at=ctx.now, generation=1))
            ctx.session.flush()


class TestSessions:
    def test_a_foreign_id_looks_exactly_like_an_unknown_one(self, runtime, two):
        messages = set()
        for number in (4, 999_999):
            with runtime.work(two[0], mode="read", role="app") as ctx, pytest.raises(NotFound) as caught:
                find(ctx.session, Lead, number)
            messages.add(caught.value.message.replace(str(number), "N"))
        assert len(messages) == 1

    def test_get_answers_nothing_for_a_foreign_key(self, runtime, two):
        with orm_only(runtime, two[0]) as session:
            assert session.get(Lead, (two[1], 4)) is None
            assert session.get(Lead, (two[0], 1)) is not None

    def test_the_identity_map_keeps_no_foreign_row(self, runtime, two):
        with orm_only(runtime, two[0]) as session:
            kept = [session.scalars(statement).all() for statement in (select(Lead), select(aliased(Lead)))]
            assert [len(rows) for rows in kept] == [3, 3]
            assert {key[1][0] for key in session.identity_map} == {two[0]}

    def test_refreshing_a_row_stays_with_the_tenant(self, runtime, two):
        with orm_only(runtime, two[0]) as session:
            lead = session.get(Lead, (two[0], 1))
            session.expire(lead)
            assert lead.email == "person1@example.org"
            session.refresh(lead)
            assert lead.tenant_id == two[0]

    @pytest.mark.parametrize(
        "statement", [lambda: select(Lead), lambda: update(Lead).values(score=1.0), lambda: delete(Lead)]
    )
    def test_a_session_without_a_tenant_refuses_tenant_tables(self, runtime, two, statement):
        with runtime.work(None) as ctx, pytest.raises(TenantRequired):
            ctx.session.execute(statement())

    def test_a_session_without_a_tenant_refuses_to_write(self, runtime, two):
        with pytest.raises(TenantRequired), runtime.work(None) as ctx:
            ctx.session.add(Lead(**row_of(runtime, two[0])))

    def test_a_session_without_a_tenant_opts_out_by_name(self, runtime, two):
        with runtime.work(None, mode="read", role="owner") as ctx:
            found = ctx.session.scalars(select(Lead.tenant_id).execution_options(**{ALL_TENANTS: True}))
            assert set(found) == set(two)

    def test_the_opt_out_does_not_open_the_web_role(self, postgres_only_runtime):
        runtime = postgres_only_runtime
        two = _two_tenants(runtime)
        with runtime.work(two[0], mode="read", role="app") as ctx:
            found = ctx.session.scalars(select(Lead.tenant_id).execution_options(**{ALL_TENANTS: True}))
            assert set(found) == {two[0]}

    def test_the_tenant_is_asked_for_by_name(self, runtime):
        with runtime.work(None) as ctx, pytest.raises(TenantRequired, match="needs a tenant"):
            tenant_of(ctx.session)

    def test_tables_without_a_tenant_need_none(self, runtime, two):
        with runtime.work(None, mode="read") as ctx:
            assert ctx.session.scalars(select(Tenant.id).order_by(Tenant.id)).all() == list(two)


class TestRun:
    def test_the_tenant_is_bound_here_and_nowhere_else(self, runtime, two):
        statement = "SELECT DISTINCT tenant_id FROM marketing_leads WHERE tenant_id = :tenant_id"
        with orm_only(runtime, two[0]) as session:
            assert run(session, statement, {"tenant_id": two[1]}, writes=False).scalars().all() == [two[0]]

    def test_every_row_of_many_gets_the_tenant(self, runtime, two):
        statement = "UPDATE marketing_leads SET score = :score WHERE tenant_id = :tenant_id AND id = :id"
        before = checksum(runtime, two[1])
        rows = [{"id": n, "score": 50.0 + n, "tenant_id": two[1]} for n in range(1, 7)]
        with runtime.work(two[0]) as ctx:
            run(ctx.session, statement, rows, writes=True)
        assert [row[1] for row in checksum(runtime, two[0])] == [51.0, 52.0, 53.0]
        assert checksum(runtime, two[1]) == before

    @pytest.mark.parametrize("statement", ["SELECT 1", select(LEADS.c.id)], ids=["text", "core"])
    def test_a_statement_without_the_tenant_is_refused(self, runtime, two, statement):
        with orm_only(runtime, two[0]) as session, pytest.raises(TenantRequired, match=":tenant_id"):
            run(session, statement, writes=False)

    def test_a_session_without_a_tenant_is_refused(self, runtime, two):
        with runtime.work(None) as ctx, pytest.raises(TenantRequired):
            run(ctx.session, "SELECT :tenant_id", writes=False)

    def test_work_over_all_tenants_says_so(self, runtime, two):
        with runtime.work(None, mode="read", role="owner") as ctx:
            found = run_for_all(ctx.session, "SELECT DISTINCT tenant_id FROM marketing_leads", writes=False)
            assert set(found.scalars()) == set(two)

    def test_hand_written_writes_are_committed(self, runtime, two):
        with runtime.work(two[0], role="app") as ctx:
            run(ctx.session, "UPDATE marketing_leads SET score = 9 WHERE tenant_id = :tenant_id", writes=True)
        assert {row[1] for row in checksum(runtime, two[0])} == {9.0}

    @pytest.mark.parametrize(
        "write",
        [
            lambda s, row: s.execute(insert(Lead), [row]),
            lambda s, row: s.execute(update(Lead).where(Lead.id == 1).values(email="person900@example.org")),
            lambda s, row: s.execute(update(Lead), [{"tenant_id": row["tenant_id"], "id": 1, "email": row["email"]}]),
        ],
        ids=["bulk insert", "update", "bulk update"],
    )
    def test_statements_of_the_orm_are_committed(self, runtime, two, write):
        with runtime.work(two[0], role="app") as ctx:
            write(ctx.session, row_of(runtime, two[0], 900))
        assert "person900@example.org" in {row[2] for row in checksum(runtime, two[0])}


def test_members_are_fenced_like_everything_else(runtime, two):
    with runtime.work(two[0], role="app") as ctx:
        ctx.session.add(Member(name="Ann", email="a@b.c", email_norm="a@b.c", role="admin", created_at=ctx.now))
    with runtime.work(two[1], mode="read", role="app") as ctx:
        assert ctx.session.scalars(select(Member)).all() == []
