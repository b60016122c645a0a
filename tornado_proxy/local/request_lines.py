"""Shows requests without a dashboard: a line for each one, as text or JSON, and the totals at the end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal

from tornado_proxy.domain.cost import ZERO, LineItem
from tornado_proxy.domain.errors import RequestError
from tornado_proxy.domain.record import RequestRecord
from tornado_proxy.domain.text import count_noun
from tornado_proxy.domain.usage import Basis
from tornado_proxy.gateway.recorder import RunningRequest
from tornado_proxy.observability.access_log import RequestLine
from tornado_proxy.wire.visible_text import escape_controls

_TOKENS = "_tokens"
_MICRO = Decimal("0.000001")


@dataclass(slots=True)
class Totals:
    """The sums of all requests; `refused` counts those that the local proxy refused itself, which are no requests."""

    requests: int = 0
    subtotal: Decimal = ZERO
    surcharge: Decimal = ZERO
    total: Decimal = ZERO
    refused: int = 0

    def add(self, record: RequestRecord) -> None:
        """Add a request."""
        self.requests += 1
        self.subtotal += record.cost.subtotal
        self.surcharge += record.cost.surcharge
        self.total += record.cost.total

    def describe(self) -> str:
        """Return the last line: N requests, subtotal, surcharge, total."""
        amounts = f"{usd(self.subtotal)} subtotal, {usd(self.surcharge)} surcharge, {usd(self.total)} total"
        return f"{count_noun(self.requests, 'request')}, {amounts}"


@dataclass(slots=True)
class RequestLines:
    """Prints requests; `as_json` for programs.  `write` gets each line, without its end."""

    write: Callable[[str], None]
    as_json: bool = False
    totals: Totals = field(default_factory=Totals)

    def on_running(self, running: RunningRequest) -> None:
        """Do nothing: a request has a line when it has ended."""

    def on_ended(self, request_id: str) -> None:
        """Do nothing: the record comes next."""

    def on_record(self, record: RequestRecord, message: str) -> None:
        """Show a request that has ended."""
        self.totals.add(record)
        self.write(json.dumps(describe_record(record)) if self.as_json else format_record(record))

    def on_refusal(self, error: RequestError, line: RequestLine) -> None:
        """Show a request that the local proxy has refused itself."""
        self.totals.refused += 1
        if self.as_json:
            members = {"time": _timestamp(datetime.now(UTC)), "status": error.status, "method": line.method}
            self.write(json.dumps({**members, "path": line.path, "error": error.code, "message": error.message}))
        else:
            text = f"{datetime.now():%H:%M:%S} {error.status} {line.method} {line.path} {error.code}: {error.message}"  # noqa: DTZ005  # the person's own time
            self.write(_show(text))

    def finish(self) -> None:
        """Show the totals."""
        totals = self.totals
        if self.as_json:
            amounts = {name: f"{getattr(totals, name):f}" for name in ("subtotal", "surcharge", "total")}
            self.write(json.dumps({"requests": totals.requests, **amounts, "refused": totals.refused}))
        else:
            self.write(totals.describe())


def count_tokens(record: RequestRecord) -> int:
    """Return the tokens of all kinds that a request used."""
    return count_item_tokens(record.cost.line_items)


def count_item_tokens(items: Iterable[LineItem]) -> int:
    """Return the tokens of all kinds in the items of a bill."""
    return int(sum((item.quantity for item in items if item.type.endswith(_TOKENS)), ZERO))


def usd(amount: Decimal) -> str:
    """Return an amount with at least six decimals, and all that it has."""
    exponent = amount.normalize().as_tuple().exponent
    assert isinstance(exponent, int), "an amount is finite"
    return f"${amount.normalize() if exponent < -6 else amount.quantize(_MICRO):f}"


def format_record(record: RequestRecord) -> str:
    """Return `HH:MM:SS status method path model tokens usd ms`; ~ marks an estimate, ! an unknown cost."""
    mark = {Basis.ESTIMATED: "~", Basis.INFERRED: "~", Basis.UNSETTLED: "!", Basis.PENDING: "!"}.get(record.basis, "")
    intent = record.intent
    words = (
        f"{record.ended_at.astimezone():%H:%M:%S}",
        str(record.status or "-"),
        intent.method,
        intent.endpoint,
        record.model or "-",
        str(count_tokens(record)),
        mark + usd(record.cost.total),
        f"{_milliseconds(intent.started_at, record.ended_at)}ms",
    )
    return _show(" ".join(words))


def describe_record(record: RequestRecord) -> dict[str, object]:
    """Return a request for programs; amounts are text."""
    intent, cost = record.intent, record.cost
    return {
        "time": _timestamp(record.ended_at),
        "status": record.status,
        "method": intent.method,
        "path": intent.endpoint,
        "provider": intent.provider,
        "model": record.model,
        "tokens": count_tokens(record),
        "subtotal": f"{cost.subtotal:f}",
        "surcharge": f"{cost.surcharge:f}",
        "total": f"{cost.total:f}",
        "basis": record.basis.value,
        "first_byte_ms": _milliseconds(intent.started_at, record.first_byte_at),
        "duration_ms": _milliseconds(intent.started_at, record.ended_at),
        "request_id": intent.request_id,
    }


def _milliseconds(start: datetime, end: datetime | None) -> int | None:
    return None if end is None else round((end - start).total_seconds() * 1000)


def _timestamp(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _show(text: str) -> str:
    # A line feed in the name of a model would forge a line.
    return escape_controls(text).replace("\n", "\\n").replace("\t", "\\t")
