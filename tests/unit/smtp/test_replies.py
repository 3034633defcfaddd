"""The classifier as a table: what each code means for the message it answers."""

import pytest

from nexus_marketing.smtp.replies import Phase, ReplyKind, classify, enhanced_code

pytestmark = pytest.mark.req("R10", "FR-P2-009")

TABLE = [
    # code, text, phase, kind
    (250, "2.0.0 ok", Phase.END, ReplyKind.ACCEPTED),
    (251, "will forward", Phase.END, ReplyKind.ACCEPTED),
    (550, "5.1.1 no such user", Phase.RCPT, ReplyKind.PERMANENT_RECIPIENT),
    (550, "5.1.10 null MX", Phase.RCPT, ReplyKind.PERMANENT_RECIPIENT),
    (553, "5.1.3 bad address", Phase.RCPT, ReplyKind.PERMANENT_RECIPIENT),
    (550, "5.1.8 sender domain does not exist", Phase.MAIL, ReplyKind.PERMANENT_SENDER),
    (550, "5.1.7 bad sender", Phase.MAIL, ReplyKind.PERMANENT_SENDER),
    (550, "5.2.1 mailbox disabled", Phase.RCPT, ReplyKind.PERMANENT_RECIPIENT),
    (552, "5.2.2 mailbox full", Phase.RCPT, ReplyKind.TRANSIENT),
    (452, "4.2.2 mailbox full", Phase.RCPT, ReplyKind.TRANSIENT),
    (552, "exceeded storage allocation", Phase.RCPT, ReplyKind.TRANSIENT),
    (552, "5.3.4 message too big", Phase.END, ReplyKind.PERMANENT_SENDER),
    (550, "5.4.1 recipient address rejected: access denied", Phase.RCPT, ReplyKind.PERMANENT_RECIPIENT),
    (550, "5.4.7 delivery time expired", Phase.RCPT, ReplyKind.TRANSIENT),
    (452, "4.5.3 too many recipients", Phase.RCPT, ReplyKind.THROTTLED),
    (550, "5.5.3 too many recipients", Phase.RCPT, ReplyKind.TRANSIENT),
    (550, "5.7.26 unauthenticated mail is not accepted", Phase.END, ReplyKind.PERMANENT_SENDER),
    (550, "5.7.515 access denied, sending domain", Phase.END, ReplyKind.PERMANENT_SENDER),
    (550, "5.7.1 authentication required", Phase.RCPT, ReplyKind.PERMANENT_SENDER),
    (550, "5.7.606 banned sending IP", Phase.RCPT, ReplyKind.PERMANENT_SENDER),
    (550, "5.7.13 user account disabled", Phase.RCPT, ReplyKind.PERMANENT_RECIPIENT),
    (535, "5.7.8 bad credentials", Phase.AUTH, ReplyKind.PERMANENT_SENDER),
    (530, "5.7.0 authenticate first", Phase.MAIL, ReplyKind.PERMANENT_SENDER),
    (534, "mechanism too weak", Phase.AUTH, ReplyKind.PERMANENT_SENDER),
    (421, "4.7.28 unusual rate of mail", Phase.END, ReplyKind.THROTTLED),
    (421, "service not available", Phase.MAIL, ReplyKind.THROTTLED),
    (451, "4.7.1 greylisted", Phase.RCPT, ReplyKind.THROTTLED),
    (450, "4.2.1 the user is receiving mail too quickly", Phase.RCPT, ReplyKind.THROTTLED),
    (451, "4.3.0 try again", Phase.END, ReplyKind.TRANSIENT),
    (450, "mailbox busy", Phase.RCPT, ReplyKind.TRANSIENT),
    (454, "4.7.0 temporary authentication failure", Phase.AUTH, ReplyKind.THROTTLED),
    (450, "5.1.1 code and status disagree", Phase.RCPT, ReplyKind.TRANSIENT),
    (550, "4.2.2 code and status disagree", Phase.RCPT, ReplyKind.TRANSIENT),
    (550, "no", Phase.RCPT, ReplyKind.PERMANENT_RECIPIENT),
    (554, "no", Phase.MAIL, ReplyKind.PERMANENT_SENDER),
    (554, "no", Phase.CONNECT, ReplyKind.PERMANENT_SENDER),
    (554, "transaction failed", Phase.END, ReplyKind.PERMANENT_RECIPIENT),
    (554, "5.6.0 lone CR or LF", Phase.END, ReplyKind.PERMANENT_RECIPIENT),
    (354, "what", Phase.END, ReplyKind.UNKNOWN),
    (699, "what", Phase.END, ReplyKind.UNKNOWN),
    (354, "what", Phase.RCPT, ReplyKind.NOT_SENT),
]


@pytest.mark.parametrize(("code", "text", "phase", "kind"), TABLE)
def test_classification(code, text, phase, kind):
    assert classify(code, enhanced_code(text), text, phase) is kind


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5.1.1 no", "5.1.1"), ("2.0.0", "2.0.0"), ("4.7.650 x", "4.7.650"), ("5.7.1234 x", ""), ("3.1.1 x", ""),
        ("no 5.1.1", ""), ("", ""), ("5", ""), ("5.1", ""), ("5.1.1x", ""),
    ],
)  # fmt: skip
def test_enhanced_code_is_read_at_the_start_only(text, expected):
    assert enhanced_code(text) == expected


def test_journal_numbers_come_back_as_kinds():
    assert [ReplyKind.from_number(kind.number) for kind in ReplyKind] == list(ReplyKind)
    assert [kind.number for kind in ReplyKind] == list(range(1, 8))
    with pytest.raises(ValueError, match="no reply kind"):
        ReplyKind.from_number(0)
