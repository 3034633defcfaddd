"""Settings that belong together, under a prefix of their own."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class SmtpSettings:
    """The relay that mail leaves through."""

    host: str = "127.0.0.1"
    port: int = 25
    #: ``none``, ``starttls`` (required), ``opportunistic`` or ``tls``.
    security: str = "none"
    username: str = ""
    password: str = field(default="", repr=False)
    connections: int = 8
    timeout_seconds: float = 30.0
    #: The name we say in EHLO; empty: this machine's.
    local_hostname: str = ""
    #: Servers of tenants' own accounts (``host`` or ``host:port``) that may lie at private addresses, or at other ports.
    allow_hosts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EmailHookSettings:
    """Providers of mail that report back; one without its keys is refused. Two keys while they change."""

    #: ARNs of the SNS topics to which Amazon SES reports.
    ses_topics: tuple[str, ...] = ()
    #: Verification keys of SendGrid's signed event webhook.
    sendgrid_keys: tuple[str, ...] = ()
    #: Mailgun's webhook signing keys.
    mailgun_keys: tuple[str, ...] = field(default=(), repr=False)
    #: Of our own making, in the address or a header of Postmark's webhooks.
    postmark_tokens: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class SmsSettings:
    """The provider of text messages, by Twilio's HTTP API; without ``url`` there is none but tenants' own by SMPP."""

    #: What stands before ``/Accounts``: ``https://api.twilio.com/2010-04-01``.
    url: str = ""
    #: Of tenants that have no account of their own.
    account: str = ""
    token: str = field(default="", repr=False)
    #: ``from``: whom messages come from where a tenant does not say.
    sender: str = ""
    #: What a segment costs, in the minor unit of the currency (cents).
    price_minor: int = 0
    connections: int = 8
    #: Longer messages are not sent.
    max_segments: int = 10
    #: Whether the provider is asked to say what became of each message (needs a ``public_url`` that it reaches).
    callbacks: bool = False


@dataclass(frozen=True, slots=True)
class SmppSettings:
    """Accounts of tenants at short message centres (SMPP 3.4); needs the extra ``smpp``."""

    enabled: bool = False
    #: Centres (``host`` or ``host:port``) at private addresses, at other ports, or without TLS.
    allow_hosts: tuple[str, ...] = ()
    #: Messages without an answer that an account may have at most.
    window: int = 16


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """How messages are posted to programs; without ``secrets`` there is no such channel."""

    #: ``whsec_…``, newest first: at most two, while they change.
    secrets: tuple[str, ...] = field(default=(), repr=False)
    connections: int = 8


@dataclass(frozen=True, slots=True)
class SocialSettings:
    """Social networks that tenants may post to; their accounts are the tenants' own."""

    #: ``mastodon``, ``bluesky``: each is a channel of this name.
    networks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """The way out by HTTP."""

    #: Hosts (``host`` or ``host:port``) that may be asked in plain HTTP and lie at private addresses.
    allow_hosts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class VisitorSettings:
    """How much strangers may ask for without a key: of each address (IPv6: each /64), a minute and a web process; 0: any."""

    #: False: nobody is counted.
    limited: bool = True
    #: Opens and clicks; those beyond are answered, and not recorded.
    engagements_per_minute: int = 6_000
    #: Pages of recipients, and what is sent from them.
    pages_per_minute: int = 600
    #: Reports of providers, and calls of programs that bring leads.
    calls_per_minute: int = 30_000
    #: Links, addresses and signatures that are not ours.
    guesses_per_minute: int = 60


@dataclass(frozen=True, slots=True)
class PluginSettings:
    """What the operator grants to plugins, and which of them are not trusted."""

    #: Modules of ``nexus.includes`` that run in the sandbox.
    untrusted: tuple[str, ...] = ()
    #: ``PLUGIN:HOST`` or ``PLUGIN:HOST:PORT``: hosts that a plugin may ask; ``*.example.com`` for the names below it.
    grants: tuple[str, ...] = ()
    #: ``PLUGIN:NAME=VALUE``: what a plugin's requests hold in the place of ``{secret:NAME}``.
    secrets: tuple[str, ...] = field(default=(), repr=False)
    #: Of each plugin and process.
    requests_per_second: float = 50.0
    #: How long one call may take: a sandboxed plugin is ended then, of others it is counted.
    call_seconds: float = 10.0
    #: How old a worker is at least that begins anew after a trusted plugin took longer.
    recycle_seconds: float = 60.0
    #: Address space of a sandboxed plugin, the interpreter included.
    memory_mb: int = 256
