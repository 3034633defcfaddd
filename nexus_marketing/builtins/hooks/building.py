"""The providers of mail that report back, as far as the operator set them up."""

from collections.abc import Mapping

from nexus_marketing.builtins.hooks.mailgun import MailgunHook
from nexus_marketing.builtins.hooks.postmark import PostmarkHook
from nexus_marketing.builtins.hooks.reading import ProviderHook
from nexus_marketing.builtins.hooks.sendgrid import SendGridHook
from nexus_marketing.builtins.hooks.ses import SesHook, check_topic
from nexus_marketing.core.clock import Clock
from nexus_marketing.core.errors import ConfigurationError
from nexus_marketing.plugin.http import HttpClient, HttpLimits
from nexus_marketing.settings import Settings


def email_hooks(settings: Settings, clock: Clock) -> Mapping[str, ProviderHook]:
    """The hooks by the last part of their addresses.

    Raises:
        ConfigurationError: names the setting that is wrong.
    """
    given = settings.email_hooks
    found: dict[str, ProviderHook] = {}
    if given.ses_topics:
        for topic in given.ses_topics:
            if not check_topic(topic):
                raise ConfigurationError(f"nexus.email.hooks.ses_topics: {topic[:300]!r} is no ARN of an SNS topic.")
        # Amazon's addresses are public and by TLS: no exception of the operator's opens anything here.
        client = HttpClient(HttpLimits(total_seconds=5.0))
        found["ses"] = SesHook(given.ses_topics, client, clock)
    if given.sendgrid_keys:
        found["sendgrid"] = SendGridHook(given.sendgrid_keys)
    if given.mailgun_keys:
        found["mailgun"] = MailgunHook(given.mailgun_keys, clock)
    if given.postmark_tokens:
        found["postmark"] = PostmarkHook(given.postmark_tokens)
    return found
