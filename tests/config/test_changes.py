"""The log line of a reload names what has changed, and shows no value."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tornado_proxy.config.changes import MAX_CHANGES, describe_changes
from tornado_proxy.config.settings import ProviderSettings, Settings, make_settings
from tornado_proxy.domain.identity import ApiKey, Member, Project, ProjectProvider, ProviderKey, Secret

MAIN, SECOND = ProviderKey("main", Secret("sk-main")), ProviderKey("second", Secret("sk-second"))
SETTINGS = make_settings({}, Path("/etc/proxy"), {"openai": ProviderSettings("https://api.openai.com", (MAIN,))})
PROJECT = Project(
    "p1", "Acme", (ApiKey("k1", "p1", Secret("signing")),), providers={"openai": ProjectProvider((MAIN,))}
)


def changes_of(settings: Settings = SETTINGS, **members: Any) -> list[str]:
    """Return the changes to other settings, and to a project with other members."""
    return describe_changes((SETTINGS, {"p1": PROJECT}), (settings, {"p1": replace(PROJECT, **members)}))


def with_provider(**members: Any) -> Settings:
    return replace(SETTINGS, providers={"openai": replace(SETTINGS.providers["openai"], **members)})


def test_equal_configurations_have_no_changes() -> None:
    assert changes_of() == []


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        pytest.param(replace(SETTINGS, models_list="provider"), ["models_list"], id="a setting"),
        pytest.param(
            replace(SETTINGS, streams=replace(SETTINGS.streams, drain_max=1, drain_limit_s=2.0)),
            ["streams.drain_limit_s", "streams.drain_max"],
            id="settings of a section",
        ),
        pytest.param(
            replace(SETTINGS, public=replace(SETTINGS.public, url="https://llm.example.com")),
            ["listen.public_url"],
            id="key in the file",
        ),
        pytest.param(with_provider(keys=(MAIN, SECOND)), ["providers.openai.keys (+second)"], id="new key"),
        pytest.param(with_provider(keys=(SECOND,)), ["providers.openai.keys (+second -main)"], id="other key"),
        pytest.param(
            with_provider(keys=(ProviderKey("main", Secret("sk-new")),)),
            ["providers.openai.keys (~main)"],
            id="new secret",
        ),
        pytest.param(
            with_provider(keys=(ProviderKey("main", Secret("sk-main"), {"api_key_id": "key_1"}),)),
            ["providers.openai.keys (~main)"],
            id="new provider ids",
        ),
        pytest.param(with_provider(base_url="https://eu.test"), ["providers.openai.base_url"], id="address"),
        pytest.param(
            replace(SETTINGS, providers={"anthropic": SETTINGS.providers["openai"]}),
            ["providers.anthropic added", "providers.openai removed"],
            id="providers",
        ),
    ],
)
def test_changed_settings_are_named(settings: Settings, changes: list[str]) -> None:
    assert changes_of(settings) == changes


@pytest.mark.parametrize(
    ("members", "change"),
    [
        pytest.param({"name": "New"}, "name", id="name"),
        pytest.param(
            {"api_keys": (*PROJECT.api_keys, ApiKey("k2", "p1", Secret("other")))}, "api_keys (+k2)", id="new API key"
        ),
        pytest.param({"api_keys": (replace(PROJECT.api_keys[0], disabled=True),)}, "api_keys (~k1)", id="disabled"),
        pytest.param({"api_keys": ()}, "api_keys (-k1)", id="removed API key"),
        pytest.param({"members": (Member("ada"), Member("eve"))}, "members (2, were 0)", id="members"),
        pytest.param({"providers": {}}, "providers.openai removed", id="account"),
        pytest.param(
            {"providers": {"openai": ProjectProvider((SECOND,), "https://eu.test")}},
            "providers.openai.keys (+second -main), providers.openai.base_url",
            id="key and address",
        ),
        pytest.param({"surcharge_rate": Decimal(1), "labels": {"a": "b"}}, "surcharge_rate, labels", id="terms"),
    ],
)
def test_changed_members_of_a_project_are_named(members: dict[str, Any], change: str) -> None:
    assert changes_of(**members) == [f"project p1: {change}"]


def test_projects_are_named_by_id() -> None:
    other = replace(PROJECT, id="p2")

    assert describe_changes((SETTINGS, {"p1": PROJECT}), (SETTINGS, {"p2": other})) == [
        "project p2 added",
        "project p1 removed",
    ]


def test_long_list_is_cut() -> None:
    many = {f"p{number}": replace(PROJECT, id=f"p{number}") for number in range(MAX_CHANGES + 8)}

    changes = describe_changes((SETTINGS, {}), (SETTINGS, many))

    assert (len(changes), changes[-1]) == (MAX_CHANGES + 1, "and 8 more")


def test_no_secret_is_shown() -> None:
    changes = changes_of(with_provider(keys=(SECOND,)), api_keys=(ApiKey("k2", "p1", Secret("other")),), providers={})

    assert not any(text in str(changes) for text in ("sk-", "signing", "other"))
