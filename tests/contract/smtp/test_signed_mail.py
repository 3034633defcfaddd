"""Mail of accounts over real sockets: signed as it leaves, through the server of each."""

from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import dkim
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from nexus_marketing.builtins.channels.email import ALLOW_SETTING, PORTS, EmailChannel
from nexus_marketing.core.clock import SystemClock
from nexus_marketing.core.contracts import Content, OutcomeKind
from nexus_marketing.core.templates import parse_message
from nexus_marketing.plugin.sockets import Dialer
from nexus_marketing.smtp.catcher import Catcher
from nexus_marketing.smtp.client import PoolSettings, TlsPolicy
from tests.contract.smtp.test_email_channel import Journal, submissions

pytestmark = pytest.mark.req("FR-P2-009", "US-018")

SENDER = {"from_email": "news@shop.example"}


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[dict[str, Catcher]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(Catcher(tmp_path / name)) for name in ("ours", "own")}


def test_an_account_sends_by_its_own_server_and_signs(servers: dict[str, Catcher], tmp_path: Path) -> None:
    key = generate_private_key(public_exponent=65537, key_size=1024)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    raw = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    own = {
        **SENDER,
        "host": "localhost",
        "port": servers["own"].port,
        "security": "none",
        "dkim_domain": "shop.example",
        "dkim_selector": "s1",
        "dkim_key": key.private_bytes(*form).decode(),
    }
    relay = PoolSettings(host="127.0.0.1", port=servers["ours"].port, connections=2, tls=TlsPolicy.NONE)
    dialer = Dialer(ALLOW_SETTING, [f"localhost:{servers['own'].port}"], PORTS)
    channel = EmailChannel(relay, SystemClock(), {}, dialer)
    channel.validate(own)
    content = Content(parse_message({"subject": "Hello", "text": "Hello\n.you"}), SENDER, "", bulk=False)
    for settings in (own, SENDER, own):
        session = channel.open(settings, content)
        outcomes = [each for each in session.submit(submissions(6), Journal()) if each is not None]
        assert {each.kind for each in outcomes} == {OutcomeKind.ACCEPTED}
    channel.close_thread()
    kept = {name: [file.read_bytes() for file in sorted((tmp_path / name).glob("*.eml"))] for name in servers}
    assert {name: len(mails) for name, mails in kept.items()} == {"own": 12, "ours": 6}
    record = b"v=DKIM1; k=rsa; p=" + b64encode(raw)
    assert all(dkim.verify(mail, dnsfunc=lambda *_args, **_options: record) for mail in kept["own"])
    assert not any(b"DKIM-Signature" in mail for mail in kept["ours"])
