from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from decimal import Decimal
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import pytest

from tests.config.conftest import document
from tornado_proxy.config.bundled import schema
from tornado_proxy.config.sections.ledger import ledger_address
from tornado_proxy.config.settings import (
    AdminAccess,
    LedgerSettings,
    LimitSettings,
    ListenSettings,
    PricingSettings,
    ProviderSettings,
    PublicSettings,
    Settings,
    StreamSettings,
    WebSocketSettings,
    find_restart_settings,
    make_settings,
)
from tornado_proxy.config.validation import check
from tornado_proxy.domain.config.ledger_address import PostgresAddress
from tornado_proxy.domain.identity import ProviderKey, Secret

BASE = Path("/etc/proxy")

PUBLIC = {"public_url": "https://llm.example.com/", "trusted_proxies": ["10.0.0.0/8", "fd00::1"]}

FULL: dict[str, object] = {
    "listen": {"host": "0.0.0.0", "port": 80, "reuse_port": True, **PUBLIC},  # noqa: S104  nothing listens
    "cors": {"allow_origins": ["https://app.example.com"]},
    "admin": {"host": "::1", "port": 81, "token": {"env": "ADMIN_TOKEN"}, "hosts": ["Proxy.Example", "10.0.0.5"]},
    "providers": {"openai": {"base_url": "https://api.openai.com", "api_key": {"env": "KEY"}}},
    "pricing": {"path": "prices", "surcharge_rate": "0.05"},
    "ledger": {"url": "sqlite:///../var/ledger.db", "fsync": True},
    "projects": [],
    "streams": {
        "on_client_disconnect": "cancel",
        "drain_limit_s": 1,
        "drain_max": 2,
        "idle_timeout_s": 3,
        "connect_timeout_s": Decimal("0.5"),
    },
    "limits": {
        "max_body_mb": 5,
        "max_batch_mb": 50,
        "max_streams": 6,
        "max_streams_per_project": 4,
        "max_arriving_mb": 70,
        "max_arriving_mb_per_caller": 80,
    },
    "websockets": {
        "idle_timeout_s": 7,
        "lifetime_s": 8,
        "recheck_s": Decimal("0.5"),
        "max_message_mb": 9,
        "sideband_failure": "end",
    },
    "shutdown": {"drain_s": Decimal("7.5")},
    "models_list": "provider",
    "forward_headers": ["X-Trace", "x-team"],
}

PROVIDERS = {"openai": ProviderSettings("https://api.openai.com", (ProviderKey("main", Secret("sk-1234")),))}


def test_each_setting_has_its_field_and_type() -> None:
    assert check(document(FULL), "proxy") == []

    settings = make_settings(FULL, BASE, PROVIDERS, admin_token=Secret("sesame"))

    assert settings.listen == ListenSettings("0.0.0.0", 80, reuse_port=True)  # noqa: S104  nothing listens
    assert settings.admin == ListenSettings("::1", 81, reuse_port=False)
    assert settings.admin_access == AdminAccess(Secret("sesame"), frozenset({"::1", "proxy.example", "10.0.0.5"}))
    assert settings.public == PublicSettings(
        "https://llm.example.com",
        (IPv4Network("10.0.0.0/8"), IPv6Network("fd00::1/128")),
        frozenset({"https://app.example.com"}),
    )
    assert settings.providers == PROVIDERS
    assert settings.pricing == PricingSettings(Decimal("0.05"))
    assert settings.ledger == LedgerSettings(Path("/etc/var/ledger.db"), fsync=True)
    assert settings.streams == StreamSettings("cancel", 1.0, 2, 3.0, 0.5)
    assert settings.limits == LimitSettings(5, 50, 6, 4, 70, 80)
    assert settings.websockets == WebSocketSettings(7.0, 8.0, 0.5, 9, "end")
    assert settings.shutdown.drain_s == 7.5
    assert settings.models_list == "provider"
    assert settings.forward_headers == {"x-trace", "x-team"}


def test_defaults_of_schema_and_program_are_equal() -> None:
    rules = schema("proxy")["properties"]
    defaults: dict[str, object] = {name: rule["default"] for name, rule in rules.items() if "default" in rule}
    for name, rule in rules.items():
        found = {key: member["default"] for key, member in rule.get("properties", {}).items() if "default" in member}
        if found:
            defaults[name] = found

    assert make_settings({}, BASE, PROVIDERS) == make_settings(defaults, BASE, PROVIDERS)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        pytest.param("sqlite:///ledger.db", "/etc/proxy/ledger.db", id="in the file's folder"),
        pytest.param("sqlite:///../var/ledger.db", "/etc/var/ledger.db", id="in a sibling folder"),
        pytest.param("sqlite:////var/ledger.db", "/var/ledger.db", id="absolute"),
    ],
)
def test_sqlite_url_gives_the_path_of_the_file(url: str, path: str) -> None:
    assert ledger_address({"url": url}, BASE, None) == Path(path)


def test_postgres_ledger_has_a_password_and_a_local_journal() -> None:
    section = {"url": "postgresql://proxy@db/ledger", "password": {"env": "PGPASS"}, "journal": "../var/waiting"}
    content = {**FULL, "ledger": section}
    assert check(document(content), "proxy") == []

    settings = make_settings(content, BASE, PROVIDERS, Secret("hunter2"))

    journal = Path("/etc/proxy/../var/waiting")
    assert settings.ledger.address == PostgresAddress("postgresql://proxy@db/ledger", Secret("hunter2"), journal)
    assert "hunter2" not in repr(settings)
    changed_password = make_settings(content, BASE, PROVIDERS, Secret("hunter3"))
    assert find_restart_settings(settings, changed_password) == ("ledger",)


def reset_setting(name: str, key: str) -> Settings:
    """Return the settings of FULL with one setting at its default."""
    section = FULL[name]
    assert isinstance(section, dict)
    rest = {other: value for other, value in section.items() if other != key}
    return make_settings({**FULL, name: rest}, BASE, PROVIDERS)


def list_settings() -> list[tuple[str, str, bool]]:
    return [
        (name, key, bool(member.get("x-restart")))
        for name, rule in schema("proxy")["properties"].items()
        if name != "providers"
        for key, member in rule.get("properties", {}).items()
        if isinstance(FULL.get(name), dict) and key in FULL[name]  # type: ignore[operator]  # a mapping
    ]


@pytest.mark.parametrize(("name", "key", "restart"), list_settings())
def test_only_settings_marked_in_the_schema_need_a_restart(name: str, key: str, restart: bool) -> None:
    assert find_restart_settings(make_settings(FULL, BASE, PROVIDERS), reset_setting(name, key)) == (
        (name,) if restart else ()
    )


def test_new_provider_key_needs_no_restart() -> None:
    old = make_settings(FULL, BASE, PROVIDERS)
    new = replace(
        old, providers={"openai": replace(PROVIDERS["openai"], keys=(ProviderKey("main", Secret("sk-5678")),))}
    )

    assert find_restart_settings(old, new) == ()


def test_settings_show_no_secrets() -> None:
    settings = make_settings(FULL, BASE, PROVIDERS)

    assert "sk-1234" not in f"{settings!r} {settings}"


def test_settings_are_immutable() -> None:
    settings = make_settings(FULL, BASE, PROVIDERS)

    for field in fields(settings):
        part = getattr(settings, field.name)
        if is_dataclass(part):
            with pytest.raises(AttributeError):
                setattr(part, fields(part)[0].name, None)
