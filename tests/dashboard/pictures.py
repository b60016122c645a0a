"""Takes the pictures of docs/dashboard.md: `python -m tests.dashboard.pictures`, from the root of the repository.

The ledger has requests of two months, drawn with a fixed seed.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.dashboard.browsing import DESKTOP, PHONE, running_browser, sign_in
from tests.dashboard.sample_ledger import NO_COST, make_cost, write_records
from tests.dashboard.sample_server import NOWHERE
from tests.harness import OTHER_PROJECT, PROJECT, ROOT, running_proxy
from tests.ledger.sample_records import make_intent, make_record
from tornado_proxy.domain.identity import Caller
from tornado_proxy.domain.record import RequestRecord
from tornado_proxy.domain.usage import Basis

FOLDER = ROOT / "docs" / "images"

PROJECTS = [
    {"id": PROJECT, "name": "Acme research", "budgets": [{"period": "month", "usd": "80"}]},
    {"id": OTHER_PROJECT, "name": "Support desk", "budgets": [{"period": "day", "usd": "0.5", "per": "participant"}]},
]

CALLERS = (
    *(Caller(PROJECT, name, room="lab") for name in ("ada", "bob", "carol", "dan", "erin", "frank", "grace")),
    *(Caller(OTHER_PROJECT, name, room="desk") for name in ("heidi", "ivan")),
)

MODELS = ("gpt-5.4", "gpt-4o-mini", "claude-sonnet-5")


def make_requests(now: datetime) -> Iterator[RequestRecord]:
    """yield 3,000 requests: more of the first callers, more on work days, one unsettled and one pending."""
    chosen = random.Random(18)
    for number in range(3000):
        started_at = now - timedelta(seconds=chosen.random() ** 1.2 * 58 * 86400)
        if started_at.weekday() >= 5 and chosen.random() < 0.7:
            started_at -= timedelta(days=2)
        caller = CALLERS[min(int(chosen.expovariate(0.6)), len(CALLERS) - 1)]
        model = chosen.choice(MODELS)
        intent = make_intent(f"req_{number:032x}", caller=caller, started_at=started_at, model_requested=model)
        cost = make_cost(chosen.randrange(1000, 60_000), model)
        known = {"basis": Basis.REPORTED, "cost": cost}
        open_costs = {7: Basis.UNSETTLED, 11: Basis.PENDING}
        unknown = {"basis": open_costs.get(number), "cost": NO_COST}
        yield make_record(intent, model=model, **(unknown if number in open_costs else known))


def take_pictures(folder: Path) -> None:
    """Write the pictures into `folder`."""
    with tempfile.TemporaryDirectory() as work:
        write_records(Path(work) / "ledger.db", make_requests(datetime.now(UTC)))
        with running_proxy(Path(work), NOWHERE, projects=PROJECTS) as proxy, running_browser() as browser:
            context = browser.new_context(viewport=DESKTOP)  # type: ignore[arg-type]  # a dict of its members
            page = sign_in(context, proxy)
            for name, path in (
                ("bill", "?range=30d&group=participant"),
                ("requests", "requests?range=7d"),
                ("open", "open"),
                ("budgets", "budgets"),
            ):
                page.goto(f"{proxy.admin_url}/dashboard/{path}")
                page.screenshot(path=folder / f"web-{name}.png")
            page.emulate_media(color_scheme="dark")
            page.goto(f"{proxy.admin_url}/dashboard/?range=30d&group=project")
            page.screenshot(path=folder / "web-bill-dark.png")
            page.set_viewport_size(PHONE)  # type: ignore[arg-type]  # a dict of its members
            page.goto(f"{proxy.admin_url}/dashboard/?range=30d&group=project")
            page.screenshot(path=folder / "web-bill-phone.png")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    take_pictures(FOLDER)
