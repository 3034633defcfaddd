"""Bodies of reported engagements."""

from nexus_marketing.core.engagements import EVENT_SCHEMA as ROW
from nexus_marketing.core.engagements import SERVER_FIELDS as READ_ONLY

#: Engagements in one JSON array; more come as lines (``/bulk``).
MAX_ROWS = 500
#: Lines of one bulk request.
MAX_LINES = 10_000

__all__ = ["MAX_LINES", "MAX_ROWS", "READ_ONLY", "ROW"]
