"""How a file of leads meets the leads that are there: what the caller wants, and one row decided field by field.

Pure: a dry run, the writing and the undoing of an import ask the same functions.

>>> options = ImportOptions.read({"policies": {"tags": "append_unique", "score": "max"}})
>>> rules = Rules(("email", "tags", "score"), options, {})
>>> rules.merge({"tags": ["a"], "score": 5.0}, {"tags": ["b"], "score": 3.0})
{'tags': ['a', 'b']}
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from nexus_marketing.core.audience.countries import COUNTRIES
from nexus_marketing.core.audience.exporting import OURS
from nexus_marketing.core.audience.fields import LEAD_FIELDS, MAX_TAGS, complete_names
from nexus_marketing.core.conditions import FieldType
from nexus_marketing.core.errors import Problem, ValidationError, hint
from nexus_marketing.core.values import Canonical, email_norm


class ColumnPolicy(StrEnum):
    """What happens to a field of a lead that is known already (BEHAVIOUR.md 5.5).

    ``keep_existing`` leaves it even where it is empty, ``fill_empty`` fills gaps only, ``overwrite``
    lets the file win, ``append_unique`` adds what a list lacks, ``min`` and ``max`` keep the
    smaller or larger, ``ignore`` does not read the column at all.
    """

    KEEP_EXISTING = "keep_existing"
    FILL_EMPTY = "fill_empty"
    OVERWRITE = "overwrite"
    APPEND_UNIQUE = "append_unique"
    MIN = "min"
    MAX = "max"
    IGNORE = "ignore"


class ImportStatus(StrEnum):
    """Where an import stands. ``ready``: uploaded, or its dry run is done; the last five are ends."""

    READY = "ready"
    CHECKING = "checking"
    RUNNING = "running"
    UNDOING = "undoing"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    FAILED = "failed"
    UNDONE = "undone"


#: In which a worker has something to do.
AT_WORK: Final = (ImportStatus.CHECKING, ImportStatus.RUNNING, ImportStatus.UNDOING)
#: The target of a column that is not read.
IGNORED: Final = "ignore"
#: The target of a column of JSON objects.
METADATA: Final = "metadata"
CONSENT_TARGETS: Final = ("consent", "consent_at", "consent_source", "consent_ip", "consent_text_version")
_FIELDS: Final = (*(name for name in LEAD_FIELDS if name != "metadata"), "score")
_DEFAULTS: Final = (ColumnPolicy.OVERWRITE, ColumnPolicy.FILL_EMPTY, ColumnPolicy.KEEP_EXISTING)
_ORDERED: Final = (FieldType.NUMBER, FieldType.DATE, FieldType.DATETIME)
_PARTS: Final = ("first_name", "last_name")
_EMPTY: Final[tuple[Any, ...]] = (None, "", [], {})
MAX_MAPPINGS: Final = 500

#: The form of a document of options.
OPTIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    "existing": {"type": "string", "allowed": [str(each) for each in _DEFAULTS]},
    "mapping": {
        "type": "dict",
        "maxlength": MAX_MAPPINGS,
        "keysrules": {"type": "string", "minlength": 1, "maxlength": 300},
        "valuesrules": {"type": "string", "minlength": 1, "maxlength": 80},
    },
    "policies": {
        "type": "dict",
        "maxlength": MAX_MAPPINGS,
        "keysrules": {"type": "string", "minlength": 1, "maxlength": 80},
        "valuesrules": {"type": "string", "allowed": [str(each) for each in ColumnPolicy]},
    },
    "null_text": {"type": "string", "nullable": True, "minlength": 1, "maxlength": 40},
    "region": {"type": "string", "nullable": True, "minlength": 2, "maxlength": 2},
    "encoding": {"type": "string", "nullable": True},
    "delimiter": {"type": "string", "nullable": True},
    "trigger_journeys": {"type": "boolean"},
}


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What the caller wants of a file.

    Args:
        existing: the policy of every field that ``policies`` does not name.
        mapping: header → field, ``metadata.<key>``, ``metadata`` or ``ignore``; other headers are matched by their names.
        policies: field or ``metadata.<key>`` → policy.
        null_text: a cell of exactly this text clears its field; an empty cell says nothing.
        region: the country whose phone numbers are written without a country code, unless the row says one.
        encoding: and ``delimiter``: where the caller knows better than the bytes tell.
        trigger_journeys: whether what the import changes may start journeys.
    """

    existing: ColumnPolicy = ColumnPolicy.OVERWRITE
    mapping: Mapping[str, str] = field(default_factory=dict)
    policies: Mapping[str, ColumnPolicy] = field(default_factory=dict)
    null_text: str | None = None
    region: str | None = None
    encoding: str | None = None
    delimiter: str | None = None
    trigger_journeys: bool = False

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> "ImportOptions":
        """Options from a document.

        Raises:
            ValidationError: every fault, each with its path.
        """
        from nexus_marketing.core.schemas import check  # noqa: PLC0415 - Cerberus loads on first use

        check(document, OPTIONS)
        mapping, policies = dict(document.get("mapping") or {}), dict(document.get("policies") or {})
        region = document.get("region")
        problems = [*_mapping_faults(mapping), *_policy_faults(policies)]
        if region is not None and region.upper() not in COUNTRIES:
            message = f"{region!r} is no country: write two letters of ISO 3166-1, such as DE or US."
            problems.append(Problem("region", "not_a_country", message))
        if problems:
            raise ValidationError(problems=problems)
        return cls(
            ColumnPolicy(document.get("existing", ColumnPolicy.OVERWRITE)),
            MappingProxyType(mapping),
            MappingProxyType({name: ColumnPolicy(word) for name, word in policies.items()}),
            document.get("null_text"),
            None if region is None else region.upper(),
            document.get("encoding"),
            document.get("delimiter"),
            bool(document.get("trigger_journeys", False)),
        )

    def document(self) -> dict[str, Any]:
        """The options as :meth:`read` takes them, whole."""
        return {
            "existing": str(self.existing),
            "mapping": dict(self.mapping),
            "policies": {name: str(policy) for name, policy in self.policies.items()},
            "null_text": self.null_text,
            "region": self.region,
            "encoding": self.encoding,
            "delimiter": self.delimiter,
            "trigger_journeys": self.trigger_journeys,
        }

    def mapping_for(self, *, is_ours: bool) -> Mapping[str, str]:
        """The mapping of a file; of one that we wrote ourselves, what nobody else decides is left alone."""
        return {**dict.fromkeys(OURS, IGNORED), **self.mapping} if is_ours else self.mapping

    def policy_of(self, target: str) -> ColumnPolicy:
        """The policy of a field, of a key of metadata, or of a part of the name."""
        if target in self.policies:
            return self.policies[target]
        if target in _PARTS and "name" in self.policies:
            return self.policies["name"]
        return self.existing


def is_target(text: str) -> bool:
    """Whether a column may be mapped to this."""
    if text.startswith("metadata."):
        key = text[9:]
        return 0 < len(key) <= 64 and "." not in key and key.isprintable()
    return text in (IGNORED, METADATA) or text in _FIELDS or text in CONSENT_TARGETS


def _mapping_faults(mapping: Mapping[str, str]) -> list[Problem]:
    known = (*_FIELDS, *CONSENT_TARGETS, IGNORED)
    message = "{0!a} is no field of a lead{1}: write a field, metadata.<key>, metadata or ignore."
    return [
        Problem(f"mapping.{header}", "unknown_field", message.format(target[:80], hint(target, known)))
        for header, target in mapping.items()
        if not is_target(target)
    ]


def _policy_faults(policies: Mapping[str, str]) -> list[Problem]:
    problems = []
    for target, word in policies.items():
        path = f"policies.{target}"
        if target in CONSENT_TARGETS:
            message = "Consent has no policy: what a person withdrew stays withdrawn, and evidence is only added."
            problems.append(Problem(path, "not_allowed", message))
        elif not is_target(target) or target in (IGNORED, METADATA):
            message = f"{target!a} is no field of a lead{hint(target, _FIELDS)}: write a field or metadata.<key>."
            problems.append(Problem(path, "unknown_field", message))
        elif target in _FIELDS:
            problems += _unfit(path, target, ColumnPolicy(word), _type_of(target))
    return problems


def _type_of(target: str) -> FieldType:
    return {"score": FieldType.NUMBER, "tags": FieldType.LIST}.get(target, FieldType.TEXT)


def _unfit(path: str, target: str, policy: ColumnPolicy, kind: FieldType | None) -> list[Problem]:
    """What is wrong with a policy for a field of this type; a type that is not known is that of text."""
    if policy is ColumnPolicy.APPEND_UNIQUE and kind is not FieldType.LIST:
        message = f"append_unique is for lists, and {target} is none: declare it as a list, or use another policy."
        return [Problem(path, "not_allowed", message)]
    if policy in (ColumnPolicy.MIN, ColumnPolicy.MAX) and kind not in _ORDERED:
        message = f"{policy} is for numbers, dates and moments: declare {target} as one, or use another policy."
        return [Problem(path, "not_allowed", message)]
    return []


class Rules:
    """Decides what a row changes of a lead; made once per import.

    Args:
        targets: of the columns that are read; for files whose rows differ, all that may come.
        options: of the caller.
        declared: types of the tenant's own fields, by key of metadata.

    Raises:
        ValidationError: a policy does not fit the type of its field.
    """

    __slots__ = ("_options", "_policies")

    def __init__(self, targets: Sequence[str], options: ImportOptions, declared: Mapping[str, FieldType]) -> None:
        problems: list[Problem] = []
        for target, policy in options.policies.items():
            if target.startswith("metadata."):
                problems += _unfit(f"policies.{target}", target, policy, declared.get(target[9:]))
        if problems:
            raise ValidationError(problems=problems)
        self._options = options
        self._policies = {target: options.policy_of(target) for target in (*targets, *_PARTS)}

    def new(self, row: Mapping[str, Canonical]) -> dict[str, Canonical]:
        """The values of a lead that is not known yet; the whole of a name and its parts follow each other."""
        values = dict(row) if None not in row.values() else _without_gaps(row)
        metadata: Any = values.get("metadata")
        if metadata and None in metadata.values():
            values["metadata"] = _without_gaps(metadata)
        if "name" in values or "first_name" in values or "last_name" in values:
            values.update(_without_gaps(complete_names(values, {})))
        return values

    def merge(self, old: Mapping[str, Canonical], row: Mapping[str, Canonical]) -> dict[str, Canonical]:
        """What a row changes of a lead; nothing where all is so already.

        Args:
            old: the lead's values; ``metadata`` as a mapping.
            row: values by field, absent where the row says nothing, ``None`` where it clears.
        """
        changes: dict[str, Canonical] = {}
        for name, new in row.items():
            if name in _COMPANIONS:
                continue
            was = old.get(name)
            value: Canonical
            if name == "metadata":
                value = self._metadata(was or {}, new or {})  # type: ignore[arg-type]  # objects, both
            elif new == was or (name == "email" and row.get("email_norm") == old.get("email_norm")):
                continue  # another spelling of one mailbox is no change
            else:
                value = _decided(self._policy(name), name, was, new)
            if value != was:
                changes[name] = value
        if changes.keys() & _NAMES:
            named = {name: value for name, value in changes.items() if name in _NAMES}
            known: dict[str, Any] = {name: old.get(name) for name in _NAMES}
            follow = complete_names(named, known)
            changes.update({name: value for name, value in follow.items() if value != old.get(name)})
        if "email" in changes:
            email = changes["email"]
            changes["email_norm"] = None if email is None else email_norm(str(email))
        return changes

    def _policy(self, target: str) -> ColumnPolicy:
        policy = self._policies.get(target)
        if policy is None:
            policy = self._policies[target] = self._options.policy_of(target)
        return policy

    def _metadata(self, old: Mapping[str, Canonical], new: Mapping[str, Canonical]) -> dict[str, Canonical]:
        merged = dict(old)
        for key, value in new.items():
            target = f"metadata.{key}"
            decided = _decided(self._policy(target), target, old.get(key), value)
            if decided is None:
                merged.pop(key, None)
            else:
                merged[key] = decided
        return merged


#: Of a row, not of a lead: its number, and what is derived from the address.
_COMPANIONS: Final = frozenset({"row_no", "email_norm"})
_NAMES: Final = frozenset({"name", *_PARTS})


def _without_gaps(values: Mapping[str, Canonical]) -> dict[str, Canonical]:
    return {name: value for name, value in values.items() if value is not None}


def _decided(policy: ColumnPolicy, target: str, old: Canonical, new: Canonical) -> Canonical:
    """The value that a field has afterwards."""
    match policy:
        case ColumnPolicy.KEEP_EXISTING | ColumnPolicy.IGNORE:
            return old
        case ColumnPolicy.FILL_EMPTY:
            return new if old in _EMPTY else old
        case ColumnPolicy.APPEND_UNIQUE:
            return _joined(target, old, new)
        case ColumnPolicy.MIN | ColumnPolicy.MAX:
            return _extreme(policy, old, new)
    return _cleared(target) if new is None else new


def _cleared(target: str) -> Canonical:
    if target == "tags":
        return []
    return 0.0 if target == "score" else None


def _joined(target: str, old: Canonical, new: Canonical) -> Canonical:
    if new is None:
        return old
    known = list(old) if isinstance(old, list) else []
    more = list(new) if isinstance(new, list) else [new]
    joined = [*known, *(each for each in more if each not in known)]
    if target == "tags" and len(joined) > MAX_TAGS:
        message = f"The lead would have {len(joined)} tags, at most {MAX_TAGS} fit."
        raise ValidationError.at("tags", "too_many", message)
    return joined


def _extreme(policy: ColumnPolicy, old: Canonical, new: Canonical) -> Canonical:
    if new is None or old is None or isinstance(old, bool):
        return old if new is None else new
    if isinstance(old, str) is not isinstance(new, str):
        return new  # the old one is of no type that the field has now
    both: list[Any] = [old, new]  # two numbers, or canonical texts of one type
    extreme: Canonical = min(both) if policy is ColumnPolicy.MIN else max(both)
    return extreme
