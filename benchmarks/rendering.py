"""``delivery.render``: one message made for one recipient, against a bare render of the same template (PERFORMANCE.md).

Ours looks up ten variables in the lead, escapes them, signs eight links, the pixel and the way out, and answers the
whole MIME message in quoted-printable with its headers. The reference is minijinja: it gets all values ready-made and
answers text.
"""

import re
import time
from collections.abc import Callable, Sequence
from datetime import timedelta

import minijinja

from benchmarks.common import Options, Result, paired
from nexus_marketing.builtins.channels.email import compile_content
from nexus_marketing.core.campaigns import MessageClass
from nexus_marketing.core.clock import SystemClock
from nexus_marketing.core.errors import ValidationError
from nexus_marketing.core.templates import parse_message
from nexus_marketing.db.queries.deliveries import Recipient
from nexus_marketing.delivery.composing import Composer, SendContent
from nexus_marketing.delivery.pace import MAX_WINDOW
from nexus_marketing.runtime import Runtime
from nexus_marketing.smtp.headers import date_value
from tests.common.databases import sqlite_runtime

_LEAD = {
    "name": "Lead Number {n}",
    "first_name": "Lead{n}",
    "last_name": "Number{n}",
    "external_id": "x{n}",
    "email": "lead{n}@inbox.example",
    "country": "US",
    "locale": "en-US",
    "time_zone": "America/Chicago",
    "phone": "+1312555{n}",
}
_VARIABLES = (*_LEAD, "metadata.plan")
_LINKS = 8
_SENDER = {"from_email": "news@shop.example", "from_name": "Shop", "postal_address": "1 High Street, Town"}


def delivery_render(options: Options) -> Result:
    """Messages of 20 KB with 10 variables and 8 signed links, against minijinja with the values in its hand."""
    count = options.size(20_000, 2_000)
    html = _html()
    with sqlite_runtime(options.run, options.folder, clock=SystemClock()) as runtime:
        ours = _ours(runtime, html, count)
        reference = _minijinja(html, count)
        seconds = paired(ours, reference, repetitions=7)
    notes = f"{count} messages of {len(html) // 1000} KB"
    return seconds.result("delivery.render", 1.3, per=count, unit="us", notes=notes)


def _ours(runtime: Runtime, html: str, count: int) -> Callable[[], float]:
    message = parse_message({"subject": "Hello {{ first_name }}", "html": html})
    assert len(message.links) == _LINKS, message.links
    launched_at = runtime.clock.now() - timedelta(minutes=1)
    content = SendContent(1, 1, MessageClass.MARKETING, "email", message, {}, _SENDER, 1, launched_at)
    composer = Composer(runtime, content)
    skeleton = compile_content(content.content(runtime.settings.public_url))
    recipients = [_recipient(number, composer.columns) for number in range(1, count + 1)]

    def run() -> float:
        date = date_value(runtime.clock.now())
        made = b""
        started = time.perf_counter()
        for first in range(0, count, MAX_WINDOW):
            window = recipients[first : first + MAX_WINDOW]
            batch = [each for each in composer.compose(window, range(len(window))) if not isinstance(each, str)]
            beside = {
                "to": [each.address for each in batch],
                "message_id": [each.message_id for each in batch],
                "date": [date] * len(batch),
            }
            for found in skeleton.personal([each.values for each in batch], beside):
                assert not isinstance(found, ValidationError)
                made = skeleton.joined(found)
        seconds = time.perf_counter() - started
        assert len(made) > len(html)
        assert f"Lead Number {count}".encode() in made
        assert made.count(b"/t/c/") == _LINKS
        return seconds

    return run


def _minijinja(html: str, count: int) -> Callable[[], float]:
    template = re.sub(r"https://shop\.example/p/(\d+)", r"https://track.example/t/c/{{ link_\1 }}", html)
    environment = minijinja.Environment(templates={"message.html": template})
    links = {f"link_{number}": "a" * 56 for number in range(_LINKS)}
    fixed = links | {"unsubscribe_url": "https://track.example/u/" + "a" * 56, "postal_address": "1 High Street, Town"}
    contexts = [
        {**{name: text.format(n=number) for name, text in _LEAD.items()}, "metadata": {"plan": "pro"}, **fixed}
        for number in range(1, count + 1)
    ]

    def run() -> float:
        made = ""
        started = time.perf_counter()
        for context in contexts:
            made = environment.render_template("message.html", **context)
        seconds = time.perf_counter() - started
        assert f"Lead Number {count}" in made
        assert made.count("/t/c/") == _LINKS
        return seconds

    return run


def _recipient(number: int, columns: Sequence[str]) -> Recipient:
    values = {name: text.format(n=number) for name, text in _LEAD.items()}
    lead = tuple(values.get(name, {"plan": "pro"}) for name in columns)
    return Recipient(number, number, 0, None, values["email"], values["email"], "US", None, lead)


def _html() -> str:
    paragraphs = [f"<p>{'Lorem ipsum dolor sit amet. ' * 55}{{{{ {name} }}}}</p>" for name in _VARIABLES]
    links = [f"<p><a href='https://shop.example/p/{number}'>More</a></p>" for number in range(_LINKS)]
    out = '<p><a href="{{ unsubscribe_url }}">Out</a> {{ postal_address }}</p>'
    filler = f"<p>{'The quick brown fox jumps over the lazy dog. ' * 85}</p>"
    return f"<html><body>{''.join(paragraphs)}{''.join(links)}{filler}{out}</body></html>"


BENCHMARKS = {"delivery.render": delivery_render}
