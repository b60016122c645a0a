"""Which refusals a provider charges, by category and date: rules of the price files applied to usage.

A model that declines a prompt without output can state usage all the same.  Providers charge some categories and
change the list, so the rules are data with dates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from msgspec.structs import replace

from tornado_proxy.domain.usage import Basis, UsageReport

#: The basis of a report that a free refusal leaves without items.  An unsettled one keeps its faults in view.
_CERTAIN = frozenset({Basis.REPORTED, Basis.INFERRED, Basis.ESTIMATED})


@dataclass(frozen=True, slots=True)
class RefusalRule:
    """The categories that are charged, and those that are free, from `effective_from` until `effective_until`.

    `others_free` is True if every category that the rule does not name is free; if False their charge is not known.
    """

    charged: frozenset[str]
    free: frozenset[str]
    others_free: bool
    effective_from: datetime | None = None
    effective_until: datetime | None = None

    def covers(self, at: datetime) -> bool:
        """Return True if the rule holds at `at` (aware UTC)."""
        started = self.effective_from is None or at >= self.effective_from
        return started and (self.effective_until is None or at < self.effective_until)

    def is_free(self, category: str) -> bool:
        """Return True if a refusal of `category` is free."""
        return category in self.free or (self.others_free and category not in self.charged)


def apply_refusal_rules(report: UsageReport, rules: Sequence[RefusalRule], at: datetime) -> UsageReport:
    """Return `report` without the usage items of refusals that are free at `at`; FREE if no item is left.

    A category that the rule does not know is charged, and leaves the report unsettled: it is never free in silence.
    Without a rule for `at` every refusal is charged.
    """
    categories = {item.refusal for item in report.items if item.refusal is not None}
    if not categories:
        return report
    rule = next((rule for rule in rules if rule.covers(at)), None)
    if rule is None:
        return report
    free = {category for category in categories if rule.is_free(category)}
    unknown = sorted(categories - free - rule.charged)
    items = tuple(item for item in report.items if item.refusal not in free)
    if unknown:
        names = ", ".join(repr(category[:40]) for category in unknown)
        fault = f"it is not known whether a refusal of the category {names} is charged; add it to the price files"
        return replace(report, items=items, basis=Basis.UNSETTLED, faults=(*report.faults, fault))
    if not items and report.basis in _CERTAIN:
        return replace(report, items=(), basis=Basis.FREE, estimate_method=None)
    return replace(report, items=items)
