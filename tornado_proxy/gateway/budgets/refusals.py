"""The error of a request that a budget does not admit: how much of what was spent, until when, and whom to ask."""

from __future__ import annotations

from decimal import Decimal

from tornado_proxy.domain.budgets.budget import Budget
from tornado_proxy.domain.budgets.counter import Period, Scope
from tornado_proxy.domain.budgets.refusal import BudgetRefusal
from tornado_proxy.domain.errors import BudgetExceeded, BudgetReserved, RequestError
from tornado_proxy.gateway.context import RequestContext
from tornado_proxy.providers.contract import Endpoint

_CENT = Decimal("0.01")


def make_budget_error(refusal: BudgetRefusal, context: RequestContext[Endpoint]) -> RequestError:
    """Return the error of a refusal."""
    budget, counter = refusal.budget, refusal.counter
    name = f"{_describe_owner(budget, counter.subject, context)} {_describe_period(budget.kind.period)}"
    ask = (
        f"ask an admin of project {context.project.name} to raise it"
        if budget.subject is None
        else "use another token, or ask for one with a larger budget"
    )

    def show(amount: Decimal) -> str:
        return format_usd(amount, _count_decimals(budget.limit))

    left = f"{show(budget.limit - counter.settled)} of {show(budget.limit)}"
    if not refusal.exhausted:
        return BudgetReserved(
            f"{name} has {left} USD left, and requests under way can cost {show(counter.reserved)} USD; "
            "send the request again in a moment"
        )
    until = "" if refusal.ends_at is None else f" until {refusal.ends_at:%Y-%m-%dT%H:%M:%SZ}"
    if counter.settled < budget.limit:
        return BudgetExceeded(
            f"{name} has {left} USD left{until}, and this request can cost {show(refusal.bound)} USD; "
            f"make it smaller, such as by limits of output tokens and tool calls, or {ask}",
        )
    return BudgetExceeded(f"{name} is spent: {show(counter.settled)} of {show(budget.limit)} USD{until}; {ask}")


def _describe_owner(budget: Budget, subject: str, context: RequestContext[Endpoint]) -> str:
    match budget.kind.scope:
        case Scope.PROJECT:
            return f"the budget of project {context.project.name}"
        case Scope.LABEL:
            return f"the budget of {budget.kind.label} {subject}"
        case Scope.ACCESS_KEY:
            return f"the budget of access key {subject}"
        case Scope.TOKEN:
            return f"the budget of token {subject}"
        case Scope.AGENT_SESSION:
            return f"the budget of agent session {subject}"
        case Scope.PARTICIPANT | Scope.USER:
            return f"the budget of {subject}"


def _describe_period(period: Period) -> str:
    return "in total" if period is Period.TOTAL else f"for this {period}"


def _count_decimals(amount: Decimal) -> int:
    exponent = amount.normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def format_usd(amount: Decimal, min_decimals: int = 0) -> str:
    """Return an amount for people: whole cents, or six digits if it is smaller, or more of both."""
    decimals = 2 if amount == 0 or abs(amount) >= _CENT else 6
    return f"{amount:.{max(decimals, min_decimals)}f}"
