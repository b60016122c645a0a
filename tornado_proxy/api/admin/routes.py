"""The routes of the admin port.  A new route is a line here and a path in schemas/admin.openapi.yaml."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tornado_proxy.api.admin.access_keys import (
    AccessKeyHandler,
    AccessKeyImportHandler,
    AccessKeyRotationHandler,
    AccessKeysHandler,
)
from tornado_proxy.api.admin.base_handler import AdminHandler
from tornado_proxy.api.admin.budgets import BudgetsHandler
from tornado_proxy.api.admin.health import LivenessHandler, ReadinessHandler
from tornado_proxy.api.admin.metrics import MetricsHandler
from tornado_proxy.api.admin.openapi import OpenApiHandler
from tornado_proxy.api.admin.projects import ProjectHandler, ProjectsHandler
from tornado_proxy.api.admin.provider_settings import ProviderSettingsHandler
from tornado_proxy.api.admin.reload import ReloadHandler
from tornado_proxy.api.admin.stops import StopHandler, StopsHandler
from tornado_proxy.api.admin.usage import AdminUsageHandler


@dataclass(frozen=True, slots=True)
class AdminRoute:
    """A path and its handler.

    Attributes:
        path: The path, with the names of its parameters in braces; the handler's methods get them as arguments.
        handler: Defines a method for each HTTP method.
    """

    path: str
    handler: type[AdminHandler]

    @property
    def pattern(self) -> str:
        """The regular expression of the path."""
        return "([^/]+)".join(re.escape(part) for part in re.split(r"\{\w+\}", self.path))


ROUTES = (
    AdminRoute("/healthz", LivenessHandler),
    AdminRoute("/readyz", ReadinessHandler),
    AdminRoute("/metrics", MetricsHandler),
    AdminRoute("/reload", ReloadHandler),
    AdminRoute("/openapi.json", OpenApiHandler),
    AdminRoute("/v1/projects", ProjectsHandler),
    AdminRoute("/v1/projects/{project_id}", ProjectHandler),
    AdminRoute("/v1/projects/{project_id}/settings/{provider}", ProviderSettingsHandler),
    AdminRoute("/v1/usage", AdminUsageHandler),
    AdminRoute("/v1/budgets", BudgetsHandler),
    AdminRoute("/v1/stops", StopsHandler),
    AdminRoute("/v1/stops/{stop_id}", StopHandler),
    AdminRoute("/v1/access-keys", AccessKeysHandler),
    AdminRoute("/v1/access-keys/import", AccessKeyImportHandler),
    AdminRoute("/v1/access-keys/{key_id}", AccessKeyHandler),
    AdminRoute("/v1/access-keys/{key_id}/rotate", AccessKeyRotationHandler),
)
