"""Bounds that the requests of a caller share, and the slices from which these reserve."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.gateway.budgets.test_gate import BUDGET, authenticate, open_gateway
from tests.gateway.fakes import Gateway
from tornado_proxy.domain.attribution import Attribution
from tornado_proxy.domain.budgets.counter import CounterKind, Period, Scope
from tornado_proxy.domain.cost import StatedBound
from tornado_proxy.gateway.context import RequestStart

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)


def make_body(letters: int, model: str = "gpt-4o-mini") -> bytes:
    """Return a chat request with as many letters."""
    return b'{"model":"%s","max_tokens":10,"messages":[{"role":"user","content":"%s"}]}' % (
        model.encode(),
        b"x" * letters,
    )


async def reserve(
    gateway: Gateway, request_id: str, body: bytes, *, at: datetime = NOON, agent_session: str | None = None
) -> StatedBound:
    """Reserve for a chat request; return the bound that its intent states."""
    context = authenticate(gateway)
    facts = (await gateway.bodies.parse(context, body)).facts
    start = RequestStart(request_id, at, Attribution(agent_session=agent_session))
    reserved = gateway.budgets.reserve(context, context.tariff, facts, start)
    stated = reserved if reserved is None or isinstance(reserved, StatedBound) else await reserved
    assert stated is not None
    return stated


def lease(gateway: Gateway, usd: int = 10) -> None:
    """Lease an amount of each counter that requests have asked for."""
    slices = gateway.keeper.slices
    slices.renew(time.monotonic())
    slices.grant(dict.fromkeys(slices.slices, Decimal(usd)))


def list_taken(gateway: Gateway, request_ids: Iterable[str]) -> list[bool]:
    """Return True for each of the requests that has reserved from slices."""
    return [request_id in gateway.keeper.slices.requests for request_id in request_ids]


def test_requests_of_about_the_same_length_share_a_bound_above_their_own() -> None:
    async def run() -> None:
        gateway = await open_gateway(BUDGET)
        exact = await reserve(gateway, "first", make_body(10))
        lease(gateway)
        shared = [await reserve(gateway, f"{letters}", make_body(letters)) for letters in (10, 40, 300)]
        assert shared[0] is shared[1]
        assert Decimal(exact.total) < Decimal(shared[0].total) < Decimal(shared[2].total)
        assert list_taken(gateway, ["first", "10", "40", "300"]) == [False, True, True, True]
        # What is stated is what is reserved: should the process die, another one holds it.
        reserved = gateway.keeper.slices.requests["300"]
        assert shared[2] == reserved.bound.state()
        assert list(reserved.amounts.values()) == [reserved.bound.total]

    asyncio.run(run())


def test_database_decides_by_the_bound_of_the_request_alone() -> None:
    async def run() -> None:
        gateway = await open_gateway(BUDGET)
        first = await reserve(gateway, "first", make_body(10))
        again = await reserve(gateway, "again", make_body(11))  # nothing is leased yet
        # One byte at 0.15 per million, and 5 %.
        assert Decimal(again.total) - Decimal(first.total) == Decimal("0.15") / 1_000_000 * Decimal("1.05")
        assert gateway.keeper.reserved["again"].bound.state() == again

    asyncio.run(run())


@pytest.mark.parametrize(
    "changed",
    [
        {"body": make_body(10, "gpt-4o")},
        {"body": make_body(10).replace(b":10,", b":20,")},
        {"body": make_body(10).replace(b"{", b'{"service_tier":"priority",', 1)},
        {"agent_session": "another"},
    ],
)
def test_requests_that_differ_share_nothing(changed: dict[str, Any]) -> None:
    async def run() -> None:
        gateway = await open_gateway(BUDGET)
        await reserve(gateway, "first", make_body(10))
        lease(gateway)
        stated = [
            await reserve(gateway, "one", make_body(10)),
            await reserve(gateway, "other", **{"body": make_body(10), **changed}),
        ]
        assert stated[0] is not stated[1]
        assert (stated[0] == stated[1]) == ("agent_session" in changed)

    asyncio.run(run())


def test_next_hour_has_a_counter_of_its_own() -> None:
    async def run() -> None:
        hourly = replace(BUDGET, kind=CounterKind(Scope.PROJECT, Period.HOUR))
        gateway = await open_gateway(hourly)
        slices, last = gateway.keeper.slices, NOON + timedelta(hours=1, microseconds=-1)
        await reserve(gateway, "first", make_body(10))
        lease(gateway)
        await reserve(gateway, "last", make_body(10), at=last)
        await reserve(gateway, "next", make_body(10), at=NOON + timedelta(hours=1))
        assert list_taken(gateway, ["last", "next"]) == [True, False]
        assert [key.period_begin for key in slices.slices] == ["2026-11-28T12:00:00.000Z", "2026-11-28T13:00:00.000Z"]

    asyncio.run(run())


def test_slice_that_was_dropped_in_a_pause_is_leased_again() -> None:
    async def run() -> None:
        gateway = await open_gateway(BUDGET)
        slices = gateway.keeper.slices
        await reserve(gateway, "first", make_body(10))
        lease(gateway)
        await reserve(gateway, "taken", make_body(10))
        (one,) = slices.slices.values()
        slices.count(["taken"])
        later = time.monotonic() + 60
        assert slices.list_due(later) == [one.key]
        slices.settle_lease(one.key, Decimal(0), later)  # nothing is left: all of it goes back
        assert slices.list_due(later + 60) == []
        assert slices.slices == {}

        await reserve(gateway, "after the pause", make_body(10))
        lease(gateway)
        await reserve(gateway, "last", make_body(10))
        assert list_taken(gateway, ["after the pause", "last"]) == [False, True]
        assert list(slices.slices.values()) == [one]  # no second one of its counter

    asyncio.run(run())


def test_callers_of_a_project_share_its_slice_also_after_it_was_dropped() -> None:
    async def run() -> None:
        gateway = await open_gateway(BUDGET)
        slices = gateway.keeper.slices
        await reserve(gateway, "ada", make_body(10))
        (one,) = slices.slices.values()
        del slices.slices[one.key]
        await reserve(gateway, "bob", make_body(10), agent_session="of another caller")
        assert list(slices.slices.values()) == [one]

    asyncio.run(run())


def test_reservations_shared_by_clients_are_limited_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tornado_proxy.gateway.budgets.shared_bounds._MAX_KEPT", 8)

    async def run() -> None:
        gateway = await open_gateway(BUDGET)
        for number in range(30):
            await reserve(gateway, f"{number}", make_body(10), agent_session=f"{number}")
        assert len(gateway.snapshot.caches["tornado_proxy.gateway.budgets.shared_bounds"]) <= 8

    asyncio.run(run())
