"""Budgets as values: the limit that a configuration sets, its change while the server runs, and that of a token."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from tornado_proxy.domain.budgets.counter import CounterKind


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit in USD for each counter of a kind, or for that of one `subject`.

    A strict budget admits a request only if the most that it can cost fits; any other one admits requests until its
    limit is reached, so that the last one can exceed it.

    Attributes:
        lowered_until: When a higher limit is in force again, aware UTC; None if a change has not lowered it for a time.
        limit_then: That higher limit in USD, infinite for a budget that is lifted then.
    """

    kind: CounterKind
    limit: Decimal
    strict: bool = False
    subject: str | None = None
    lowered_until: datetime | None = None
    limit_then: Decimal | None = None


@dataclass(frozen=True, slots=True)
class BudgetChange:
    """Another limit of a budget, set while the server runs; it replaces that of the configuration.

    Attributes:
        subject: The subject of the counter that it concerns, None for those of all subjects.
        limit: The limit in USD; None if the budget is lifted.
        until: When the limit of the configuration is in force again, aware UTC; None if it never is.
        changed_at: When the change was made, aware UTC, and `actor` who made it.
    """

    project_id: str
    kind: CounterKind
    subject: str | None
    limit: Decimal | None
    until: datetime | None
    changed_at: datetime
    actor: str


@dataclass(frozen=True, slots=True)
class TokenBudget:
    """The budget that a participant token states for all of its requests.

    Attributes:
        token_ids: The ids of the token and of those that it was narrowed from, its own last.
        participant: The participant that the token names.
        limit: The limit in USD.
        expires_at: When the token expires, aware UTC; None if it never does.
    """

    project_id: str
    token_ids: tuple[str, ...]
    participant: str | None
    limit: Decimal
    expires_at: datetime | None

    @property
    def token_id(self) -> str:
        """The id of the token, which is the subject of its counter."""
        return self.token_ids[-1]

    @property
    def is_narrowed(self) -> bool:
        """True if the token was narrowed from another one, which budgets per token limit in its place."""
        return len(self.token_ids) > 1
