"""Spenders as values: whom a request is charged to, and the subjects of the counters that count it."""

from __future__ import annotations

import msgspec

from tornado_proxy.domain.budgets.counter import CounterKind, Scope

#: The start of the ids of access keys (state/access_keys.py).
ACCESS_KEY_ID_PREFIX = "ak_"


class Spender(msgspec.Struct, frozen=True):
    """Whom a request is charged to, as its record states it.

    `token_ids` are the ids of the request's participant token and of those that it was narrowed from, the first one
    that of the token which an API key signed.
    """

    project_id: str
    participant: str | None = None
    user: str | None = None
    issuer: str | None = None
    credential_id: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    token_ids: tuple[str, ...] = ()
    agent_session: str | None = None

    def subjects(self, kind: CounterKind) -> tuple[str, ...]:
        """Return the subjects of all counters of `kind` that count this spender."""
        if kind.scope is Scope.TOKEN:
            return self.token_ids
        subject = self.subject(kind)
        return () if subject is None else (subject,)

    def subject(self, kind: CounterKind) -> str | None:
        """Return the subject of the counter of `kind` that a budget of all subjects limits; None if none does.

        A narrowed token counts for the token that it was made from: its holder can make any number of them.
        """
        match kind.scope:
            case Scope.PROJECT:
                return ""
            case Scope.PARTICIPANT:
                # A participant and a user of one name are two callers.
                return self._user() if self.participant is None else f"participant {self.participant}"
            case Scope.USER:
                return self._user()
            case Scope.ACCESS_KEY:
                return self.credential_id if self.credential_id.startswith(ACCESS_KEY_ID_PREFIX) else None
            case Scope.TOKEN:
                return self.token_ids[0] if self.token_ids else None
            case Scope.AGENT_SESSION:
                return self.agent_session
            case Scope.LABEL:
                return dict(self.labels).get(kind.label or "")

    def _user(self) -> str | None:
        return None if self.user is None else f"user {self.user} {self.issuer or ''}".rstrip()
