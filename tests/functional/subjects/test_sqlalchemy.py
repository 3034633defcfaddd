"""``HasMarketing`` on SQLAlchemy models, in the user's own sessions, on SQLite and on PostgreSQL."""
# ruff: noqa: RUF012 - this is how models are declared

import copy
import json
import pickle
from dataclasses import asdict
from threading import Barrier, Event, Thread
from typing import Any

import pytest
from sqlalchemy import JSON, Column, ForeignKey, Integer, MetaData, String, Table, create_engine, event, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    MappedAsDataclass,
    Session,
    declarative_base,
    mapped_column,
    registry,
)

from nexus_marketing import HasMarketing, use_storage
from nexus_marketing.core.errors import ConfigurationError, Conflict, StaleVersion
from nexus_marketing.plugin import subscribe

pytestmark = pytest.mark.req("US-001", "US-002", "US-003", "FR-P1-001", "FR-P1-002", "FR-P1-003")

CONFIG = {"campaigns": {"spring": {"channels": ["email"], "budget": 5000}}}
VARIANT = JSON().with_variant(JSONB, "postgresql")
DOCUMENT = {"format": 1, "revision": 1, "campaigns": {}}


class Base(DeclarativeBase):
    pass


class Product(HasMarketing, Base):
    __tablename__ = "product"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    changes: Mapped[int | None] = mapped_column(default=0, onupdate=lambda context: 100)

    marketing_config = {
        "campaigns": {
            "spring": {
                "budget": 5000,
                "hooks": {
                    "before_launch": lambda c: c.subject.tell("before", c),
                    "after_launch": lambda c: c.subject.tell("after", c),
                    "after_pause": lambda c: c.subject.tell("after", c),
                },
            }
        }
    }

    def tell(self, moment, campaign):
        vars(self).setdefault("told", []).append((moment, campaign.stage))


class Late(Base, HasMarketing):
    __tablename__ = "late"
    region: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    marketing_config = CONFIG


class Own(HasMarketing, Base):
    """Both columns are its own, the state's under another name and as JSONB."""

    __tablename__ = "own"
    id: Mapped[int] = mapped_column(primary_key=True)
    marketing_config: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    extras: Mapped[dict[str, Any] | None] = mapped_column("extra_values", VARIANT)
    marketing_state_attribute = "extras"


class Animal(HasMarketing, Base):
    __tablename__ = "animal"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}
    marketing_config = CONFIG


class Dog(Animal):
    __mapper_args__ = {"polymorphic_identity": "dog"}


class Cat(Animal):
    __tablename__ = "cat"
    animal_id: Mapped[int] = mapped_column(ForeignKey("animal.id"), primary_key=True)
    __mapper_args__ = {"polymorphic_identity": "cat"}


class Marketed(HasMarketing):
    marketing_config = CONFIG


class Abstract(Marketed, Base):
    __abstract__ = True
    id: Mapped[int] = mapped_column(primary_key=True)


class Concrete(Abstract):
    __tablename__ = "concrete"


class Plain(Base):
    __tablename__ = "plain"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "plain"}


class Special(Marketed, Plain):
    __mapper_args__ = {"polymorphic_identity": "special"}


class Foreign(Marketed, Base):
    """Somebody tracks the column already."""

    __tablename__ = "foreign_tracked"
    id: Mapped[int] = mapped_column(primary_key=True)
    marketing_state: Mapped[dict[str, Any] | None] = mapped_column(MutableDict.as_mutable(JSON()))


class DataBase(MappedAsDataclass, DeclarativeBase):
    pass


class Record(Marketed, DataBase):
    __tablename__ = "record"
    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    name: Mapped[str] = mapped_column(default="n")


class EveryoneBase(DeclarativeBase, HasMarketing):
    pass


class Everyone(EveryoneBase):
    __tablename__ = "everyone"
    id: Mapped[int] = mapped_column(primary_key=True)
    marketing_config = CONFIG


OldBase = declarative_base()


class Old(Marketed, OldBase):
    __tablename__ = "old"
    id = Column(Integer, primary_key=True)


class OldLate(OldBase, Marketed):
    __tablename__ = "old_late"
    id = Column(Integer, primary_key=True)


mappers = registry()
classic_table = Table(
    "classic",
    mappers.metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String),
    Column("marketing_state", JSON),
)


class Classic(Marketed):
    pass


mappers.map_imperatively(Classic, classic_table)

METADATA: list[MetaData] = [each.metadata for each in (Base, DataBase, EveryoneBase, OldBase, mappers)]


def sqlite(path, begin=None):
    engine = create_engine(f"sqlite:///{path}")

    @event.listens_for(engine, "connect")
    def prepare(connection, _record):
        connection.execute("PRAGMA journal_mode=WAL")
        if begin:
            connection.isolation_level = None

    if begin:
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine


@pytest.fixture(params=["sqlite", "sqlite with real transactions", "postgresql"])
def engine(request, tmp_path):
    if request.param == "postgresql":
        engine = create_engine(request.getfixturevalue("postgres_url"))
    else:
        engine = sqlite(tmp_path / "shop.db", "BEGIN" if "real" in request.param else None)
    for each in METADATA:
        each.create_all(engine)
    restore = use_storage(None)
    yield engine
    restore()
    engine.dispose()


@pytest.fixture
def session(engine):
    with Session(engine) as session:
        yield session


def saved(engine, subject):
    """A row of its own transaction; answers what finds it again."""
    with Session(engine, expire_on_commit=False) as session:
        session.add(subject)
        session.commit()
        return type(subject), session.identity_key(instance=subject)[1]


KINDS = [
    Product,
    lambda: Late(region="eu", number=3),
    lambda: Own(marketing_config=CONFIG, extras={"mine": 1}),
    Dog,
    Cat,
    Concrete,
    Special,
    lambda: Foreign(marketing_state={"mine": 1}),
    lambda: Record(name="x"),
    Everyone,
    Old,
    OldLate,
    Classic,
]


class TestModels:
    @pytest.mark.parametrize("make", KINDS)
    def test_a_launch_is_there_in_the_next_session(self, engine, make):
        key = saved(engine, make())
        with Session(engine) as session:
            subject = session.get(*key)
            assert subject.marketing().launch_campaign().is_active()
            assert subject in session.dirty
            session.commit()
        with Session(engine) as session:
            subject = session.get(*key)
            subject.marketing().pause(actor="user:3")
            session.commit()
        with Session(engine) as session:
            marketing = session.get(*key).marketing()
            assert marketing.campaign().is_paused()
            assert [(line.event, line.actor) for line in marketing.history()] == [
                ("launch", "system"),
                ("pause", "user:3"),
            ]

    def test_one_column_is_added_where_it_belongs(self):
        columns = {
            name: [each.name for each in table.c if "marketing" in each.name]
            for metadata in METADATA
            for name, table in metadata.tables.items()
        }
        assert columns.pop("own") == ["marketing_config"]
        assert columns.pop("cat") == []
        assert {tuple(each) for each in columns.values()} == {("marketing_state",)}
        added = Product.__table__.c.marketing_state
        assert isinstance(added.type, JSON)
        assert added.nullable
        assert not hasattr(Plain, "marketing_state")

    def test_a_property_of_ones_own_is_left_alone_and_refused(self, session):
        class LocalBase(DeclarativeBase):
            pass

        class Odd(Marketed, LocalBase):
            __tablename__ = "odd"
            id: Mapped[int] = mapped_column(primary_key=True)
            marketing_state = None

        with pytest.raises(ConfigurationError, match=r"Odd\.marketing_state is no column: write .* = mapped_column\(J"):
            Odd().marketing().launch_campaign()

    def test_the_identity_is_the_primary_key(self, session):
        late = Late(region="eu", number=3)
        session.add(late)
        late.marketing().launch_campaign()
        kept = late.marketing_state["marketing"]["campaigns"]["spring"]["state"]
        assert (kept["subject_type"], kept["subject_id"]) == ("Late", "")
        before = late.marketing().campaign().id
        session.commit()
        assert late.marketing().campaign().id != before
        late.marketing().pause()
        assert late.marketing_state["marketing"]["campaigns"]["spring"]["state"]["subject_id"] == "eu,3"

    def test_dataclass_tools_and_copies_work(self, session):
        record = Record(name="x")
        record.marketing().launch_campaign()
        assert asdict(record) == {"id": None, "name": "x"}
        session.add(record)
        session.commit()
        again = pickle.loads(pickle.dumps(record))
        assert again.marketing().subject is again
        assert json.loads(json.dumps(record.marketing_state))["marketing"]["revision"] == 1
        assert copy.deepcopy(record.marketing_state) == record.marketing_state


@pytest.mark.req("US-002")
class TestColumns:
    def test_an_edit_however_deep_is_saved(self, engine):
        key = saved(engine, Own(marketing_config=copy.deepcopy(CONFIG), extras={"mine": [1]}))

        def edit(change):
            with Session(engine) as session:
                own = session.get(*key)
                change(own)
                session.commit()
            with Session(engine) as session:
                own = session.get(*key)
                return own.marketing_config, own.extras, own.marketing().campaign("spring").budget

        spring = lambda own: own.marketing_config["campaigns"]["spring"]  # noqa: E731
        assert edit(lambda own: spring(own).update(budget=6))[2] == 6
        assert edit(lambda own: spring(own)["channels"].append("sms"))[0]["campaigns"]["spring"]["channels"] == [
            "email",
            "sms",
        ]
        edit(lambda own: own.marketing_config["campaigns"].setdefault("autumn", {}))
        edit(lambda own: own.marketing_config["campaigns"]["autumn"].update(budget=9))
        assert edit(lambda own: spring(own)["channels"].__setitem__(0, "push"))[0] == {
            "campaigns": {"spring": {"channels": ["push", "sms"], "budget": 6}, "autumn": {"budget": 9}}
        }
        assert edit(lambda own: own.extras["mine"].insert(0, {"a": []}))[1] == {"mine": [{"a": []}, 1]}
        assert edit(lambda own: own.extras["mine"][0]["a"].extend([{}]))[1] == {"mine": [{"a": [{}]}, 1]}
        assert edit(lambda own: own.extras["mine"].__setitem__(slice(0, 2), [[2]]))[1] == {"mine": [[2]]}
        assert edit(lambda own: own.extras["mine"][0].append(3))[1] == {"mine": [[2, 3]]}

    def test_what_is_held_of_a_column_stays_part_of_it(self, engine):
        key = saved(engine, Own(marketing_config=copy.deepcopy(CONFIG)))
        with Session(engine) as session:
            own = session.get(*key)
            held = own.marketing_config["campaigns"]["spring"]
            own.marketing().can("launch")
            session.refresh(own, ["extras"])
            held["budget"] = 7
            session.commit()
            assert own.marketing_config["campaigns"]["spring"]["budget"] == 7

    def test_a_copy_of_a_column_is_nobodys(self, session):
        one, other = Own(marketing_config=copy.deepcopy(CONFIG)), Own()
        session.add_all([one, other])
        session.commit()
        other.marketing_config = one.marketing_config
        session.commit()
        other.marketing_config["campaigns"]["spring"]["budget"] = 1
        assert one not in session.dirty
        session.commit()
        assert one.marketing_config["campaigns"]["spring"]["budget"] == 5000

    def test_a_detached_object_that_was_pickled_is_tracked_again(self, engine):
        key = saved(engine, Own(marketing_config=copy.deepcopy(CONFIG)))
        with Session(engine) as session:
            own = session.get(*key)
            text = pickle.dumps(own)
        own = pickle.loads(text)
        with Session(engine) as session:
            session.add(own)
            own.marketing_config["campaigns"]["spring"]["budget"] = 3
            session.commit()
            assert own.marketing_config["campaigns"]["spring"]["budget"] == 3

    @pytest.mark.parametrize("held", ["text", 5, [1]])
    def test_another_value_in_the_column_can_be_loaded_and_is_named(self, engine, held):
        key = saved(engine, Own(marketing_config=CONFIG, extras=held))
        with Session(engine) as session:
            own = session.get(*key)
            assert own.extras == held
            with pytest.raises(ConfigurationError, match=r"Own\.extras holds"):
                own.marketing().launch_campaign()

    def test_other_keys_are_kept(self, engine):
        key = saved(engine, Own(marketing_config=CONFIG, extras={"mine": {"a": 1}}))
        with Session(engine) as session:
            own = session.get(*key)
            own.extras["mine"]["a"] = 2
            own.marketing().launch_campaign()
            own.extras["mine"]["b"] = 3
            session.commit()
            assert own.extras["mine"] == {"a": 2, "b": 3}
            assert own.marketing().campaign().is_active()


@pytest.mark.req("REL-001", "BR-002")
class TestTransactions:
    def test_a_rollback_takes_it_back_in_memory_too(self, engine):
        key = saved(engine, Product())
        with Session(engine, expire_on_commit=False) as session:
            product = session.get(*key)
            product.marketing().launch_campaign()
            session.flush()
            product.marketing().pause()
            session.rollback()
            assert product.marketing().campaign().is_draft()
            assert product.marketing().history() == []
            assert product.marketing().launch_campaign().version == 1
            session.commit()
        with Session(engine) as session:
            assert session.get(*key).marketing().campaign().is_active()

    @pytest.mark.parametrize("flushed", [False, True])
    def test_a_rollback_takes_it_back_from_an_object_without_a_row(self, session, flushed):
        product = Product()
        session.add(product)
        if flushed:
            session.flush()
        product.marketing().launch_campaign()
        product.marketing().pause()
        session.rollback()
        assert product.marketing().campaign().is_draft()
        session.add(product)
        session.commit()
        assert product.marketing_state is None
        assert product.told == [("before", "draft")]

    def test_a_closed_session_leaves_nothing_behind(self, engine):
        key = saved(engine, Product())
        with Session(engine) as session:
            product = session.get(*key)
            product.marketing().launch_campaign()
        assert product.marketing_state is None
        assert product.told == [("before", "draft")]

    def test_an_error_in_the_commit_takes_everything_back(self, engine):
        key = saved(engine, Product())
        with Session(engine) as session:
            product = session.get(*key)
            product.marketing().launch_campaign()
            session.add(Product(id=key[1][0]))
            with pytest.raises(Exception, match=r"(?i)unique|conflicts with persistent|identity"):
                session.commit()
            session.rollback()
            assert product.marketing().campaign().is_draft()
            assert product.told == [("before", "draft")]

    def test_hooks_and_events_wait_for_the_commit(self, engine):
        key = saved(engine, Product())
        heard = []
        ends = [
            subscribe("*", lambda each: heard.append(("before", each.name)), before_commit=True),
            subscribe("*", lambda each: heard.append(("after", each.name))),
        ]
        try:
            with Session(engine) as session:
                product = session.get(*key)
                launched = product.marketing().launch_campaign()
                session.flush()
                assert product.told == [("before", "draft")]
                assert heard == [("before", "marketing.campaign.launched")]
                session.commit()
                assert product.told == [("before", "draft"), ("after", "active")]
                assert heard[1:] == [("after", "marketing.campaign.launched")]
                session.commit()
                assert len(product.told) == len(heard) == 2
                assert launched.problems == ()
        finally:
            for end in ends:
                end()

    def test_a_hook_after_the_commit_can_read_the_object(self, engine):
        key = saved(engine, Product(name="tea"))
        names = []
        with Session(engine) as session, session.begin():
            product = session.get(*key)
            product.marketing_config = {
                "campaigns": {"spring": {"hooks": {"after_launch": lambda c: names.append(c.subject.name)}}}
            }
            product.marketing().launch_campaign()
        assert names == ["tea"]

    #: The sqlite3 module's own transactions know no savepoints.
    with_savepoints = pytest.mark.parametrize("engine", ["sqlite with real transactions", "postgresql"], indirect=True)

    @with_savepoints
    def test_savepoints_are_respected(self, engine):
        key = saved(engine, Product())
        with Session(engine) as session:
            product = session.get(*key)
            nested = session.begin_nested()
            product.marketing().launch_campaign()
            nested.rollback()
            assert product.marketing().campaign().is_draft()
            with session.begin_nested():
                product.marketing().launch_campaign()
            assert product.told == [("before", "draft")] * 2
            inner = session.begin_nested()
            product.marketing().pause()
            inner.rollback()
            assert product.marketing().campaign().is_active()
            session.commit()
            assert product.told == [("before", "draft"), ("before", "draft"), ("after", "active")]
        with Session(engine) as session:
            assert [line.event for line in session.get(*key).marketing().history()] == ["launch"]

    @with_savepoints
    def test_a_savepoint_that_was_released_goes_with_the_outer_rollback(self, engine):
        key = saved(engine, Product())
        with Session(engine) as session:
            product = session.get(*key)
            with session.begin_nested():
                product.marketing().launch_campaign()
            session.rollback()
            assert product.marketing().campaign().is_draft()
            assert product.told == [("before", "draft")]

    def test_an_object_without_a_session_works_in_memory(self, session):
        product = Product()
        product.marketing().launch_campaign()
        assert product.told == [("before", "draft"), ("after", "active")]
        session.add(product)
        session.commit()
        assert product.marketing().campaign().is_active()
        product.marketing().pause()
        session.commit()
        assert [line.event for line in product.marketing().history()] == ["launch", "pause"]

    def test_a_detached_object_is_refused(self, engine):
        key = saved(engine, Product())
        with Session(engine) as session:
            product = session.get(*key)
        assert product.marketing().can("launch")
        with pytest.raises(ConfigurationError, match="Product 1 is detached"):
            product.marketing().launch_campaign()
        assert product.marketing_state is None

    def test_nothing_else_of_the_row_is_touched_by_the_lock(self, engine):
        key = saved(engine, Product())
        with Session(engine) as session:
            session.get(*key).marketing().launch_campaign()
            changes = select(Product.__table__.c.changes)
            assert session.connection().scalar(changes) == 0
            session.commit()
            assert session.connection().scalar(changes) == 100


@pytest.mark.req("REL-003", "BR-007")
class TestRaces:
    @pytest.mark.parametrize("make", [Product, lambda: Own(marketing_config=CONFIG, extras={"mine": 1}), Dog])
    def test_what_was_launched_meanwhile_is_a_conflict(self, engine, make):
        key = saved(engine, make())
        with Session(engine) as one, Session(engine) as other:
            first, second = one.get(*key), other.get(*key)
            first.marketing().launch_campaign()
            assert second.marketing().can("launch")
            one.commit()
            with pytest.raises(StaleVersion):
                second.marketing().launch_campaign()
            other.rollback()
            assert second.marketing().campaign().is_active()
            assert [line.event for line in second.marketing().history()] == ["launch"]
            second.marketing().pause()
            other.commit()

    def test_after_a_conflict_the_next_look_sees_what_happened(self, engine):
        key = saved(engine, Product())
        with Session(engine) as one, Session(engine, expire_on_commit=False) as other:
            second = other.get(*key)
            other.commit()
            one.get(*key).marketing().launch_campaign()
            one.commit()
            with pytest.raises(StaleVersion) as caught:
                second.marketing().launch_campaign()
            assert caught.value.context == {"current": 1}
            assert second.marketing().campaign().is_active()

    def test_a_conflict_keeps_what_was_edited_and_not_saved(self, engine):
        key = saved(engine, Own(marketing_config=CONFIG, extras={"mine": 1}))
        with Session(engine) as one, Session(engine, expire_on_commit=False) as other:
            second = other.get(*key)
            other.commit()
            one.get(*key).marketing().launch_campaign()
            one.commit()
            second.extras["mine"] = 2
            with pytest.raises(StaleVersion):
                second.marketing().launch_campaign()
            assert second.extras == {"mine": 2}

    @pytest.mark.parametrize(("ending", "outcome"), [("commit", "stale_version"), ("rollback", 1)])
    def test_who_comes_second_waits_for_the_first_to_decide(self, engine, ending, outcome):
        key = saved(engine, Product())
        loaded, outcomes = Event(), []

        def come_second():
            with Session(engine, expire_on_commit=False) as session:
                product = session.get(*key)
                session.commit()
                loaded.set()
                started.wait(10)
                try:
                    outcomes.append(product.marketing().launch_campaign().version)
                    session.commit()
                except Conflict as error:
                    outcomes.append(error.code)

        started = Event()
        thread = Thread(target=come_second)
        thread.start()
        with Session(engine) as session:
            loaded.wait(10)
            session.get(*key).marketing().launch_campaign()
            started.set()
            thread.join(0.3)
            assert thread.is_alive()
            getattr(session, ending)()
        thread.join(10)
        assert outcomes == [outcome]

    @pytest.mark.parametrize("round_", range(3))
    def test_of_many_one_wins_and_the_others_are_told(self, engine, round_):
        key = saved(engine, Product())
        barrier, outcomes = Barrier(4), []

        def launch():
            with Session(engine) as session:
                product = session.get(*key)
                if round_ == 1:
                    session.commit()
                barrier.wait(10)
                try:
                    version = product.marketing().launch_campaign().version
                    session.commit()
                    outcomes.append(version)
                except Conflict as error:
                    outcomes.append(error.code)

        threads = [Thread(target=launch) for _ in range(4)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert outcomes.count(1) == 1
        assert set(outcomes) <= {1, "stale_version", "transition_refused"}
        assert len(outcomes) == 4
        with Session(engine) as session:
            assert len(session.get(*key).marketing().history()) == 1

    @pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
    def test_a_repeatable_read_is_a_conflict_too(self, engine):
        key = saved(engine, Product())
        with Session(engine.execution_options(isolation_level="REPEATABLE READ")) as other, Session(engine) as one:
            second = other.get(*key)
            one.get(*key).marketing().launch_campaign()
            one.commit()
            with pytest.raises(StaleVersion, match="roll back"):
                second.marketing().launch_campaign()

    @pytest.mark.parametrize("change", ["edit", "assign"])
    def test_an_edit_of_other_keys_never_overwrites_a_launch(self, engine, change):
        key = saved(engine, Own(marketing_config=CONFIG, extras={"mine": 1}))
        with Session(engine, expire_on_commit=False) as other, Session(engine) as one:
            second = other.get(*key)
            other.commit()
            one.get(*key).marketing().launch_campaign()
            one.commit()
            if change == "edit":
                second.extras["mine"] = 2
            else:
                second.extras = {"mine": 2}
            with pytest.raises(StaleVersion):
                other.commit()
            other.rollback()
            assert second.marketing().campaign().is_active()

    def test_merging_an_older_object_never_overwrites_a_launch(self, engine):
        key = saved(engine, Product())
        with Session(engine) as session:
            session.get(*key).marketing().launch_campaign()
            session.commit()
            older = copy.copy(session.get(*key).marketing_state)
            session.get(*key).marketing().pause()
            session.commit()
            session.merge(Product(id=key[1][0], marketing_state=older))
            with pytest.raises(StaleVersion, match="older"):
                session.flush()

    def test_a_row_that_is_gone_is_a_conflict(self, engine):
        key = saved(engine, Product())
        with Session(engine, expire_on_commit=False) as other, Session(engine) as one:
            second = other.get(*key)
            other.commit()
            one.delete(one.get(*key))
            one.commit()
            with pytest.raises(StaleVersion, match="gone"):
                second.marketing().launch_campaign()

    def test_the_state_can_be_reset_by_hand(self, engine):
        key = saved(engine, Product())
        with Session(engine) as session:
            session.get(*key).marketing().launch_campaign()
            session.commit()
            session.get(*key).marketing_state = None
            session.commit()
            assert session.get(*key).marketing().campaign().is_draft()

    def test_a_launch_locks_its_row_once(self, engine):
        key = saved(engine, Product())
        with Session(engine) as session:
            product = session.get(*key)
            statements = []
            note = lambda _c, _u, statement, *_: statements.append(statement)  # noqa: E731
            event.listen(engine, "before_cursor_execute", note)
            product.marketing().launch_campaign()
            product.marketing().pause()
            session.commit()
            event.remove(engine, "before_cursor_execute", note)
        locking = 1 if engine.dialect.name == "postgresql" else 2
        assert len([each for each in statements if each.startswith(("SELECT", "UPDATE"))]) == locking + 1
