"""The routes of the REST API.  A new route is a line here and in docs/rest_api.md."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tornado_proxy.api.accounts.access_test import AccessTestHandler
from tornado_proxy.api.accounts.base_handler import AccountsHandler
from tornado_proxy.api.accounts.llm_settings import LlmSettingsHandler
from tornado_proxy.api.accounts.login import AuthorizeHandler, ConfigHandler, TokenHandler
from tornado_proxy.api.accounts.participant_tokens import ParticipantTokensHandler, RoomConnectHandler
from tornado_proxy.api.accounts.profile import ProfileHandler, WhoamiHandler
from tornado_proxy.api.accounts.projects import ProjectHandler, ProjectsHandler
from tornado_proxy.api.accounts.usage import ProjectUsageHandler


@dataclass(frozen=True, slots=True)
class AccountsRoute:
    """A path, with the names of its parameters in braces, and its handler, whose methods get them as arguments."""

    path: str
    handler: type[AccountsHandler]

    @property
    def pattern(self) -> str:
        """The regular expression of the path."""
        return "([^/]+)".join(re.escape(part) for part in re.split(r"\{\w+\}", self.path))


ROUTES = (
    AccountsRoute("/config", ConfigHandler),
    AccountsRoute("/oauth/authorize", AuthorizeHandler),
    AccountsRoute("/oauth/token", TokenHandler),
    AccountsRoute("/accounts/profiles/me", ProfileHandler),
    AccountsRoute("/accounts/whoami", WhoamiHandler),
    AccountsRoute("/accounts/projects", ProjectsHandler),
    AccountsRoute("/accounts/projects/{project_id}", ProjectHandler),
    AccountsRoute("/accounts/projects/{project_id}/access:test", AccessTestHandler),
    AccountsRoute("/accounts/projects/{project_id}/rooms/{room}/connect", RoomConnectHandler),
    AccountsRoute("/accounts/projects/{project_id}/participant-tokens", ParticipantTokensHandler),
    AccountsRoute("/accounts/projects/{project_id}/usage", ProjectUsageHandler),
    AccountsRoute("/accounts/projects/{project_id}/llm-proxy/settings", LlmSettingsHandler),
)

#: The paths that are not below /accounts/, so that the client port must be told of them.
FIXED_PATHS = frozenset(route.path for route in ROUTES if not route.path.startswith("/accounts/"))
