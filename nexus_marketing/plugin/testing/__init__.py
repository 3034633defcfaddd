"""Conformance suites: what a plugin's own tests run to know that it keeps its contract (needs pytest)."""

import pytest

# Before the suites are imported, so that a failure shows the values that were compared.
pytest.register_assert_rewrite(f"{__name__}.storages")

from nexus_marketing.plugin.testing.storages import StorageConformance  # noqa: E402 - see above

__all__ = ["StorageConformance"]
