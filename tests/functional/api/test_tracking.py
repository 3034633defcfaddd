"""Recipients' links: pixel, click and the way out (S13, D03, RFC 8058)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import func, select
from webtest import TestApp

from nexus_marketing.core.tracking import Token, TokenKind
from nexus_marketing.db.models import Consent, Engagement, Hit, Suppression
from nexus_marketing.runtime import Runtime
from tests.common.factories import make_campaign, make_leads, make_send, make_template

pytestmark = pytest.mark.req("FR-P2-011", "BR-012")

ONE_CLICK = {"List-Unsubscribe": "One-Click"}
DESTINATION = "https://shop.example.org/sale?a=1&b=%20x"


@dataclass(frozen=True)
class Mail:
    """A message that somebody got."""

    runtime: Runtime
    tenant_id: int
    lead_id: int
    send_id: int

    def token(self, kind: TokenKind, **changes: int) -> str:
        values = {"tenant_id": self.tenant_id, "send_id": self.send_id, "seq": 1, "lead_id": self.lead_id, **changes}
        return self.runtime.keys.tokens.sign(Token(kind, **values))

    def count(self, model: Any) -> int:
        with self.runtime.work(self.tenant_id, mode="read") as ctx:
            return ctx.session.scalar(select(func.count()).select_from(model)) or 0


@pytest.fixture
def mail(runtime: Runtime, tenant: int) -> Mail:
    """A delivered message with two links, of a campaign that is over."""
    (lead,) = make_leads(runtime, tenant)
    template = make_template(runtime, tenant)
    campaign = make_campaign(runtime, tenant, template_id=template, status="completed")
    send = make_send(runtime, tenant, campaign, template, [lead], status="completed")
    return Mail(runtime, tenant, lead, send)


@pytest.fixture
def links(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """Published versions made by ``make_template`` have links."""
    from tests.common import factories

    original = factories.TemplateVersion
    monkeypatch.setattr(
        factories,
        "TemplateVersion",
        lambda **values: original(**{**values, "links": ["https://a.example/", DESTINATION]}),
    )


def test_an_open_is_noted_and_answered_with_a_pixel(app: TestApp, mail: Mail) -> None:
    response = app.get(f"/t/o/{mail.token(TokenKind.OPEN)}")
    assert response.content_type == "image/gif"
    assert response.body.startswith(b"GIF89a")
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    assert "Set-Cookie" not in response.headers
    with mail.runtime.work(mail.tenant_id, mode="read") as ctx:
        hit = ctx.session.scalars(select(Hit)).one()
    assert (hit.type, hit.lead_id, hit.send_id, hit.seq) == ("email_opened", mail.lead_id, mail.send_id, 1)


@pytest.mark.parametrize("junk", ["x", "0" * 54, "%00", "..", "'--", "a" * 5000])
def test_junk_gets_the_pixel_and_costs_no_statement(
    app: TestApp, mail: Mail, junk: str, count_statements: Callable[[], Any]
) -> None:
    with count_statements() as statements:
        assert app.get(f"/t/o/{junk}").body.startswith(b"GIF89a")
    assert statements == []
    assert mail.count(Hit) == 0


def test_looking_at_the_head_is_no_open(app: TestApp, mail: Mail) -> None:
    app.head(f"/t/o/{mail.token(TokenKind.OPEN)}")
    assert mail.count(Hit) == 0


@pytest.mark.usefixtures("links")
def test_a_click_goes_where_the_template_said(app: TestApp, runtime: Runtime, request: pytest.FixtureRequest) -> None:
    mail: Mail = request.getfixturevalue("mail")
    response = app.get(f"/t/c/{mail.token(TokenKind.CLICK, link=1)}", status=302)
    assert response.headers["Location"] == DESTINATION
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert response.headers["Cache-Control"] == "no-store"
    with runtime.work(mail.tenant_id, mode="read") as ctx:
        assert ctx.session.scalars(select(Hit)).one().link == 1


@pytest.mark.usefixtures("links")
@pytest.mark.req("SR-003")
def test_a_click_that_we_did_not_sign_goes_nowhere(app: TestApp, request: pytest.FixtureRequest) -> None:
    mail: Mail = request.getfixturevalue("mail")
    good = mail.token(TokenKind.CLICK, link=0)
    bad = [mail.token(TokenKind.OPEN), mail.token(TokenKind.UNSUBSCRIBE), "x", good + "A", good[:-1], good.swapcase()]
    bad += [good[:place] + ("A" if good[place] != "A" else "B") + good[place + 1 :] for place in range(len(good))]
    bad += [mail.token(TokenKind.CLICK, link=2), mail.token(TokenKind.CLICK, send_id=999)]
    bad += [mail.token(TokenKind.CLICK, tenant_id=999)]
    for token in bad:
        response = app.get(f"/t/c/{token}", status=404)
        assert "Location" not in response.headers
        assert response.content_type == "text/html"
    assert mail.count(Hit) == 0


@pytest.mark.usefixtures("links")
@pytest.mark.parametrize("extra", ["?url=https://evil.example", "?u=//evil.example", "?next=https://evil.example"])
def test_a_parameter_does_not_change_the_destination(app: TestApp, request: pytest.FixtureRequest, extra: str) -> None:
    mail: Mail = request.getfixturevalue("mail")
    token = mail.token(TokenKind.CLICK, link=1)
    assert app.get(f"/t/c/{token}{extra}", status=302).headers["Location"] == DESTINATION


def test_looking_at_the_page_unsubscribes_nobody(app: TestApp, mail: Mail) -> None:
    token = mail.token(TokenKind.UNSUBSCRIBE)
    for _ in range(20):
        page = app.get(f"/u/{token}")
        app.head(f"/u/{token}")
    assert "Acme" in page.text
    assert '<form method="post">' in page.text
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert [mail.count(model) for model in (Suppression, Consent, Hit)] == [0, 0, 0]


def test_one_click_unsubscribes_once(app: TestApp, mail: Mail) -> None:
    token = mail.token(TokenKind.UNSUBSCRIBE)
    for _ in range(3):
        response = app.post(f"/u/{token}", ONE_CLICK, status=200)
        assert "Set-Cookie" not in response.headers
        assert "Location" not in response.headers
    assert [mail.count(model) for model in (Suppression, Engagement)] == [1, 1]


def test_one_click_as_multipart_works_too(app: TestApp, mail: Mail) -> None:
    app.post(f"/u/{mail.token(TokenKind.UNSUBSCRIBE)}", ONE_CLICK, content_type="multipart/form-data", status=200)
    assert mail.count(Suppression) == 1


def test_the_button_of_the_page_works(app: TestApp, mail: Mail) -> None:
    page = app.get(f"/u/{mail.token(TokenKind.UNSUBSCRIBE)}")
    done = page.form.submit("action", value="unsubscribe", status=200)
    assert "You are unsubscribed" in done.text
    assert mail.count(Suppression) == 1


def test_a_post_that_says_nothing_asks_again(app: TestApp, mail: Mail) -> None:
    page = app.post(f"/u/{mail.token(TokenKind.UNSUBSCRIBE)}", {}, status=400)
    assert '<form method="post">' in page.text
    assert mail.count(Suppression) == 0


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_junk_and_other_tokens_tell_nothing(app: TestApp, mail: Mail, method: str) -> None:
    bodies = set()
    for token in ("x", "0" * 54, mail.token(TokenKind.CLICK), mail.token(TokenKind.OPEN)):
        bodies.add(
            app.request(f"/u/{token}", method=method, POST=ONE_CLICK if method == "POST" else None, status=404).body
        )
    assert len(bodies) == 1


def test_an_erased_person_gets_the_same_page(app: TestApp, mail: Mail) -> None:
    token = mail.token(TokenKind.UNSUBSCRIBE, lead_id=999_999)
    known = app.post(f"/u/{mail.token(TokenKind.UNSUBSCRIBE)}", ONE_CLICK)
    assert app.post(f"/u/{token}", ONE_CLICK).body == known.body
