"""Every error the product raises on purpose, in one tree.

Each class has a stable ``code`` that REST, GraphQL, the CLI and tasks translate;
none of them knows HTTP. An error names the field, the value and the remedy in
``problems``, so that a caller can mend all faults at once.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault in an input: where it is, a stable code, and a sentence with the remedy.

    ``path`` is dotted (``leads.3.email``), empty for the whole document.
    """

    path: str
    code: str
    message: str


class NexusError(Exception):
    """Something went wrong that a caller can understand and act on."""

    code: ClassVar[str] = "error"

    def __init__(self, message: str | None = None, *, problems: Iterable[Problem] = (), **context: Any) -> None:
        self.problems: Sequence[Problem] = tuple(problems)
        self.context = context
        text = message or " ".join((self.__doc__ or self.code).split())
        if message is None and self.problems:
            text = "; ".join(f"{p.path}: {p.message}" if p.path else p.message for p in self.problems)
        super().__init__(text)

    @property
    def message(self) -> str:
        """The sentence for a person, without problem details."""
        return str(self.args[0])


class ValidationError(NexusError):
    """The input is not acceptable as it stands."""

    code = "validation_failed"

    @classmethod
    def at(cls, path: str, code: str, message: str) -> "ValidationError":
        """One fault at one path."""
        return cls(problems=[Problem(path, code, message)])

    def under(self, path: str) -> "ValidationError":
        """The same faults of what is a part of a larger document."""
        return ValidationError(
            problems=[
                Problem(f"{path}.{each.path}" if each.path else path, each.code, each.message) for each in self.problems
            ]
        )


class ConditionError(ValidationError):
    """The condition is not part of the condition language."""

    code = "condition_invalid"


class TemplateError(ValidationError):
    """The template is not part of the template language."""

    code = "template_invalid"


class NotFound(NexusError):
    """There is no such thing for this tenant."""

    code = "not_found"


class NoSuchAddress(NotFound):
    """There is nothing at this address."""


class Gone(NotFound):
    """It was here and has been erased: nothing of it is left to show."""

    code = "gone"


class Merged(NotFound):
    """It has been merged into another one: ask for ``merged_into``."""

    code = "merged"


class Conflict(NexusError):
    """The thing is in a state that does not allow this."""

    code = "conflict"


class StaleVersion(Conflict):
    """Somebody else changed it first: load the current version and try again."""

    code = "stale_version"


class TransitionRefused(Conflict):
    """The campaign cannot go there from where it is, or a guard forbids it."""

    code = "transition_refused"


class StorageUnsupported(Conflict):
    """This needs the database, and the campaign is kept elsewhere: move it there with ``campaigns promote``."""

    code = "storage_unsupported"


class SecretsUnreadable(Conflict):
    """Stored secrets cannot be read: their key is gone from ``nexus.secret_key``, or they were altered."""

    code = "secrets_unreadable"


class PermissionDenied(NexusError):
    """The key or member lacks the permission."""

    code = "permission_denied"


class NotAMember(PermissionDenied):
    """Whoever is signed in acts for no tenant here: ask its owner to be made a member, or use an API key."""

    code = "not_a_member"


class CrossSiteRefused(PermissionDenied):
    """Another site made this request with somebody's session: ask from pages of this origin, or use an API key."""

    code = "cross_site_request"


class IdentitiesDisagree(PermissionDenied):
    """The API key and the session are of different tenants or members: send one of them."""

    code = "identities_disagree"


class AuthenticationFailed(NexusError):
    """The API key is missing, unknown, expired or revoked."""

    code = "authentication_failed"


class RateLimited(NexusError):
    """Too many requests: wait ``retry_after_seconds`` and try again."""

    code = "rate_limited"

    def __init__(self, message: str | None = None, *, retry_after_seconds: float = 1.0, **context: Any) -> None:
        super().__init__(message, **context)
        self.retry_after_seconds = retry_after_seconds


class Unavailable(NexusError):
    """A part we depend on does not answer: nothing was changed, try again later."""

    code = "unavailable"

    def __init__(self, message: str | None = None, *, retry_after_seconds: float = 1.0, **context: Any) -> None:
        super().__init__(message, **context)
        self.retry_after_seconds = retry_after_seconds


class ConditionUnavailable(Unavailable):
    """A plugin's condition cannot be asked now: nothing was decided, and what there is stays as it is."""

    code = "condition_unavailable"


class HostRefused(NexusError):
    """We do not connect to this address: it is not public, or not by TLS."""

    code = "host_refused"


class QueryTimeout(NexusError):
    """The query took too long and was given up: ask for less at once, with smaller limits or fewer fields."""

    code = "query_timeout"


class TenantRequired(NexusError):
    """A tenant table was touched without a tenant: a fault in our code, never in the input."""

    code = "tenant_required"


class ForeignTenant(NexusError):
    """A row of another tenant was about to be written: a fault in our code, never in the input."""

    code = "foreign_tenant"


class ConfigurationError(NexusError):
    """A setting is missing or wrong; the message names it and the remedy."""

    code = "configuration"


def hint(name: str, known: Collection[str]) -> str:
    """The end of a sentence about a name that does not exist: the nearest one, or all there are."""
    matches = get_close_matches(name[:64], [str(each) for each in known], n=1, cutoff=0.6)
    if matches:
        return f"; did you mean {matches[0]}"
    return f": use {', '.join(sorted(map(str, known)))}" if known else ""
