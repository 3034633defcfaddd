"""How listings are written down."""

from collections.abc import Mapping

from nexus_marketing.core.conditions import Field, FieldType, Schema

NUMBER, TEXT, MOMENT = FieldType.NUMBER, FieldType.TEXT, FieldType.DATETIME
TIMES: Mapping[str, FieldType] = {"created_at": MOMENT, "updated_at": MOMENT}


def same(*names: str, **others: str) -> dict[str, str]:
    """Fields that are called as their columns are; ``others`` by field."""
    return {name: name for name in names} | others


def schema(fields: Mapping[str, FieldType]) -> Schema:
    """What may be filtered on."""
    return Schema.of(Field(name, kind) for name, kind in fields.items())
