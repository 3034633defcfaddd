"""Simulated recipients: they read real ``.eml`` files and act over real HTTP, as mail programs do."""

import http.client
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from email import message_from_binary_file, policy
from email.message import EmailMessage
from pathlib import Path
from random import Random
from typing import Self
from urllib.parse import urlsplit

_PIXEL = re.compile(r'src="([^"]*/t/o/[^"]*)"')
_CLICK = re.compile(r'href="([^"]*/t/c/[^"]*)"')
_BROWSERS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 Version/18.0 Mobile Safari/604.1",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 15_0) AppleWebKit/537.36 Chrome/140.0 Safari/537.36",
)
_PROXY = "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)"
_SCANNER = "Mozilla/5.0 (compatible; Barracuda Sentinel; link scanner)"


@dataclass(frozen=True, slots=True)
class Habits:
    """Shares of recipients who do something."""

    opens: float = 0.42
    opens_through_proxy: float = 0.10
    clicks: float = 0.11
    unsubscribes: float = 0.012
    behind_a_scanner: float = 0.04


def act(folder: Path, seed: int, habits: Habits | None = None) -> Counter[str]:
    """Let everybody who got a message in ``folder`` do what people do; counts what was done."""
    rng = Random(seed)  # noqa: S311 - habits to repeat, not secrets
    done: Counter[str] = Counter()
    with _Browser() as browser:
        for message in read_messages(folder):
            done.update(_one(browser, message, rng, habits or Habits()))
    return done


def read_messages(folder: Path) -> Iterator[EmailMessage]:
    """The messages that were delivered, in order of arrival."""
    for path in sorted(folder.glob("*.eml")):
        with path.open("rb") as file:
            yield message_from_binary_file(file, policy=policy.default)


def _one(browser: "_Browser", message: EmailMessage, rng: Random, habits: Habits) -> Iterable[str]:
    body = message.get_body(("html",))
    markup = "" if body is None else str(body.get_content())
    pixels, clicks = _PIXEL.findall(markup), _CLICK.findall(markup)
    if rng.random() < habits.behind_a_scanner:
        for link in clicks:
            browser.get(link, _SCANNER)
        yield "scanned"
    if rng.random() < habits.opens and pixels:
        proxied = rng.random() < habits.opens_through_proxy
        browser.get(pixels[0], _PROXY if proxied else rng.choice(_BROWSERS))
        yield "opened"
        if rng.random() < habits.clicks / habits.opens and clicks:
            browser.get(rng.choice(clicks), rng.choice(_BROWSERS))
            yield "clicked"
    if rng.random() < habits.unsubscribes:
        browser.one_click(str(message["List-Unsubscribe"]).strip("<> "))
        yield "unsubscribed"


class _Browser:
    """One kept connection, as a mail program has."""

    def __init__(self) -> None:
        self._connection: http.client.HTTPConnection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_details: object) -> None:
        if self._connection is not None:
            self._connection.close()

    def get(self, url: str, agent: str) -> None:
        """Fetch what a picture or a link names; redirects are not followed, they lead out of here."""
        self._request("GET", url, {"User-Agent": agent})

    def one_click(self, url: str) -> None:
        """What a mail provider posts for its "unsubscribe" button (RFC 8058)."""
        headers = {"Content-Type": "application/x-www-form-urlencoded", "User-Agent": "one-click"}
        self._request("POST", url, headers, b"List-Unsubscribe=One-Click")

    def _request(self, method: str, url: str, headers: dict[str, str], body: bytes | None = None) -> None:
        parts = urlsplit(url)
        if self._connection is None:
            self._connection = http.client.HTTPConnection(parts.netloc, timeout=30)
        self._connection.request(method, parts.path, body, headers)
        response = self._connection.getresponse()
        response.read()
        if response.status >= 400:
            raise RuntimeError(f"{method} {parts.path} was answered {response.status}")
