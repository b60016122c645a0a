"""The routes of the dashboard, the same on both ports.  A new page is a line here and in docs/dashboard.md."""

from __future__ import annotations

import re
from typing import Any

from tornado_proxy.dashboard.base_handler import DashboardHandler
from tornado_proxy.dashboard.bill.bill_page import BillHandler
from tornado_proxy.dashboard.budgets_page import BudgetsHandler
from tornado_proxy.dashboard.issuer_sign_in import CallbackHandler, StartHandler
from tornado_proxy.dashboard.prices_page import PricesHandler
from tornado_proxy.dashboard.requests.live_page import LiveEventsHandler, LivePageHandler
from tornado_proxy.dashboard.requests.open_costs import OpenCostsHandler
from tornado_proxy.dashboard.requests.request_pages import RequestHandler, RequestListHandler
from tornado_proxy.dashboard.sign_in import CALLBACK_PATH, SIGN_IN_PATH, START_PATH, SignInHandler, SignOutHandler
from tornado_proxy.dashboard.site import ROOT, Site
from tornado_proxy.dashboard.static_files import StaticFileHandler, UnknownPageHandler

#: Each path, with the names of its parameters in braces, and its handler, whose methods get them as arguments.
ROUTES: tuple[tuple[str, type[DashboardHandler]], ...] = (
    (ROOT, BillHandler),
    (f"{ROOT}/", BillHandler),
    (f"{ROOT}/requests", RequestListHandler),
    (f"{ROOT}/requests/{{request_id}}", RequestHandler),
    (f"{ROOT}/now", LivePageHandler),
    (f"{ROOT}/now/events", LiveEventsHandler),
    (f"{ROOT}/open", OpenCostsHandler),
    (f"{ROOT}/budgets", BudgetsHandler),
    (f"{ROOT}/prices", PricesHandler),
    (SIGN_IN_PATH, SignInHandler),
    (START_PATH, StartHandler),
    (CALLBACK_PATH, CallbackHandler),
    (f"{ROOT}/sign-out", SignOutHandler),
    (f"{ROOT}/static/{{name}}", StaticFileHandler),
)


def list_rules(site: Site) -> list[tuple[Any, ...]]:
    """Return the rules of a port's application."""
    rules: list[tuple[Any, ...]] = [
        (_make_pattern(path), handler, {"site": site, "path_template": path}) for path, handler in ROUTES
    ]
    return [*rules, (rf"{ROOT}/.*", UnknownPageHandler, {"site": site, "path_template": f"{ROOT}/"})]


def _make_pattern(path: str) -> str:
    return "([^/]+)".join(re.escape(part) for part in re.split(r"\{\w+\}", path))
