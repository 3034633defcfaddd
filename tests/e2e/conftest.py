"""What end-to-end tests may ask for beside the servers of every test."""

import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from pymongo import MongoClient

from tests.common import servers
from tests.common.servers.mongo import MongoServer, mongo_line, start_mongo
from tests.common.servers.rabbitmq import RabbitmqServer, find_rabbitmq, rabbitmq_line, start_rabbitmq


def pytest_report_header() -> list[str]:
    """Say what answers as MongoDB, the real thing or not, and whether there is a RabbitMQ."""
    return [mongo_line(), rabbitmq_line()]


@pytest.fixture(scope="session")
def mongo_server(servers_run: servers.Run) -> MongoServer:
    """The MongoDB server of the run, or its stand-in."""
    return start_mongo(servers_run)


@pytest.fixture
def mongo_database(mongo_server: MongoServer) -> Iterator[str]:
    """The name of a database that nobody else uses, gone after the test."""
    name = f"{mongo_server.databases}{secrets.token_hex(6)}"
    yield name
    client: MongoClient[dict[str, Any]]
    with MongoClient(mongo_server.url) as client:
        client.drop_database(name)


@pytest.fixture(scope="session")
def rabbitmq_server(servers_run: servers.Run) -> RabbitmqServer:
    """The RabbitMQ server of the run; without one on this machine the test is skipped and says why."""
    try:
        find_rabbitmq()
    except servers.ServerUnavailable as error:
        pytest.skip(str(error))
    return start_rabbitmq(servers_run)
