"""Budgets of projects and of the default: their values, and each fault with its key."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.harness import PROJECT, SECRETS, write_config
from tornado_proxy.config.loading import LoadedConfig, load_settings
from tornado_proxy.config.sections.budgets import BudgetSettings
from tornado_proxy.domain.budgets.budget import Budget
from tornado_proxy.domain.budgets.counter import Amount, CounterKind, Period, Scope
from tornado_proxy.domain.errors import ConfigError

MONTHLY = Budget(CounterKind(Scope.PROJECT, Period.MONTH), Decimal(500))


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


def load(folder: Path, own_budgets: list[dict[str, Any]] | None = None, **changes: Any) -> LoadedConfig:
    """Return a configuration whose project has these budgets."""
    own = {} if own_budgets is None else {"budgets": own_budgets}
    path = write_config(folder, "http://127.0.0.1:1", projects=[{"id": PROJECT, "name": "first", **own}], **changes)
    return load_settings(path)


def find_faults(folder: Path, *budgets: dict[str, Any]) -> list[str]:
    """Return the faults of a project's budgets."""
    with pytest.raises(ConfigError) as raised:
        load(folder, list(budgets))
    assert all(fault.line > 0 for fault in raised.value.faults)
    return [f"{fault.key}: {fault.rule}" for fault in raised.value.faults]


def test_project_without_budgets_has_none_of_its_own(tmp_path: Path) -> None:
    loaded = load(tmp_path)

    assert loaded.projects[0].budgets is None
    assert loaded.settings.budgets == BudgetSettings((), hold_unsettled=True, max_tool_calls=10)


def test_small_entry_limits_the_project(tmp_path: Path) -> None:
    assert load(tmp_path, [{"period": "month", "usd": "500"}]).projects[0].budgets == (MONTHLY,)


def test_empty_list_is_no_budget(tmp_path: Path) -> None:
    assert load(tmp_path, []).projects[0].budgets == ()


def test_every_member_is_read(tmp_path: Path) -> None:
    entry = {"period": "week", "usd": "0.25", "per": "label", "label": "team", "of": "subtotal", "strict": True}

    (budget,) = load(tmp_path, [{**entry, "start": "2026-01-07"}]).projects[0].budgets or ()

    kind = CounterKind(Scope.LABEL, Period.WEEK, Amount.SUBTOTAL, date(2026, 1, 7), "team")
    assert budget == Budget(kind, Decimal("0.25"), strict=True)


def test_defaults_of_all_projects_are_read(tmp_path: Path) -> None:
    section = {
        "default_project": {"budgets": [{"period": "month", "usd": "500"}]},
        "hold_unsettled": False,
        "max_tool_calls": 3,
    }

    assert load(tmp_path, budgets=section).settings.budgets == BudgetSettings(
        (MONTHLY,), hold_unsettled=False, max_tool_calls=3
    )


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        ({"usd": "500"}, "projects[0].budgets[0].period: is required"),
        ({"period": "month"}, "projects[0].budgets[0].usd: is required"),
        ({"period": "year", "usd": "1"}, "projects[0].budgets[0].period: "),
        ({"period": "month", "usd": 500}, "projects[0].budgets[0].usd: "),
        ({"period": "month", "usd": "-1"}, "projects[0].budgets[0].usd: "),
        ({"period": "month", "usd": "1e3"}, "projects[0].budgets[0].usd: "),
        ({"period": "month", "usd": "1", "per": "team"}, "projects[0].budgets[0].per: "),
        ({"period": "month", "usd": "1", "per": "label"}, "projects[0].budgets[0]: needs both"),
        ({"period": "month", "usd": "1", "label": "team"}, "projects[0].budgets[0]: needs both"),
        ({"period": "month", "usd": "1", "start": "2026-02-30"}, "projects[0].budgets[0].start: '2026-02-30' is not"),
        ({"period": "day", "usd": "1", "start": "2026-02-03"}, "projects[0].budgets[0].start: has no effect"),
        ({"period": "month", "usd": "1", "limit": 5}, "projects[0].budgets[0].limit: "),
    ],
)
def test_fault_names_the_key(entry: dict[str, Any], fault: str, tmp_path: Path) -> None:
    found = find_faults(tmp_path, entry)

    assert [text for text in found if text.startswith(fault)] == found != []


def test_two_limits_of_the_same_spend_are_a_fault(tmp_path: Path) -> None:
    month = {"period": "month", "usd": "5"}
    others = [{**month, "per": "user"}, {**month, "of": "subtotal"}, {**month, "start": "2026-02-10"}]

    found = find_faults(tmp_path, month, *others, {**month, "usd": "9", "per": "project", "strict": True})

    assert found == [
        "projects[0].budgets[4]: limits the same spend in the same periods as number 1; remove one",
    ]


def test_fault_of_the_default_names_the_key(tmp_path: Path) -> None:
    section = {"default_project": {"budgets": [{"period": "hour", "usd": "1", "start": "2026-01-01"}]}}
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, budgets=section)

    (fault,) = raised.value.faults
    assert fault.key == "budgets.default_project.budgets[0].start"
