"""One generation of the configuration: routes, prices, credentials and settings that belong together.

A request takes `holder.current` once and keeps it to its end; a reload swaps one reference.  No request sees half a
reload, and no lock is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tornado_proxy.auth.authenticator import Authenticator
from tornado_proxy.config.loading import load_settings
from tornado_proxy.config.settings import Settings, restart_needed
from tornado_proxy.domain.errors import ConfigError, Fault
from tornado_proxy.domain.identity import Project, Secret
from tornado_proxy.observability import metrics
from tornado_proxy.pricing.book.price_book import PriceBook
from tornado_proxy.pricing.book.tariff import Tariff
from tornado_proxy.providers.contract import ProviderOptions
from tornado_proxy.providers.registry import PROVIDERS
from tornado_proxy.providers.route_table import RouteTable


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything a request needs to know of the configuration.  `generation` counts from 1."""

    generation: int
    settings: Settings
    projects: Mapping[str, Project]
    authenticator: Authenticator
    routes: RouteTable
    prices: PriceBook
    tariffs: Mapping[str, Tariff]

    def provider_key(self, project_id: str, provider: str) -> Secret | None:
        """The project's own key for `provider`, else the server's, else None."""
        project = self.projects.get(project_id)
        own = project.provider_keys.get(provider) if project is not None else None
        if own is not None:
            return own
        configured = self.settings.providers.get(provider)
        return configured.api_key if configured is not None else None


def build(path: Path, generation: int) -> Snapshot:
    """Read, check and assemble everything that the file at `path` leads to.  Reads disk: call it in a thread.

    Raises:
        ConfigError: with every fault in every file.
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
    return Snapshot(
        generation=generation,
        settings=loaded.settings,
        projects={project.id: project for project in loaded.projects},
        authenticator=Authenticator(loaded.projects),
        routes=RouteTable(providers),
        prices=prices,
        tariffs=tariffs,
    )


class SnapshotHolder:
    """Holds the snapshot in use."""

    def __init__(self, path: Path, first: Snapshot) -> None:
        self.path = path
        self.current = first
        metrics.CONFIG_GENERATION.set(first.generation)

    def swap(self, new: Snapshot) -> None:
        """Put `new` in use.

        Raises:
            ConfigError: a setting differs that only a restart can change; the old snapshot stays.
        """
        fixed = restart_needed(self.current.settings, new.settings)
        if fixed:
            raise ConfigError(
                [Fault(str(self.path), 0, key, "has changed; restart the server for it") for key in fixed]
            )
        self.current = new
        metrics.CONFIG_GENERATION.set(new.generation)
