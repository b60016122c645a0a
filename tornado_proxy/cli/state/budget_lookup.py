"""Reads the budgets of a configuration and their figures in the ledger, for commands.

The secrets of the configuration are not read: users of reports may have no access to them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from tornado_proxy.budgets.backends import has_budgets, open_store
from tornado_proxy.cli.options.config_lookup import exit_on_errors, find_ledger
from tornado_proxy.config.files import read_document
from tornado_proxy.config.findings import Findings
from tornado_proxy.config.loading import read_project_documents
from tornado_proxy.config.sections.budgets import build_budgets, build_limits, check_budgets, read_budget_settings
from tornado_proxy.config.validation import check
from tornado_proxy.domain.budgets.brake import BrakeLimits
from tornado_proxy.domain.budgets.budget import Budget
from tornado_proxy.domain.budgets.budget_limits import BudgetLimits
from tornado_proxy.domain.budgets.counter import CounterPlan
from tornado_proxy.domain.config.ledger_address import LedgerAddress
from tornado_proxy.domain.errors import CallerError, ConfigError
from tornado_proxy.ledger.backends import make_backend
from tornado_proxy.ledger.database import StoreError
from tornado_proxy.ledger.writer.process_locks import ProcessLocks
from tornado_proxy.reports.budgets import BudgetFigures
from tornado_proxy.state import budget_table
from tornado_proxy.state.store import StateStore


@dataclass(frozen=True, slots=True)
class ConfiguredBudgets:
    """The budgets of a configuration by project id, and how records are counted."""

    budgets: Mapping[str, tuple[Budget, ...]]
    hold: bool
    brakes: Mapping[str, BrakeLimits]

    @property
    def plan(self) -> CounterPlan:
        """The configuration and state that budgets need."""
        kinds = dict.fromkeys(budget.kind for budgets in self.budgets.values() for budget in budgets)
        return CounterPlan(tuple(kinds), self.hold, brakes=self.brakes)


@dataclass(frozen=True, slots=True)
class BudgetAccess:
    """The budgets of a configuration, and the state and the ledger that it names."""

    configured: ConfiguredBudgets
    state: StateStore
    address: LedgerAddress

    def read_limits(self) -> BudgetLimits:
        """Return the limits in force."""
        with self.state.reading() as db:
            return BudgetLimits(self.configured.budgets, budget_table.read_all(db))

    def read_figures(
        self, now: datetime, project_id: str | None = None, *, list_reservations: bool = False
    ) -> BudgetFigures:
        """Return the counters of all projects, or of one, with all records that the ledger has.

        With `list_reservations` they have their oldest reservations, else the sums alone.
        """
        # Without a configured budget, a token can have stated one.
        if not (self.configured.plan.kinds or has_budgets(self.address)):
            return BudgetFigures()
        store = open_store(self.address, ProcessLocks(make_backend(self.address).files_path))
        try:
            store.follow(self.configured.plan, now)
            store.folding.fold()
            store.folding.fold_settlements()
            listed = store.list_limited_counters(self.read_limits(), now)
            counters = [counter for counter in listed if project_id in (None, counter.project_id)]
            reservations = store.sum_reservations(counters, list_oldest=list_reservations)
            return BudgetFigures(counters, reservations, store.list_stated(now))
        finally:
            store.close()


@contextlib.contextmanager
def open_budgets(config: Path) -> Iterator[BudgetAccess]:
    """Yield the budgets of a configuration; print an error and exit with status 1 if the command fails."""
    with exit_on_errors():
        configured, address = read_configured_budgets(config), find_ledger(config, None)
        state = StateStore(make_backend(address, fsync=True))
        try:
            yield BudgetAccess(configured, state, address)
        except CallerError as error:
            raise click.ClickException(error.message) from None
        except StoreError as error:
            raise click.ClickException(f"the budgets cannot be used: {error}") from None
        finally:
            state.close()


def read_configured_budgets(config: Path) -> ConfiguredBudgets:
    """Return the budgets of a configuration.

    Raises:
        ConfigError: a file cannot be read, or the projects or budgets have faults.
    """
    document = read_document(config)
    findings = Findings([fault for fault in check(document, "proxy") if fault.key.startswith("budgets")])
    content = document.content if isinstance(document.content, dict) else {}
    settings = read_budget_settings(document, content, findings)
    budgets: dict[str, tuple[Budget, ...]] = {}
    brakes: dict[str, BrakeLimits] = {}
    for projects in read_project_documents(config):
        listed_projects: Any = projects.content  # checked against the schema
        for index, section in enumerate(listed_projects["projects"]):
            listed = section.get("budgets")
            check_budgets(projects, listed, ("projects", index, "budgets"), findings)
            budgets[section["id"]] = settings.default if listed is None else build_budgets(listed)
            limits = build_limits(section["limits"]) if "limits" in section else settings.default_limits
            brakes[section["id"]] = limits.brakes
    if findings.faults:
        raise ConfigError(sorted(findings.faults))
    return ConfiguredBudgets(budgets, settings.hold_unsettled, brakes)


def now() -> datetime:
    """Return the time, aware UTC."""
    return datetime.now(UTC)
