"""The settings of a configuration: typed, with defaults and resolved secrets.

A setting's unit is in its name: `_s` are seconds, `_mb` are MiB.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path

from tornado_proxy.config.sections.alerts import AlertSettings
from tornado_proxy.config.sections.budgets import BudgetSettings
from tornado_proxy.config.sections.ledger import ledger_address
from tornado_proxy.config.sections.listen_tls import TlsFiles, read_tls_files
from tornado_proxy.domain.config.document import read_section
from tornado_proxy.domain.config.ledger_address import LedgerAddress
from tornado_proxy.domain.config.oauth import OAuthIssuer
from tornado_proxy.domain.identity import ProviderKey, Secret
from tornado_proxy.domain.key_ring import KeyRing
from tornado_proxy.wire.host_header import normalize_host_name

# The schema repeats the defaults of this file; tests/config/test_settings.py compares them.

#: Loopback only: exposing the proxy is the operator's decision, because it needs a TLS terminator in front.
DEFAULT_HOST = "127.0.0.1"
CLIENT_PORT = 8080

#: A reverse proxy on the same machine.
DEFAULT_TRUSTED_PROXIES = ("127.0.0.0/8", "::1")
ADMIN_PORT = 8081


@dataclass(frozen=True, slots=True)
class ListenSettings:
    """An address to listen on.

    Attributes:
        host: The address.
        port: The port; 0 for any free one.
        reuse_port: True if several processes share the port (SO_REUSEPORT).
        tls: Certificate and key; None to speak plain HTTP.
    """

    host: str
    port: int
    reuse_port: bool = False
    tls: TlsFiles | None = None


@dataclass(frozen=True, slots=True)
class AdminAccess:
    """Who may use the admin port.

    Attributes:
        token: The bearer token of its requests; None refuses all of them but the health checks.
        hosts: Normalized names and addresses that a Host header may name, beside those of loopback.
    """

    token: Secret | None = None
    hosts: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class PublicSettings:
    """How clients see the server.

    Attributes:
        url: The root URL that clients use, without a final slash; None to derive it from each request.
        trusted_proxies: The networks whose X-Forwarded-* and Forwarded headers count.
        allow_origins: Origins of pages in browsers that may send HTTP requests (CORS).
    """

    url: str | None = None
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    allow_origins: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """A provider's server.

    Attributes:
        base_url: The part of its URLs before `/v1/...`, without a final slash.
        keys: The provider keys, at least one.
        ca_file: A PEM file of certificate authorities to trust; None for those of the system.
        region: The region of its host, which some prices depend on; None for a global host.
        allow_private: True if a base URL that was set over REST may lead to a private address.
        public_only: True if the base URL was set over REST, and may lead to public addresses only.
    """

    base_url: str
    keys: tuple[ProviderKey, ...]
    ca_file: str | None = None
    region: str | None = None
    allow_private: bool = False
    public_only: bool = False


@dataclass(frozen=True, slots=True)
class PricingSettings:
    """`surcharge_rate` is the fraction of the provider's charge that this installation adds."""

    surcharge_rate: Decimal


@dataclass(frozen=True, slots=True)
class LedgerSettings:
    """The ledger; `fsync` is True if each commit must survive a loss of power."""

    address: LedgerAddress
    fsync: bool


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """Settings of responses in flight; at most `drain_max` responses are drained at the same time."""

    on_client_disconnect: str
    drain_limit_s: float
    drain_max: int
    idle_timeout_s: float
    connect_timeout_s: float


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """Limits of one server process.

    Attributes:
        max_body_mb: MiB of a request body.
        max_batch_mb: MiB of a body that holds a batch of requests.
        max_streams: Requests and sessions in flight.
        max_streams_per_project: Those of one project.
        max_arriving_mb: MiB held for requests and frames that still arrive.
        max_arriving_mb_per_caller: Those of one caller.
    """

    max_body_mb: int
    max_batch_mb: int
    max_streams: int
    max_streams_per_project: int
    max_arriving_mb: int
    max_arriving_mb_per_caller: int


@dataclass(frozen=True, slots=True)
class WebSocketSettings:
    """Settings of WebSocket sessions.  A session's credential is checked again every `recheck_s`.

    `sideband_failure` is `refuse` or `end`.
    """

    idle_timeout_s: float
    lifetime_s: float
    recheck_s: float
    max_message_mb: int
    sideband_failure: str = "refuse"


@dataclass(frozen=True, slots=True)
class ShutdownSettings:
    """Settings of a shutdown: the seconds that requests in flight get after SIGTERM."""

    drain_s: float


@dataclass(frozen=True, slots=True)
class StateSettings:
    """Settings of the state.  Without `keys` no secret can be set while the server runs."""

    keys: KeyRing | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one configuration.

    Attributes:
        models_list: `filtered` or `provider`.
        speech_usage: `exact` or `estimated`.
        oauth: The issuers whose access tokens are accepted.
        budgets: Settings of all budgets, and the default ones.
        forward_headers: Request headers that are forwarded in addition to a provider's own list, in lower case.
        otlp_endpoint: The URL of the OTLP receiver, before /v1/traces and /v1/metrics; None to send nothing.
        log_file: The file that log lines are appended to, beside standard error; None for none.
    """

    listen: ListenSettings
    admin: ListenSettings
    providers: Mapping[str, ProviderSettings]
    pricing: PricingSettings
    ledger: LedgerSettings
    streams: StreamSettings
    limits: LimitSettings
    websockets: WebSocketSettings
    shutdown: ShutdownSettings
    public: PublicSettings = field(default_factory=PublicSettings)
    oauth: tuple[OAuthIssuer, ...] = ()
    admin_access: AdminAccess = field(default_factory=AdminAccess)
    state: StateSettings = field(default_factory=StateSettings)
    models_list: str = "filtered"
    speech_usage: str = "exact"
    forward_headers: frozenset[str] = field(default_factory=frozenset)
    budgets: BudgetSettings = field(default_factory=BudgetSettings)
    alerts: AlertSettings = field(default_factory=AlertSettings)
    log_file: Path | None = None
    otlp_endpoint: str | None = None


def find_restart_settings(old: Settings, new: Settings) -> tuple[str, ...]:
    """Return the settings that differ and that need a restart (`x-restart` in the schema)."""
    # Bound sockets, an open ledger and an open log file cannot change while the server runs.
    names = {"listen": "listen", "admin": "admin", "ledger": "ledger", "log_file": "log.file"}
    names["otlp_endpoint"] = "telemetry.otlp_endpoint"
    return tuple(shown for name, shown in names.items() if getattr(old, name) != getattr(new, name))


def make_settings(
    content: Mapping[str, object],
    base: Path,
    providers: Mapping[str, ProviderSettings],
    ledger_password: Secret | None = None,
    admin_token: Secret | None = None,
) -> Settings:
    """Return the settings of a checked document.

    Args:
        content: The content of the document.
        base: The folder of the document, where relative paths start.
        providers: The providers with their keys.
        ledger_password: The password of a PostgreSQL ledger.
        admin_token: The bearer token of the admin port.
    """
    pricing, ledger = read_section(content, "pricing"), read_section(content, "ledger")
    streams, limits = read_section(content, "streams"), read_section(content, "limits")
    return Settings(
        listen=_read_listen(read_section(content, "listen"), CLIENT_PORT, base),
        admin=_read_listen(read_section(content, "admin"), ADMIN_PORT, base),
        providers=providers,
        pricing=PricingSettings(
            surcharge_rate=Decimal(str(pricing.get("surcharge_rate", "0"))),
        ),
        ledger=LedgerSettings(
            address=ledger_address(ledger, base, ledger_password), fsync=bool(ledger.get("fsync", False))
        ),
        streams=StreamSettings(
            on_client_disconnect=str(streams.get("on_client_disconnect", "drain")),
            drain_limit_s=_read_number(streams, "drain_limit_s", 120),
            drain_max=int(_read_number(streams, "drain_max", 1000)),
            idle_timeout_s=_read_number(streams, "idle_timeout_s", 600),
            connect_timeout_s=_read_number(streams, "connect_timeout_s", 10),
        ),
        limits=LimitSettings(
            max_body_mb=int(_read_number(limits, "max_body_mb", 64)),
            max_batch_mb=int(_read_number(limits, "max_batch_mb", 256)),
            max_streams=int(_read_number(limits, "max_streams", 10_000)),
            max_streams_per_project=int(_read_number(limits, "max_streams_per_project", 5_000)),
            max_arriving_mb=int(_read_number(limits, "max_arriving_mb", 512)),
            max_arriving_mb_per_caller=int(_read_number(limits, "max_arriving_mb_per_caller", 320)),
        ),
        websockets=_read_websockets(read_section(content, "websockets")),
        shutdown=ShutdownSettings(drain_s=_read_number(read_section(content, "shutdown"), "drain_s", 600)),
        public=_read_public(read_section(content, "listen"), read_section(content, "cors")),
        admin_access=_read_admin_access(read_section(content, "admin"), admin_token),
        models_list=str(content.get("models_list", "filtered")),
        speech_usage=str(content.get("speech_usage", "exact")),
        log_file=_read_log_file(read_section(content, "log"), base),
        otlp_endpoint=_read_text(read_section(content, "telemetry"), "otlp_endpoint"),
        forward_headers=frozenset(name.lower() for name in _read_texts(content.get("forward_headers"))),
    )


def _read_listen(section: Mapping[str, object], port: int, base: Path) -> ListenSettings:
    return ListenSettings(
        host=str(section.get("host", DEFAULT_HOST)),
        port=int(_read_number(section, "port", port)),
        reuse_port=bool(section.get("reuse_port", False)),
        tls=read_tls_files(section, base),
    )


def _read_text(section: Mapping[str, object], name: str) -> str | None:
    return str(section[name]) if name in section else None


def _read_log_file(section: Mapping[str, object], base: Path) -> Path | None:
    return base / str(section["file"]) if "file" in section else None


def _read_admin_access(section: Mapping[str, object], token: Secret | None) -> AdminAccess:
    names = (str(section.get("host", DEFAULT_HOST)), *_read_texts(section.get("hosts")))
    return AdminAccess(token, frozenset(normalize_host_name(name) for name in names))


def _read_public(listen: Mapping[str, object], cors: Mapping[str, object]) -> PublicSettings:
    url = listen.get("public_url")
    trusted = _read_texts(listen.get("trusted_proxies", list(DEFAULT_TRUSTED_PROXIES)))
    return PublicSettings(
        url=url.rstrip("/") if isinstance(url, str) else None,
        trusted_proxies=tuple(ip_network(network) for network in trusted),
        allow_origins=frozenset(_read_texts(cors.get("allow_origins"))),
    )


def _read_websockets(section: Mapping[str, object]) -> WebSocketSettings:
    return WebSocketSettings(
        idle_timeout_s=_read_number(section, "idle_timeout_s", 900),
        lifetime_s=_read_number(section, "lifetime_s", 3900),
        recheck_s=_read_number(section, "recheck_s", 60),
        max_message_mb=int(_read_number(section, "max_message_mb", 32)),
        sideband_failure=str(section.get("sideband_failure", "refuse")),
    )


def _read_number(section: Mapping[str, object], name: str, default: float) -> float:
    value = section.get(name, default)
    assert isinstance(value, int | float | Decimal), "the schema accepts numbers only"
    return float(value)


def _read_texts(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []
