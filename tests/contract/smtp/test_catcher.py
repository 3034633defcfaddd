"""The catcher keeps what was sent, byte for byte, and sees what breaks the rules."""

import json
import smtplib
import socket

import pytest

from nexus_marketing.core.errors import Unavailable
from nexus_marketing.smtp.catcher import Catcher, CatcherSettings

pytestmark = pytest.mark.req("FR-P2-009")

MESSAGE = b"From: a@example.com\r\nSubject: hi\r\n\r\nbody\r\n"


def talk(port: int, data: bytes) -> bytes:
    """Say everything at once and return all answers."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall(data + b"QUIT\r\n")
        answers = b""
        while chunk := sock.recv(65536):
            answers += chunk
    return answers


def envelope(body: bytes, mail=b"MAIL FROM:<a@example.com>") -> bytes:
    return b"EHLO x\r\n" + mail + b"\r\nRCPT TO:<b@example.org>\r\nDATA\r\n" + body


def test_a_message_is_stored_unaltered_with_its_envelope_beside_it(tmp_path):
    with Catcher(tmp_path) as catcher, smtplib.SMTP("127.0.0.1", catcher.port, "x") as client:
        client.sendmail("a@example.com", ["b@example.org", "c@example.org"], MESSAGE + b".dot\r\n..\r\n.\r\n")
        client.sendmail("a@example.com", ["b@example.org"], MESSAGE)
        assert catcher.accepted == 2
    first, second = sorted(tmp_path.glob("*.eml"))
    assert first.read_bytes() == MESSAGE + b".dot\r\n..\r\n.\r\n"
    assert second.read_bytes() == MESSAGE
    entries = [json.loads(line) for line in (tmp_path / "index.jsonl").read_text().splitlines()]
    assert [entry["file"] for entry in entries] == [first.name, second.name]
    assert entries[0]["recipients"] == ["b@example.org", "c@example.org"]
    assert entries[0]["sender"] == "a@example.com"
    assert first.name.split("-")[1] == second.name.split("-")[1]


def test_a_restarted_catcher_overwrites_nothing(tmp_path):
    for _ in range(2):
        with Catcher(tmp_path) as catcher, smtplib.SMTP("127.0.0.1", catcher.port, "x") as client:
            client.sendmail("a@example.com", ["b@example.org"], MESSAGE)
    assert [file.name[:8] for file in sorted(tmp_path.glob("*.eml"))] == ["00000001", "00000002"]


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        (MESSAGE + b"x" * 999 + b"\r\n.\r\n", "line_too_long"),
        (MESSAGE + b"bare\nline\r\n.\r\n", "bare_line_break"),
        (MESSAGE + b"bare\rreturn\r\n.\r\n", "bare_line_break"),
        (MESSAGE + b"smuggled\n.\nMAIL FROM:<x@example.com>\r\n.\r\n", "bare_line_break"),
        (MESSAGE + b".unstuffed\r\n.\r\n", "unstuffed_dot"),
        (MESSAGE + b"\0\r\n.\r\n", "nul"),
        (MESSAGE + "é\r\n.\r\n".encode(), "eight_bit_undeclared"),
    ],
)
def test_a_strict_catcher_records_what_breaks_the_rules(tmp_path, body, rule):
    with Catcher(tmp_path, CatcherSettings(strict=True)) as catcher:
        answers = talk(catcher.port, envelope(body))
        assert rule in {violation.rule for violation in catcher.violations}
        assert catcher.accepted == 1
        assert answers.count(b"250 2.0.0 stored") == 1


def test_a_strict_catcher_has_nothing_against_clean_mail(tmp_path):
    body = MESSAGE + b"x" * 998 + b"\r\n..stuffed\r\n.\r\n"
    with Catcher(tmp_path, CatcherSettings(strict=True)) as catcher:
        with socket.create_connection(("127.0.0.1", catcher.port), timeout=10) as sock:
            sock.sendall(envelope(b""))
            seen = b""
            while b"354" not in seen:
                seen += sock.recv(65536)
            sock.sendall(body[:50])
            sock.sendall(body[50:])
            while b"stored" not in seen:
                seen += sock.recv(65536)
        assert catcher.violations == []


def test_commands_out_of_order_are_refused(tmp_path):
    with Catcher(tmp_path) as catcher:
        answers = talk(catcher.port, b"MAIL FROM:<a@b.c>\r\nEHLO x\r\nRCPT TO:<a@b.c>\r\nDATA\r\nNONSENSE\r\n")
    codes = [line[:3] for line in answers.split(b"\r\n") if line[3:4] == b" "]
    assert codes == [b"220", b"503", b"250", b"503", b"503", b"502", b"221"]


def test_mail_needs_a_login_where_credentials_are_set(tmp_path):
    with Catcher(tmp_path, CatcherSettings(credentials={"me": "pw"})) as catcher:
        assert b"530 " in talk(catcher.port, envelope(b""))
        with smtplib.SMTP("127.0.0.1", catcher.port, "x") as client:
            client.ehlo()
            client.user, client.password = "me", "pw"
            assert client.auth("LOGIN", client.auth_login)[0] == 235
        with smtplib.SMTP("127.0.0.1", catcher.port, "x") as client:
            client.ehlo()
            client.user, client.password = "me", "no"
            with pytest.raises(smtplib.SMTPAuthenticationError):
                client.auth("PLAIN", client.auth_plain)


def test_a_taken_port_is_named(tmp_path):
    with Catcher(tmp_path) as first:
        second = Catcher(tmp_path / "other", CatcherSettings(port=first.port))
        with pytest.raises(Unavailable, match=str(first.port)):
            second.start()
        second.stop()
