"""The suite of a tenant resolver: a class to inherit from (pytest). Requests are Pyramid's, with your application's sessions."""

from collections.abc import Callable, Mapping
from http.cookies import SimpleCookie
from typing import Any, Final

import pytest
from pyramid.config import Configurator
from pyramid.registry import Registry
from pyramid.request import Request, apply_request_extensions
from pyramid.response import Response

from nexus_marketing.core.extensions import TenantMember, TenantResolver
from nexus_marketing.plugin.conformity import missing_parts
from nexus_marketing.plugin.rehearsal import rehearsed
from nexus_marketing.plugin.resolvers import read_claim

_PATH: Final = "/api/v1/leads"
#: What anybody may write who reaches the server.
_HEADERS: Final = (
    "X-User",
    "X-Remote-User",
    "Remote-User",
    "X-Forwarded-User",
    "X-Forwarded-Email",
    "X-Auth-Request-Email",
)
_NAMES: Final = ("user", "userid", "email", "address", "member", "session", "auth_tkt")
_GARBAGE: Final = ("", "x", "%00", "\u00ff\u00fe", "0" * 5_000, "e30=", "null", "eyJhbGciOiJub25lIn0.e30.")


class TenantResolverConformance:
    """Holds a resolver against its contract: nobody is somebody who has not signed in.

    Give it two fixtures: ``application``, the module (or its ``includeme``) that adds the resolver, and ``sign_in``, a function that
    does with a request what your sign-in does; ``settings`` may answer lines of the ini file.
    """

    @pytest.fixture
    def settings(self) -> Mapping[str, str]:
        """What the application reads of the ini file."""
        return {}

    @pytest.fixture
    def config(self, application: str | Callable[[Configurator], None], settings: Mapping[str, str]) -> Configurator:
        """The application, taken in."""
        return rehearsed(settings, application)

    @pytest.fixture
    def resolver(self, config: Configurator) -> TenantResolver:
        """What it adds."""
        found: tuple[Any, TenantResolver] | None = config.registry["nexus.plugins"].tenant_resolver
        assert found is not None, "the application adds no tenant resolver"
        return found[1]

    @pytest.fixture
    def ask(self, config: Configurator, resolver: TenantResolver) -> Callable[..., TenantMember | None]:
        """What the resolver says of a request: ``ask("/path", sign_in, Cookie="a=b")``."""

        def ask(
            path: str = _PATH, prepare: Callable[[Any], object] = lambda _request: None, **headers: str
        ) -> TenantMember | None:
            request = _request(config.registry, path, headers)
            prepare(request)
            return read_claim(resolver.resolve(request))

        return ask

    @pytest.fixture
    def signed(self, config: Configurator, sign_in: Callable[[Any], object]) -> Mapping[str, str]:
        """The cookies that a browser has after signing in; none where the session is in something else."""
        request = _request(config.registry, _PATH, {})
        sign_in(request)
        response = Response()
        request._process_response_callbacks(response)  # noqa: SLF001 - as Pyramid's router does
        cookies: SimpleCookie = SimpleCookie()
        for header in response.headers.getall("Set-Cookie"):
            cookies.load(header)
        return {name: morsel.value for name, morsel in cookies.items()}

    def test_it_has_every_part_of_the_contract(self, resolver: TenantResolver) -> None:
        assert missing_parts(TenantResolver, resolver) == []

    def test_a_request_that_brings_nothing_is_nobodys(self, ask: Callable[..., TenantMember | None]) -> None:
        for path in ("/", _PATH, "/graphql", f"{_PATH}?limit=1"):
            assert ask(path) is None

    def test_who_signed_in_is_a_member_and_the_same_each_time(
        self,
        ask: Callable[..., TenantMember | None],
        sign_in: Callable[[Any], object],
        signed: Mapping[str, str],
    ) -> None:
        first = ask(_PATH, sign_in)
        assert first is not None
        assert ask(_PATH, sign_in) == first
        if signed:
            assert ask(Cookie=_header(signed)) == first

    def test_what_anybody_may_write_is_not_believed(
        self, ask: Callable[..., TenantMember | None], sign_in: Callable[[Any], object]
    ) -> None:
        somebody = ask(_PATH, sign_in)
        assert somebody is not None
        tenant, member = somebody.tenant, str(somebody.member)
        query = "&".join(f"{name}={member}" for name in _NAMES)
        assert ask(f"{_PATH}?tenant={tenant}&{query}") is None
        assert ask(Cookie="; ".join([f"tenant={tenant}", *(f"{name}={member}" for name in _NAMES)])) is None
        assert ask(**dict.fromkeys(_HEADERS, member), **{"X-Tenant": tenant}) is None
        assert ask(Host=f"{tenant}.example.com") is None

    def test_a_cookie_that_was_altered_is_nobodys(
        self, ask: Callable[..., TenantMember | None], signed: Mapping[str, str]
    ) -> None:
        for name, value in signed.items():
            for place in range(0, len(value), max(1, len(value) // 40)):
                altered = value[:place] + ("A" if value[place] != "A" else "B") + value[place + 1 :]
                assert ask(Cookie=_header({**signed, name: altered})) is None, (name, place)
            for garbage in (value[:-1], value + value, *_GARBAGE):
                assert ask(Cookie=_header({**signed, name: garbage})) is None, (name, garbage)


def _request(registry: Registry, path: str, headers: Mapping[str, str]) -> Request:
    request = Request.blank(path, base_url="https://portal.example")
    request.registry = registry
    for name, value in headers.items():
        request.environ["HTTP_" + name.upper().replace("-", "_")] = value.encode().decode("latin-1")
    apply_request_extensions(request)
    return request


def _header(cookies: Mapping[str, str]) -> str:
    return "; ".join(f"{name}={value}" for name, value in cookies.items())
