"""Finding the ledger for reports."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
import yaml

from tornado_proxy.cli.options.config_lookup import find_ledger
from tornado_proxy.domain.config.ledger_address import PostgresAddress
from tornado_proxy.domain.errors import ConfigError
from tornado_proxy.domain.identity import Secret


def config(folder: Path, **ledger: object) -> Path:
    """Write a configuration whose provider key is missing: reports must read only the section `ledger`."""
    path = folder / "proxy.yaml"
    provider = {"base_url": "https://api.openai.com", "api_key": {"env": "NOT_HERE"}}
    path.write_text(yaml.safe_dump({"providers": {"openai": provider}, "projects": [], "ledger": ledger}))
    return path


def test_sqlite_file_is_found_by_configuration_and_by_url(tmp_path: Path) -> None:
    assert find_ledger(config(tmp_path, url="sqlite:///../var/ledger.db"), None) == tmp_path.parent / "var/ledger.db"
    assert find_ledger(tmp_path / "none.yaml", "sqlite:////var/ledger.db") == Path("/var/ledger.db")


def test_postgresql_server_is_found_with_its_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEDGER_PASSWORD", "hunter2")
    path = config(tmp_path, url="postgresql://proxy@db/ledger", password={"env": "LEDGER_PASSWORD"})

    assert find_ledger(path, None) == PostgresAddress(
        "postgresql://proxy@db/ledger", Secret("hunter2"), tmp_path / "ledger-journal"
    )


def test_password_of_a_url_option_is_left_to_libpq(tmp_path: Path) -> None:
    found = find_ledger(tmp_path / "none.yaml", "postgresql://proxy@db/ledger")

    assert isinstance(found, PostgresAddress)
    assert found.password is None


def test_missing_password_is_a_fault_with_its_position(tmp_path: Path) -> None:
    path = config(tmp_path, url="postgresql://proxy@db/ledger", password={"env": "LEDGER_PASSWORD_NOT_SET"})

    with pytest.raises(ConfigError, match=r"ledger\.password: environment variable LEDGER_PASSWORD_NOT_SET is not set"):
        find_ledger(path, None)


def test_password_in_the_configuration_is_rejected_and_not_printed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        find_ledger(config(tmp_path, url="postgresql://proxy@db/ledger", password="hunter2"), None)

    assert "ledger.password" in str(refused.value)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("url", ["postgresql://proxy:hunter2@db/ledger", "mysql://db/ledger", "ledger.db"])
def test_url_that_is_no_ledger_is_an_invalid_command_line(url: str, tmp_path: Path) -> None:
    with pytest.raises(click.UsageError) as refused:
        find_ledger(tmp_path / "none.yaml", url)

    assert "must be an SQLite or PostgreSQL URL without a password" in refused.value.message
    assert "hunter2" not in refused.value.message


@pytest.mark.parametrize("key", ["password", "journal"])
def test_server_settings_are_rejected_for_a_file(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEDGER_PASSWORD", "hunter2")
    value = {"env": "LEDGER_PASSWORD"} if key == "password" else "waiting"

    with pytest.raises(ConfigError, match=rf"ledger\.{key}: applies to PostgreSQL only; remove it for"):
        find_ledger(config(tmp_path, url="sqlite:///ledger.db", **{key: value}), None)
