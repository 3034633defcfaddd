"""What a tenant has on is read at most once a second."""

from typing import Any

import pytest
from sqlalchemy.orm import Session

from nexus_marketing.db.switches import Switches
from nexus_marketing.services.plugins.enabling import switch_off, switch_on
from tests.common.plugins import FaxChannel, fax_plugin, with_plugins

pytestmark = pytest.mark.req("US-018")


def on(switches: Switches, session: Session) -> dict[str, Any]:
    return {name: found.settings for name, found in switches.of(session).items()}


def test_what_another_process_switched_is_seen_a_second_later(runtime: Any, tenant: int) -> None:
    moment = [0.0]
    here, there = with_plugins(runtime, fax_plugin(FaxChannel())), Switches(lambda: moment[0])
    with runtime.work(tenant, mode="read") as ctx:
        assert on(there, ctx.session) == {}
    with here.work(tenant) as ctx:
        switch_on(ctx, "nexus-fax", {"station": "north"})
    with runtime.work(tenant, mode="read") as ctx:
        assert on(there, ctx.session) == {}
        moment[0] = 1.0
        assert on(there, ctx.session) == {"nexus-fax": {"station": "north"}}
    with here.work(tenant) as ctx:
        switch_off(ctx, "nexus-fax")
    with runtime.work(tenant, mode="read") as ctx:
        assert "nexus-fax" in there.of(ctx.session)
        there.forget(tenant)
        assert on(there, ctx.session) == {}


def test_tenants_do_not_see_each_other(runtime: Any, tenant: int, other_tenant: int) -> None:
    here = with_plugins(runtime, fax_plugin(FaxChannel()))
    with here.work(tenant) as ctx:
        switch_on(ctx, "nexus-fax")
    for each, expected in ((tenant, {"nexus-fax": {}}), (other_tenant, {})):
        with here.work(each, mode="read") as ctx:
            assert on(here.switches, ctx.session) == expected
