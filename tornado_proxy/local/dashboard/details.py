"""The bill of one request as lines of text, in the order of `tornado-proxy explain`."""

from __future__ import annotations

from collections.abc import Iterator

from tornado_proxy.domain.cost import SURCHARGE
from tornado_proxy.local.dashboard.cells import (
    show_block,
    show_count,
    show_duration,
    show_exact,
    show_line,
    show_mark,
    show_time,
)
from tornado_proxy.local.dashboard.messages import Finished, Item


def describe_request(finished: Finished) -> Iterator[str]:
    """Yield the lines about a request: its facts, its line items, and messages about it."""
    yield f"request    {show_line(finished.request_id)}"
    if finished.session:
        yield f"session    {show_line(finished.session)}"
    yield f"ended      {show_time(finished.ended_at)} after {show_duration(finished.duration_ms)}"
    yield f"first byte {show_duration(finished.first_byte_ms)}"
    yield f"sent       {show_line(f'{finished.method} {finished.path} ({finished.provider})')}"
    yield f"status     {finished.status or '-'} ({finished.outcome})"
    yield f"model      {show_line(finished.model or '-')}"
    yield f"tokens     {show_count(finished.tokens)}"
    yield f"basis      {show_mark(finished.basis)}{finished.basis}"
    yield ""
    rate = ""
    for item in finished.items:
        if item.type == SURCHARGE:
            rate = f" ({item.unit_price} of the subtotal)"
        else:
            yield from _describe_item(item)
    yield f"subtotal   {show_exact(finished.subtotal)}"
    yield f"surcharge  {show_exact(finished.surcharge)}{rate}"
    yield f"total      {show_mark(finished.basis)}{show_exact(finished.total)}"
    for text in (*finished.notes, finished.message):
        if text:
            yield ""
            yield show_block(text)


def _describe_item(item: Item) -> Iterator[str]:
    model = f" ({show_line(item.model)})" if item.model else ""
    yield f"{show_line(item.type)}{model}"
    unit = item.unit.replace("_", " ")
    price = "no price" if item.unit_price is None else f"{item.unit_price:f} {unit}"
    yield f"    {item.quantity:f} x {price} = {show_exact(item.amount)}"
