"""Twilio's callbacks: what became of a text message, and messages that people send ("Validating Signatures from Twilio",
"Track the Message Status of Outbound Messages", "Twilio's Request to your Incoming Message Webhook URL").
"""

import base64
import hmac
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import parse_qs, parse_qsl, urlsplit

from nexus_marketing.core.contracts import ProviderEvent, ProviderEventKind

_K = ProviderEventKind
_MOST_FIELDS: Final = 200
#: The longest text there is, in the longest form there is, is less than half of that.
_LONGEST_FORM: Final = 65_536
_FORM: Final = "application/x-www-form-urlencoded"
_DEAD: Final = ("undelivered", "failed")
#: Codes of Twilio's error dictionary that say that the number is none, or none that takes text messages, or that its owner
#: said STOP; every other says that this message did not arrive.
_CODES: Final[Mapping[str, ProviderEventKind]] = {
    "21211": _K.BOUNCED_HARD,
    "21610": _K.UNSUBSCRIBED,
    "21614": _K.BOUNCED_HARD,
    "30005": _K.BOUNCED_HARD,
    "30006": _K.BOUNCED_HARD,
}
#: In the query of the address for callbacks: our own name of the message.
MESSAGE: Final = "message"


def is_signed(token: str, headers: Mapping[str, str], body: bytes) -> bool:
    """Whether the account's token signed the address and the form."""
    form = _form(headers, body)
    if not token or form is None:
        return False
    signed = headers[":url"] + "".join(name + value for name, value in sorted(set(form)))
    expected = base64.b64encode(hmac.digest(token.encode(), signed.encode(errors="replace"), "sha1"))
    return hmac.compare_digest(expected, headers.get("x-twilio-signature", "").encode(errors="replace"))


def events_of(headers: Mapping[str, str], body: bytes) -> Sequence[ProviderEvent]:
    """The one event of a form, if it means something to us."""
    said = dict(_form(headers, body) or ())
    number = said.get("MessageSid") or said.get("SmsSid") or ""
    status = said.get("MessageStatus") or said.get("SmsStatus") or ""
    if not number:
        return ()
    if "Body" in said and status in ("", "received"):
        # Where Twilio itself knows the word (Advanced Opt-Out), it is in the language of the country.
        text = said.get("OptOutType") or said["Body"]
        return [ProviderEvent(_K.INBOUND_MESSAGE, number, address=said.get("From", ""), detail=text)]
    kind = _K.DELIVERED if status == "delivered" else None
    if status in _DEAD:
        kind = _CODES.get(said.get("ErrorCode", ""), _K.BOUNCED_SOFT)
    if kind is None:
        return ()
    return [
        ProviderEvent(
            kind,
            f"{number}:{status}",
            message_id=_ours(headers[":url"]),
            code=number,
            address=said.get("To", ""),
            detail=said.get("ErrorCode", ""),
        )
    ]


def _ours(url: str) -> str:
    try:
        return parse_qs(urlsplit(url).query, max_num_fields=_MOST_FIELDS).get(MESSAGE, [""])[0]
    except ValueError:
        return ""


def _form(headers: Mapping[str, str], body: bytes) -> list[tuple[str, str]] | None:
    if headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM or len(body) > _LONGEST_FORM:
        return None
    try:
        return parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        return None
