"""The settings of one process, parsed once from the ini file; nothing else reads it."""

from nexus_marketing.settings.groups import (
    EmailHookSettings,
    HttpSettings,
    PluginSettings,
    SmppSettings,
    SmsSettings,
    SmtpSettings,
    SocialSettings,
    VisitorSettings,
    WebhookSettings,
)
from nexus_marketing.settings.site import Settings, http_settings, plugin_settings

__all__ = [
    "EmailHookSettings",
    "HttpSettings",
    "PluginSettings",
    "Settings",
    "SmppSettings",
    "SmsSettings",
    "SmtpSettings",
    "SocialSettings",
    "VisitorSettings",
    "WebhookSettings",
    "http_settings",
    "plugin_settings",
]
