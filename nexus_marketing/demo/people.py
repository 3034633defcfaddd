"""Five thousand people who do not exist, as a CSV the way real ones arrive: mixed, doubled, partly wrong."""

import csv
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

COLUMNS = (
    "email",
    "first_name",
    "last_name",
    "country",
    "locale",
    "time_zone",
    "plan",
    "city",
    "age",
    "consent",
    "consent_at",
    "consent_source",
)

#: Country → (share, locale, zone, first names, last names, cities). Names that occur there, people that do not.
_PLACES = {
    "US": (
        30,
        "en-US",
        "America/New_York",
        "Olivia Liam Emma Noah Ava Ethan",
        "Smith Johnson Brown Davis",
        "Austin Boston Denver",
    ),
    "GB": (
        12,
        "en-GB",
        "Europe/London",
        "Amelia Oliver Isla George Freya Arthur",
        "Jones Taylor Evans Walker",
        "Leeds Bristol York",
    ),
    "DE": (
        16,
        "de-DE",
        "Europe/Berlin",
        "Mia Ben Emilia Paul Jürgen Käthe",
        "Müller Schmidt Weiß Böhm",
        "Köln Leipzig Nürnberg",
    ),
    "FR": (
        12,
        "fr-FR",
        "Europe/Paris",
        "Léa Hugo Chloé Jules Zoé Anaïs",
        "Martin Bernard Lefèvre Noël",
        "Lyon Nîmes Orléans",
    ),
    "PL": (
        8,
        "pl-PL",
        "Europe/Warsaw",
        "Zofia Jan Łucja Michał Żaneta Kuba",
        "Nowak Wójcik Zając Król",
        "Łódź Gdańsk Kraków",
    ),
    "BR": (
        8,
        "pt-BR",
        "America/Sao_Paulo",
        "Helena Miguel João Luíza Antônio Íris",
        "Silva Souza Gonçalves Araújo",
        "Recife Goiânia Belém",
    ),
    "JP": (6, "ja-JP", "Asia/Tokyo", "陽葵 蓮 葵 湊 結菜 蒼", "佐藤 鈴木 高橋 田中", "大阪 京都 札幌"),
    "AU": (
        6,
        "en-AU",
        "Australia/Sydney",
        "Charlotte Jack Ruby Lachlan Mila Cooper",
        "Wilson Nguyen Kelly Clarke",
        "Perth Hobart Cairns",
    ),
    "": (2, "", "", "Sam Alex Robin Kim", "Lee Park Gray Hill", "Nowhere"),
}
_PLANS = ("free", "free", "free", "pro", "pro", "team")
_ASCII = str.maketrans("äöüßÄÖÜéèêëàâîïôçñíáãõúóśłżźćńęąŁŻÍ", "aousAOUeeeeaaiiocniaaouoslzzcneaLZI")

#: Shares of rows that are wrong or double.
_BROKEN_SHARE = 0.012
_DOUBLE_SHARE = 0.015
_CONSENT_SHARE = 0.82
#: Ways an address goes wrong on its way into a file.
_BREAKAGES = ("{local}example.net", "{local}@", "{local}@@example.net", "{local} @example.net", "", "n/a")


def write_people(path: Path, count: int, seed: int = 20260302) -> None:
    """Write ``count`` rows, the same for the same seed."""
    rng = Random(seed)  # noqa: S311 - people to repeat, not secrets
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(_rows(rng, count))


def _rows(rng: Random, count: int) -> Iterator[dict[str, str]]:
    written: list[dict[str, str]] = []
    for number in range(1, count + 1):
        if written and rng.random() < _DOUBLE_SHARE:
            row = dict(rng.choice(written))
            row["email"] = row["email"].upper() if rng.random() < 0.5 else row["email"]
        else:
            row = _person(rng, number)
            if rng.random() < _BROKEN_SHARE:
                local = row["email"].partition("@")[0]
                row["email"] = rng.choice(_BREAKAGES).format(local=local)
            else:
                written.append(row)
        yield row


def _person(rng: Random, number: int) -> dict[str, str]:
    country = rng.choices(list(_PLACES), [place[0] for place in _PLACES.values()])[0]
    _share, locale, zone, firsts, lasts, cities = _PLACES[country]
    first, last = rng.choice(firsts.split()), rng.choice(lasts.split())
    local = f"{first}.{last}".translate(_ASCII).lower()
    local = local if local.isascii() else f"user.{locale.partition('-')[0]}"
    consented = rng.random() < _CONSENT_SHARE
    given_at = datetime(2026, 1, 5, tzinfo=UTC) + timedelta(minutes=rng.randrange(60 * 24 * 30))
    return {
        "email": f"{local}{number}@{rng.choice(('example.net', 'example.org', 'mail.example.com'))}",
        "first_name": first if rng.random() > 0.05 else "",
        "last_name": last,
        "country": country,
        "locale": locale,
        "time_zone": zone,
        "plan": rng.choice(_PLANS),
        "city": rng.choice(cities.split()),
        "age": str(rng.randrange(18, 80)),
        "consent": "yes" if consented else "",
        "consent_at": given_at.isoformat() if consented else "",
        "consent_source": "newsletter form" if consented else "",
    }
