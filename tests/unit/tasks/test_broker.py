"""Which broker rings go through, and what is said when it cannot be."""

import sys

import pytest
from dramatiq.brokers.redis import RedisBroker

from nexus_marketing.config import make_runtime
from nexus_marketing.core.errors import ConfigurationError
from nexus_marketing.runtime import MemoryDoorbell
from nexus_marketing.tasks.broker import QUEUE
from nexus_marketing.tasks.rabbitmq import RingBroker, with_options

pytestmark = pytest.mark.req("SCL-001")

SETTINGS = {"nexus.database_url": "sqlite:///nexus.db", "nexus.secret_key": "0123456789abcdef0123456789abcdef"}
REDIS = "redis://127.0.0.1:1/0"
RABBITMQ = "amqp://u:p@127.0.0.1:1/"


def doorbell(**settings: str):
    runtime = make_runtime(SETTINGS | {f"nexus.{name}": value for name, value in settings.items()})
    runtime.close()
    return runtime.doorbell


def broker(**settings: str):
    return doorbell(**settings)._hearing


def test_without_a_broker_work_is_found_by_polling():
    assert isinstance(doorbell(), MemoryDoorbell)


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"redis_url": REDIS}, RedisBroker),
        ({"broker_url": REDIS}, RedisBroker),
        ({"broker_url": RABBITMQ}, RingBroker),
        ({"redis_url": REDIS, "broker_url": RABBITMQ}, RingBroker),
    ],
)
def test_the_url_says_which_broker(settings, kind):
    found = broker(**settings)
    assert isinstance(found, kind)
    assert found.get_declared_queues() == {QUEUE}
    assert "AgeLimit" in {type(each).__name__ for each in found.middleware}


def test_a_connection_to_rabbitmq_is_dependable_and_soon_given_up():
    found = broker(broker_url=f"{RABBITMQ}?heartbeat=60")
    assert found.confirm_delivery
    (parameters,) = found.parameters
    assert parameters.heartbeat == 60
    assert (parameters.connection_attempts, parameters.socket_timeout, parameters.stack_timeout) == (1, 1, 2)
    assert parameters.blocked_connection_timeout == 1
    assert broker(broker_url=RABBITMQ).parameters[0].heartbeat == 20


def test_a_password_may_have_a_semicolon():
    (parameters,) = broker(broker_url="amqp://u:c4n;4ry@rabbit/").parameters
    assert parameters.credentials.password == "c4n;4ry"


@pytest.mark.parametrize(
    "url", ["amqp://u:p%40%2F@rabbit:5672/%2Fa", "amqps://u:p@[::1]/a?ssl_options=%7B%27verify%27%3A+1%7D"]
)
def test_options_leave_the_rest_of_a_url_as_it_is(url):
    address, _, options = url.partition("?")
    assert with_options(url).startswith(f"{address}?heartbeat=20&")
    assert with_options(url).endswith(options)
    assert with_options(with_options(url)) == with_options(url)


@pytest.mark.parametrize("url", [f"{RABBITMQ}?colour=red", f"{RABBITMQ}?heartbeat=often", f"{REDIS}?db=first"])
def test_options_that_nobody_knows_are_named_with_their_setting(url):
    with pytest.raises(ConfigurationError, match=r"nexus\.broker_url: its options .* cannot be read"):
        broker(broker_url=url)


def test_without_the_extra_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pika", None)
    for module in ("nexus_marketing.tasks.rabbitmq", "dramatiq.brokers.rabbitmq"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(ConfigurationError, match=r"nexus\.broker_url needs pika: pip install 'nexus-marketing\[rabbit"):
        broker(broker_url=RABBITMQ)


def test_a_broker_that_was_never_there_delays_nobody(free_port):
    bell = doorbell(broker_url=f"amqp://127.0.0.1:{free_port}/")
    bell.ring(7, "sends")
    assert bell.wait(0)
    bell._hearing.close()
