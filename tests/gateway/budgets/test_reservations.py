"""The reservations of requests as values."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from msgspec import structs

from tests.gateway.budgets.test_gate import BUDGET, MONTH, authenticate, open_gateway
from tornado_proxy.domain.budgets.budget import Budget, BudgetChange
from tornado_proxy.domain.budgets.counter import TOKEN_TOTAL
from tornado_proxy.domain.state import State
from tornado_proxy.gateway.budgets.reservations import make_check

PER_TOKEN = Budget(TOKEN_TOTAL, Decimal(9))
OF_TOKEN = Budget(TOKEN_TOTAL, Decimal(2), subject="t1")


def test_change_of_a_limit_is_in_force_for_the_next_request_and_until_its_end() -> None:
    context = authenticate(asyncio.run(open_gateway(BUDGET, PER_TOKEN)))
    caller = replace(context.caller, token_ids=("t1",), token_budgets=(OF_TOKEN,))
    now = datetime.now(UTC)
    lifted = BudgetChange(caller.project_id, TOKEN_TOTAL, None, None, None, now, "admin")
    raised = replace(lifted, kind=MONTH, limit=Decimal(800), until=now + timedelta(hours=1))
    changed = replace(context.snapshot, state=State(budget_changes={caller.project_id: (lifted, raised)}))
    before = structs.replace(context, caller=caller)
    after = structs.replace(before, snapshot=changed)

    for _ in range(2):  # the second time from the facts that are kept
        assert make_check(before, now).budgeted.budgets == (BUDGET, PER_TOKEN, OF_TOKEN)
        assert make_check(after, now).budgeted.budgets == (replace(BUDGET, limit=Decimal(800)), OF_TOKEN)
    assert make_check(after, now + timedelta(hours=2)).budgeted.budgets == (BUDGET, OF_TOKEN)


def test_agent_sessions_of_a_caller_are_charged_apart() -> None:
    context = authenticate(asyncio.run(open_gateway(BUDGET)))
    stated = structs.replace(
        context, stated=structs.replace(context.stated, values={"x-claude-code-session-id": "7f3c"})
    )
    now = datetime.now(UTC)

    sessions = [make_check(one, now).budgeted.spender.agent_session for one in (context, stated, context)]

    assert sessions == [None, "7f3c", None]
