"""Bodies of comments."""

from nexus_marketing.core.schemas import Schema

COMMENT: Schema = {"text": {"type": "string", "required": True, "minlength": 1, "maxlength": 10_000}}
