"""The paths of the client port that are the proxy's own, with their handlers.  A new one is a line here."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from tornado_proxy.api.accounts.routes import ROUTES
from tornado_proxy.api.client_settings import SETTINGS_PATH, ClientSettingsHandler
from tornado_proxy.api.project_budgets import BUDGETS_PATH, ProjectBudgetsHandler
from tornado_proxy.api.request_cost import REQUEST_PATH, RequestCostHandler, make_waiters
from tornado_proxy.api.start_page import StartPageHandler
from tornado_proxy.api.usage import USAGE_PATH, UsageHandler
from tornado_proxy.gateway.services import Services
from tornado_proxy.state.watcher import StateWatcher


def list_client_rules(
    services: Services, state: StateWatcher, pages: Iterable[tuple[Any, ...]], start_paths: Iterable[str]
) -> list[tuple[Any, ...]]:
    """Return the rules of the client port's application.

    Args:
        services: The parts of the server.
        state: What changes while the server runs.
        pages: The rules of the dashboard.
        start_paths: The paths that show a browser where it is.
    """
    own = {"services": services}
    return [
        (USAGE_PATH, UsageHandler, own),
        (REQUEST_PATH, RequestCostHandler, {**own, "waiters": make_waiters()}),
        (BUDGETS_PATH, ProjectBudgetsHandler, {**own, "state": state}),
        *((route.pattern, route.handler, {**own, "path_template": route.path}) for route in ROUTES),
        (SETTINGS_PATH, ClientSettingsHandler, {**own, "state": state}),
        *pages,
        *((re.escape(path), StartPageHandler, own) for path in sorted(start_paths)),
    ]
