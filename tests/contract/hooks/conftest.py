"""Headers as channels get them."""

from collections.abc import Callable, Mapping

import pytest

from tests.common.provider_reports import Call


@pytest.fixture
def lower() -> Callable[..., Mapping[str, str]]:
    def headers(call: Call, **more: str) -> Mapping[str, str]:
        return {name.lower(): value for name, value in call.headers.items()} | more

    return headers
