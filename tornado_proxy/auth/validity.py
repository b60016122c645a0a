"""The time in which a token is valid: its `nbf` and `exp` claims (RFC 7519 section 4.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tornado_proxy.domain.errors import NotAuthenticated

#: How far a signer's clock may be ahead of ours.  It applies to `nbf` only: a token is never accepted after its `exp`,
#: so that a signer can rely on the end of a token.
NOT_BEFORE_LEEWAY = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Validity:
    """When a token is valid.  Both times are aware UTC; None if the token has no such claim."""

    not_before: datetime | None
    expires_at: datetime | None

    def check(
        self,
        now: datetime,
        *,
        expiry_leeway: timedelta = timedelta(0),
        not_before_leeway: timedelta = NOT_BEFORE_LEEWAY,
    ) -> None:
        """Raise NotAuthenticated unless the token is valid at `now`.

        Args:
            now: The time to check against, aware UTC.
            expiry_leeway: How long after its `exp` a token is accepted; none for signers that share our configuration.
            not_before_leeway: How long before its `nbf` a token is accepted.
        """
        # Not exp + leeway: that overflows for a token that expires at the end of time.
        if self.expires_at is not None and now - expiry_leeway >= self.expires_at:
            raise NotAuthenticated(f"token expired at {format_time(self.expires_at)}; request a new one")
        if self.not_before is not None and now + not_before_leeway < self.not_before:
            raise NotAuthenticated(
                f"token is not valid yet (nbf is {format_time(self.not_before)}); wait, or correct its signer's clock"
            )


def read_validity(claims: Mapping[str, object]) -> Validity:
    """Return the validity of a token with these claims.

    Raises:
        NotAuthenticated: A time is not a number of seconds since 1970 (RFC 7519 section 2, NumericDate).
    """
    return Validity(not_before=_read_time(claims, "nbf"), expires_at=_read_time(claims, "exp"))


def format_time(at: datetime) -> str:
    """Return `at`, aware UTC, in RFC 3339 format with whole seconds, such as 2026-11-28T09:00:00Z."""
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")


def _read_time(claims: Mapping[str, object], name: str) -> datetime | None:
    # A missing claim differs from a null one, which RFC 7519 does not allow.
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise NotAuthenticated(f"token {name} must be a number of seconds since 1970; request a new token")
    try:
        return datetime.fromtimestamp(value, UTC)
    except (OverflowError, ValueError, OSError):
        raise NotAuthenticated(f"token {name} is out of range; request a new token") from None
