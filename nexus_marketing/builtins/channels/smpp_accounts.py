"""What an account at a short message centre is set to, checked: where it is, who logs in, and how messages go there."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from nexus_marketing.builtins.channels.sms_texts import SENDERS, is_sender, is_short_code
from nexus_marketing.core.errors import HostRefused, Problem
from nexus_marketing.plugin.sockets import Dialer
from nexus_marketing.smpp.opening import BindSettings
from nexus_marketing.smpp.pdus import Address, Mode, Sending
from nexus_marketing.smpp.receipts import ReceiptIds

#: In the clear and with TLS as IANA has them, and two that providers use.
PORTS: Final = (2775, 2776, 3550, 8775)
ALLOW_SETTING: Final = "nexus.smpp.allow_hosts"
SMPP: Final = "smpp"
SECRETS: Final = frozenset({"password"})
DESTINATIONS: Final[Mapping[str, frozenset[str]]] = {"password": frozenset({"host", "port", "tls"})}

#: Type and plan of a source (5.2.5, 5.2.6): international number, short code, letters.
_INTERNATIONAL, _SHORT, _NAMED = (1, 1), (3, 0), (5, 0)
#: ``bind_mode``: what messages leave by, and what is heard by. Some centres want a bind for each.
_MODES: Final[Mapping[str, tuple[Mode, Mode | None]]] = {
    "transceiver": (Mode.TRANSCEIVER, Mode.TRANSCEIVER),
    "transmitter": (Mode.TRANSMITTER, None),
    "pair": (Mode.TRANSMITTER, Mode.RECEIVER),
}
_LONG: Final = ("udh", "payload")
#: ``registered_delivery`` (5.2.17).
_RECEIPTS: Final[Mapping[str, int]] = {"none": 0, "final": 1, "failures": 2}
_USUAL_WINDOW: Final = 10
#: Longest strings of a bind (4.1), without their end. Passwords of more than 8 are against the letter, and common.
_STRINGS: Final[Mapping[str, int]] = {
    "system_id": 15,
    "password": 64,
    "system_type": 12,
    "address_range": 40,
    "service_type": 5,
}


def _text(longest: int, **more: Any) -> Mapping[str, Any]:
    return {"type": "string", "maxlength": longest, **more}


def _words(words: Any) -> Mapping[str, Any]:
    return {"type": "string", "allowed": list(words)}


_TYPE: Final = {"type": "integer", "min": 0, "max": 6}
_PLAN: Final = {"type": "integer", "min": 0, "max": 18}
#: As the manifest says it, beside ``from``.
SCHEMA: Final[Mapping[str, Mapping[str, Any]]] = {
    "provider": _words(["twilio", SMPP]),
    "host": _text(253),
    "port": {"type": "integer", "min": 1, "max": 65_535},
    "tls": {"type": "boolean"},
    "system_id": _text(15),
    "password": _text(64, meta={"secret": True}),
    "system_type": _text(12),
    "address_range": _text(40),
    "service_type": _text(5),
    "bind_mode": _words(_MODES),
    "window": {"type": "integer", "min": 1, "max": 1_000},
    "per_second": {"type": "number", "min": 0.01, "max": 10_000},
    "enquire_link_seconds": {"type": "integer", "min": 5, "max": 600},
    "registered_delivery": _words(_RECEIPTS),
    "receipt_ids": _words(ReceiptIds),
    "long_messages": _words(_LONG),
    "source_ton": _TYPE,
    "source_npi": _PLAN,
    "dest_ton": _TYPE,
    "dest_npi": _PLAN,
}
SETTINGS: Final = ("from", *SCHEMA)


@dataclass(frozen=True, slots=True)
class SmppAccount:
    """An account as it is used; ``listens_by`` is nothing where nobody is to be heard."""

    sends_by: BindSettings
    listens_by: BindSettings | None
    sending: Sending
    is_payload: bool


def account_problems(settings: Mapping[str, Any], dialer: Dialer, sender: str) -> list[Problem]:
    """Everything that is wrong with an account; ``sender`` is the operator's, for whoever names none."""
    problems = [
        Problem(name, "unknown_setting", f"{name} is no setting of SMS by SMPP: use {', '.join(SETTINGS)}.")
        for name in sorted(settings.keys() - set(SETTINGS))
    ]
    problems += _sender_problems(str(settings.get("from") or sender))
    for name in ("host", "system_id", "password"):
        if not settings.get(name):
            problems.append(Problem(name, "required", f"A bind needs {name}: your provider tells it to you."))
    problems += [problem for name in _STRINGS for problem in _string_problems(name, settings.get(name))]
    problems += _word_problems(settings)
    problems += _number_problems(settings)
    return [*problems, *_server_problems(settings, dialer)] if settings.get("host") else problems


def _sender_problems(sender: str) -> Iterator[Problem]:
    if not sender:
        yield Problem("from", "required", "The number or name that messages come from is required.")
    elif not is_sender(sender):
        yield Problem("from", "not_a_sender", f"{sender[:40]!r} is no sender: use {SENDERS}.")


def _string_problems(name: str, value: Any) -> Iterator[Problem]:
    text = str(value or "")
    shown = "" if name in SECRETS else f" {text[:40]!r}"
    if len(text) > _STRINGS[name] or not (text.isascii() and text.isprintable()):
        said = f"{name}{shown} has more than {_STRINGS[name]} characters, or other than printable ASCII."
        yield Problem(name, "not_well_formed", said)


def _word_problems(settings: Mapping[str, Any]) -> Iterator[Problem]:
    words = {
        "bind_mode": _MODES,
        "registered_delivery": _RECEIPTS,
        "receipt_ids": list(ReceiptIds),
        "long_messages": _LONG,
    }
    for name, known in words.items():
        value = settings.get(name)
        if value is not None and value not in tuple(known):
            yield Problem(name, "not_allowed", f"{str(value)[:40]!r} is none of {', '.join(known)}.")
    if not isinstance(settings.get("tls", True), bool):
        yield Problem("tls", "not_allowed", f"{str(settings['tls'])[:40]!r} is neither true nor false.")


def _number_problems(settings: Mapping[str, Any]) -> Iterator[Problem]:
    for name, rule in SCHEMA.items():
        value = settings.get(name)
        if rule["type"] not in ("integer", "number") or value is None:
            continue
        kinds = int if rule["type"] == "integer" else int | float
        if isinstance(value, bool) or not isinstance(value, kinds) or not rule["min"] <= value <= rule["max"]:
            said = f"{str(value)[:40]!r} is no {rule['type']} from {rule['min']} to {rule['max']}."
            yield Problem(name, "out_of_bounds", said)


def _server_problems(settings: Mapping[str, Any], dialer: Dialer) -> Iterator[Problem]:
    host, port = str(settings["host"]), _port(settings)
    if not isinstance(port, int) or not 0 < port < 65_536:
        return  # said already
    try:
        dialer.check(host, port)
    except HostRefused as error:
        yield Problem("host", error.code, f"{error.message}.")
        return
    if settings.get("tls") is False and not dialer.is_exception(host, port):
        said = f"A password does not travel in the clear: leave tls on, or let the operator list the server in {ALLOW_SETTING}."
        yield Problem("tls", "password_in_the_clear", said)


def _port(settings: Mapping[str, Any]) -> Any:
    return settings.get("port") or (2775 if settings.get("tls") is False else 3550)


def read_account(settings: Mapping[str, Any], sender: str, most_window: int) -> SmppAccount:
    """An account that has no problems.

    Args:
        settings: of the account, its secrets among them.
        sender: the operator's, for whoever names none.
        most_window: what the channel promised: more without an answer than that is more than the journal has room for.
    """
    sends, listens = _MODES[str(settings.get("bind_mode") or "transceiver")]

    def bind(mode: Mode) -> BindSettings:
        return BindSettings(
            host=str(settings["host"]),
            port=int(_port(settings)),
            system_id=str(settings["system_id"]),
            password=str(settings["password"]),
            tls=settings.get("tls") is not False,
            system_type=str(settings.get("system_type") or ""),
            address_range=str(settings.get("address_range") or ""),
            mode=mode,
            window=min(int(settings.get("window") or _USUAL_WINDOW), most_window),
            per_second=float(settings.get("per_second") or 0.0),
            enquire_link_seconds=float(settings.get("enquire_link_seconds") or 30.0),
            ids=ReceiptIds(settings.get("receipt_ids") or ReceiptIds.SAME),
        )

    sending = Sending(
        _source(settings, str(settings.get("from") or sender)),
        _given(settings, "dest_ton", _INTERNATIONAL[0]),
        _given(settings, "dest_npi", _INTERNATIONAL[1]),
        str(settings.get("service_type") or ""),
        _RECEIPTS[str(settings.get("registered_delivery") or "final")],
    )
    return SmppAccount(
        bind(sends),
        None if listens is None else bind(listens),
        sending,
        settings.get("long_messages") == "payload",
    )


def _source(settings: Mapping[str, Any], sender: str) -> Address:
    ton, npi = _INTERNATIONAL if sender.startswith("+") else _SHORT if is_short_code(sender) else _NAMED
    text = sender.removeprefix("+") if sender.startswith("+") and sender[1:].isdigit() else sender
    return Address(text, _given(settings, "source_ton", ton), _given(settings, "source_npi", npi))


def _given(settings: Mapping[str, Any], name: str, usual: int) -> int:
    value = settings.get(name)
    return usual if value is None else int(value)
