"""Signatures of mail, verified by another implementation against keys that stand in no DNS."""

from base64 import b64encode
from functools import cache

import dkim
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.core.errors import ValidationError
from nexus_marketing.smtp.dkim import Signer, make_signer
from nexus_marketing.smtp.parts import AddressHeader, Context, Header, Slot
from nexus_marketing.smtp.skeleton import compile_message

pytestmark = pytest.mark.req("FR-P2-009")

_PEM = serialization.Encoding.PEM
_NO_PASSWORD = serialization.NoEncryption()


def pem(key) -> str:
    return key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, _NO_PASSWORD).decode()


@cache
def pair(kind: str) -> tuple[Signer, bytes]:
    """A signer, and the record that its public key has in DNS."""
    if kind == "ed25519":
        ours = ed25519.Ed25519PrivateKey.generate()
        raw = ours.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    else:
        ours = rsa.generate_private_key(public_exponent=65537, key_size=1024)
        raw = ours.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    record = f"v=DKIM1; k={kind}; p={b64encode(raw).decode()}".encode()
    return make_signer("shop.example", "s1", pem(ours)), record


def is_valid(message: bytes, record: bytes) -> bool:
    asked = []

    def look_up(name: bytes, timeout: int = 5) -> bytes:
        asked.append((name, timeout))
        return record

    found = dkim.verify(message, dnsfunc=look_up)
    assert [name for name, _ in asked] == [b"s1._domainkey.shop.example."]
    return bool(found)


SKELETON = compile_message(
    [
        Header("Date", [Slot("date", Context.HEADER)], structured=True),
        AddressHeader("From", ["Shop"], ["news@shop.example"]),
        AddressHeader("To", [Slot("name", Context.HEADER)], ["ann@inbox.example"]),
        Header("Message-ID", ["<r1.s1.t1@shop.example>"], structured=True),
        Header("Subject", ["Hello ", Slot("name", Context.HEADER)]),
        Header("List-Unsubscribe", ["<https://shop.example/u/x>"], structured=True),
        Header("List-Unsubscribe-Post", ["List-Unsubscribe=One-Click"], structured=True),
    ],
    text=["Dear ", Slot("name", Context.TEXT), "\n\n  indented  \n.dot\n\n\n"],
    html=["<p>", Slot("name", Context.HTML), "</p>"],
)


@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
@given(name=st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=90))
def test_whatever_is_in_a_message_others_find_its_signature_good(kind, name):
    signer, record = pair(kind)
    signed = signer.signed(SKELETON.fill({"name": name, "date": "Sat, 28 Nov 2026 12:00:00 +0000"}))
    assert is_valid(signed, record)
    assert max(map(len, signed.split(b"\r\n"))) <= 998
    assert not any(line.startswith(b".") for line in signed.split(b"\r\n"))


def test_a_changed_byte_is_seen_and_so_is_another_sender():
    signer, record = pair("ed25519")
    signed = signer.signed(SKELETON.fill({"name": "Ann", "date": "Sat, 28 Nov 2026 12:00:00 +0000"}))
    assert is_valid(signed, record)
    for before, after in (
        (b"Dear", b"Deer"),
        (b"Subject: Hello", b"Subject: Hullo"),
        (b"news@shop.example", b"evil@shop.example"),
        (b"One-Click", b"Two-Click"),
        (b"From: ", b"From: Eve <eve@evil.example>\r\nFrom: "),
        (b"\r\nDate:", b"\r\nReply-To: eve@evil.example\r\nDate:"),
    ):
        altered = signed.replace(before, after, 1)
        assert altered != signed
        assert is_valid(altered, record) is (b"Reply-To" in after)


def test_what_gets_lost_on_the_way_without_harm_is_no_fault():
    signer, record = pair("ed25519")
    signed = signer.signed(b"From: news@shop.example\r\nSubject: a  b\r\n\r\nHello  there \r\n\r\n\r\n")
    assert is_valid(signed.replace(b"a  b", b"a b").replace(b"Hello  there \r\n\r\n", b"Hello there\r\n"), record)
    assert is_valid(signer.signed(b"From: news@shop.example\r\n\r\n"), record)


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"domain": "shop"}, "dkim_domain"),
        ({"domain": "shop.example; h="}, "dkim_domain"),
        ({"selector": "s1;"}, "dkim_selector"),
        ({"selector": ""}, "dkim_selector"),
        ({"key": "s3cretkey"}, "dkim_key"),
        ({"key": pem(ec.generate_private_key(ec.SECP256R1()))}, "dkim_key"),
        (
            {
                "key": ed25519.Ed25519PrivateKey.generate()
                .private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x"))
                .decode()
            },
            "dkim_key",
        ),
    ],
)
def test_what_cannot_sign_is_named_and_the_key_is_not(changes, path):
    given = {"domain": "shop.example", "selector": "s1", "key": "s3cretkey", **changes}
    with pytest.raises(ValidationError) as caught:
        make_signer(given["domain"], given["selector"], given["key"])
    (problem,) = caught.value.problems
    assert problem.path == path
    assert "s3cretkey" not in problem.message
    assert given["key"][30:60] not in problem.message or len(given["key"]) < 30


def test_a_signer_does_not_show_its_key():
    signer, _ = pair("ed25519")
    assert "_sign" not in repr(signer)
    assert "lambda" not in repr(signer)
