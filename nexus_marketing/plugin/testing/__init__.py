"""What a plugin's own tests run to know that it keeps its contract (needs pytest), and channels to try delivery with."""

import pytest

# Before the suites are imported, so that a failure shows the values that were compared.
pytest.register_assert_rewrite(
    *(f"{__name__}.{suite}" for suite in ("channel_suite", "extension_suites", "resolver_suite", "storages"))
)

from nexus_marketing.plugin.testing.channel_suite import (  # noqa: E402 - see above
    ChannelConformance,
    WatchingJournal,
    sample_batch,
    sample_content,
)
from nexus_marketing.plugin.testing.channels import (  # noqa: E402 - see above
    RecordingChannel,
    RecordingServer,
    SocketChannel,
)
from nexus_marketing.plugin.testing.extension_suites import (  # noqa: E402 - see above
    ActionConformance,
    ApprovalStrategyConformance,
    ConditionConformance,
    MetricConformance,
    TriggerConformance,
)
from nexus_marketing.plugin.testing.hosting import hosted  # noqa: E402 - see above
from nexus_marketing.plugin.testing.resolver_suite import TenantResolverConformance  # noqa: E402 - see above
from nexus_marketing.plugin.testing.storages import StorageConformance  # noqa: E402 - see above

__all__ = [
    "ActionConformance",
    "ApprovalStrategyConformance",
    "ChannelConformance",
    "ConditionConformance",
    "MetricConformance",
    "RecordingChannel",
    "RecordingServer",
    "SocketChannel",
    "StorageConformance",
    "TenantResolverConformance",
    "TriggerConformance",
    "WatchingJournal",
    "hosted",
    "sample_batch",
    "sample_content",
]
