"""What a storage cannot do is said, and never done by halves."""

from dataclasses import replace

import pytest

from nexus_marketing import HasMarketing, use_storage
from nexus_marketing.core.campaigns import CampaignKey, CampaignStatus
from nexus_marketing.core.errors import StorageUnsupported
from nexus_marketing.core.memory import MemoryStorage
from nexus_marketing.plugin.testing.lives import draft, moved
from nexus_marketing.services.storage import SqlStorage

pytestmark = pytest.mark.req("FR-EXT-005", "US-010", "BR-007")


class Product(HasMarketing):
    marketing_config = {"campaigns": {"spring": {"channels": ["email"]}}}  # noqa: RUF012 - as a program writes it

    def __init__(self, number: int = 7) -> None:
        self.id = number


class FourMethods:
    """A stranger's storage: what the contract asks for, and nothing more."""

    def __init__(self) -> None:
        memory = MemoryStorage()
        self.load, self.commit, self.history, self.find = memory.load, memory.commit, memory.history, memory.find


@pytest.fixture
def stranger():
    storage = FourMethods()
    restore = use_storage(storage)
    yield storage
    restore()


def test_four_methods_are_enough(stranger):
    marketing = Product().marketing()
    assert marketing.launch_campaign("spring").status is CampaignStatus.ACTIVE
    assert [line.event for line in Product().marketing().history()] == ["launch"]
    assert [view.name for view in Product().marketing().active_campaigns()] == ["spring"]


def test_a_launched_campaign_does_not_begin_again_where_it_cannot_be_taken_over(stranger):
    restore = use_storage(None)
    product = Product()
    product.marketing().launch_campaign()
    restore()
    for call in (product.marketing().launch_campaign, product.marketing().campaign, product.marketing().history):
        with pytest.raises(StorageUnsupported, match=r"FourMethods takes nothing over: .* campaigns promote"):
            call("spring")
    assert stranger.load(CampaignKey("Product", "7", "spring")) is None
    assert Product(8).marketing().launch_campaign().version == 1


def test_a_campaign_on_a_published_definition_does_not_go_on_by_another(stranger):
    key = CampaignKey("Product", "7", "spring")
    launch = moved(draft(key), "launch")
    stranger.commit(key, 0, replace(launch, state=replace(launch.state, definition="spring@2.0")))
    with pytest.raises(StorageUnsupported, match=r"runs on spring@2\.0, and FourMethods keeps no definitions"):
        Product().marketing().pause()


def test_a_campaign_is_taken_over_with_its_history_by_those_who_can(runtime, tenant):
    product = Product()
    product.marketing().launch_campaign()
    for storage in (MemoryStorage(), SqlStorage(runtime, tenant)):
        restore = use_storage(storage)
        assert product.marketing().pause().version == 2
        assert [line.event for line in product.marketing().history()] == ["launch", "pause"]
        restore()
