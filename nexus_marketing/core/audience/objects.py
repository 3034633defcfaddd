"""A line of JSON as a lead's values: the same fields and policies as in a table, with types of their own."""

from collections.abc import Mapping

from nexus_marketing.core.audience.exporting import is_our_own
from nexus_marketing.core.audience.fields import normalise_field
from nexus_marketing.core.audience.files import Converter, consent_word, evidence, fold_keys, nested_metadata
from nexus_marketing.core.audience.headers import EVIDENCE, KEYS, MAX_COLUMNS, target_of
from nexus_marketing.core.audience.importing import CONSENT_TARGETS, IGNORED, METADATA, ColumnPolicy, ImportOptions
from nexus_marketing.core.errors import ValidationError
from nexus_marketing.core.values import Canonical, canonical


class ObjectReader:
    """Turns lines of one file into lead values; made once per file. ``mapping`` tells the keys it met.

    Args:
        instant: reads the moment of a consent as canonical text.
        options: which keys are which fields, and whose phone numbers have no country code.
    """

    __slots__ = ("_given", "_instant", "_options", "mapping")

    def __init__(self, instant: Converter, options: ImportOptions) -> None:
        self._instant, self._options = instant, options
        self._given: Mapping[str, str] | None = None
        self.mapping: dict[str, str] = {}

    def read(self, document: Canonical) -> dict[str, Canonical]:
        """The values of one line; ``null`` clears a field, a missing key says nothing.

        Raises:
            ValidationError: the first value that is wrong, at its field or ``metadata.<key>``.
        """
        if not isinstance(document, Mapping):
            raise ValidationError.at("row", "not_an_object", "The line is no JSON object: write one per line.")
        if self._given is None:  # the first line says whose file it is
            self._given = self._options.mapping_for(is_ours=is_our_own(document))
        given: dict[str, Canonical] = {}
        metadata: dict[str, Canonical] = {}
        for key, value in document.items():
            target = self._target(key)
            if target == METADATA:
                metadata.update(nested_metadata(value, self._options))
            elif target.startswith("metadata."):
                metadata[target[9:]] = value
            elif target in given:
                raise ValidationError.at(target, "duplicate_key", f"Two keys of the line mean {target}: remove one.")
            elif target != IGNORED:
                given[target] = value
        values = self._fields(given)
        if metadata:
            values[METADATA] = normalise_field(METADATA, metadata)
        fold_keys(values, KEYS)
        return values

    def _target(self, key: str) -> str:
        target = self.mapping.get(key)
        if target is None:
            target = (self._given or {}).get(key) or self._guess(key)
            if target != METADATA and self._options.policies.get(target) is ColumnPolicy.IGNORE:
                target = IGNORED
            if len(self.mapping) >= MAX_COLUMNS:
                message = f"The file has more than {MAX_COLUMNS} different keys: put what is free into metadata."
                raise ValidationError.at("row", "too_many_columns", message)
            self.mapping[key] = target
        return target

    def _guess(self, key: str) -> str:
        target = target_of(key)
        # A key is not a heading: what is nobody's field keeps its spelling.
        return target if "." not in target or "." in key or not key.strip() else f"metadata.{key.strip()[:64]}"

    def _fields(self, given: Mapping[str, Canonical]) -> dict[str, Canonical]:
        values: dict[str, Canonical] = {}
        region = given.get("country") if isinstance(given.get("country"), str) else None
        for target, value in given.items():
            if target in CONSENT_TARGETS:
                found = self._consent(target, value)
            elif target == "score":
                found = _score(value)
            elif target in ("email", "external_id") and value is None:
                found = None
            else:
                found = normalise_field(target, value, region=_region(region) or self._options.region)
                if found in (None, []) and value is not None:
                    continue  # blank text says nothing, as an empty cell does
                values[target] = found
                continue
            if found is not None:
                values[target] = found
        return values

    def _consent(self, target: str, value: Canonical) -> Canonical:
        if value is None:
            return None
        if target == "consent":
            return consent_word(str(value).lower())
        if not isinstance(value, str):
            raise ValidationError.at(target, "not_text", f"{target} is text, not {type(value).__name__}.")
        return self._instant(value) if target == EVIDENCE[0] else evidence(target, value)


def _region(country: Canonical) -> str | None:
    code = str(country or "").strip().upper()
    return code if len(code) == 2 else None


def _score(value: Canonical) -> Canonical:
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e15 < value < 1e15:
        raise ValidationError.at("score", "not_a_number", f"{value!r} is no score: write a number such as 12.5.")
    return float(canonical(value, "score"))  # type: ignore[arg-type]  # a number
