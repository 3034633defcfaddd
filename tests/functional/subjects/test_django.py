"""``HasMarketing`` on Django models, on SQLite and on PostgreSQL."""
# ruff: noqa: RUF012, DJ008 - models as short as they may be

import copy
import pickle
import uuid
from threading import Barrier, Event, Thread

import pytest

from nexus_marketing import HasMarketing, use_storage
from nexus_marketing.core.errors import ConfigurationError, Conflict, StaleVersion
from nexus_marketing.core.memory import MemoryStorage
from nexus_marketing.plugin import subscribe
from tests.common import django_project

django_project.configure()

from django.db import connection, connections, models, transaction  # noqa: E402 - Django needs its settings first
from django.db.utils import IntegrityError  # noqa: E402

pytestmark = pytest.mark.req("US-001", "US-002", "US-003", "FR-P1-001", "FR-P1-002", "FR-P1-003")

CONFIG = {"campaigns": {"spring": {"channels": ["email"], "budget": 5000}}}


class Product(HasMarketing, models.Model):
    name = models.CharField(max_length=20, default="tea", unique=True)
    price = models.IntegerField(default=5)
    marketing_state = models.JSONField(null=True, blank=True, default=None, editable=False)

    marketing_config = {
        "campaigns": {
            "spring": {
                "budget": 5000,
                "hooks": {
                    "before_launch": lambda c: c.subject.tell("before", c),
                    "after_launch": lambda c: c.subject.tell("after", c),
                },
            }
        }
    }

    class Meta:
        app_label = "shop"

    def tell(self, moment, campaign):
        vars(self).setdefault("told", []).append((moment, campaign.stage))


class Own(models.Model, HasMarketing):
    """Both columns are its own, and so is its key."""

    key = models.UUIDField(primary_key=True, default=uuid.uuid4)
    marketing_config = models.JSONField(default=lambda: copy.deepcopy(CONFIG))
    extras = models.JSONField(default=dict)
    marketing_state_attribute = "extras"

    class Meta:
        app_label = "shop"


class Special(Product):
    """A table of its own, beside that of the product."""

    discount = models.IntegerField(default=1)

    class Meta:
        app_label = "shop"


class Failing(Product):
    class Meta:
        app_label = "shop"
        proxy = True

    def save(self, **words):
        super().save(**words)
        raise IntegrityError("no")


class Without(HasMarketing, models.Model):
    marketing_config = CONFIG

    class Meta:
        app_label = "shop"


MODELS = [Product, Own, Special, Without]


@pytest.fixture(params=["sqlite", "sqlite with WAL", "postgresql"], autouse=True)
def database(request, tmp_path):
    if request.param == "postgresql":
        options = django_project.postgresql(request.getfixturevalue("postgres_url"))
    else:
        wal = {"init_command": "PRAGMA journal_mode=WAL"} if "WAL" in request.param else {}
        options = django_project.sqlite(tmp_path / "shop.db", **wal)
    restore = use_storage(None)
    with django_project.database(options, MODELS):
        yield
    restore()


def fresh(subject):
    return type(subject).objects.get(pk=subject.pk)


def in_threads(*functions):
    """Each on connections of its own."""

    def closing(function):
        try:
            function()
        finally:
            connections.close_all()

    threads = [Thread(target=closing, args=(each,)) for each in functions]
    for each in threads:
        each.start()
    return threads


class TestModels:
    @pytest.mark.parametrize("model", [Product, Own, Special])
    def test_a_launch_is_there_at_once(self, model):
        subject = model.objects.create()
        assert subject.marketing().launch_campaign().is_active()
        assert fresh(subject).marketing().campaign().is_active()
        fresh(subject).marketing().pause(actor="user:3")
        lines = fresh(subject).marketing().history()
        assert [(line.event, line.actor) for line in lines] == [("launch", "system"), ("pause", "user:3")]

    def test_nothing_else_of_the_object_is_saved(self):
        product = Product.objects.create()
        product.price = 99
        product.marketing().launch_campaign()
        assert fresh(product).price == 5

    def test_other_keys_are_kept(self):
        own = Own.objects.create(extras={"mine": 1})
        own.extras["mine"] = 2
        own.marketing().launch_campaign()
        assert fresh(own).extras["mine"] == 2

    def test_an_edit_of_the_configuration_is_saved_with_the_object(self):
        own = Own.objects.create()
        own.marketing_config["campaigns"]["spring"]["budget"] = 6
        own.save()
        assert fresh(own).marketing().launch_campaign().budget == 6

    def test_the_identity_is_the_primary_key(self):
        own = Own()
        state = own.marketing().launch_campaign()
        own.save()
        assert state.id == fresh(own).marketing().campaign().id
        product = Product()
        before = product.marketing().launch_campaign().id
        product.save()
        assert product.marketing().campaign().id == fresh(product).marketing().campaign().id != before

    def test_an_unsaved_object_works_in_memory_and_is_saved_with_its_campaigns(self):
        product = Product()
        product.marketing().launch_campaign()
        assert product.told == [("before", "draft"), ("after", "active")]
        assert Product.objects.count() == 0
        product.save()
        assert fresh(product).marketing().campaign().is_active()

    def test_a_model_without_the_field_is_shown_the_line(self):
        without = Without.objects.create()
        assert without.marketing().can("launch")
        line = r"marketing_state = models\.JSONField\(null=True, blank=True, default=None, editable=False\)"
        with pytest.raises(ConfigurationError, match=line):
            without.marketing().launch_campaign()
        restore = use_storage(MemoryStorage())
        assert without.marketing().launch_campaign().is_active()
        restore()

    def test_deferred_fields_are_loaded_when_they_are_needed(self):
        Product.objects.create()
        Product.objects.only("name").get().marketing().launch_campaign()
        deferred = Product.objects.defer("marketing_state").get()
        deferred.save()
        assert deferred.marketing().campaign().is_active()

    @pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))])
    def test_a_copy_has_a_manager_of_its_own(self, copied):
        product = Product.objects.create()
        product.marketing().launch_campaign()
        other = copied(product)
        assert other.marketing().subject is other
        assert other.marketing() is other.marketing()
        assert other.marketing().campaign().is_active()


@pytest.mark.req("REL-001", "BR-002")
class TestTransactions:
    def test_a_rollback_takes_it_back_in_memory_too(self):
        product = Product.objects.create()
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            product.marketing().launch_campaign()
            product.marketing().pause()
            raise ZeroDivisionError
        assert product.marketing().campaign().is_draft()
        assert fresh(product).marketing_state is None
        assert product.told == [("before", "draft")]
        assert product.marketing().launch_campaign().version == 1
        assert fresh(product).marketing().campaign().is_active()

    def test_a_row_that_was_rolled_back_leaves_the_object_as_it_was(self):
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            product = Product.objects.create()
            product.marketing().launch_campaign()
            raise ZeroDivisionError
        assert product.marketing().campaign().is_draft()

    def test_savepoints_are_respected(self):
        product = Product.objects.create()
        with transaction.atomic():
            product.marketing().launch_campaign()
            with pytest.raises(ZeroDivisionError), transaction.atomic():
                product.marketing().pause()
                raise ZeroDivisionError
            assert product.marketing().campaign().is_active()
        assert [line.event for line in fresh(product).marketing().history()] == ["launch"]

    def test_hooks_and_events_wait_for_the_commit(self):
        product, heard = Product.objects.create(), []
        ends = [
            subscribe("*", lambda each: heard.append(("before", each.name)), before_commit=True),
            subscribe("*", lambda each: heard.append(("after", each.name))),
        ]
        try:
            with transaction.atomic():
                product.marketing().launch_campaign()
                assert product.told == [("before", "draft")]
                assert heard == [("before", "marketing.campaign.launched")]
            assert product.told == [("before", "draft"), ("after", "active")]
            assert heard[1:] == [("after", "marketing.campaign.launched")]
        finally:
            for end in ends:
                end()

    def test_what_follows_a_commit_sees_what_was_committed(self):
        product, seen = Product.objects.create(), []
        with transaction.atomic():
            transaction.on_commit(lambda: seen.append(product.marketing().campaign().status))
            product.marketing().launch_campaign()
        assert seen == ["active"]
        product.marketing().pause()
        assert fresh(product).marketing().campaign().is_paused()

    def test_an_error_while_it_is_saved_leaves_the_object_as_it_was(self):
        product = Product.objects.create()
        failing = Failing.objects.get()
        with pytest.raises(IntegrityError):
            failing.marketing().launch_campaign()
        assert failing.marketing().campaign().is_draft()
        assert fresh(product).marketing_state is None
        assert failing.told == [("before", "draft")]

    def test_without_autocommit_an_atomic_block_is_asked_for(self):
        product = Product.objects.create()
        transaction.set_autocommit(False)
        try:
            with pytest.raises(ConfigurationError, match=r"transaction\.atomic"):
                product.marketing().launch_campaign()
        finally:
            transaction.rollback()
            transaction.set_autocommit(True)
        assert product.marketing_state is None


@pytest.mark.req("REL-003", "BR-007")
class TestRaces:
    @pytest.mark.parametrize("model", [Product, Own, Special])
    def test_what_was_launched_meanwhile_is_a_conflict(self, model):
        first = model.objects.create()
        second = fresh(first)
        first.marketing().launch_campaign()
        assert second.marketing().can("launch")
        with pytest.raises(StaleVersion) as caught:
            second.marketing().launch_campaign()
        assert caught.value.context == {"current": 1}
        second.refresh_from_db()
        second.marketing().pause()
        assert [line.event for line in fresh(first).marketing().history()] == ["launch", "pause"]

    @pytest.mark.parametrize("ends_well", [True, False])
    def test_who_comes_second_waits_for_the_first_to_decide(self, ends_well):
        product = Product.objects.create()
        started, outcomes = Event(), []

        def come_second():
            mine = fresh(product)
            started.wait(10)
            try:
                outcomes.append(mine.marketing().launch_campaign().version)
            except Conflict as error:
                outcomes.append(error.code)

        [thread] = in_threads(come_second)
        with transaction.atomic():
            product.marketing().launch_campaign()
            started.set()
            thread.join(0.3)
            assert thread.is_alive()
            transaction.set_rollback(not ends_well)
        thread.join(10)
        assert outcomes == ["stale_version" if ends_well else 1]

    @pytest.mark.parametrize("atomic", [False, True])
    def test_of_many_one_wins_and_the_others_are_told(self, atomic):
        product = Product.objects.create()
        barrier, outcomes = Barrier(4), []

        def launch():
            try:
                if atomic:
                    with transaction.atomic():
                        mine = fresh(product)
                        barrier.wait(10)
                        version = mine.marketing().launch_campaign().version
                else:
                    mine = fresh(product)
                    barrier.wait(10)
                    version = mine.marketing().launch_campaign().version
                outcomes.append(version)
            except Conflict as error:
                outcomes.append(error.code)

        for each in in_threads(*[launch] * 4):
            each.join()
        assert outcomes.count(1) == 1
        assert set(outcomes) <= {1, "stale_version", "transition_refused"}
        assert len(outcomes) == 4
        assert len(fresh(product).marketing().history()) == 1

    def test_saving_an_older_object_never_overwrites_a_launch(self):
        product = Product.objects.create()
        older = fresh(product)
        product.marketing().launch_campaign()
        older.price = 9
        older.save()
        assert (fresh(product).price, fresh(product).marketing().campaign().status) == (9, "active")
        assert older.marketing().campaign().is_active()

    def test_a_row_that_is_gone_is_a_conflict(self):
        product = Product.objects.create()
        Product.objects.all().delete()
        with pytest.raises(StaleVersion, match="gone"):
            product.marketing().launch_campaign()
        assert product.marketing_state is None

    def test_the_lock_changes_nothing_in_the_connection(self):
        product = Product.objects.create()
        product.marketing().launch_campaign()
        assert not connection.in_atomic_block
        assert connection.run_on_commit == []
