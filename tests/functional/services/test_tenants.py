import threading
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from nexus_marketing.core.api_keys import build_key, parse_key
from nexus_marketing.core.errors import Conflict, NotFound, ValidationError
from nexus_marketing.db.models import AuditEntry, AuditValue, ChannelAccount, Tenant
from nexus_marketing.db.queries.api_keys import find_api_key
from nexus_marketing.services import tenants
from nexus_marketing.services.declarations import apply_declarations
from nexus_marketing.services.tenants import (
    change_role,
    create_key,
    create_member,
    create_tenant,
    list_keys,
    revoke_key,
    suspend_tenant,
)
from tests.common.factories import make_tenant

pytestmark = pytest.mark.req("SR-001", "SR-006")
REPOSITORY = Path(__file__).parents[3]


def write(folder: Path, text: str, slug: str = "acme") -> Path:
    (folder / slug).mkdir(parents=True, exist_ok=True)
    (folder / slug / "tenant.toml").write_text(text)
    return folder


def test_a_tenant_is_created_once_and_audited(runtime):
    tenant_id = create_tenant(runtime, "north-sea", "North Sea")
    with runtime.work(tenant_id, mode="read") as ctx:
        actions = ctx.session.scalars(select(AuditEntry.action)).all()
    assert actions == ["tenant.created"]
    with pytest.raises(Conflict, match="choose another name"):
        create_tenant(runtime, "north-sea", "Again")


@pytest.mark.parametrize("slug", ["", "a", "Big", "1st", "no space", "x" * 64, "a\nb"])
def test_a_tenant_name_that_no_command_could_take_is_refused(runtime, slug):
    with pytest.raises(ValidationError, match="no tenant name"):
        create_tenant(runtime, slug, "x")


def test_a_key_is_shown_once_and_found_by_its_hash(runtime, tenant):
    with runtime.work(tenant) as ctx:
        row, text = create_key(ctx, "ci", ["leads:read"])
    parsed = parse_key(text)
    found = find_api_key(runtime.engines.app, parsed.key_id)
    assert found.tenant_id == tenant
    assert found.secret_hash == parsed.secret_hash == row.secret_hash
    assert list(found.scopes) == ["leads:read"]
    assert found.is_live(runtime.clock.now())
    with runtime.work(tenant, mode="read") as ctx:
        bodies = str(ctx.session.scalars(select(AuditEntry.body)).all())
    assert text not in bodies
    assert text[18:61] not in bodies


def test_a_key_dies_by_revocation_expiry_and_suspension(runtime, tenant, clock):
    with runtime.work(tenant) as ctx:
        revoked, _ = create_key(ctx, "a", ["*"])
        expiring, _ = create_key(ctx, "b", ["*"], expires_at=clock.now() + timedelta(hours=1))
        kept, _ = create_key(ctx, "c", ["*"])
        revoke_key(ctx, revoked.key_id)
    clock.advance(hours=1)
    live = {
        row.name: find_api_key(runtime.engines.app, row.key_id).is_live(clock.now())
        for row in (revoked, expiring, kept)
    }
    assert live == {"a": False, "b": False, "c": True}
    with runtime.work(None, mode="read", role="owner") as ctx:
        slug = ctx.session.scalars(select(Tenant.slug).where(Tenant.id == tenant)).one()
    suspend_tenant(runtime, slug)
    assert not find_api_key(runtime.engines.app, kept.key_id).is_live(clock.now())


def test_keys_of_another_tenant_are_neither_listed_nor_revoked(runtime, tenant, other_tenant):
    with runtime.work(tenant) as ctx:
        row, _ = create_key(ctx, "mine", ["*"])
    with runtime.work(other_tenant) as ctx:
        assert list_keys(ctx) == []
        with pytest.raises(NotFound):
            revoke_key(ctx, row.key_id)


def test_a_key_without_scope_or_with_an_unknown_one_is_refused(runtime, tenant):
    with runtime.work(tenant) as ctx, pytest.raises(ValidationError, match="at least one scope"):
        create_key(ctx, "x", [])
    with runtime.work(tenant) as ctx, pytest.raises(ValidationError, match="'leads:all' is no scope"):
        create_key(ctx, "x", ["leads:all"])


def test_a_member_is_unique_by_address_and_audited_without_personal_values(runtime, tenant):
    with runtime.work(tenant) as ctx:
        boss = create_member(ctx, "Bo Oss", "Bo@Example.org", "admin")
        create_member(ctx, "Al Ly", "al@example.org", "marketer", manager_id=boss.id)
    with runtime.work(tenant) as ctx, pytest.raises(Conflict, match="has this address"):
        create_member(ctx, "Other", "bo@example.ORG", "analyst")
    with runtime.work(tenant, mode="read") as ctx:
        assert "example.org" not in str(ctx.session.scalars(select(AuditEntry.body)).all()).lower()
        assert "Bo@example.org" in str(ctx.session.scalars(select(AuditValue.values)).all())


def test_the_shipped_declarations_apply_and_apply_again(runtime):
    first = apply_declarations(runtime, REPOSITORY / "tenants")
    assert [(one.slug, one.outcome) for one in first] == [("demo", "created")]
    assert [one.outcome for one in apply_declarations(runtime, REPOSITORY / "tenants")] == ["unchanged"]
    with runtime.work(first[0].tenant_id, mode="read") as ctx:
        account = ctx.session.scalars(select(ChannelAccount)).one()
        tenant = ctx.session.get(Tenant, first[0].tenant_id)
        assert account.config["postal_address"]
        assert tenant.settings["consent_policy"] == "eu"
        assert tenant.settings["default_time_zone"] == "Europe/Amsterdam"


def test_a_changed_declaration_changes_the_tenant(runtime, tmp_path):
    write(tmp_path, 'name = "Acme"\n[email]\nfrom_email = "a@acme.example"\npostal_address = "Road 1"\n')
    apply_declarations(runtime, tmp_path)
    write(tmp_path, 'name = "Acme"\n[email]\nfrom_email = "b@acme.example"\npostal_address = "Road 1"\n')
    assert [one.outcome for one in apply_declarations(runtime, tmp_path / "acme")] == ["changed"]
    write(tmp_path, 'name = "Acme Ltd"\n[email]\nfrom_email = "b@acme.example"\npostal_address = "Road 1"\n')
    assert [one.outcome for one in apply_declarations(runtime, tmp_path)] == ["changed"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[settings]\nconsent_polcy = "eu"', "did you mean consent_policy"),
        ('[settings]\nconsent_policy = "maybe"', "use eu, always or never"),
        ('[settings]\ndefault_time_zone = "Mars/Base"', "IANA"),
        ('[settings.fields]\nseats = "integer"', "'integer' is no type"),
        ('[settings.fields]\nemail = "text"', "every lead has a field of this name"),
        ('[mail]\nfrom = "x"', "did you mean email"),
        ('[email]\nfrom_email = "a@acme.example"', "postal_address is missing"),
        ('[email]\nfrom_email = "nobody"\npostal_address = "Road 1"', "no e-mail address"),
        (
            '[email]\nfrom_email = "a@acme.example"\npostal_address = "Road 1"\nfrom_name = "A\\r\\nBcc: x"',
            "line break",
        ),
        ("name = ", "cannot be read"),
        ("settings = 3", r"write \[settings\]"),
    ],
)
def test_a_declaration_with_a_fault_names_it_and_changes_nothing(runtime, tmp_path, text, words):
    write(tmp_path, text, "broken")
    write(tmp_path, 'name = "Fine"', "fine")
    with pytest.raises(ValidationError, match=words):
        apply_declarations(runtime, tmp_path)
    with runtime.work(None, mode="read", role="owner") as ctx:
        assert ctx.session.scalars(select(Tenant.slug)).all() == []


def test_who_leaves_has_no_key_any_more(runtime, tenant, other_tenant, clock):
    with runtime.work(tenant) as ctx:
        ann = create_member(ctx, "Ann", "ann@example.org", "owner").id
        theirs = [create_key(ctx, "a", ["*"], member_id=ann)[0].key_id for _ in range(2)]
        other = create_key(ctx, "b", ["*"])[0].key_id
        revoke_key(ctx, theirs[0])
    with runtime.work(other_tenant) as ctx, pytest.raises(NotFound):
        change_role(ctx, ann, "former")
    with runtime.work(tenant) as ctx:
        with pytest.raises(ValidationError, match=r"'boss' is no role: use owner, .*former"):
            change_role(ctx, ann, "boss")
        with pytest.raises(ValidationError, match="'former' is no role"):
            create_member(ctx, "Bo", "bo@example.org", "former")
        for nobody in (0, ann + 9, 10**20, -(10**20)):
            with pytest.raises(NotFound, match="members list"):
                change_role(ctx, nobody, "owner")
        assert (change_role(ctx, ann, "analyst"), change_role(ctx, ann, "former"), change_role(ctx, ann, "former")) == (
            0,
            1,
            0,
        )
        with pytest.raises(ValidationError, match="has left"):
            create_key(ctx, "c", ["*"], member_id=ann)
    live = [find_api_key(runtime.engines.app, key).is_live(clock.now()) for key in (*theirs, other)]
    assert live == [False, False, True]
    with runtime.work(tenant, mode="read") as ctx:
        changed = select(AuditEntry.body).where(AuditEntry.action == "member.changed").order_by(AuditEntry.id)
        assert [body["role"]["after"] for body in ctx.session.scalars(changed)] == ["analyst", "former"]


def test_a_key_that_is_made_while_its_member_leaves_does_not_outlive_them(postgres_only_runtime, clock, monkeypatch):
    runtime = postgres_only_runtime
    tenant = make_tenant(runtime)
    with runtime.work(tenant) as ctx:
        ann = create_member(ctx, "Ann", "ann@example.org", "owner").id
    parted = []

    def leave():
        with runtime.work(tenant) as ctx:
            parted.append(change_role(ctx, ann, "former"))

    leaving = threading.Thread(target=leave)

    def meanwhile(*args):
        leaving.start()
        leaving.join(0.3)
        return build_key(*args)

    monkeypatch.setattr(tenants, "build_key", meanwhile)
    with runtime.work(tenant) as ctx:
        key = create_key(ctx, "a", ["*"], member_id=ann)[0].key_id
    leaving.join(10)
    assert parted == [1]
    assert not find_api_key(runtime.engines.app, key).is_live(clock.now())
