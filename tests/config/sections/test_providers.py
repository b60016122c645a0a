"""The members that a provider of proxy.yaml and one of a project have in common: keys, address, region."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from tornado_proxy.config.loading import load_settings
from tornado_proxy.domain.cost import Discount
from tornado_proxy.domain.errors import ConfigError
from tornado_proxy.domain.identity import Project, ProjectProvider, ProviderKey, Secret

PROJECT = "0c9f8a5e-9a1e-4f6b-8c43-1d2a7f6f0a10"
ADDRESS = "base_url: https://api.openai.com"


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("A", "B"):
        monkeypatch.setenv(f"KEY_{name}", f"sk-{name.lower()}")


def load_provider(folder: Path, server: str, own: str | None = None) -> tuple[tuple[ProviderKey, ...], Project]:
    """Load a configuration; return the server's keys for OpenAI, and the project whose provider is `own`."""
    entry = "" if own is None else f", providers: {{openai: {{{own}}}}}"
    (folder / "proxy.yaml").write_text(
        f"providers: {{openai: {{{server}}}}}\nprojects: [{{id: {PROJECT}, name: Acme{entry}}}]\n"
    )
    loaded = load_settings(folder / "proxy.yaml")
    return loaded.settings.providers["openai"].keys, loaded.projects[0]


def test_provider_has_several_named_keys_with_the_provider_s_own_ids(tmp_path: Path) -> None:
    server = f"{ADDRESS}, keys: [{{name: main, secret: {{env: KEY_A}}, provider_ids: {{api_key_id: key_abc}}}}, "
    server += "{name: second, secret: {env: KEY_B}}]"

    keys, _ = load_provider(tmp_path, server)

    assert keys == (
        ProviderKey("main", Secret("sk-a"), {"api_key_id": "key_abc"}),
        ProviderKey("second", Secret("sk-b")),
    )


def test_short_form_is_one_key_named_default(tmp_path: Path) -> None:
    keys, _ = load_provider(tmp_path, f"{ADDRESS}, api_key: {{env: KEY_A}}")

    assert keys == (ProviderKey("default", Secret("sk-a")),)


def test_project_has_keys_at_an_address_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("certificate")
    own = (
        "keys: [{name: eu, secret: {env: KEY_B}}], base_url: https://eu.api.openai.com/v1, region: eu, ca_file: ca.pem"
    )

    _, project = load_provider(tmp_path, f"{ADDRESS}, api_key: {{env: KEY_A}}", own)

    assert project.providers == {
        "openai": ProjectProvider(
            (ProviderKey("eu", Secret("sk-b")),), "https://eu.api.openai.com", "eu", str(tmp_path / "ca.pem")
        )
    }


@pytest.mark.parametrize(
    ("server", "own", "fault"),
    [
        pytest.param(
            f"{ADDRESS}, api_key: {{env: KEY_A}}, keys: [{{name: x, secret: {{env: KEY_B}}}}]",
            None,
            "providers.openai.keys: excludes api_key, its short form; remove one of them",
            id="both forms",
        ),
        pytest.param(ADDRESS, None, "providers.openai.api_key: is required", id="no key"),
        pytest.param(f"{ADDRESS}, keys: []", None, "providers.openai.keys: must have at least 1 item", id="empty list"),
        pytest.param(
            f"{ADDRESS}, keys: [{{name: x, secret: {{env: KEY_A}}}}, {{name: x, secret: {{env: KEY_B}}}}]",
            None,
            "providers.openai.keys[1].name: x is the name of another key; change one",
            id="one name twice",
        ),
        pytest.param(
            f"{ADDRESS}, keys: [{{name: x, secret: {{env: KEY_A}}}}, {{name: y, secret: {{env: KEY_A}}}}]",
            None,
            "providers.openai.keys[1].secret: is the secret of key x too; remove one",
            id="one secret twice",
        ),
        pytest.param(
            f"{ADDRESS}, keys: [{{name: 'a b', secret: {{env: KEY_A}}}}]",
            None,
            "providers.openai.keys[0].name: must be a name of at most 64 letters, digits and _ . -, not 'a b'",
            id="name with a space",
        ),
        pytest.param(
            f"{ADDRESS}, api_key: {{env: KEY_A}}",
            "base_url: https://eu.api.openai.com",
            "projects[0].providers.openai.api_key: is required",
            id="address of a project without a key",
        ),
        pytest.param(
            f"{ADDRESS}, api_key: {{env: KEY_A}}",
            "api_key: {env: KEY_B}, base_url: ftp://eu.api.openai.com",
            "projects[0].providers.openai.base_url: must be an http or https URL such as https://api.example.com",
            id="address that is no URL",
        ),
        pytest.param(
            f"{ADDRESS}, api_key: {{env: KEY_A}}",
            "api_key: {env: KEY_B}, region: eu",
            "projects[0].providers.openai.region: applies to a base_url of the project; add one, or set it in "
            "proxy.yaml",
            id="region without an address",
        ),
    ],
)
def test_faults_of_keys_and_addresses_are_named(tmp_path: Path, server: str, own: str | None, fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_provider(tmp_path, server, own)

    faults = [f"{found.key}: {found.rule}" for found in caught.value.faults]
    assert faults == [fault]


def test_discount_of_a_key_is_a_fraction_and_days_in_utc(tmp_path: Path) -> None:
    key = "{name: main, secret: {env: KEY_A}, discount: {percent: '12.5', from: 2026-01-01, until: 2027-01-01}}"

    keys, _ = load_provider(tmp_path, f"{ADDRESS}, keys: [{key}]")

    assert keys[0].discount == Discount(
        Decimal("0.125"), datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
    )


@pytest.mark.parametrize(
    ("discount", "fault"),
    [
        ("{percent: 12.5}", "a quoted decimal"),
        ("{percent: '101'}", "a quoted decimal from 0 to 100"),
        ("{percent: '-1'}", "a quoted decimal from 0 to 100"),
        ("{from: 2026-01-01}", "percent"),
        ("{percent: '10', from: 2026-02-30}", "'2026-02-30' is not a day of the calendar"),
        ("{percent: '10', from: 2026-03-01, until: 2026-03-01}", "2026-03-01 is not after from 2026-03-01"),
    ],
)
def test_discount_with_a_fault_is_refused(tmp_path: Path, discount: str, fault: str) -> None:
    key = f"{{name: main, secret: {{env: KEY_A}}, discount: {discount}}}"

    with pytest.raises(ConfigError) as raised:
        load_provider(tmp_path, f"{ADDRESS}, keys: [{key}]")

    assert fault in str(raised.value)
