"""Stores the budgets that tokens state when they are first used: lists and warnings of all processes need them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from tornado_proxy import tasks
from tornado_proxy.domain.budgets.budget import TokenBudget
from tornado_proxy.domain.errors import LedgerUnavailable
from tornado_proxy.domain.identity import Caller
from tornado_proxy.gateway.budgets.keeper import Keeper

#: Budgets that are remembered as stored.
_MAX_NOTED = 4096


class StatedBudgets:
    """The budgets of tokens that this process has stored."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._noted: OrderedDict[TokenBudget, None] = OrderedDict()

    def note(self, caller: Caller) -> None:
        """Store the budgets that a caller's token states, unless they are.  Never blocks."""
        if not caller.token_budgets:
            return
        new = [budget for budget in list_stated(caller) if budget not in self._noted]
        if new:
            self._noted |= dict.fromkeys(new)
            while len(self._noted) > _MAX_NOTED:
                self._noted.popitem(last=False)
            tasks.spawn(self._store(new), "budgets of tokens")

    async def _store(self, stated: Sequence[TokenBudget]) -> None:
        try:
            await self._keeper.read(lambda store: store.note_stated(stated))
        except LedgerUnavailable:  # the thread logs it; the next request of the token stores them
            for budget in stated:
                self._noted.pop(budget, None)


def list_stated(caller: Caller) -> list[TokenBudget]:
    """Return the budgets that a caller's token, and those that it was narrowed from, state."""
    return [
        TokenBudget(
            caller.project_id,
            caller.token_ids[: caller.token_ids.index(budget.subject) + 1],
            caller.participant,
            budget.limit,
            caller.expires_at,
        )
        for budget in caller.token_budgets
        if budget.subject is not None
    ]
