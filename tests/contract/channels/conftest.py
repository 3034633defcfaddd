"""Clients that are closed again."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nexus_marketing.plugin.http import HttpClient, HttpLimits
from tests.contract.channels.servers import HttpServer

ClientOf = Callable[..., HttpClient]


@pytest.fixture
def make_client() -> Iterator[ClientOf]:
    """A client with these limits; servers are the operator's exceptions."""
    made: list[HttpClient] = []

    def make(*servers: HttpServer | str, resolver: Any = None, **limits: Any) -> HttpClient:
        allowed = [each if isinstance(each, str) else each.allowed for each in servers]
        made.append(HttpClient(HttpLimits(allow_hosts=allowed, **limits), resolver=resolver))
        return made[-1]

    yield make
    for each in made:
        each.close()
