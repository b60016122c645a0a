"""Makes the charges of records as rows of FOCUS, the FinOps Open Cost and Usage Specification.  Pure.

Source: FOCUS 1.4 (June 2026), dataset Cost and Usage, https://focus.finops.org/focus-specification/v1-4/

    line item of the provider ──> Usage, at list price and at the price after the discount
    provider_discount         ──> in the costs of those rows: a discount is no charge of its own in FOCUS
    llm_proxy_surcharge       ──> Usage of the proxy
    quantity without a price, request with an unknown cost ──> Adjustment of 0, so that none is missing
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from tornado_proxy.domain.cost import DERIVED_ITEMS, SURCHARGE, ZERO, BillRates, LineItem, round_amount
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.columns import PRINTED_COLUMNS
from tornado_proxy.ledger.rows import read_line_items

#: The columns of a record that charges are made of.
RECORD_COLUMNS = (*PRINTED_COLUMNS, "annotations", "settled_at")

#: The name of the party that charges projects, and that adds the surcharge.
_ISSUER = "tornado-proxy"

#: The columns with decimals.
DECIMAL_COLUMNS = (
    *("BilledCost", "ConsumedQuantity", "ContractedCost", "ContractedUnitPrice", "EffectiveCost"),
    *("ListCost", "ListUnitPrice", "PricingQuantity"),
)

#: The columns, in the order of the alphabet; those of our own begin with x_.
COLUMNS = (
    *("BilledCost", "BillingAccountId", "BillingAccountName", "BillingAccountType", "BillingCurrency"),
    *("BillingPeriodEnd", "BillingPeriodStart", "ChargeCategory", "ChargeClass", "ChargeDescription"),
    *("ChargeFrequency", "ChargePeriodEnd", "ChargePeriodStart", "ConsumedQuantity", "ConsumedUnit"),
    *("ContractedCost", "ContractedUnitPrice", "EffectiveCost", "HostProviderName", "InvoiceDetailId", "InvoiceId"),
    *("InvoiceIssuerName", "ListCost", "ListUnitPrice", "PricingCategory", "PricingQuantity", "PricingUnit"),
    *("RegionId", "RegionName", "ResourceId", "ResourceName", "ResourceType"),
    *("ServiceCategory", "ServiceName", "ServiceProviderName", "ServiceSubcategory"),
    *("SkuId", "SkuMeter", "SkuPriceDetails", "SkuPriceId", "SubAccountId", "SubAccountName", "SubAccountType", "Tags"),
    *("x_AgentSession", "x_Basis", "x_EndUser", "x_Endpoint", "x_Model", "x_ProviderKey", "x_Repository"),
    *("x_RequestId", "x_RetryOf", "x_Room"),
)

#: Unit of a price -> unit and divisor of the priced quantity, unit of the consumed quantity.
_UNITS: Mapping[str, tuple[str, int, str]] = {
    "per_million_tokens": ("1000000 Tokens", 1_000_000, "Tokens"),
    "per_million_characters": ("1000000 Characters", 1_000_000, "Characters"),
    "per_minute": ("Minutes", 60, "Seconds"),
    "per_hour": ("Hours", 3600, "Seconds"),
    "per_image": ("Images", 1, "Images"),
    "per_thousand_calls": ("1000 Requests", 1000, "Requests"),
    "per_session": ("Sessions", 1, "Sessions"),
    "usd": ("Dollars", 1, "Dollars"),
}

_UNKNOWN_COSTS: Mapping[str, str] = {
    Basis.UNSETTLED: "the cost of this request is not known",
    Basis.PENDING: "the provider reports the cost of this request later",
}

Charge = dict[str, str | None]


@dataclass(frozen=True, slots=True)
class _PricedItem:
    """A line item at its list price, and the cost that remains after the discount."""

    item: LineItem
    cost: Decimal
    discount_rate: Decimal


def make_charges(records: Iterable[Mapping[str, object]]) -> Iterator[Charge]:
    """Yield the charges of records, which have RECORD_COLUMNS, by COLUMNS; None is null.

    The sum of BilledCost is the sum of the records' totals.
    """
    for record in records:
        common = _common_columns(record)
        items = read_line_items(_text(record["line_items"]))
        for charge in _charge_items(record, items):
            yield {**common, **charge}
        unknown = _UNKNOWN_COSTS.get(str(record["basis"]))
        if unknown is not None:
            yield {**common, **_adjustment(unknown)}


def _charge_items(record: Mapping[str, object], items: tuple[LineItem, ...]) -> Iterator[Charge]:
    provider = str(record["provider"])
    for priced in _apply_discount(items):
        item = priced.item
        if item.amount is None or item.unit_price is None:
            yield _adjustment(f"{item.quantity:f} {item.type} of {item.model or 'this request'} have no price")
        else:
            yield {**_usage(priced), **_sku(item, f"{provider}/{item.model}/{item.type}")}
    for item in items:
        if item.type == SURCHARGE and item.unit_price:
            sku = {**_sku(item, SURCHARGE), "SkuPriceId": f"{SURCHARGE}/{item.unit_price:f}"}
            yield {**_usage(_PricedItem(item, item.amount or ZERO, ZERO)), **sku, **_SURCHARGE_SERVICE}


def _apply_discount(items: tuple[LineItem, ...]) -> Iterator[_PricedItem]:
    """Yield the provider's items with their shares of the discount, which add up to it exactly."""
    rate = BillRates.of(items).discount
    listed = granted = ZERO
    for item in items:
        if item.type not in DERIVED_ITEMS:
            amount = item.amount or ZERO
            listed += amount
            # The discount was rounded once, on the sum: so each share is the growth of the rounded sum.
            share = round_amount(listed * rate) - granted
            granted += share
            yield _PricedItem(item, amount - share, rate)


def _usage(priced: _PricedItem) -> Charge:
    item = priced.item
    amount, unit_price = item.amount or ZERO, item.unit_price or ZERO
    pricing_unit, divisor, consumed_unit = _UNITS.get(item.unit, ("Units", 1, "Units"))
    return {
        "ChargeCategory": "Usage",
        "ChargeFrequency": "Usage-Based",
        "PricingCategory": "Standard",
        "ChargeDescription": _describe(item),
        "ConsumedQuantity": f"{item.quantity:f}",
        "ConsumedUnit": consumed_unit,
        "PricingQuantity": f"{item.quantity / divisor:f}",
        "PricingUnit": pricing_unit,
        "ListUnitPrice": f"{unit_price:f}",
        "ContractedUnitPrice": f"{unit_price * (1 - priced.discount_rate):f}",
        "ListCost": f"{amount:f}",
        **dict.fromkeys(("ContractedCost", "BilledCost", "EffectiveCost"), f"{priced.cost:f}"),
    }


def _adjustment(description: str) -> Charge:
    return {
        "ChargeCategory": "Adjustment",
        "ChargeFrequency": "One-Time",
        "ChargeDescription": description,
        **dict.fromkeys(("ListCost", "ContractedCost", "BilledCost", "EffectiveCost"), "0"),
    }


_SURCHARGE_SERVICE: Charge = {
    "ServiceName": "LLM proxy",
    "ServiceProviderName": _ISSUER,
    "HostProviderName": _ISSUER,
}


def _sku(item: LineItem, sku_id: str) -> Charge:
    details = {f"x_{name}": value for name, value in item.terms}
    return {
        "SkuId": sku_id,
        "SkuMeter": item.type.replace("_", " ").title(),
        "SkuPriceId": item.price_hash or sku_id,
        "SkuPriceDetails": json.dumps(details) if details else None,
    }


def _describe(item: LineItem) -> str:
    terms = ", ".join(f"{name} {value}" for name, value in item.terms)
    return f"{item.type}{f' of {item.model}' if item.model else ''}{f' ({terms})' if terms else ''}"


def _common_columns(record: Mapping[str, object]) -> Charge:
    """Return the columns that all charges of a record have; the others are null unless a charge sets them."""
    participant, user = _text(record["participant"]), _text(record["user"])
    provider = str(record["provider"])
    return {
        **dict.fromkeys(COLUMNS),
        **_periods(record),
        "BillingAccountId": str(record["project_id"]),
        "BillingAccountType": "Project",
        "BillingCurrency": "USD",
        "HostProviderName": provider,
        "InvoiceIssuerName": _ISSUER,
        "ServiceCategory": "AI and Machine Learning",
        "ServiceSubcategory": "Generative AI",
        "ServiceName": f"{provider} API",
        "ServiceProviderName": provider,
        "SubAccountId": participant or user,
        "SubAccountType": "Participant" if participant else "User" if user else None,
        "Tags": _tags(record),
        "x_AgentSession": _text(record["agent_session"]),
        "x_Basis": _text(record["basis"]),
        "x_EndUser": _text(record["end_user"]),
        "x_Endpoint": _text(record["endpoint"]),
        "x_Model": _text(record["model"]) or _text(record["model_requested"]),
        "x_ProviderKey": _text(record["provider_key"]),
        "x_Repository": _text(record["repository"]),
        "x_RequestId": str(record["request_id"]),
        "x_RetryOf": _text(record["retry_of"]),
        "x_Room": _text(record["room"]),
    }


def _periods(record: Mapping[str, object]) -> Charge:
    """Return the charge period, in whole seconds, and the billing period, a month.

    Figures that became known after the month of the request correct a month that may be closed: they belong to the
    month in which they became known.
    """
    begin = datetime.fromisoformat(str(record["started_at"])).astimezone(UTC)
    end = datetime.fromisoformat(str(record["ended_at"] or record["started_at"])).astimezone(UTC)
    settled_at = _text(record["settled_at"])
    settled = begin if settled_at is None else datetime.fromisoformat(settled_at).astimezone(UTC)
    begin_s, settled_month = (
        begin.replace(microsecond=0),
        settled.replace(day=1, hour=0, minute=0, second=0, microsecond=0),
    )
    is_correction = (settled.year, settled.month) > (begin.year, begin.month)
    month = settled_month if is_correction else begin.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return {
        "ChargePeriodStart": _format(begin_s),
        "ChargePeriodEnd": _format(max(end, begin).replace(microsecond=0) + timedelta(seconds=1)),
        "BillingPeriodStart": _format(month),
        "BillingPeriodEnd": _format((month + timedelta(days=32)).replace(day=1)),
        "ChargeClass": "Correction" if is_correction else None,
    }


def _format(time: datetime) -> str:
    return f"{time:%Y-%m-%dT%H:%M:%SZ}"


def _tags(record: Mapping[str, object]) -> str | None:
    """Return the labels, which the operator sets, and the annotations, which clients set, under a prefix."""
    labels: dict[str, str] = json.loads(_text(record["labels"]) or "{}")
    annotations: dict[str, str] = json.loads(_text(record["annotations"]) or "{}")
    tags = {**labels, **{f"annotation/{name}": value for name, value in annotations.items()}}
    return json.dumps(tags, sort_keys=True) if tags else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
