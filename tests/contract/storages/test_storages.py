"""Every storage of ours holds the contract; the suite is the one that strangers run."""

from collections.abc import Iterator

import pytest

from nexus_marketing import HasMarketing
from nexus_marketing.builtins.storages.redis import RedisStorage
from nexus_marketing.core.inline import InlineStorage
from nexus_marketing.core.memory import MemoryStorage
from nexus_marketing.plugin.testing import StorageConformance
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.storage import SqlStorage

pytestmark = pytest.mark.req("FR-EXT-005", "REL-001", "REL-003", "REL-006", "BR-002", "BR-007")


class Product(HasMarketing):
    id = 7


class TestInlineStorage(StorageConformance):
    one_subject = True

    @pytest.fixture
    def storage(self) -> InlineStorage:
        return InlineStorage(Product())

    def again(self, storage: InlineStorage) -> InlineStorage:
        return InlineStorage(storage.subject)


class TestMemoryStorage(StorageConformance):
    @pytest.fixture
    def storage(self) -> MemoryStorage:
        return MemoryStorage()


class TestSqlStorage(StorageConformance):
    @pytest.fixture
    def storage(self, runtime: Runtime, tenant: int) -> SqlStorage:
        return SqlStorage(runtime, tenant)

    def again(self, storage: SqlStorage) -> SqlStorage:
        return SqlStorage(storage._runtime, storage.tenant_id)


class TestRedisStorage(StorageConformance):
    @pytest.fixture
    def storage(self, redis_url: str) -> Iterator[RedisStorage]:
        storage = RedisStorage.from_url(redis_url, "acme")
        yield storage
        storage.close()

    def again(self, storage: RedisStorage) -> RedisStorage:
        return RedisStorage(storage._client, "acme")
