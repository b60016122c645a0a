"""The page of provider keys, and of the ages of prices: for the operator, and for admins of projects with own keys."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from typing import ClassVar

from tornado_proxy.dashboard.base_handler import DashboardHandler
from tornado_proxy.dashboard.parameters import FORMATS, check_known, read_choice
from tornado_proxy.dashboard.viewer import Viewer
from tornado_proxy.domain.errors import NotAllowed
from tornado_proxy.domain.identity import ProviderKey
from tornado_proxy.pricing.book.price_book import PriceBook

#: Days after which a price should be compared with the provider's page again; that of the packaged alert rule.
STALE_DAYS = 180

COLUMNS = ("provider", "model", "checked", "age_days", "source")


@dataclass(frozen=True, slots=True)
class ShownKey:
    """A provider key; `account` is whose it is, `pause` why it is not in use now, None if it is in use."""

    provider: str
    name: str
    account: str
    ids: str
    pause: str | None


@dataclass(frozen=True, slots=True)
class PriceAge:
    """The price of a model that was compared with the provider's page the longest time ago."""

    provider: str
    model: str
    checked: str
    age_days: int
    source: str

    @property
    def is_stale(self) -> bool:
        """True if the price should be compared again."""
        return self.age_days > STALE_DAYS

    @property
    def members(self) -> dict[str, object]:
        """The members COLUMNS."""
        return {name: getattr(self, name) for name in COLUMNS}


class PricesHandler(DashboardHandler):
    """The page of keys and prices."""

    name: ClassVar[str] = "prices"

    async def get(self) -> None:
        """Show the keys and prices, or send the prices."""
        viewer = await self.identify()
        if not viewer.sees_project:
            raise NotAllowed("only an admin of the project can see its provider keys; ask one")
        check_known(self.parameters, ("format",))
        ages = list_price_ages(self.snapshot.prices, self.now)
        if read_choice(self.parameters, "format", FORMATS, FORMATS[0]) != "html":
            self.send_rows("prices", COLUMNS, [age.members for age in ages], COLUMNS)
            return
        link = self.make_page_url("/prices", {})
        self.show(
            "prices.html",
            "Keys and prices",
            keys=list(self._list_keys(viewer)),
            ages=ages,
            stale_days=STALE_DAYS,
            fingerprint=self.snapshot.prices.fingerprint,
            downloads={name: link.change(format=name) for name in ("csv", "json")},
        )

    def _list_keys(self, viewer: Viewer) -> Iterator[ShownKey]:
        """Yield the server's keys for the operator, and the own keys of the projects that the viewer sees."""
        snapshot = self.snapshot
        if viewer.is_operator:
            for provider, settings in snapshot.settings.providers.items():
                for key in settings.keys:
                    yield self._show_key(provider, key, "server")
        for project in viewer.choices if viewer.project is None else (viewer.project,):
            for provider in snapshot.tariffs:
                account = snapshot.find_account(project.id, provider)
                for key in () if account is None else account.keys:
                    yield self._show_key(provider, key, f"project {project.name}")

    def _show_key(self, provider: str, key: ProviderKey, account: str) -> ShownKey:
        pause = self.snapshot.key_rotation.find_pause(key)
        text = None if pause is None else f"set aside after status {pause.status}, for {pause.wait_s:.0f} s"
        ids = ", ".join(f"{name} {value}" for name, value in key.provider_ids.items())
        return ShownKey(provider, key.name, account, ids, text)


def list_price_ages(prices: PriceBook, now: datetime) -> list[PriceAge]:
    """Return the age of the prices of each model, the oldest first."""
    ages = [
        PriceAge(
            provider, model.name, oldest.checked, (now.date() - date.fromisoformat(oldest.checked)).days, oldest.source
        )
        for provider in sorted(prices.find_check_dates())
        for model in prices.models(provider)
        if (cards := model.list_own_cards())
        for oldest in (min(cards, key=lambda card: card.checked),)
    ]
    return sorted(ages, key=lambda age: (age.checked, age.provider, age.model))
