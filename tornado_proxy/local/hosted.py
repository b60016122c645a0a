"""The hosted proxy as the provider of the local one: its address, its credential, the project's own settings.

To the gateway, the project has an account of its own at each provider, whose address is the hosted proxy and whose key
is the token of the session.  So the hosted proxy alone decides which objects, models and quota the project sees.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Protocol

from tornado_proxy.auth.authenticator import Authenticator
from tornado_proxy.config.bundled import conf_path
from tornado_proxy.config.files import read_documents
from tornado_proxy.config.settings import ProviderSettings, Settings, make_settings
from tornado_proxy.domain.identity import Project, ProjectProvider, ProviderKey, Secret
from tornado_proxy.pricing.book.price_book import PriceBook, Tariff
from tornado_proxy.providers.contract import Endpoint, Provider, WebSocketEndpoint
from tornado_proxy.providers.registry import PROVIDERS
from tornado_proxy.providers.route_table import RouteTable
from tornado_proxy.snapshot import Snapshot, SnapshotHolder
from tornado_proxy.wire.redaction import Redaction

#: MiB of a request body; the hosted proxy has a limit of its own.
_MAX_BODY_MB = 1024

#: Request headers that the local proxy keeps: it decodes bodies, and the hosted proxy serves no page.
_KEPT_HEADERS = frozenset({"content-encoding", "origin", "referer"})

_KEY_NAME = "session"


class TokenSource(Protocol):
    """Gives the credential for the hosted proxy."""

    def find_fresh(self) -> Secret | None:
        """Return the token if it need not be refreshed, else None; raise NotAuthenticated without a session."""

    async def get(self) -> Secret:
        """Return a valid token; raise NotAuthenticated or IdentityProviderUnavailable if there is none."""

    async def replace(self, refused: Secret) -> Secret | None:
        """Return another token than `refused`, None if there is no other."""


class FixedToken:
    """A token that lives as long as the process, such as MESHAGENT_TOKEN."""

    def __init__(self, token: Secret) -> None:
        self._token = token

    def find_fresh(self) -> Secret | None:
        """Return the token."""
        return self._token

    async def get(self) -> Secret:
        """Return the token."""
        return self._token

    async def replace(self, refused: Secret) -> Secret | None:
        """Return None: there is no other token."""
        return None


@dataclass(frozen=True, slots=True)
class ProjectSettings:
    """The hosted proxy's statements about a project.

    Attributes:
        surcharge_rate: The surcharge of its records.
        on_client_disconnect: What to do with a running response if its client disconnects.
        prices: The fingerprint of the price files of the server, "" if it states none.
    """

    surcharge_rate: Decimal = Decimal(0)
    on_client_disconnect: str = "drain"
    prices: str = ""


class HostedProxy:
    """The snapshot of the local proxy, which changes with the token."""

    def __init__(self, upstream: str, project_id: str, tokens: TokenSource, ledger: Path) -> None:
        self.tokens = tokens
        self._upstream = upstream
        self._providers = [_as_hosted(provider, project_id) for provider in PROVIDERS]
        self._prices = PriceBook.from_documents(read_documents(conf_path("prices")))
        self._token = Secret("")
        self._project = Project(project_id, project_id)
        self._project_settings = ProjectSettings()
        self._settings = self._make_settings(ledger)
        self._routes = RouteTable(self._providers)
        self.snapshots = SnapshotHolder(ledger, self._make_snapshot())

    def allow_origins(self, origins: frozenset[str]) -> None:
        """Answer the preflights of pages with these origins."""
        public = replace(self._settings.public, allow_origins=origins, trusted_proxies=())
        self._settings = replace(self._settings, public=public)
        self.snapshots.current = self._make_snapshot()

    @property
    def has_prices_of_server(self) -> bool:
        """False if the server has stated that it has other price files."""
        return self._project_settings.prices in ("", self._prices.fingerprint)

    def apply(self, stated: ProjectSettings) -> None:
        """Use the hosted proxy's statements about the project, from the next request on."""
        self._project_settings = stated
        self.snapshots.current = self._make_snapshot()

    def find_current(self) -> Snapshot | None:
        """Return the snapshot with a fresh token; None if the token must be refreshed.

        Raises:
            NotAuthenticated: there is no session.
        """
        token = self.tokens.find_fresh()
        return None if token is None else self.use(token)

    async def get_current(self) -> Snapshot:
        """Return the snapshot with a valid token; refresh it if it expires soon.

        Raises:
            NotAuthenticated, IdentityProviderUnavailable: there is no valid token.
        """
        return self.use(await self.tokens.get())

    def use(self, token: Secret) -> Snapshot:
        """Make `token` the credential of the next requests; return the snapshot with it."""
        if token != self._token:
            self._token = token
            self.snapshots.current = self._make_snapshot()
        return self.snapshots.current

    def key_headers(self, provider: str, token: Secret) -> tuple[tuple[str, Secret], ...]:
        """Return the headers of a request that carry the token and name the project."""
        hosted = next(hosted for hosted in self._providers if hosted.name == provider)
        return tuple(hosted.key_headers(token).items())

    def find_provider(self, url: str) -> str:
        """Return the name of the provider to which a request to the hosted proxy goes."""
        return next(provider.name for provider in self._providers if url.startswith(self._base_url(provider) + "/"))

    def _base_url(self, provider: Provider) -> str:
        return f"{self._upstream}/{provider.prefix}"

    def _make_settings(self, ledger: Path) -> Settings:
        content: Mapping[str, object] = {
            "ledger": {"url": f"sqlite:///{ledger}"},
            "models_list": "provider",
            "limits": {
                "max_body_mb": _MAX_BODY_MB,
                "max_batch_mb": _MAX_BODY_MB,
                "max_arriving_mb": 2 * _MAX_BODY_MB,
                "max_arriving_mb_per_caller": 2 * _MAX_BODY_MB,
            },
        }
        # Without keys of a server: all requests use those of the project.
        providers = {provider.name: ProviderSettings(self._base_url(provider), ()) for provider in self._providers}
        return make_settings(content, ledger.parent, providers)

    def _make_snapshot(self) -> Snapshot:
        key, stated = ProviderKey(_KEY_NAME, self._token), self._project_settings
        accounts = {provider.name: ProjectProvider((key,), self._base_url(provider)) for provider in self._providers}
        project = replace(
            self._project,
            providers=accounts,
            surcharge_rate=stated.surcharge_rate,
            on_client_disconnect=stated.on_client_disconnect,
        )
        return Snapshot(
            generation=1,
            settings=self._settings,
            projects={project.id: project},
            authenticator=Authenticator(()),
            routes=self._routes,
            prices=self._prices,
            tariffs={
                provider.name: Tariff(self._prices, provider.name, stated.surcharge_rate, None)
                for provider in self._providers
            },
            redaction=Redaction([self._token] if self._token else []),
        )


def _as_hosted(provider: Provider, project_id: str) -> Provider:
    """Return the provider as it is behind the hosted proxy, which filters headers and hides secrets itself."""

    def key_headers(token: Secret) -> Mapping[str, Secret]:
        return {**provider.key_headers(token), "Meshagent-Project-Id": Secret(project_id)}

    endpoints = tuple(_without_sealing(endpoint) for endpoint in provider.endpoints)
    return replace(
        provider,
        endpoints=endpoints,
        key_headers=key_headers,
        passed_prefixes=("",),
        withheld_headers=provider.withheld_headers | _KEPT_HEADERS,
        account_headers=frozenset(),
        quota_prefixes=(),
        request_id_header="llm-proxy-request-id",
        is_proxy=True,
    )


def _without_sealing(endpoint: Endpoint) -> Endpoint:
    """Return the endpoint; the short-lived keys in its responses are the hosted proxy's own already."""
    if isinstance(endpoint, WebSocketEndpoint) or endpoint.response_edits.seal_secrets is None:
        return endpoint
    return replace(endpoint, response_edits=replace(endpoint.response_edits, seal_secrets=None))
