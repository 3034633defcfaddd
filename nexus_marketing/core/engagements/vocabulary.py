"""Types of engagements, verdicts, and what a single request gives away."""

from enum import StrEnum


class EngagementType(StrEnum):
    """The requirements' types; custom events are ``custom`` and have names of their own."""

    EMAIL_SENT = "email_sent"
    EMAIL_OPENED = "email_opened"
    EMAIL_CLICKED = "email_clicked"
    UNSUBSCRIBED = "unsubscribed"
    SMS_SENT = "sms_sent"
    SMS_DELIVERED = "sms_delivered"
    FORM_SUBMITTED = "form_submitted"
    PAGE_VISITED = "page_visited"
    CONVERSION = "conversion"
    CUSTOM = "custom"


class Verdict(StrEnum):
    """Who did it."""

    HUMAN = "human"
    MACHINE = "machine"
    UNKNOWN = "unknown"


class MachineHint(StrEnum):
    """What a single hit says about its sender."""

    SCANNER = "scanner"
    PROXY = "proxy"
