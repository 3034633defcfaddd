"""The suite of tenant resolvers: the how-to's application passes it, and those do not who believe what anybody may write."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from typing import Any

import pytest

from nexus_marketing.plugin import Capability, TenantMember
from nexus_marketing.plugin.rehearsal import rehearsed
from nexus_marketing.plugin.testing import TenantResolverConformance
from tests.common.pages import HOWTO, files_of, imported
from tests.common.plugins import manifest

pytestmark = pytest.mark.req("US-018", "SR-007", "MAINT-004")

_FILES = files_of(HOWTO / "use-your-own-sign-in.md")
imported({path: text for path, text in _FILES.items() if path.startswith("portal/")})
_TESTS: dict[str, Any] = {"__name__": __name__}
exec(compile(_FILES["tests/test_portal.py"], "use-your-own-sign-in.md", "exec"), _TESTS)
TestPortal = _TESTS["TestPortal"]


class Certificate:
    """By what the server in front has checked: nothing of it comes from the request's own words."""

    def resolve(self, request: Any) -> TenantMember | None:
        name = request.environ.get("SSL_CLIENT_S_DN_Email")
        return None if name is None else TenantMember("acme", name)


class Trusting:
    """By a header."""

    def resolve(self, request: Any) -> TenantMember | None:
        name = request.headers.get("X-Forwarded-User")
        return None if name is None else TenantMember("acme", name)


class Unsigned:
    """By a cookie that its holder can write."""

    def resolve(self, request: Any) -> TenantMember | None:
        try:
            return TenantMember(*json.loads(urlsafe_b64decode(request.cookies["who"])))
        except (KeyError, ValueError, TypeError):
            return None


def application(resolver: Any) -> Callable[[Any], None]:
    def include(config: Any) -> None:
        config.add_marketing_plugin(manifest("nexus-portal", Capability.TENANT_RESOLVER))
        config.add_marketing_tenant_resolver(resolver)

    return include


class TestCertificate(TenantResolverConformance):
    @pytest.fixture
    def application(self) -> Callable[[Any], None]:
        return application(Certificate)

    @pytest.fixture
    def sign_in(self) -> Callable[[Any], None]:
        return lambda request: request.environ.update(SSL_CLIENT_S_DN_Email="ann@example.org")


def by_header(request: Any) -> None:
    request.environ["HTTP_X_FORWARDED_USER"] = "ann@example.org"


def by_cookie(request: Any) -> None:
    value = urlsafe_b64encode(json.dumps(["acme", "ann@example.org"]).encode()).decode()
    request.environ["HTTP_COOKIE"] = f"who={value}"
    request.add_response_callback(lambda _request, response: response.set_cookie("who", value))


def test_one_that_believes_a_header_does_not_pass() -> None:
    suite, config = TenantResolverConformance(), rehearsed({}, application(Trusting))
    ask = TenantResolverConformance.ask.__wrapped__(suite, config, Trusting())  # type: ignore[attr-defined]
    with pytest.raises(AssertionError):
        suite.test_what_anybody_may_write_is_not_believed(ask, by_header)


def test_one_whose_cookie_is_not_signed_does_not_pass() -> None:
    suite, config = TenantResolverConformance(), rehearsed({}, application(Unsigned))
    ask = TenantResolverConformance.ask.__wrapped__(suite, config, Unsigned())  # type: ignore[attr-defined]
    signed = TenantResolverConformance.signed.__wrapped__(suite, config, by_cookie)  # type: ignore[attr-defined]
    assert signed
    with pytest.raises(AssertionError):
        suite.test_a_cookie_that_was_altered_is_nobodys(ask, signed)
