"""One generation of the configuration: settings, projects, routes and prices that belong together, and the state.

A request reads `holder.current` once and keeps that snapshot to its end.  A reload, and a change of the state, replace
one reference, so that no request sees parts of two configurations, and no lock is needed.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tornado_proxy.auth.authenticator import Authenticator
from tornado_proxy.config.loading import load_settings
from tornado_proxy.config.settings import Settings, find_restart_settings
from tornado_proxy.domain.budgets.budget import Budget
from tornado_proxy.domain.budgets.budget_limits import BudgetLimits
from tornado_proxy.domain.budgets.counter import CounterPlan
from tornado_proxy.domain.budgets.rate_limits import ProjectLimits
from tornado_proxy.domain.config.fault import Fault
from tornado_proxy.domain.cost import NO_DISCOUNT, Discount
from tornado_proxy.domain.errors import ConfigError
from tornado_proxy.domain.identity import KeyId, Project, ProjectProvider
from tornado_proxy.domain.state import State
from tornado_proxy.issuers.client import IssuerClient, make_issuer_clients
from tornado_proxy.key_rotation import KeyRotation
from tornado_proxy.observability import logs, metrics
from tornado_proxy.pricing.book.cost_bounds import CostBounds
from tornado_proxy.pricing.book.price_book import PriceBook, Tariff
from tornado_proxy.pricing.book.upper_bound import WorkCaps
from tornado_proxy.providers.conventions import ProviderOptions
from tornado_proxy.providers.registry import PROVIDERS
from tornado_proxy.providers.route_table import RouteTable
from tornado_proxy.stored_accounts import StoredAccounts
from tornado_proxy.wire.redaction import Redaction


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An immutable configuration, with all that a request needs of it.

    Attributes:
        generation: The number of the configuration, counted from 1; log lines name it.
        projects: The projects by id.
        authenticator: Verifies credentials.  It has a cache of verified tokens, which ends with the snapshot, so that a
            removed key ends its tokens at once.
        tariffs: The prices and the surcharge of each provider, by its name.
        project_tariffs: Those of projects that differ, by project id, provider, and True for the project's own account.
        discounts: The discounts of keys, by provider, project ("" for the server) and the key's fingerprint or name;
            empty if no key has one.
        key_rotation: The turns of provider keys; part of it is handed on to the next snapshot.
        redaction: Masks every provider key of the configuration and of the state.
        file_redaction: Masks those of the configuration; None if the state has none.
        issuers: The OAuth issuers.
        state: The state, which changes without a reload; SnapshotHolder puts it in.
        budget_limits: The budgets of all projects, with the changes of the state.
        stored: The accounts of projects that the state holds; they go before those of the files.
        cost_bounds: The most that requests can cost.
        own_keys: Project id and provider of the projects' providers whose keys one project alone uses.
        caches: Values that modules derive from the snapshot for its requests, by the name of the module.  Their keys
            name parts of the configuration, such as projects, or are limited in number: clients cannot make them grow.
    """

    generation: int
    settings: Settings
    projects: Mapping[str, Project]
    authenticator: Authenticator
    routes: RouteTable
    prices: PriceBook
    tariffs: Mapping[str, Tariff]
    redaction: Redaction
    issuers: tuple[IssuerClient, ...] = ()
    state: State = field(default_factory=State)
    stored: StoredAccounts = field(default_factory=StoredAccounts)
    file_redaction: Redaction | None = None
    key_rotation: KeyRotation = field(default_factory=KeyRotation)
    own_keys: frozenset[tuple[str, str]] = field(init=False)
    caches: defaultdict[str, dict[Any, Any]] = field(
        default_factory=lambda: defaultdict(dict), init=False, compare=False
    )
    cost_bounds: CostBounds = field(init=False)
    budget_limits: BudgetLimits = field(init=False)
    project_tariffs: Mapping[tuple[str, str, bool], Tariff] = field(init=False)
    discounts: Mapping[tuple[str, str, str], Discount] = field(init=False)

    def __post_init__(self) -> None:
        """Find once what requests only look up."""
        object.__setattr__(self, "own_keys", _find_own_keys(self))
        object.__setattr__(self, "cost_bounds", _make_cost_bounds(self.prices, self.settings))
        budgets = {project.id: self.find_budgets(project) for project in self.projects.values()}
        object.__setattr__(self, "budget_limits", BudgetLimits(budgets, self.state.budget_changes))
        object.__setattr__(self, "project_tariffs", _make_project_tariffs(self))
        object.__setattr__(self, "discounts", _find_discounts(self))

    @property
    def project_names(self) -> dict[str, str]:
        """The names of the projects by id."""
        return {project.id: project.name for project in self.projects.values()}

    def find_account(self, project_id: str, provider: str) -> ProjectProvider | None:
        """Return the account of its own that a project uses at a provider, None if it uses the server's."""
        stored = self.stored.accounts.get((project_id, provider))
        project = self.projects.get(project_id)
        return stored or (None if project is None else project.providers.get(provider))

    def has_own_key(self, project_id: str, provider: str) -> bool:
        """Return True if a project's requests to a provider use a key that is its own.

        Then it shares the provider's account with no other project: it may see the account's objects, fine-tuned models
        and quota.
        """
        return (project_id, provider) in self.own_keys

    def find_budgets(self, project: Project) -> tuple[Budget, ...]:
        """Return the budgets of a project in the configuration: its own, else the default ones."""
        return self.settings.budgets.default if project.budgets is None else project.budgets

    def find_limits(self, project: Project) -> ProjectLimits:
        """Return the limits of a project: its own, else the default ones."""
        return self.settings.budgets.default_limits if project.limits is None else project.limits

    def counter_plan(self) -> CounterPlan:
        """Return the needs of all projects' budgets."""
        budgets = (budget for project in self.projects.values() for budget in self.find_budgets(project))
        return CounterPlan(
            tuple(dict.fromkeys(budget.kind for budget in budgets)),
            self.settings.budgets.hold_unsettled,
            any(self.find_limits(project) for project in self.projects.values()),
            {project.id: brakes for project in self.projects.values() if (brakes := self.find_limits(project).brakes)},
        )

    def list_key_names(self) -> list[tuple[str, str]]:
        """Return the provider and name of each provider key in the files."""
        servers = [(name, account.keys) for name, account in self.settings.providers.items()]
        own = [
            (name, account.keys) for project in self.projects.values() for name, account in project.providers.items()
        ]
        return [(provider, key.name) for provider, keys in (*servers, *own) for key in keys]

    def find_tariff(self, provider: str, project_id: str, *, own: bool) -> Tariff:
        """Return the prices of a project's requests to a provider; `own` is True for the project's own account."""
        return self.project_tariffs.get((project_id, provider, own)) or self.tariffs[provider]

    def add_discount(self, tariff: Tariff, project_id: str, key: KeyId | None) -> Tariff:
        """Return a tariff with the discount of the key that makes a project's request.

        A key whose secret was replaced since is found by its name.
        """
        if key is None or not self.discounts:  # nearly always, and at each request
            return tariff
        owner = project_id if key.own else ""
        same = (self.discounts.get((tariff.provider, owner, name)) for name in (key.fingerprint, key.name))
        discount = next((found for found in same if found is not None), NO_DISCOUNT)
        return replace(tariff, discount=discount) if discount.rate else tariff


def build(path: Path, generation: int, previous: Snapshot | None = None) -> Snapshot:
    """Load the configuration at `path` and return its snapshot.  It reads files, so call it in a thread.

    Args:
        path: The path of proxy.yaml.
        generation: The number of the configuration.
        previous: The active snapshot, whose keys of OAuth issuers are kept.

    Raises:
        ConfigError: The configuration has faults; the error holds those of all files.
    """
    loaded = load_settings(path)
    prices = PriceBook.from_documents(loaded.price_documents)
    options = ProviderOptions(exact_speech=loaded.settings.speech_usage == "exact")
    providers = [provider.configure(options) for provider in PROVIDERS]
    tariffs = {
        provider.name: Tariff(
            prices,
            provider.name,
            loaded.settings.pricing.surcharge_rate,
            loaded.settings.providers[provider.name].region if provider.name in loaded.settings.providers else None,
        )
        for provider in providers
    }
    issuers = make_issuer_clients(loaded.settings.oauth, previous.issuers if previous is not None else ())
    return Snapshot(
        generation=generation,
        settings=loaded.settings,
        projects={project.id: project for project in loaded.projects},
        authenticator=Authenticator(loaded.projects, issuers),
        routes=RouteTable(providers),
        prices=prices,
        tariffs=tariffs,
        issuers=issuers,
        redaction=_make_redaction(loaded.settings, loaded.projects),
    )


def _make_cost_bounds(prices: PriceBook, settings: Settings) -> CostBounds:
    caps = WorkCaps(settings.budgets.max_tool_calls, math.ceil(settings.websockets.lifetime_s))
    return CostBounds(prices, caps)


def _find_own_keys(snapshot: Snapshot) -> frozenset[tuple[str, str]]:
    """Return the providers at which no key of a project is one of the server or of another project.

    The keys of a file count also if the state has others in their place: objects that they made are reached with them.
    """
    servers = (provider.keys for provider in snapshot.settings.providers.values())
    own = {
        (project.id, name): {
            key.secret.reveal()
            for account in (snapshot.find_account(project.id, name), project.providers.get(name))
            for key in (() if account is None else account.keys)
        }
        for project in snapshot.projects.values()
        for name in snapshot.tariffs
    }
    # A project can use one key at several providers, if they are behind one proxy.
    uses = Counter(
        secret for _, secret in {(project, secret) for (project, _), secrets in own.items() for secret in secrets}
    )
    uses.update({key.secret.reveal() for keys in servers for key in keys})
    return frozenset(at for at, secrets in own.items() if secrets and all(uses[secret] == 1 for secret in secrets))


def _make_project_tariffs(snapshot: Snapshot) -> Mapping[tuple[str, str, bool], Tariff]:
    """Return the tariffs of projects with a surcharge of their own, or an account in another region."""
    made: dict[tuple[str, str, bool], Tariff] = {}
    for project in snapshot.projects.values():
        for name, standard in snapshot.tariffs.items():
            rate, account = project.surcharge_rate, snapshot.find_account(project.id, name)
            shared = standard if rate is None else replace(standard, surcharge_rate=rate)
            if shared is not standard:
                made[project.id, name, False] = made[project.id, name, True] = shared
            if account is not None and account.base_url is not None:
                made[project.id, name, True] = replace(shared, provider_region=account.region)
    return made


def _find_discounts(snapshot: Snapshot) -> Mapping[tuple[str, str, str], Discount]:
    accounts = [(name, "", provider.keys) for name, provider in snapshot.settings.providers.items()]
    accounts += [
        (name, project.id, own.keys)
        for project in snapshot.projects.values()
        for name, own in project.providers.items()
    ]
    # Keys of the state have no discount, also if one of the files, in whose place they are used, has their name.
    accounts += [(name, owner, account.keys) for (owner, name), account in snapshot.stored.accounts.items()]
    found = {(at, owner, key.fingerprint): key.discount for at, owner, keys in accounts for key in keys}
    named = {(at, owner, key.name): key.discount for at, owner, keys in reversed(accounts) for key in keys}
    return {**named, **found} if any(discount.rate for discount in found.values()) else {}


def _make_redaction(settings: Settings, projects: Iterable[Project]) -> Redaction:
    """Return the redaction of all provider keys.  No provider is sent a signing secret, so none can echo it."""
    servers = [provider.keys for provider in settings.providers.values()]
    own = [provider.keys for project in projects for provider in project.providers.values()]
    return Redaction([key.secret for keys in (*servers, *own) for key in keys])


def _with_state(snapshot: Snapshot, state: State, previous: Snapshot) -> Snapshot:
    """Return the snapshot with a state, and with everything that is made of both.

    `previous` is the active snapshot, whose decrypted accounts are kept as far as they are the same.
    """
    authenticator = snapshot.authenticator.with_access_keys(state.access_keys)
    stored = previous.stored.update(state.provider_settings, snapshot.settings.state.keys)
    if stored is snapshot.stored:
        return replace(snapshot, state=state, authenticator=authenticator)
    files = snapshot.file_redaction or snapshot.redaction
    secrets = [key.secret for account in stored.accounts.values() for key in account.keys]
    redaction = Redaction(secrets, base=files) if secrets else files
    return replace(
        snapshot, state=state, authenticator=authenticator, stored=stored, redaction=redaction, file_redaction=files
    )


class SnapshotHolder:
    """Holds the active snapshot."""

    def __init__(self, path: Path, first: Snapshot) -> None:
        self.path = path
        self.current = first
        self._announce(first)

    def swap(self, new: Snapshot) -> None:
        """Make `new` the active snapshot.

        Raises:
            ConfigError: A setting that needs a restart has changed; the old snapshot stays active.
        """
        self.check_swap(new)
        new.key_rotation.inherit(self.current.key_rotation)
        self.current = _with_state(new, self.current.state, self.current)
        self._announce(self.current)

    def check_swap(self, new: Snapshot) -> None:
        """Raise ConfigError if a setting that needs a restart has changed."""
        # A socket that is bound and a ledger that is open cannot follow a changed setting.
        changed = find_restart_settings(self.current.settings, new.settings)
        if changed:
            rule = "changed, and needs a restart; restart the server, or restore the value"
            raise ConfigError([Fault(str(self.path), 0, key, rule) for key in changed])

    def set_state(self, state: State) -> None:
        """Make a snapshot with another state the active one."""
        self.current = _with_state(self.current, state, self.current)
        logs.set_redaction(self.current.redaction)

    @staticmethod
    def _announce(snapshot: Snapshot) -> None:
        metrics.show_configuration(snapshot.generation, snapshot.prices.find_check_dates(), snapshot.list_key_names())
        logs.set_redaction(snapshot.redaction)
