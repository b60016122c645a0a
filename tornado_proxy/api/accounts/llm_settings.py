"""`GET /accounts/projects/{project_id}/llm-proxy/settings`: settings of the project that a local proxy uses too."""

from __future__ import annotations

from datetime import UTC, datetime

from tornado_proxy.api.accounts.base_handler import AccountsHandler
from tornado_proxy.api.accounts.callers import find_caller


class LlmSettingsHandler(AccountsHandler):
    """The settings of a project, for each of its callers, participants too."""

    async def get(self, project_id: str) -> None:
        """Respond with the settings in use."""
        snapshot, headers = self.snapshot, self.request.headers.get_all()
        self.caller, project = await find_caller(snapshot, headers, project_id, datetime.now(UTC))
        own_rate, settings = project.surcharge_rate, snapshot.settings
        rate = settings.pricing.surcharge_rate if own_rate is None else own_rate
        self.respond(
            {
                "surcharge_rate": f"{rate:f}",
                "on_client_disconnect": project.on_client_disconnect or settings.streams.on_client_disconnect,
                "prices": {"fingerprint": snapshot.prices.fingerprint},
            }
        )
