"""Bounds that the requests of a caller share, and the slices from which these reserve."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from msgspec import structs

from tests import harness
from tests.gateway.budgets.test_gate import BUDGET, open_gateway
from tests.gateway.fakes import Gateway, make_project, make_snapshot, request_head
from tornado_proxy.domain.attribution import Attribution
from tornado_proxy.domain.budgets.budget import BudgetChange
from tornado_proxy.domain.budgets.counter import CounterKind, Period, Scope
from tornado_proxy.domain.budgets.rate_limits import ProjectLimits, RateUnit
from tornado_proxy.domain.cost import StatedBound
from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.domain.terms import Terms
from tornado_proxy.domain.usage import Meter, Quantity
from tornado_proxy.gateway.context import RequestContext, RequestStart, renew_context
from tornado_proxy.pricing.book.price_book import Tariff

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)
LIMITS = ProjectLimits({RateUnit.REQUESTS: 600})


def make_body(letters: int, model: str = "gpt-4o-mini") -> bytes:
    """Return a chat request with as many letters."""
    text = "x" * letters
    return f'{{"model":"{model}","max_tokens":10,"messages":[{{"role":"user","content":"{text}"}}]}}'.encode()


class Client:
    """A caller, whose requests reserve without being sent."""

    def __init__(self, gateway: Gateway, participant: str = "ada") -> None:
        self.gateway = gateway
        self.slices = gateway.keeper.slices
        token = harness.mint(name=participant)
        context = gateway.admission.authenticate(gateway.snapshot, request_head("/v1/chat/completions", token=token))
        assert isinstance(context, RequestContext)
        self.context: RequestContext[Any] = context

    async def reserve(
        self,
        request_id: str,
        body: bytes | None = None,
        *,
        at: datetime = NOON,
        agent_session: str | None = None,
        tariff: Tariff | None = None,
        **facts: Any,
    ) -> StatedBound:
        """Reserve for a chat request, with `facts` replaced; return the bound that its intent states."""
        parsed = (await self.gateway.bodies.parse(self.context, make_body(10) if body is None else body)).facts
        changed: RequestFacts = structs.replace(parsed, **facts)
        start = RequestStart(request_id, at, Attribution(agent_session=agent_session))
        reserved = self.gateway.budgets.reserve(self.context, tariff or self.context.tariff, changed, start)
        stated = await reserved if isinstance(reserved, Awaitable) else reserved
        assert stated is not None
        return stated

    def lease(self, usd: int = 10) -> None:
        """Lease an amount of each counter that requests have asked for."""
        self.slices.renew(time.monotonic())
        self.slices.grant(dict.fromkeys(self.slices.slices, Decimal(usd)))

    async def warm_up(self, **options: Any) -> None:
        """Send the requests after which others share what they reserve, and lease."""
        for number in range(2):
            await self.reserve(f"warm-up {number}", **options)
        self.lease()

    def has_taken(self, request_id: str) -> bool:
        """Return True if a request has reserved from slices."""
        return request_id in self.slices.requests


def run(test: Callable[[Client], Awaitable[None]], **members: Any) -> None:
    """Run a test with a caller of a project that has a budget, and these members."""

    async def run_test() -> None:
        await test(Client(await open_gateway(*members.pop("budgets", (BUDGET,)), **members)))

    asyncio.run(run_test())


def test_requests_of_about_the_same_length_share_a_bound_above_their_own() -> None:
    async def check(client: Client) -> None:
        exact = await client.reserve("first")
        await client.warm_up()
        shared = [await client.reserve(f"{letters}", make_body(letters)) for letters in (10, 40, 300)]
        assert shared[0] is shared[1]
        assert Decimal(exact.total) < Decimal(shared[0].total) < Decimal(shared[2].total)
        assert [client.has_taken(one) for one in ("first", "10", "40", "300")] == [False, True, True, True]
        # The intent states the amount that is reserved: another process holds it if this one dies.
        reserved = client.slices.requests["300"]
        assert shared[2] == reserved.bound.state()
        assert list(reserved.amounts.values()) == [reserved.bound.total]

    run(check)


def test_database_decides_by_the_bound_of_the_request_alone() -> None:
    async def check(client: Client) -> None:
        await client.reserve("unknown caller")
        first = await client.reserve("first", make_body(10))
        again = await client.reserve("again", make_body(11))  # nothing is leased yet
        # One byte at 0.15 per million, and 5 %.
        assert Decimal(again.total) - Decimal(first.total) == Decimal("0.15") / 1_000_000 * Decimal("1.05")
        assert client.gateway.keeper.reserved["again"].bound.state() == again
        assert not client.has_taken("again")

    run(check)


@pytest.mark.parametrize(
    "changed",
    [
        {"body": make_body(10, "gpt-4o")},
        {"body": make_body(10).replace(b":10,", b":20,")},
        {"body": make_body(10).replace(b"{", b'{"service_tier":"priority",', 1)},
        {"agent_session": "another"},
        {"terms": Terms(cache_ttl="1h")},
        {"inferred": (Quantity(Meter.WEB_SEARCHES, Decimal(1)),)},
        {"body_bytes": 0},
    ],
)
def test_requests_that_differ_share_nothing(changed: dict[str, Any]) -> None:
    async def check(client: Client) -> None:
        await client.warm_up()
        await client.reserve("known", **changed)
        one, other = await client.reserve("one"), await client.reserve("other", **changed)
        assert one is not other
        assert await client.reserve("one again") is one

    run(check)


def test_callers_share_nothing() -> None:
    async def check(ada: Client) -> None:
        bob = Client(ada.gateway, "bob")
        for client in (ada, bob, ada):
            await client.warm_up()
        await ada.reserve("of ada")
        await bob.reserve("of bob")
        subjects = [next(iter(ada.slices.requests[one].amounts)).subject for one in ("of ada", "of bob")]
        assert subjects == ["participant ada", "participant bob"]

    run(check, budgets=[replace(BUDGET, kind=CounterKind(Scope.PARTICIPANT, Period.MONTH))])


def test_tariffs_share_nothing() -> None:
    async def check(client: Client) -> None:
        dearer = replace(client.context.tariff, surcharge_rate=Decimal("0.5"))
        await client.warm_up()
        await client.warm_up(tariff=dearer)
        own, other = await client.reserve("own"), await client.reserve("other", tariff=dearer)
        assert own.subtotal == other.subtotal
        assert Decimal(own.total) < Decimal(other.total)
        # Two tariffs of one caller that take turns, as its sessions do.
        assert await client.reserve("own again") is own

    run(check)


def test_caller_that_is_made_for_each_request_shares_and_leaves_nothing() -> None:
    async def check(client: Client) -> None:
        for number in range(3):
            client.context = structs.replace(client.context, caller=replace(client.context.caller))
            await client.reserve(f"{number}")
        assert not client.context.snapshot.caches["tornado_proxy.gateway.budgets.shared_bounds"]

    run(check)


def test_limit_that_was_changed_is_not_passed_by_shared_bounds() -> None:
    async def check(client: Client) -> None:
        await client.warm_up()
        project_id = client.context.caller.project_id
        lowered = BudgetChange(project_id, BUDGET.kind, None, Decimal(1), None, NOON, "admin")
        standard = client.gateway.snapshot
        changed = replace(standard, state=replace(standard.state, budget_changes={project_id: (lowered,)}))
        client.context = renew_context(client.context, changed)
        await client.warm_up()
        await client.reserve("changed")
        assert not client.has_taken("changed")
        assert [budget.limit for budget in client.gateway.keeper.reserved["changed"].budgeted.budgets] == [1]

    run(check)


def test_limits_of_requests_are_taken_beside_a_budget() -> None:
    async def check(client: Client) -> None:
        await client.warm_up()
        await client.reserve("limited")
        assert not client.has_taken("limited")
        assert client.gateway.keeper.reserved["limited"].claims

        # A session that goes on after a reload gets limits, too.
        client = Client(await open_gateway(BUDGET))
        await client.warm_up()
        await client.reserve("before")
        limited = make_snapshot(projects=[make_project(budgets=(BUDGET,), limits=LIMITS)])
        client.context = renew_context(client.context, limited)
        await client.warm_up()
        await client.reserve("after")
        assert [client.has_taken("before"), client.has_taken("after")] == [True, False]

    run(check, limits=LIMITS)


def test_next_hour_has_a_counter_of_its_own() -> None:
    async def check(client: Client) -> None:
        await client.warm_up()
        await client.reserve("last", at=NOON + timedelta(hours=1, microseconds=-1))
        await client.reserve("next", at=NOON + timedelta(hours=1))
        assert [client.has_taken("last"), client.has_taken("next")] == [True, False]
        begins = [key.period_begin for key in client.slices.slices]
        assert begins == ["2026-11-28T12:00:00.000Z", "2026-11-28T13:00:00.000Z"]

    run(check, budgets=[replace(BUDGET, kind=CounterKind(Scope.PROJECT, Period.HOUR))])


def test_slice_that_was_dropped_in_a_pause_is_leased_again() -> None:
    async def check(client: Client) -> None:
        await client.warm_up()
        await client.reserve("taken")
        (one,) = client.slices.slices.values()
        client.slices.count(["taken"])
        later = time.monotonic() + 60
        assert client.slices.list_due(later) == [one.key]
        client.slices.begin_lease(one.key)
        client.slices.settle_lease(one.key, Decimal(0), later)  # nothing is left: all of it goes back
        assert client.slices.list_due(later + 60) == []
        assert client.slices.slices == {}

        await client.reserve("after the pause")
        client.lease()
        await client.reserve("last")
        assert [client.has_taken("after the pause"), client.has_taken("last")] == [False, True]
        assert list(client.slices.slices.values()) == [one]  # no second one of its counter

    run(check)


def test_slice_of_a_project_is_found_again_by_another_caller() -> None:
    async def check(ada: Client) -> None:
        await ada.warm_up()
        (one,) = ada.slices.slices.values()
        del ada.slices.slices[one.key]
        await Client(ada.gateway, "bob").warm_up()
        assert list(ada.slices.slices.values()) == [one]

    run(check)


def test_reservations_shared_by_clients_are_limited_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tornado_proxy.gateway.budgets.shared_bounds._MAX_KEPT", 8)

    async def check(client: Client) -> None:
        for number in range(30):
            await client.warm_up(agent_session=f"{number}")
        assert 0 < len(client.context.snapshot.caches["tornado_proxy.gateway.budgets.shared_bounds"]) <= 8

    run(check)
