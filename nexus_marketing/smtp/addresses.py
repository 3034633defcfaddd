"""Mail addresses as a server takes them: ASCII, within RFC 5321's limits, or refused with a code."""

import re

import idna

from nexus_marketing.core.errors import ValidationError

LOCAL_LIMIT = 64
PATH_LIMIT = 254
_ATEXT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DOT_ATOM = re.compile(rf"{_ATEXT}+(?:\.{_ATEXT}+)*")
_QUOTED = re.compile(r'"(?:[ !#-\[\]-~]|\\[ -~])*"')
_DOMAIN = re.compile(rf"(?:{_LABEL}\.)*{_LABEL}")
#: An expression for what every server takes as it is, provided it has no more than ``PATH_LIMIT`` characters.
PLAIN_ADDRESS = rf"(?={_ATEXT}[^@]{{0,{LOCAL_LIMIT - 1}}}@){_ATEXT}+(?:\.{_ATEXT}+)*@(?:{_LABEL}\.)*{_LABEL}"
_PLAIN = re.compile(rf"(?=.{{3,{PATH_LIMIT}}}\Z){PLAIN_ADDRESS}")


def ascii_address(address: str, *, path: str = "address", smtputf8: bool = False) -> str:
    """The address with its domain in ASCII, ready for MAIL FROM, RCPT TO or a header.

    Args:
        path: how the fault is named in the error.
        smtputf8: whether the server offers RFC 6531, so that a non-ASCII local part may stay.

    Raises:
        ValidationError: ``unsupported_address`` if only an SMTPUTF8 server could take it,
            ``invalid_address`` if nobody can (syntax, local part over 64, address over 254 octets).
    """
    if _PLAIN.fullmatch(address):
        return address
    local, at, domain = address.rpartition("@")
    if not at or not local:
        raise _invalid(path, address, "it has the form name@domain")
    domain = _ascii_domain(domain, path, address)
    _check_local(local, path, address, smtputf8=smtputf8)
    if len(local.encode()) > LOCAL_LIMIT or len(local.encode()) + 1 + len(domain) > PATH_LIMIT:
        raise _invalid(path, address, f"at most {LOCAL_LIMIT} octets stand before the @ and {PATH_LIMIT} in all")
    return f"{local}@{domain}"


def _check_local(local: str, path: str, address: str, *, smtputf8: bool) -> None:
    if _DOT_ATOM.fullmatch(local) or _QUOTED.fullmatch(local):
        return
    if local.isascii() or not local.isprintable() or not _DOT_ATOM.fullmatch(re.sub(r"[^\x00-\x7f]", "x", local)):
        raise _invalid(path, address, "the part before the @ is a dot-atom or a quoted string of printable characters")
    if not smtputf8:
        message = "the part before the @ is not ASCII and the server does not offer SMTPUTF8: ask for another address"
        raise ValidationError.at(path, "unsupported_address", message)


def _ascii_domain(domain: str, path: str, address: str) -> str:
    if not domain.isascii():
        try:
            domain = idna.encode(domain, uts46=True).decode("ascii")
        except idna.IDNAError as error:
            raise _invalid(path, address, "its domain is no international domain name") from error
    if not _DOMAIN.fullmatch(domain) or len(domain) > 253:
        raise _invalid(path, address, "its domain consists of labels of letters, digits and hyphens")
    return domain


def _invalid(path: str, address: str, remedy: str) -> ValidationError:
    return ValidationError.at(path, "invalid_address", f"{address[:80]!r} is no mail address: {remedy}")
