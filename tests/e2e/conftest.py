"""What end-to-end tests may ask for beside the servers of every test."""

import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from pymongo import MongoClient

from tests.common import servers
from tests.common.servers.mongo import MongoServer, mongo_line, start_mongo


def pytest_report_header() -> str:
    """Say what answers as MongoDB: the real thing or not."""
    return mongo_line()


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
