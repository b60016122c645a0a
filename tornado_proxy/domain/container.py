"""The time of containers that run code at a provider: its price, and the seconds that each use adds to a life.

Several responses share a container, and none of them states how long it lives.  Each says only that the container
lived: at the latest when the response had ended, and still when the next request that used it began.  A life is
therefore a lower bound, which grows with each use:

    first use ends          next use begins
         │<──────── certain ──────>│

    owed     = that time, at least the minimum, rounded up to whole steps
    charged  = owed, less what earlier uses of the same life were charged

A price with `idle_s` ends a life that was not used for so long; the next use begins another one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import ROUND_CEILING, Decimal

from tornado_proxy.domain.cost import ZERO, LineItem, round_amount
from tornado_proxy.domain.usage import Meter


@dataclass(frozen=True, slots=True)
class ContainerPrice:
    """The price of a container's time: `unit_price` USD for each `divisor` seconds.

    Attributes:
        terms: The pairs of the terms that differ from the default.
        minimum_s: The least time that a life is charged for.
        step_s: The time is rounded up to a multiple of this; None if it is not rounded.
        idle_s: A container that was not used for so long begins a new life; None if it has one life.
        free_per_month_s: The time of all containers of an account that is free in each month, in UTC.
        free_price_hash: The hash of the price entry for free time; None if the price files have none.
    """

    model: str
    unit: str
    unit_price: Decimal
    divisor: Decimal
    price_hash: str
    terms: tuple[tuple[str, str], ...] = ()
    minimum_s: Decimal = ZERO
    step_s: Decimal | None = None
    idle_s: Decimal | None = None
    free_per_month_s: Decimal = ZERO
    free_price_hash: str | None = None

    def round_up(self, lived_s: Decimal) -> Decimal:
        """Return the seconds that a life of `lived_s` seconds is charged for."""
        least = max(lived_s, self.minimum_s)
        if self.step_s is None:
            return least
        return (least / self.step_s).to_integral_value(ROUND_CEILING) * self.step_s

    def itemise(self, charged_s: Decimal, free_s: Decimal) -> list[LineItem]:
        """Return the line items of `charged_s` seconds at the price, and of `free_s` seconds without charge."""
        items = []
        if free_s:
            items.append(self._item(Meter.FREE_CONTAINER_SECONDS, free_s, ZERO, self.free_price_hash))
        if charged_s:
            items.append(self._item(Meter.CONTAINER_SECONDS, charged_s, self.unit_price, self.price_hash))
        return items

    def _item(self, meter: Meter, quantity_s: Decimal, unit_price: Decimal, price_hash: str | None) -> LineItem:
        amount = round_amount(quantity_s * unit_price / self.divisor)
        return LineItem(meter.value, quantity_s, self.unit, unit_price, amount, self.model, price_hash, self.terms)


@dataclass(frozen=True, slots=True)
class PricedUse:
    """A use of a container.  `price` is None if the response did not create the container."""

    container_id: str
    price: ContainerPrice | None
    note: str


@dataclass(frozen=True, slots=True)
class ContainerTime:
    """The containers that a request used; the ledger charges their time when it stores the record.

    Attributes:
        provider: The provider that runs them.
        project_id: The project of the request.
        began_at: The time at which the request began: containers that existed before lived until then.
        ended_at: The time at which its response had ended: each container lived by then.
        surcharge_rate: The rate of the operator's surcharge.
        account: The account whose free time the containers use.
        discount_rate: The rate of the provider's discount.
    """

    uses: tuple[PricedUse, ...]
    provider: str
    project_id: str
    began_at: datetime
    ended_at: datetime
    surcharge_rate: Decimal
    account: str = ""
    discount_rate: Decimal = Decimal(0)

    @property
    def month(self) -> str:
        """The month in which the request began, as YYYY-MM."""
        return f"{self.began_at:%Y-%m}"


@dataclass(frozen=True, slots=True)
class ContainerLife:
    """The life of a container, as far as the ledger knows it.

    Attributes:
        born_by: The container existed at this time: the end of the first response that used it.
        lived_until: It still existed at this time: the begin of the last request that used it.
        seen_at: The end of the last response that used it.
        charged_s: The seconds that requests were charged for.
        price: None until a use has one.
    """

    born_by: datetime
    lived_until: datetime
    seen_at: datetime
    charged_s: Decimal = ZERO
    price: ContainerPrice | None = None

    @property
    def lived_s(self) -> Decimal:
        """The seconds that are certain."""
        return max(ZERO, Decimal((self.lived_until - self.born_by) // timedelta(milliseconds=1)) / 1000)


def add_use(life: ContainerLife | None, use: PricedUse, time: ContainerTime) -> tuple[ContainerLife, Decimal]:
    """Return the life of a container after a use, and the seconds that the use is charged for."""
    fresh = ContainerLife(time.ended_at, time.began_at, time.ended_at, price=use.price)
    extended = fresh if life is None else _extend(life, fresh)
    if extended.price is None:
        return extended, ZERO
    owed_s = max(extended.charged_s, extended.price.round_up(extended.lived_s))
    return replace(extended, charged_s=owed_s), owed_s - extended.charged_s


def _extend(life: ContainerLife, use: ContainerLife) -> ContainerLife:
    """Return `life` with the times of `use`, or the life that `use` begins."""
    price = life.price or use.price
    if price is not None and price.idle_s is not None:
        idle = timedelta(seconds=float(price.idle_s))
        if use.lived_until > life.seen_at + idle:
            return replace(use, price=price)
        if use.seen_at + idle < life.born_by:
            return life  # a record that comes late: its own life has ended, and others of that life were charged
    return ContainerLife(
        min(life.born_by, use.born_by),
        max(life.lived_until, use.lived_until),
        max(life.seen_at, use.seen_at),
        life.charged_s,
        price,
    )
