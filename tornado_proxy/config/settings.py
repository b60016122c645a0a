"""The settings that a configuration comes to: typed, with defaults, secrets resolved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from tornado_proxy.config.bundled import conf_path
from tornado_proxy.config.ledger import ledger_address
from tornado_proxy.domain.identity import Secret
from tornado_proxy.domain.ledger_address import LedgerAddress

DEFAULT_HOST = "127.0.0.1"
CLIENT_PORT = 8080
ADMIN_PORT = 8081


@dataclass(frozen=True, slots=True)
class ListenSettings:
    """An address to listen on.  `reuse_port`: several processes share the port (SO_REUSEPORT)."""

    host: str
    port: int
    reuse_port: bool = False


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """A provider.  `base_url` is what stands before `/v1/...`; `region` the region of its host, for prices."""

    base_url: str
    api_key: Secret
    ca_file: str | None = None
    region: str | None = None


@dataclass(frozen=True, slots=True)
class PricingSettings:
    """Where prices stand, and what this installation adds: `surcharge_rate` is a fraction of the provider's charge."""

    path: Path
    surcharge_rate: Decimal


@dataclass(frozen=True, slots=True)
class LedgerSettings:
    """Where the ledger is; `fsync` makes each commit survive loss of power."""

    address: LedgerAddress
    fsync: bool


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """What happens to answers under way.  Times in seconds; `drain_max` answers are drained at once."""

    on_client_disconnect: str
    drain_limit_s: float
    drain_max: int
    idle_timeout_s: float
    connect_timeout_s: float


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """`max_body_mb` in MiB; `max_streams` calls in flight."""

    max_body_mb: int
    max_streams: int


@dataclass(frozen=True, slots=True)
class SocketSettings:
    """WebSocket sessions.  Times in seconds, `max_message_mb` in MiB; a credential is trusted for `recheck_s`.

    `sideband_failure` is `refuse` or `end`.
    """

    idle_timeout_s: float
    lifetime_s: float
    recheck_s: float
    max_message_mb: int
    sideband_failure: str = "refuse"


@dataclass(frozen=True, slots=True)
class ShutdownSettings:
    """Seconds that calls in flight get after SIGTERM."""

    drain_s: float


@dataclass(frozen=True, slots=True)
class Settings:
    """One configuration.  `models_list` is `filtered` or `provider`, `speech_usage` `exact` or `estimated`.

    `forward_headers` are lower case.
    """

    listen: ListenSettings
    admin: ListenSettings
    providers: Mapping[str, ProviderSettings]
    pricing: PricingSettings
    ledger: LedgerSettings
    streams: StreamSettings
    limits: LimitSettings
    websockets: SocketSettings
    shutdown: ShutdownSettings
    models_list: str = "filtered"
    speech_usage: str = "exact"
    forward_headers: frozenset[str] = field(default_factory=frozenset)


def restart_needed(old: Settings, new: Settings) -> tuple[str, ...]:
    """The settings that differ and that a running server cannot change (`x-restart` in the schema)."""
    return tuple(name for name in ("listen", "admin", "ledger") if getattr(old, name) != getattr(new, name))


def make_settings(
    content: Mapping[str, object],
    base: Path,
    providers: Mapping[str, ProviderSettings],
    ledger_password: Secret | None = None,
) -> Settings:
    """Settings from a checked document whose folder is `base`; `providers` have their keys already."""
    pricing, ledger = _section(content, "pricing"), _section(content, "ledger")
    streams, limits = _section(content, "streams"), _section(content, "limits")
    return Settings(
        listen=_listen(_section(content, "listen"), CLIENT_PORT),
        admin=_listen(_section(content, "admin"), ADMIN_PORT),
        providers=providers,
        pricing=PricingSettings(
            path=base / str(pricing["path"]) if "path" in pricing else conf_path("prices"),
            surcharge_rate=Decimal(str(pricing.get("surcharge_rate", "0"))),
        ),
        ledger=LedgerSettings(
            address=ledger_address(ledger, base, ledger_password), fsync=bool(ledger.get("fsync", False))
        ),
        streams=StreamSettings(
            on_client_disconnect=str(streams.get("on_client_disconnect", "drain")),
            drain_limit_s=_number(streams, "drain_limit_s", 120),
            drain_max=int(_number(streams, "drain_max", 1000)),
            idle_timeout_s=_number(streams, "idle_timeout_s", 600),
            connect_timeout_s=_number(streams, "connect_timeout_s", 10),
        ),
        limits=LimitSettings(
            max_body_mb=int(_number(limits, "max_body_mb", 64)), max_streams=int(_number(limits, "max_streams", 10_000))
        ),
        websockets=_websockets(_section(content, "websockets")),
        shutdown=ShutdownSettings(drain_s=_number(_section(content, "shutdown"), "drain_s", 30)),
        models_list=str(content.get("models_list", "filtered")),
        speech_usage=str(content.get("speech_usage", "exact")),
        forward_headers=frozenset(name.lower() for name in _texts(content.get("forward_headers"))),
    )


def _section(content: Mapping[str, object], name: str) -> Mapping[str, object]:
    section = content.get(name)
    return section if isinstance(section, dict) else {}


def _listen(section: Mapping[str, object], port: int) -> ListenSettings:
    return ListenSettings(
        host=str(section.get("host", DEFAULT_HOST)),
        port=int(_number(section, "port", port)),
        reuse_port=bool(section.get("reuse_port", False)),
    )


def _websockets(section: Mapping[str, object]) -> SocketSettings:
    return SocketSettings(
        idle_timeout_s=_number(section, "idle_timeout_s", 900),
        lifetime_s=_number(section, "lifetime_s", 3900),
        recheck_s=_number(section, "recheck_s", 60),
        max_message_mb=int(_number(section, "max_message_mb", 32)),
        sideband_failure=str(section.get("sideband_failure", "refuse")),
    )


def _number(section: Mapping[str, object], name: str, default: float) -> float:
    value = section.get(name, default)
    assert isinstance(value, int | float | Decimal), "the schema lets numbers through only"
    return float(value)


def _texts(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []
