"""One Phase-1 program, unchanged, on every storage: the outcomes are the same (BR-006)."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from nexus_marketing import HasMarketing, use_storage
from nexus_marketing.builtins.storages.redis import RedisStorage
from nexus_marketing.core.clock import FakeClock
from nexus_marketing.core.errors import NexusError
from nexus_marketing.core.home import HOME
from nexus_marketing.core.memory import MemoryStorage
from nexus_marketing.plugin import subscribe
from nexus_marketing.services.storage import SqlStorage
from tests.common import django_project

django_project.configure()

from django.db import models, transaction  # noqa: E402 - Django needs its settings first

pytestmark = pytest.mark.req("BR-006", "BR-007", "US-010", "US-001", "US-003", "FR-P1-001", "FR-P1-003")

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Marketed(HasMarketing):
    """What a developer wrote in the first week, whatever kind of class it is on."""

    marketing_subject_type = "Product"

    @property
    def told(self) -> list[str]:
        return vars(self).setdefault("_told", [])

    def tell(self, campaign: Any) -> None:
        self.told.append(f"{campaign.name} is {campaign.stage}")

    def marketing_config(self) -> dict[str, Any]:
        return {
            "campaigns": {
                "product_launch": {
                    "name": "Product Launch Campaign",
                    "channels": ["email", "social"],
                    "budget": 5000,
                    "guards": {"launch": lambda c: c.budget > 0 and c.subject.price > 0},
                    "hooks": {"before_launch": "tell", "after_launch": "tell", "after_pause": "tell"},
                },
                "welcome": {
                    "data_schema": {
                        "subscriber_email": {"type": "string", "required": True},
                        "subscription_date": {"type": "date", "required": True},
                    },
                    "stages": ["queued", "active", "paused", "completed", "cancelled"],
                    "transitions": {
                        "activate": {
                            "from": "queued",
                            "to": "active",
                            "condition": "data.subscription_date <= today()",
                        },
                        "complete": {"from": "active", "to": "completed", "condition": "data.emails_sent >= 5"},
                    },
                },
            }
        }


class PlainProduct(Marketed):
    def __init__(self, number: int, price: int = 10) -> None:
        self.id = number
        self.price = price


class Base(DeclarativeBase):
    pass


class MappedProduct(Marketed, Base):
    __tablename__ = "product"
    id: Mapped[int] = mapped_column(primary_key=True)
    price: Mapped[int]


class DjangoProduct(Marketed, models.Model):  # noqa: DJ008 - as short as it may be
    price = models.IntegerField()
    marketing_state = models.JSONField(null=True, blank=True, default=None, editable=False)

    class Meta:
        app_label = "shop"


Factory = Callable[..., Any]


def the_program(clock: FakeClock, Product: Factory = PlainProduct) -> list[Any]:
    """The script; answers everything a caller could see of it. ``Product(7)`` is the product with this number."""
    seen: list[Any] = []
    product = Product(7)
    marketing = product.marketing()
    seen.append((marketing.can("launch", "product_launch"), marketing.can("pause", "product_launch")))
    launched = marketing.launch_campaign(
        "product_launch", {"target_segment": "early_adopters", "start_date": clock.now() + timedelta(days=7)}
    )
    seen.append((launched.id, launched.status, launched.stage, launched.version, dict(launched.data)))
    seen.append(_refused(lambda: marketing.launch_campaign("product_launch")))
    seen.append(_refused(lambda: marketing.launch_campaign("welcome", {"subscriber_email": 5})))
    seen.append(_refused(lambda: Product(8, price=0).marketing().launch_campaign("product_launch")))
    clock.advance(days=8)
    seen.append([(each.name, each.status) for each in marketing.tick()])
    marketing.pause("product_launch", actor="user:3", reason="out of stock")
    seen.append([each.name for each in marketing.active_campaigns()])
    marketing.resume("product_launch", actor="user:3")
    marketing.launch_campaign("welcome", {"subscriber_email": "a@example.org", "subscription_date": "2026-03-12"})
    seen.append(marketing.campaign("welcome").status)
    clock.advance(days=4)
    seen.append([(each.name, each.status) for each in marketing.tick()])
    for _ in range(5):
        marketing.record("email_sent", "welcome", metadata={"template": "welcome-1"})
    seen.append([(each.name, each.status) for each in marketing.tick()])
    marketing.cancel("product_launch")
    again = Product(7).marketing() if HOME.resolve() is not None else marketing
    seen.append([(each.name, each.status, each.version, dict(each.counters)) for each in again.campaigns()])
    seen.append([(line.campaign, line.event, line.before, line.after, line.actor, line.at) for line in again.history()])
    seen.append([dict(line.metadata) for line in again.history("welcome")])
    return [*seen, product.told]


def _refused(call: Any) -> tuple[str, list[tuple[str, str]]]:
    with pytest.raises(NexusError) as caught:
        call()
    return caught.value.code, [(problem.path, problem.code) for problem in caught.value.problems]


@pytest.fixture
def home(clock: FakeClock) -> Iterator[FakeClock]:
    """The process's home on the test's clock."""
    before, HOME.clock = HOME.clock, clock
    restore = use_storage(None)
    yield clock
    restore()
    HOME.clock = before


@pytest.fixture
def inline_outcome() -> list[Any]:
    """What the program does on the objects themselves."""
    clock = FakeClock(START)
    before, HOME.clock = HOME.clock, clock
    restore = use_storage(None)
    try:
        return the_program(clock)
    finally:
        restore()
        HOME.clock = before


def run_on(storage: Any, Product: Factory = PlainProduct) -> tuple[list[Any], list[str]]:
    clock = FakeClock(START)
    before, HOME.clock = HOME.clock, clock
    restore = use_storage(storage)
    heard: list[str] = []
    end = subscribe("marketing.campaign.*", lambda event: heard.append(event.name))
    try:
        return the_program(clock, Product), heard
    finally:
        end()
        restore()
        HOME.clock = before


@contextmanager
def mapped_products(path: Path) -> Iterator[tuple[Factory, Callable[[], None]]]:
    """Products in a session of SQLAlchemy's, and its commit."""
    engine = create_engine(f"sqlite:///{path}")
    Base.metadata.create_all(engine)

    def product(number: int, price: int = 10) -> MappedProduct:
        found = session.get(MappedProduct, number)
        if found is None:
            found = MappedProduct(id=number, price=price)
            session.add(found)
            session.flush()
        return found

    with Session(engine) as session:
        yield product, session.commit
    engine.dispose()


@contextmanager
def django_products(path: Path) -> Iterator[tuple[Factory, Callable[[], None]]]:
    """Products in a table of Django's, inside a transaction, and its commit."""

    def product(number: int, price: int = 10) -> DjangoProduct:
        return DjangoProduct.objects.get_or_create(id=number, defaults={"price": price})[0]

    with django_project.database(django_project.sqlite(path), [DjangoProduct]), ExitStack() as stack:
        stack.enter_context(transaction.atomic())
        yield product, stack.close


@pytest.mark.parametrize("products", [mapped_products, django_products])
def test_it_runs_on_models_in_the_programs_own_transaction(
    products: Any, tmp_path: Path, inline_outcome: list[Any]
) -> None:
    with products(tmp_path / "shop.db") as (product, commit):
        outcome, heard = run_on(None, product)
        assert heard == []  # nothing is durable yet
        assert len(outcome[-1]) == 1
        commit()
    assert outcome == inline_outcome


@pytest.mark.parametrize("products", [mapped_products, django_products])
def test_it_runs_on_models_and_the_database(
    products: Any, tmp_path: Path, runtime: Any, tenant: int, inline_outcome: list[Any]
) -> None:
    with products(tmp_path / "shop.db") as (product, commit):
        outcome, heard = run_on(SqlStorage(runtime, tenant), product)
        assert product(7).marketing_state is None
        commit()
    assert outcome == inline_outcome
    assert heard == run_on(None)[1]


def test_it_runs_on_memory(inline_outcome: list[Any]) -> None:
    assert run_on(MemoryStorage())[0] == inline_outcome


def test_it_runs_on_the_database(runtime: Any, tenant: int, inline_outcome: list[Any]) -> None:
    outcome, heard = run_on(SqlStorage(runtime, tenant))
    assert outcome == inline_outcome
    assert heard == run_on(None)[1]


def test_it_runs_on_redis(redis_url: str, inline_outcome: list[Any]) -> None:
    storage = RedisStorage.from_url(redis_url, "acme")
    outcome, heard = run_on(storage)
    storage.close()
    assert outcome == inline_outcome
    assert heard == run_on(None)[1]


def test_what_was_launched_before_the_database_came_goes_on_there(runtime: Any, tenant: int, home: FakeClock) -> None:
    product = PlainProduct(7)
    product.marketing().launch_campaign("product_launch", {"start_date": home.now() + timedelta(days=1)})
    before = (product.marketing().campaign("product_launch").id, product.marketing().history())
    use_storage(SqlStorage(runtime, tenant))
    marketing = product.marketing()
    assert (marketing.campaign("product_launch").id, marketing.history()) == before
    home.advance(days=2)
    assert [each.status for each in marketing.tick()] == ["active"]
    assert [line.event for line in PlainProduct(7).marketing().history("product_launch")] == ["launch", "start"]
