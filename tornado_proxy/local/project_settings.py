"""Reads the hosted proxy's statements about the project, so that local records have its surcharge."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from urllib.parse import quote

from tornado_proxy.auth.unverified_token import read_json_object
from tornado_proxy.domain.identity import Secret
from tornado_proxy.issuers.http_fetch import Fetch, FetchError, fetch
from tornado_proxy.local.hosted import ProjectSettings

#: A surcharge above this is no rate.
_MAX_RATE = Decimal(100)


async def fetch_project_settings(upstream: str, token: Secret, project_id: str) -> ProjectSettings | None:
    """Return the settings; None if the server does not state them, as one of another kind does not."""
    url = f"{upstream}/accounts/projects/{quote(project_id, safe='')}/llm-proxy/settings"
    headers = {"Authorization": f"Bearer {token.reveal()}", "Meshagent-Project-Id": project_id}
    try:
        content = read_json_object((await fetch(Fetch(url, headers=headers))).body)
    except (FetchError, ValueError):
        return None
    rate, reaction = _read_rate(content.get("surcharge_rate")), content.get("on_client_disconnect")
    return ProjectSettings(
        rate, "cancel" if reaction == "cancel" else "drain", _read_fingerprint(content.get("prices"))
    )


def _read_fingerprint(prices: object) -> str:
    fingerprint = prices.get("fingerprint") if isinstance(prices, dict) else None
    return fingerprint if isinstance(fingerprint, str) else ""


def _read_rate(value: object) -> Decimal:
    try:
        rate = Decimal(str(value))
    except InvalidOperation:
        return Decimal(0)
    return rate if rate.is_finite() and 0 <= rate <= _MAX_RATE else Decimal(0)
