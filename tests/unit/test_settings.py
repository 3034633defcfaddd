"""Settings are read once, whole or not at all, and faults name the key and the remedy."""

import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from nexus_marketing.core.errors import ConfigurationError
from nexus_marketing.settings import (
    EmailHookSettings,
    HttpSettings,
    Settings,
    SmppSettings,
    SmsSettings,
    SmtpSettings,
    VisitorSettings,
    WebhookSettings,
)

pytestmark = pytest.mark.req("MAINT-001")

SECRET = "0123456789abcdef0123456789abcdef"
EMBEDDED = {"nexus.database_url": "sqlite:///var/nexus.db", "nexus.secret_key": SECRET}
PRODUCTION = {
    "nexus.database_url": "postgresql://nexus_app:c4n4ry@db/nexus",
    "nexus.database_worker_url": "postgresql://nexus_worker:c4n4ry@db/nexus",
    "nexus.database_owner_url": "postgresql://nexus_owner:c4n4ry@db/nexus",
    "nexus.secret_key": SECRET,
}


def faults(raw: dict[str, str]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        Settings.parse(raw)
    return str(caught.value)


def test_a_file_is_enough_for_the_embedded_mode():
    settings = Settings.parse(EMBEDDED)
    assert settings.embedded
    assert settings.database_url == settings.database_worker_url == settings.database_owner_url
    assert settings.smtp == SmtpSettings()
    assert settings.worker_threads == 0


def test_production_has_a_login_for_each_role():
    settings = Settings.parse(PRODUCTION)
    assert not settings.embedded
    assert settings.database_worker_url == PRODUCTION["nexus.database_worker_url"]
    assert settings.database_owner_url == PRODUCTION["nexus.database_owner_url"]


def test_every_key_is_read_in_its_unit():
    settings = Settings.parse(
        EMBEDDED
        | {
            "nexus.redis_url": "redis://127.0.0.1/0",
            "nexus.broker_url": "amqp://u:p@127.0.0.1:5672/nexus",
            "nexus.public_url": "https://mail.example.org/",
            "nexus.catcher_dir": "var/mail",
            "nexus.worker_threads": "2",
            "nexus.state_dir": "/var/lib/nexus",
            "nexus.pool_size": "4",
            "nexus.prepared_statements": "False",
            "nexus.chunk_size": "100",
            "nexus.lease_seconds": "45",
            "nexus.poll_seconds": "0.5",
            "nexus.grace_seconds": "7200",
            "nexus.settling_seconds": "0",
            "nexus.rate_limit_per_minute": "60",
            "nexus.max_body_bytes": "2000",
            "nexus.max_attempts": "3",
            "nexus.max_retry_age_seconds": "3600",
            "nexus.log_level": "debug",
            "nexus.smtp.host": "mail",
            "nexus.smtp.port": "587",
            "nexus.smtp.security": "starttls",
            "nexus.smtp.username": "u",
            "nexus.smtp.password": "p",
            "nexus.smtp.connections": "2",
            "nexus.smtp.timeout_seconds": "2.5",
            "nexus.smtp.local_hostname": "here",
            "nexus.sms.url": "https://sms.example/2010-04-01/",
            "nexus.sms.account": "AC1",
            "nexus.sms.token": "t",
            "nexus.sms.from": "Shop",
            "nexus.sms.price_minor": "8",
            "nexus.sms.connections": "4",
            "nexus.sms.max_segments": "3",
            "nexus.sms.callbacks": "true",
            "nexus.smpp.enabled": "true",
            "nexus.smpp.allow_hosts": "smsc.internal:2775",
            "nexus.smpp.window": "50",
            "nexus.social.networks": "bluesky mastodon",
            "nexus.email.hooks.ses_topics": "arn:aws:sns:eu-west-1:1:a arn:aws:sns:eu-west-1:1:b",
            "nexus.email.hooks.sendgrid_keys": "MFk=",
            "nexus.email.hooks.mailgun_keys": "0123456789abcdef",
            "nexus.email.hooks.postmark_tokens": "fedcba9876543210",
            "nexus.soft_bounces": "5",
            "nexus.webhook.secrets": "whsec_new  whsec_old",
            "nexus.webhook.connections": "5",
            "nexus.http.allow_hosts": "hooks.internal:8080 127.0.0.1",
        }
    )
    assert settings.redis_url == "redis://127.0.0.1/0"
    assert settings.broker_url == "amqp://u:p@127.0.0.1:5672/nexus"
    assert settings.public_url == "https://mail.example.org"
    assert (settings.catcher_dir, settings.state_dir) == (Path("var/mail"), Path("/var/lib/nexus"))
    assert (settings.worker_threads, settings.pool_size, settings.chunk_size) == (2, 4, 100)
    assert settings.prepared_statements is False
    assert (settings.lease, settings.poll) == (timedelta(seconds=45), timedelta(milliseconds=500))
    assert (settings.grace, settings.settling) == (timedelta(hours=2), timedelta())
    assert (settings.rate_limit_per_minute, settings.max_body_bytes, settings.max_attempts) == (60, 2000, 3)
    assert settings.max_retry_age == timedelta(hours=1)
    assert settings.log_level == "DEBUG"
    assert settings.smtp == SmtpSettings("mail", 587, "starttls", "u", "p", 2, 2.5, "here")
    assert settings.social.networks == ("bluesky", "mastodon")
    assert settings.sms == SmsSettings("https://sms.example/2010-04-01", "AC1", "t", "Shop", 8, 4, 3, callbacks=True)
    assert settings.smpp == SmppSettings(enabled=True, allow_hosts=("smsc.internal:2775",), window=50)
    topics = ("arn:aws:sns:eu-west-1:1:a", "arn:aws:sns:eu-west-1:1:b")
    assert settings.email_hooks == EmailHookSettings(topics, ("MFk=",), ("0123456789abcdef",), ("fedcba9876543210",))
    assert settings.soft_bounces == 5
    assert settings.webhook == WebhookSettings(("whsec_new", "whsec_old"), 5)
    assert settings.http == HttpSettings(("hooks.internal:8080", "127.0.0.1"))


def test_other_sections_keys_are_not_ours():
    Settings.parse(EMBEDDED | {"pyramid.includes": "x", "use": "egg:nexus-marketing", "nexus.includes": "plugin"})


def test_an_empty_value_means_the_default():
    assert Settings.parse(EMBEDDED | {"nexus.pool_size": " ", "nexus.smtp.port": ""}).pool_size == 10


@pytest.mark.parametrize(
    ("key", "value", "remedy"),
    [
        ("pool_size", "many", "a whole number above 0"),
        ("sms.callbacks", "yes", "true or false"),
        ("soft_bounces", "0", "a whole number from 1 to 100"),
        ("pool_size", "0", "a whole number above 0"),
        ("worker_threads", "-1", "a whole number, not below 0"),
        ("lease_seconds", "soon", "a number of seconds"),
        ("lease_seconds", "-1", "a number of seconds"),
        ("lease_seconds", "nan", "a number of seconds"),
        ("lease_seconds", "inf", "a number of seconds"),
        ("lease_seconds", "1e300", "a number of seconds"),
        ("prepared_statements", "yes", "true or false"),
        ("public_url", "mail.example.org", "http:// or https://"),
        ("public_url", "javascript:alert(1)", "http:// or https://"),
        ("log_level", "LOUD", "DEBUG, INFO, WARNING or ERROR"),
        ("smtp.port", "0", "a port from 1 to 65535"),
        ("smtp.port", "65536", "a port from 1 to 65535"),
        ("smtp.security", "ssl", "none, opportunistic, starttls or tls"),
        ("smtp.timeout_seconds", "0", "a number of seconds above 0"),
        ("smtp.timeout_seconds", "nan", "a number of seconds above 0"),
        ("smtp.connections", "0", "a whole number above 0"),
        ("sms.url", "sms.example", "http:// or https://"),
        ("sms.price_minor", "-1", "a whole number, not below 0"),
        ("sms.price_minor", "0.5", "a whole number, not below 0"),
        ("smpp.enabled", "perhaps", "true or false"),
        ("smpp.window", "0", "a whole number from 1 to 1000"),
        ("sms.max_segments", "256", "a whole number from 1 to 255"),
        ("webhook.connections", "0", "a whole number above 0"),
    ],
)
def test_a_value_that_cannot_be_is_named_with_what_would_be(key, value, remedy):
    message = faults(EMBEDDED | {f"nexus.{key}": value})
    assert message.startswith(f"nexus.{key}: {value!r} is not ")
    assert remedy in message


def test_all_faults_are_told_at_once():
    message = faults(
        {"nexus.pool_size": "x", "nexus.colour": "red", "nexus.smtp.port": "y", "nexus.secret_key": SECRET}
    )
    for key in ("nexus.pool_size", "nexus.colour", "nexus.smtp.port", "nexus.database_url"):
        assert key in message


def test_a_misspelt_key_is_refused():
    assert "nexus.databse_url is no setting" in faults(EMBEDDED | {"nexus.databse_url": "x"})


def test_postgresql_needs_the_workers_login():
    raw = {key: value for key, value in PRODUCTION.items() if key != "nexus.database_worker_url"}
    assert "nexus.database_worker_url is missing" in faults(raw)


def test_a_web_process_may_do_without_the_owners_login():
    raw = {key: value for key, value in PRODUCTION.items() if key != "nexus.database_owner_url"}
    assert Settings.parse(raw).database_owner_url == ""


def test_another_database_is_refused_without_showing_its_password():
    message = faults(PRODUCTION | {"nexus.database_url": "mysql://root:c4n4ry@db/nexus"})
    assert "mysql is neither sqlite nor postgresql" in message
    assert "c4n4ry" not in message


class TestBroker:
    @pytest.mark.parametrize(
        "url",
        [
            "redis://127.0.0.1:6379/1",
            "rediss://:secret@redis.example.org",
            "amqp://rabbit",
            "amqp://user:pass@rabbit:5672/%2F?heartbeat=60",
            "amqps://user:pass@[::1]:5671/nexus",
        ],
    )
    def test_redis_and_rabbitmq_are_accepted(self, url):
        assert Settings.parse(EMBEDDED | {"nexus.broker_url": f" {url} "}).broker_url == url

    @pytest.mark.parametrize(
        ("url", "shown"),
        [
            ("kafka://broker:9092", "kafka://broker:9092"),
            ("http://user:c4n4ry@broker/", "http://***@broker/"),
            ("user:c4n4ry@broker:5672", "***@broker:5672"),
            ("http://user:c4n/4r@y@broker?password=c4n4ry", "http://***@broker"),
            ("broker:5672", "broker:5672"),
            ("amqp:/broker", "amqp:/broker"),
            ("amqp://", "amqp://"),
            ("amqp:///nexus", "amqp:///nexus"),
            ("amqp://user:c4n4ry@broker:rabbit/", "amqp://***@broker:rabbit/"),
            ("amqp://broker:99999/", "amqp://broker:99999/"),
            ("amqp://broker:0/", "amqp://broker:0/"),
            ("AMQP://broker", "AMQP://broker"),
            ("amqp://[::1/", "amqp://[::1/"),
        ],
    )
    def test_anything_else_is_refused_with_the_remedy_and_without_its_password(self, url, shown):
        message = faults(EMBEDDED | {"nexus.broker_url": url})
        assert message.startswith(f"nexus.broker_url: {shown!r} is not the URL of a broker: write ")
        assert "redis://HOST:6379/0 for Redis or amqp://USER:PASSWORD@HOST:5672/VHOST for RabbitMQ" in message
        assert "c4n" not in message

    def test_its_password_is_not_in_the_repr(self):
        assert "c4n4ry" not in repr(Settings.parse(EMBEDDED | {"nexus.broker_url": "amqp://u:c4n4ry@rabbit"}))


class TestSecretKeys:
    def test_production_needs_one(self):
        raw = {key: value for key, value in PRODUCTION.items() if key != "nexus.secret_key"}
        assert "nexus.secret_key is missing" in faults(raw)

    @pytest.mark.parametrize("written", ["short", f"{SECRET} short"])
    def test_short_ones_are_refused_without_showing_them(self, written):
        message = faults(EMBEDDED | {"nexus.secret_key": written})
        assert "at least 32 characters" in message
        assert "short" not in message.replace("nexus", "")

    def test_several_are_for_rotation(self):
        other = SECRET[::-1]
        parsed = Settings.parse(EMBEDDED | {"nexus.secret_key": f"{other}\n{SECRET}"})
        assert parsed.secret_keys == (other.encode(), SECRET.encode())

    def test_the_embedded_mode_makes_one_and_keeps_it(self, tmp_path):
        raw = {"nexus.database_url": "sqlite:///x.db", "nexus.state_dir": str(tmp_path / "state")}
        first, second = Settings.parse(raw).secret_keys, Settings.parse(raw).secret_keys
        assert first == second
        assert len(first[0]) == 64
        kept = tmp_path / "state" / "secret.key"
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
        assert list(kept.parent.iterdir()) == [kept]

    def test_processes_that_start_together_agree(self, tmp_path):
        raw = {"nexus.database_url": "sqlite:///x.db", "nexus.state_dir": str(tmp_path)}
        with ThreadPoolExecutor(8) as pool:
            found = set(pool.map(lambda _: Settings.parse(raw).secret_keys, range(40)))
        assert len(found) == 1

    def test_nothing_secret_is_in_the_repr(self):
        secrets = {
            "nexus.smtp.password": "c4n4ry",
            "nexus.redis_url": "redis://:c4n4ry@h",
            "nexus.sms.token": "c4n4ry",
            "nexus.webhook.secrets": "whsec_c4n4ry",
        }
        shown = repr(Settings.parse(PRODUCTION | secrets))
        assert SECRET not in shown
        assert "c4n4ry" not in shown


def test_tokens_of_providers_are_not_shown():
    said = faults(EMBEDDED | {"nexus.email.hooks.mailgun_keys": "c4n4ry"})
    assert "c4n4ry" not in said
    assert "c4n4ry" not in repr(Settings.parse(EMBEDDED | {"nexus.email.hooks.mailgun_keys": "c4n4ry" * 4}))


def test_limits_of_visitors_are_each_of_their_own_and_can_be_off():
    raw = {"engagements": "90000", "pages": "0", "calls": "7", "guesses": "5"}
    given = {f"nexus.visitors.{name}_per_minute": value for name, value in raw.items()}
    settings = Settings.parse(EMBEDDED | given | {"nexus.visitors.limited": "false"})
    assert settings.visitors == VisitorSettings(False, 90_000, 0, 7, 5)
    assert Settings.parse(EMBEDDED).visitors == VisitorSettings(True, 6_000, 600, 30_000, 60)
    said = faults(EMBEDDED | {"nexus.visitors.pages_per_minute": "-1", "nexus.visitors.limited": "off"})
    assert "nexus.visitors.pages_per_minute: '-1' is not a whole number, not below 0 (0 is no limit)" in said
    assert "nexus.visitors.limited: 'off' is not true or false" in said
