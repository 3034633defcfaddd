"""PostgreSQL and Redis for tests, benchmarks and the chaos suite, with nothing to set up.

with Run.open(durable=True) as run:
    cluster, server = start_postgres(run), start_redis(run)
"""

from tests.common.servers.postgres import PostgresCluster, libpq_url, start_postgres
from tests.common.servers.privileges import ServerUnavailable
from tests.common.servers.redis import RedisServer, start_redis
from tests.common.servers.run import Run, free_port

__all__ = [
    "PostgresCluster",
    "RedisServer",
    "Run",
    "ServerUnavailable",
    "free_port",
    "libpq_url",
    "start_postgres",
    "start_redis",
]
