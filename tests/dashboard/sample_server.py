"""A server whose ledger has sample requests, and whose projects have budgets, limits and keys of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.dashboard.sample_ledger import FORMULA, make_requests, write_records
from tests.harness import KEY_ID, OTHER_KEY_ID, OTHER_PROJECT, PROJECT, ProxyProcess, running_proxy

#: Nothing listens there: most pages need no provider.
NOWHERE = "http://127.0.0.1:9"

PROJECTS: list[dict[str, Any]] = [
    {
        "id": PROJECT,
        "name": "<b>Acme</b> research",
        "api_keys": [{"id": KEY_ID, "secret": {"env": "TEST_SIGNING_SECRET"}}],
        "budgets": [{"period": "month", "usd": "500"}, {"period": "day", "usd": "0.0065625", "per": "participant"}],
        "limits": {"requests_per_minute": 600, "per_participant": {"streams": 7}},
        "providers": {"openai": {"api_key": {"env": "TEST_OPENAI_KEY"}}},
    },
    {
        "id": OTHER_PROJECT,
        "name": FORMULA,
        "api_keys": [{"id": OTHER_KEY_ID, "secret": {"env": "TEST_OTHER_SIGNING_SECRET"}}],
        "models": ["openai/gpt-4o-mini"],
        "budgets": [{"period": "month", "usd": "7"}],
    },
]


@contextmanager
def running_sample(folder: Path, upstream: str = NOWHERE, **changes: Any) -> Iterator[ProxyProcess]:
    """Run the server."""
    write_records(folder / "ledger.db", make_requests(datetime.now(UTC)))
    with running_proxy(folder, upstream, **{"projects": PROJECTS, **changes}) as running:
        yield running
