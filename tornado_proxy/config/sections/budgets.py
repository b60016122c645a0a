"""Reads budgets, of projects and of the default, and checks rules that no schema can express."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any

from tornado_proxy.config.findings import Findings
from tornado_proxy.domain.budgets.brake import BrakeLimits
from tornado_proxy.domain.budgets.budget import Budget
from tornado_proxy.domain.budgets.counter import Amount, CounterKind, Period, Scope
from tornado_proxy.domain.budgets.rate_limits import ProjectLimits, RateUnit, UnitLimits
from tornado_proxy.domain.config.document import Document, read_section
from tornado_proxy.domain.config.document import Path as DocumentPath

#: Calls of tools at the provider that count for a request without a limit, if the configuration sets none.
DEFAULT_TOOL_CALLS = 10


@dataclass(frozen=True, slots=True)
class BudgetSettings:
    """Settings of all budgets.

    Attributes:
        default: The budgets of projects that have none of their own.
        default_limits: The limits of projects that have none of their own.
        hold_unsettled: True if a request of unknown cost counts at its greatest possible cost until the period ends.
        max_tool_calls: Calls of tools at the provider that count for a request without a limit.
    """

    default: tuple[Budget, ...] = ()
    hold_unsettled: bool = True
    max_tool_calls: int = DEFAULT_TOOL_CALLS
    default_limits: ProjectLimits = field(default_factory=ProjectLimits)


def check_budgets(document: Document, sections: object, path: DocumentPath, findings: Findings) -> None:
    """Add the faults of the list of budgets at `path`."""
    first_of_kind: dict[object, int] = {}
    for index, section in enumerate(sections if isinstance(sections, list) else ()):
        at = (*path, index)
        if not isinstance(section, dict) or findings.has_fault(document, at):
            continue
        if (section.get("per") == "label") != ("label" in section):
            findings.add(document, at, "needs both per: label and label: NAME, or neither")
        if "start" in section:
            _check_start(document, section, at, findings)
        first = first_of_kind.setdefault(_list_kind_members(section), index)
        if first != index:
            findings.add(document, at, f"limits the same spend in the same periods as number {first + 1}; remove one")


def _list_kind_members(section: Mapping[str, Any]) -> object:
    """Return the members that tell a budget from others, with their defaults."""
    defaults = {"per": "project", "period": None, "of": "total", "start": None, "label": None}
    return tuple(section.get(name, default) for name, default in defaults.items())


def _check_start(document: Document, section: Mapping[str, Any], at: DocumentPath, findings: Findings) -> None:
    try:
        date.fromisoformat(section["start"])
    except ValueError:
        findings.add(document, (*at, "start"), f"{section['start']!r} is not a day of the calendar")
    if section["period"] in ("hour", "day"):
        findings.add(document, (*at, "start"), f"has no effect on a budget of each {section['period']}; remove it")


def read_budget_settings(document: Document, content: Mapping[str, object], findings: Findings) -> BudgetSettings:
    """Return the settings of all budgets; the default ones if they have a fault."""
    section = read_section(content, "budgets")
    default = read_section(section, "default_project")
    check_budgets(document, default.get("budgets"), ("budgets", "default_project", "budgets"), findings)
    if findings.has_fault(document, ("budgets",)):
        return BudgetSettings()
    values: Any = section
    return BudgetSettings(
        build_budgets(values.get("default_project", {}).get("budgets", ())),
        values.get("hold_unsettled", True),
        values.get("max_tool_calls", DEFAULT_TOOL_CALLS),
        build_limits(values.get("default_project", {}).get("limits", {})),
    )


def build_budgets(sections: Sequence[Any]) -> tuple[Budget, ...]:
    """Return the budgets of a list without faults."""
    return tuple(
        Budget(
            CounterKind(
                Scope(section.get("per", "project")),
                Period(section["period"]),
                Amount(section.get("of", "total")),
                date.fromisoformat(section["start"]) if "start" in section else None,
                section.get("label"),
            ),
            Decimal(section["usd"]),
            section.get("strict", False),
        )
        for section in sections
    )


#: The key of each unit's limit.
_LIMIT_KEYS = {
    RateUnit.REQUESTS: "requests_per_minute",
    RateUnit.TOKENS: "tokens_per_minute",
    RateUnit.STREAMS: "streams",
}


def build_limits(section: Mapping[str, Any]) -> ProjectLimits:
    """Return the limits of a section without faults."""
    per_participant = section.get("per_participant", {})
    brakes = BrakeLimits(_read_brake(section), _read_brake(per_participant))
    return ProjectLimits(_read_units(section), _read_units(per_participant), brakes)


def _read_brake(section: Mapping[str, Any]) -> Decimal | None:
    return Decimal(section["usd_per_minute"]) if "usd_per_minute" in section else None


def _read_units(section: Mapping[str, Any]) -> UnitLimits:
    return {unit: section[key] for unit, key in _LIMIT_KEYS.items() if key in section}
