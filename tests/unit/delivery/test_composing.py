"""The short way from a lead to the values of a message gives what looking at each value by itself gives."""

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.core.campaigns import MessageClass
from nexus_marketing.core.messages import resolve, value_key
from nexus_marketing.core.templates import parse_message
from nexus_marketing.core.tracking import TokenKind, TokenSigner
from nexus_marketing.db.queries.deliveries import Recipient
from nexus_marketing.delivery.composing import Composer, SendContent

pytestmark = pytest.mark.req("FR-P2-009")

SIGNER = TokenSigner([b"k" * 32])
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
RUNTIME = SimpleNamespace(
    settings=SimpleNamespace(public_url="https://t.example"),
    keys=SimpleNamespace(tokens=SIGNER),
    clock=SimpleNamespace(now=lambda: AT),
)
SENDER = {"from_email": "news@shop.example", "from_name": "Shop", "postal_address": "1 High Street"}
NAMES = ("first_name", "country", "score", "metadata.plan")
value = st.one_of(st.none(), st.text(max_size=8), st.sampled_from(["", " ", "\u2003", "\x1f", "Ann", " Ann "]))
anything = st.one_of(value, st.integers(), st.booleans(), st.floats(allow_nan=False))
variable = st.builds(
    "{{{{ {}{} }}}}".format, st.sampled_from(NAMES), st.sampled_from(["", ' | default("you")', " | upper", " | trim"])
)
declared = st.dictionaries(
    st.sampled_from(NAMES), st.sampled_from([{"required": True}, {"fallback": "them"}, {}]), max_size=2
)


leads = st.lists(
    st.fixed_dictionaries(
        {"name": value, "first_name": value, "country": value, "score": st.integers(), "plan": anything}
    ),
    max_size=3,
)


@given(variables=st.lists(variable, max_size=5), declared=declared, leads=leads)
def test_values_are_those_of_each_variable_by_itself(variables, declared, leads):
    html = '<a href="https://shop.example/">x</a>{{ sender_name }}{{ unsubscribe_url }}' + "".join(variables)
    message = parse_message({"subject": "Hi", "html": html}, declared)
    content = SendContent(1, 2, MessageClass.MARKETING, "email", message, declared, SENDER, 3, AT)
    composer = Composer(RUNTIME, content)
    rows = []
    for seq, lead in enumerate(leads, 5):
        columns = {**lead, "metadata": {"plan": lead["plan"]}}
        own = tuple(columns[name] for name in composer.columns)
        rows.append(Recipient(seq, seq + 2, 0, None, f"{seq}@b.example", None, None, None, own))
    made = composer.compose(rows, [row.seq + 4 for row in rows])
    assert len(made) == len(rows)
    for row, lead, found in zip(rows, leads, made, strict=True):
        assert_is_message_of(found, row.seq, lead, message, declared)


def assert_is_message_of(found, seq, lead, message, declared):
    own = [each for each in message.variables if each.path in NAMES]
    by_path = {**lead, "metadata.plan": lead["plan"]}
    expected = {each: resolve(each, by_path[each.path], declared) for each in own}
    missing = {each.path for each, text in expected.items() if text is None}
    if missing:
        assert found in missing
        return
    assert (found.ref, found.address) == (seq + 4, f"{seq}@b.example")
    assert found.message_id == f"<r{seq}.s2.t1@shop.example>"
    values = dict(found.values)
    assert {value_key(each): values.pop(value_key(each)) for each in own} == {
        value_key(each): text for each, text in expected.items()
    }
    out = values.pop("var:unsubscribe_url")
    assert SIGNER.read(out, TokenKind.UNSUBSCRIBE).lead_id == seq + 2
    assert values.pop("unsubscribe") == f"https://t.example/u/{out}"
    assert SIGNER.read(values.pop("link:0"), TokenKind.CLICK).seq == seq
    assert SIGNER.read(values.pop("open"), TokenKind.OPEN).send_id == 2
    date = "Sun, 01 Mar 2026 12:00:00 +0000"
    assert values == {"to_name": lead["name"] or "", "date": date, "var:sender_name": "Shop"}
