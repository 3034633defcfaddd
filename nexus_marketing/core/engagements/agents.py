"""Programs that say what they are: the maintained list of crawlers, and gateways that it does not know."""

import re
from collections.abc import Callable
from functools import lru_cache

from nexus_marketing.core.engagements.vocabulary import MachineHint

#: Security gateways that follow every link, and bare HTTP clients.
_GATEWAYS = re.compile(
    r"scanner|barracuda|mimecast|proofpoint|symantec|messagelabs|trendmicro|urldefen[sc]e|safelinks|ironport|fireeye|"
    r"forcepoint|sophos|avanan|zscaler|curl/|wget/|python-|java/|go-http|okhttp|libwww|headless|link ?preview|"
    r"bot\b|crawl|spider|slurp",
    re.IGNORECASE,
)
#: Mailbox providers that fetch pictures for everybody, opened or not.
_PROXIES = re.compile(r"GoogleImageProxy|YahooMailProxy|ggpht\.com", re.IGNORECASE)
#: Longer ones are cut: nothing that identifies itself does so after this.
MAX_AGENT = 512


def machine_hint(user_agent: str, *, prefetch: bool = False) -> MachineHint | None:
    """What the request's own words give away.

    >>> machine_hint("Mozilla/5.0 (via ggpht.com GoogleImageProxy)")
    <MachineHint.PROXY: 'proxy'>
    """
    agent = user_agent[:MAX_AGENT]
    if _PROXIES.search(agent):
        return MachineHint.PROXY
    if prefetch or not agent.strip() or _GATEWAYS.search(agent) or _crawlers()(agent):
        return MachineHint.SCANNER
    return None


@lru_cache(maxsize=1)
def _crawlers() -> Callable[[str], object]:
    """Whether a text matches one of the list's 1,500 patterns: all at once by RE2, in about a microsecond."""
    import re2  # noqa: PLC0415 - on first use
    from crawleruseragents import CRAWLER_USER_AGENTS_DATA  # noqa: PLC0415 - reads a file

    options = re2.Options()
    options.log_errors = False
    options.max_mem = 64 << 20
    patterns = re2.Set.SearchSet(options)
    for entry in CRAWLER_USER_AGENTS_DATA:
        patterns.Add(entry["pattern"])
    patterns.Compile()
    match: Callable[[str], object] = patterns.Match
    return match
