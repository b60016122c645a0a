"""Requests within the budgets of their project, with fake counters."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from msgspec import structs

from tests.gateway.fakes import Gateway, make_project, make_snapshot, request_head
from tests.ledger.sample_records import make_intent
from tornado_proxy.domain.budgets.budget import Budget
from tornado_proxy.domain.budgets.counter import CounterKind, CounterState, Interval, Period, Scope
from tornado_proxy.domain.budgets.refusal import BudgetRefusal
from tornado_proxy.domain.errors import BadRequest, BudgetExceeded, BudgetReserved, LedgerUnavailable, RequestError
from tornado_proxy.gateway.admission.amendment import amend
from tornado_proxy.gateway.context import RequestContext, start_request

MONTH = CounterKind(Scope.PROJECT, Period.MONTH)
BUDGET = Budget(MONTH, Decimal(500))
PARTICIPANT = Budget(CounterKind(Scope.PARTICIPANT, Period.DAY), Decimal("0.5"))

ID = "req_1"
NOW = datetime.now(UTC)
BODY = b'{"model":"gpt-4o-mini","max_tokens":10,"messages":[{"role":"user","content":"hi"}]}'


def refusal(settled: str, reserved: str = "0", bound: str = "0.1", budget: Budget = BUDGET) -> BudgetRefusal:
    """Return the refusal of a budget whose period ends in an hour."""
    now = datetime.now(UTC)
    counter = CounterState(
        budget.kind, "project", "", Interval(now, now + timedelta(hours=1)), Decimal(settled), Decimal(reserved)
    )
    return BudgetRefusal(budget, counter, Decimal(bound))


async def open_gateway(*budgets: Budget, **members: Any) -> Gateway:
    """Return the gateway of a project with these budgets, which are counted."""
    gateway = Gateway(make_snapshot(projects=[make_project(budgets=budgets, **members)]))
    await gateway.budgets.follow(gateway.snapshot)
    return gateway


def authenticate(gateway: Gateway, path: str = "/v1/chat/completions", method: str = "POST") -> RequestContext[Any]:
    """Return the context of a request of the project."""
    context = gateway.admission.authenticate(gateway.snapshot, request_head(path, method=method))
    assert isinstance(context, RequestContext)
    return context


async def admit(gateway: Gateway, body: bytes = BODY) -> RequestError | None:
    """Admit a chat request; return the error of its refusal."""
    try:
        await gateway.admit(authenticate(gateway), body, ID)
    except RequestError as error:
        return error
    return None


def test_request_reserves_its_bound_for_its_caller() -> None:
    async def run() -> None:
        gateway = await open_gateway(BUDGET, labels={"team": "a"})
        assert await admit(gateway) is None
        reserved = gateway.keeper.reserved[ID]
        assert (reserved.budgeted.spender.participant, reserved.budgeted.spender.labels) == ("ada", (("team", "a"),))
        assert reserved.budgeted.budgets == (BUDGET,)
        # 84 bytes and 4,096 hidden tokens at 0.15, 10 tokens of output at 0.60 per million; 5 % on top.
        expected = Decimal(len(BODY) + 4096) * Decimal("0.15") / 1_000_000 + Decimal("0.000006")
        assert Decimal(0) <= reserved.bound.subtotal - expected < Decimal("1e-8")
        assert Decimal(0) <= reserved.bound.total - reserved.bound.subtotal * Decimal("1.05") <= Decimal("1e-12")

    asyncio.run(run())


def test_bound_that_the_last_fields_of_a_form_raise_is_in_the_ledger() -> None:
    async def run() -> None:
        gateway = await open_gateway(BUDGET)
        context = authenticate(gateway)
        admitted = await gateway.admit(context, BODY, ID)
        first = admitted.intent.bound
        facts = structs.replace(admitted.facts, body_bytes=1_000_000)

        amended = await amend(gateway.services(), admitted, context, facts)

        assert amended.intent.bound is not None
        assert first is not None
        assert Decimal(amended.intent.bound.total) == gateway.keeper.reserved[ID].bound.total > Decimal(first.total)
        assert [intent.bound for intent in gateway.ledger.begun] == [first, amended.intent.bound]

    asyncio.run(run())


def test_request_whose_intent_cannot_be_stored_is_released() -> None:
    async def run() -> None:
        gateway = await open_gateway(BUDGET)
        gateway.ledger.fail("full")
        assert isinstance(await admit(gateway), LedgerUnavailable)
        assert gateway.keeper.reserved == {}

    asyncio.run(run())


def test_spent_budget_is_402_until_the_end_of_its_period() -> None:
    async def run() -> None:
        gateway = await open_gateway(BUDGET)
        gateway.keeper.refusal = refusal("500.12")
        error = await admit(gateway)
        assert isinstance(error, BudgetExceeded)
        assert error.message.startswith(
            "the budget of project first for this month is spent: 500.12 of 500.00 USD until"
        )
        assert error.message.endswith("ask an admin of project first to raise it")
        assert gateway.ledger.begun == []

    asyncio.run(run())


def test_refusal_is_not_used_for_the_next_period() -> None:
    async def run() -> None:
        gateway = await open_gateway(BUDGET)
        refused = refusal("500")
        end = datetime.now(UTC) + timedelta(milliseconds=100)
        interval = Interval(end - timedelta(hours=1), end)
        gateway.keeper.refusal = replace(refused, counter=replace(refused.counter, interval=interval))
        assert isinstance(await admit(gateway), BudgetExceeded)
        gateway.keeper.refusal = None
        await asyncio.sleep(0.15)

        assert await admit(gateway) is None

    asyncio.run(run())


def test_spent_budget_names_all_decimals_of_its_limit_and_when_a_higher_one_returns() -> None:
    async def run() -> None:
        soon = datetime(2026, 11, 28, 12, 30, tzinfo=UTC)
        lowered = replace(BUDGET, limit=Decimal("0.0123"), lowered_until=soon, limit_then=Decimal(500))
        gateway = await open_gateway(lowered)
        gateway.keeper.refusal = refusal("0.014049391875", budget=lowered)
        error = await admit(gateway)
        assert isinstance(error, BudgetExceeded)
        assert "is spent: 0.0140 of 0.0123 USD until 2026-11-28T12:30:00Z; ask" in error.message

    asyncio.run(run())


@pytest.mark.parametrize(
    ("settled", "strict", "until"),
    [
        pytest.param("9.99", False, "2026-11-28T12:30:00Z", id="below the higher limit"),
        pytest.param("10", False, "2026-12-01T00:00:00Z", id="at the higher limit"),
        pytest.param("9.9", True, "2026-11-28T12:30:00Z", id="strict, and the request fits"),
        pytest.param("9.91", True, "2026-12-01T00:00:00Z", id="strict, and the request does not fit"),
    ],
)
def test_end_of_a_lower_limit_is_named_only_if_the_higher_one_is_not_spent(
    settled: str, strict: bool, until: str
) -> None:
    async def run() -> None:
        soon, end = datetime(2026, 11, 28, 12, 30, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)
        lowered = Budget(MONTH, Decimal(5), strict=strict, lowered_until=soon, limit_then=Decimal(10))
        gateway = await open_gateway(lowered)
        refused = refusal(settled, bound="0.1", budget=lowered)
        counter = replace(refused.counter, interval=Interval(datetime(2026, 11, 1, tzinfo=UTC), end))
        gateway.keeper.refusal = replace(refused, counter=counter)
        error = await admit(gateway)
        assert isinstance(error, BudgetExceeded)
        assert f" of 5.00 USD until {until}; ask" in error.message

    asyncio.run(run())


def test_reservations_in_the_way_are_429_and_end_soon() -> None:
    async def run() -> None:
        gateway = await open_gateway(BUDGET)
        gateway.keeper.refusal = refusal("499", "1")
        error = await admit(gateway)
        assert isinstance(error, BudgetReserved)
        assert "1.00 of 500.00 USD left, and requests under way can cost 1.00 USD" in error.message
        assert not error.final

    asyncio.run(run())


def test_strict_request_that_is_too_large_is_told_its_bound_and_the_rest() -> None:
    async def run() -> None:
        strict = replace(BUDGET, strict=True)
        gateway = await open_gateway(strict)
        gateway.keeper.refusal = refusal("499.5", bound="0.75", budget=strict)
        error = await admit(gateway)
        assert isinstance(error, BudgetExceeded)
        assert "0.50 of 500.00 USD left" in error.message
        assert "this request can cost 0.75 USD" in error.message

    asyncio.run(run())


def test_repeated_request_is_refused_without_a_look_at_the_counters() -> None:
    async def run() -> None:
        gateway = await open_gateway(BUDGET)
        gateway.keeper.refusal = refusal("500")
        for _ in range(10):
            assert isinstance(await admit(gateway), BudgetExceeded)
        assert gateway.keeper.asked == 1
        # Another configuration may have raised the limit.
        gateway.keeper.refusal = None
        await gateway.budgets.follow(gateway.snapshot)
        assert await admit(gateway) is None

    asyncio.run(run())


def test_refusal_of_reservations_is_not_kept() -> None:
    async def run() -> None:
        gateway = await open_gateway(BUDGET)
        gateway.keeper.refusal = refusal("499", "1")
        assert isinstance(await admit(gateway), BudgetReserved)
        gateway.keeper.refusal = None
        assert await admit(gateway) is None

    asyncio.run(run())


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/models", b""),
        ("POST", "/anthropic/v1/messages/count_tokens", b'{"model":"claude-sonnet-5","messages":[]}'),
        ("POST", "/v1/responses/input_tokens", b'{"model":"gpt-4o-mini","input":"hi"}'),
    ],
)
def test_free_requests_need_no_budget(method: str, path: str, body: bytes) -> None:
    async def run() -> None:
        gateway = await open_gateway(BUDGET)
        gateway.keeper.refusal = refusal("500")
        await gateway.admit(authenticate(gateway, path, method), body, ID)
        assert gateway.keeper.asked == 0

    asyncio.run(run())


def test_project_without_budgets_has_the_default_ones() -> None:
    async def run(own: tuple[Budget, ...] | None) -> tuple[Budget, ...] | None:
        project = make_project(budgets=own)
        settings = make_snapshot(projects=[project], budgets={"default": (PARTICIPANT,)})
        gateway = Gateway(settings)
        await gateway.budgets.follow(gateway.snapshot)
        await admit(gateway)
        return gateway.keeper.reserved[ID].budgeted.budgets if ID in gateway.keeper.reserved else None

    assert asyncio.run(run(None)) == (PARTICIPANT,)
    assert asyncio.run(run((BUDGET,))) == (BUDGET,)
    assert asyncio.run(run(())) is None


def test_nothing_is_opened_without_budgets() -> None:
    async def run() -> None:
        gateway = await open_gateway()
        assert await admit(gateway) is None
        await gateway.budgets.close()
        assert gateway.keeper.plans == []

    asyncio.run(run())


def test_budget_of_a_configuration_that_is_not_counted_yet_admits_nothing() -> None:
    async def run() -> None:
        gateway = Gateway(make_snapshot(projects=[make_project(budgets=(BUDGET,))]))
        assert isinstance(await admit(gateway), LedgerUnavailable)

    asyncio.run(run())


def test_model_without_limits_is_refused_with_the_remedy() -> None:
    async def run() -> None:
        gateway = await open_gateway(BUDGET)
        context = authenticate(gateway)
        facts = (await gateway.bodies.parse(context, BODY)).facts
        unknown = structs.replace(
            facts, spends=tuple(structs.replace(spend, model="gpt-unlimited") for spend in facts.spends)
        )
        with pytest.raises(BadRequest, match="states no limits"):
            gateway.budgets.reserve(context, context.tariff, unknown, start_request(context, unknown, ID, NOW))

    asyncio.run(run())


def test_session_opens_while_money_is_left() -> None:
    async def run() -> None:
        gateway = await open_gateway(BUDGET)
        context = authenticate(gateway)
        await gateway.budgets.check(context)
        gateway.keeper.refusal = refusal("499", "1")
        await gateway.budgets.check(context)
        gateway.keeper.refusal = refusal("500")
        with pytest.raises(BudgetExceeded):
            await gateway.budgets.check(context)

    asyncio.run(run())


def test_work_that_runs_is_reserved_although_the_budget_is_spent() -> None:
    async def run() -> None:
        gateway = await open_gateway(BUDGET)
        gateway.keeper.refusal = refusal("500")
        context = authenticate(gateway)
        facts = (await gateway.bodies.parse(context, BODY)).facts
        intent, error = await gateway.budgets.reserve_running(context, context.tariff, facts, make_intent(ID))
        assert isinstance(error, BudgetExceeded)
        assert gateway.keeper.reserved[ID].forced
        # The ledger has the bound: should this process die, another one holds it.
        assert intent.bound == gateway.keeper.reserved[ID].bound.state()

    asyncio.run(run())
