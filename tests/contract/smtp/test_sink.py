"""The sink as its own process: a judge may trust its log, and its faults come on order."""

import json
import signal
import smtplib
import socket
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.smtp.sink import Rule, parse_script
from tests.contract.smtp.servers import running_sink

pytestmark = pytest.mark.req("R10")

MESSAGE = b"From: a@example.com\r\nMessage-ID: <m.1@example.com>\r\n\r\nbody\r\n"


def test_the_process_prints_its_port_and_logs_before_it_answers(tmp_path):
    log, script = tmp_path / "log", tmp_path / "script.json"
    script.write_text(json.dumps([{"match": "perm", "action": "reply", "code": 550, "text": "5.1.1 no"}]))
    command = [sys.executable, "-m", "nexus_marketing.smtp.sink", "--log", log, "--script", script, "--record"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        port = int(process.stdout.readline())
        with smtplib.SMTP("127.0.0.1", port, "x") as client:
            client.sendmail("a@example.com", ["b@example.org"], MESSAGE)
            recipient, message_id, size, seconds = log.read_text().rstrip("\n").split("\t")
            with pytest.raises(smtplib.SMTPRecipientsRefused):
                client.sendmail("a@example.com", ["perm@example.org"], MESSAGE)
        process.send_signal(signal.SIGTERM)
        counts = json.loads(process.stdout.read())
    assert process.returncode == 0
    assert (recipient, message_id, int(size)) == ("b@example.org", "<m.1@example.com>", len(MESSAGE))
    assert float(seconds) > 1.7e9
    assert counts == {"accepted": 1, "octets": len(MESSAGE), "sessions": 1}


@given(st.lists(st.binary(min_size=0, max_size=40), max_size=8), st.lists(st.integers(1, 60), min_size=1, max_size=30))
def test_the_end_of_a_message_is_found_however_it_is_cut(lines, cuts):
    clean = [line.replace(b"\r", b"").replace(b"\n", b"") for line in lines]
    body = b"".join((b"." + line if line[:1] == b"." else line) + b"\r\n" for line in clean)
    envelope = b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n"
    with running_sink(record=False) as sink:
        with socket.create_connection(("127.0.0.1", sink.port), timeout=10) as sock, sock.makefile("rb") as answers:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            answers.readline()
            for _ in range(2):
                sock.sendall(envelope)
                assert [answers.readline()[:3] for _ in range(3)] == [b"250", b"250", b"354"]
                stream, position = body + b".\r\n", 0
                for cut in cuts:
                    sock.sendall(stream[position : position + cut])
                    position += cut
                sock.sendall(stream[position:])
                assert answers.readline()[:3] == b"250"
        assert (sink.accepted, sink.octets) == (2, 2 * len(body))


def test_a_rule_may_hold_for_the_first_times_only():
    rules = parse_script('[{"match": "b@", "action": "reply", "times": 1}]')
    assert rules == [Rule(b"b@", "reply", times=1)]
    with running_sink(rules=rules) as sink, smtplib.SMTP("127.0.0.1", sink.port, "x") as client:
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            client.sendmail("a@example.com", ["b@example.org"], MESSAGE)
        client.sendmail("a@example.com", ["b@example.org"], MESSAGE)
        assert sink.accepted == 1


def test_a_stalled_message_is_answered_after_its_time():
    with running_sink(rules=[Rule(b"b@", "stall", seconds=0.3)]) as sink:
        with smtplib.SMTP("127.0.0.1", sink.port, "x", timeout=10) as client:
            client.sendmail("a@example.com", ["b@example.org"], MESSAGE)
        assert sink.accepted == 1
