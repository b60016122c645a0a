"""Takes requests, tokens and streams from the limits of projects and callers, within a transaction of the budgets.

rate_buckets   requests and tokens: a token bucket; streams: how many there are
rate_claims    what requests under way have taken one by one: given back when they end, or are not sent
rate_leases    what processes have taken in advance, for requests that take from slices (rate_leasing.py)

Claims and leases have the id of their process, so that the streams of one that has died are freed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from tornado_proxy.budgets.limits.token_bucket import UNIT_DEBT, TokenBucket, decode_bucket
from tornado_proxy.domain.budgets.rate_limits import RateClaim, RateRefusal, RateState, RateUnit
from tornado_proxy.ledger.database import Database
from tornado_proxy.ledger.dialect import Dialect

_SELECT = "SELECT state FROM rate_buckets WHERE project_id = ? AND subject = ? AND unit = ?"
_INSERT = (
    "INSERT INTO rate_buckets (project_id, subject, unit, state) VALUES (?, ?, ?, '[0,0,0,[]]') ON CONFLICT DO NOTHING"
)
_UPDATE = "UPDATE rate_buckets SET state = ? WHERE project_id = ? AND subject = ? AND unit = ?"
_INSERT_CLAIMS = "INSERT INTO rate_claims (request_id, writer, claims) VALUES (?, ?, ?)"
_SELECT_CLAIMS = "SELECT claims FROM rate_claims WHERE request_id = ?"
_DELETE_CLAIMS = "DELETE FROM rate_claims WHERE request_id = ?"
_SELECT_ALL_CLAIMS = "SELECT request_id, writer FROM rate_claims"
_SELECT_ALL = "SELECT project_id, subject, unit, state FROM rate_buckets"
_SELECT_LEASES = "SELECT writer, project_id, subject, unit FROM rate_leases"
_DELETE_LEASE = (
    "DELETE FROM rate_leases WHERE writer = ? AND project_id = ? AND subject = ? AND unit = ? RETURNING units"
)

#: Project, subject and unit.
BucketKey = tuple[str, str, str]


def create_rate_tables(sql: Dialect) -> str:
    """Return the SQL that makes the tables that do not exist."""
    return f"""
CREATE TABLE IF NOT EXISTS rate_buckets (
    project_id {sql.text} NOT NULL,
    subject {sql.text} NOT NULL,
    unit {sql.text} NOT NULL,
    state {sql.text} NOT NULL,
    PRIMARY KEY (project_id, subject, unit)
) {sql.keyed_table_end};
CREATE TABLE IF NOT EXISTS rate_claims (
    request_id {sql.text} PRIMARY KEY,
    writer {sql.text} NOT NULL,
    claims {sql.text} NOT NULL
) {sql.keyed_table_end};
CREATE TABLE IF NOT EXISTS rate_leases (
    writer {sql.text} NOT NULL,
    project_id {sql.text} NOT NULL,
    subject {sql.text} NOT NULL,
    unit {sql.text} NOT NULL,
    units {sql.big_number} NOT NULL,
    recalled {sql.number} NOT NULL,
    PRIMARY KEY (writer, project_id, subject, unit)
) {sql.keyed_table_end};
"""


@dataclass(frozen=True, slots=True)
class RateEnd:
    """The end of a request.  `used` are the units that it has used in the end; a unit that is missing: all it took."""

    request_id: str
    used: Mapping[RateUnit, int] = field(default_factory=dict)


#: What a request that was not sent has used, and one whose process has died: the tokens of that one are not known.
NOTHING_USED: Mapping[RateUnit, int] = dict.fromkeys(RateUnit, 0)
STREAM_ENDED: Mapping[RateUnit, int] = {RateUnit.STREAMS: 0}


class Rates:
    """The limits of one ledger's requests.  Each method is part of a transaction of the caller."""

    def __init__(self, db: Database, dialect: Dialect, writer_id: str) -> None:
        self._db = db
        self._dialect = dialect
        self._writer_id = writer_id

    def lock(self, claims: Iterable[RateClaim]) -> LockedBuckets:
        """Return the buckets of claims, which other processes cannot change until the transaction ends."""
        # Sorted, so that transactions lock buckets in one order and never wait in a circle.
        buckets = {key: self._lock(key) for key in sorted({find_bucket_key(claim) for claim in claims})}
        return LockedBuckets(buckets, self._read_clock() if buckets else 0)

    def take(self, request_id: str, claims: Iterable[RateClaim], buckets: LockedBuckets) -> None:
        """Take the claims of a request."""
        taken = [
            [
                claim.project_id,
                claim.subject,
                claim.unit,
                claim.units,
                claim.limit,
                buckets.take(claim),
            ]
            for claim in claims
        ]
        if taken:
            self._db.run(
                _INSERT_CLAIMS,
                (request_id, self._writer_id, json.dumps(taken, separators=(",", ":"))),
            )

    def write(self, buckets: LockedBuckets) -> None:
        """Write the buckets that have changed."""
        for key in sorted(buckets.changed):
            self._db.run(_UPDATE, (buckets.states[key].encode(), *key))

    def end(self, ends: Iterable[RateEnd]) -> None:
        """Give back what requests have taken and not used.  No effect on requests that have ended before."""
        self._give_back(ends, ())

    def _give_back(self, ends: Iterable[RateEnd], leases: Iterable[tuple[str, BucketKey]]) -> None:
        """End requests, and delete leases, whose streams are freed; all buckets are locked at once."""
        # Sorted for the same reason as in lock().
        in_order = sorted(ends, key=lambda ended: ended.request_id)
        found = [(ended, *self._read_claims(ended.request_id)) for ended in in_order]
        leased = [(writer, RateClaim(*key[:2], RateUnit(key[2]), 1, 0)) for writer, key in leases]
        buckets = self.lock([*(claim for _, claim in leased), *(claim for _, taken, _ in found for claim in taken)])
        for writer, claim in leased:
            # Another process can have deleted it before this one had the lock.
            for (units,) in self._db.fetch_rows(_DELETE_LEASE, (writer, *find_bucket_key(claim))):
                if claim.unit is RateUnit.STREAMS:
                    buckets.change_streams(claim, -int(str(units)))
        for ended, taken, numbers in found:
            for claim, number in zip(taken, numbers, strict=True):
                used = ended.used.get(claim.unit, claim.units)
                buckets.give_back(claim, number, max(0, claim.units - used))
            if taken:
                self._db.run(_DELETE_CLAIMS, (ended.request_id,))
        self.write(buckets)

    def free_dead(self, is_dead: Callable[[str], bool]) -> bool:
        """End the requests of processes that have died, and delete their leases; return True if there were any.

        Of what they had taken and leased the streams are freed; other units drain.
        """
        rows = [(str(request_id), str(writer)) for request_id, writer in self._db.fetch_rows(_SELECT_ALL_CLAIMS)]
        leases = [
            (str(writer), (str(project_id), str(subject), str(unit)))
            for writer, project_id, subject, unit in self._db.fetch_rows(_SELECT_LEASES)
        ]
        writers = {writer for _, writer in rows} | {writer for writer, _ in leases}
        dead = {writer for writer in writers if is_dead(writer)}
        lost = [RateEnd(request_id, STREAM_ENDED) for request_id, writer in rows if writer in dead]
        self._give_back(lost, [(writer, key) for writer, key in leases if writer in dead])
        return bool(dead)

    def count_streams(self) -> dict[tuple[str, str], int]:
        """Return the number of streams by project and subject."""
        return {
            (str(project_id), str(subject)): decode_bucket(str(state)).debt // UNIT_DEBT
            for project_id, subject, unit, state in self._db.fetch_rows(_SELECT_ALL)
            if unit == RateUnit.STREAMS
        }

    def _lock(self, key: BucketKey) -> TokenBucket:
        sql = f"{_SELECT} {self._dialect.row_lock}"
        rows = self._db.fetch_rows(sql, key)
        if not rows:
            self._db.run(_INSERT, key)
            rows = self._db.fetch_rows(sql, key)
        return decode_bucket(str(rows[0][0]))

    def _read_claims(self, request_id: str) -> tuple[list[RateClaim], list[int]]:
        rows = self._db.fetch_rows(f"{_SELECT_CLAIMS} {self._dialect.row_lock}", (request_id,))
        taken = json.loads(str(rows[0][0])) if rows else []
        claims = [
            RateClaim(project_id, subject, RateUnit(unit), limit, units)
            for project_id, subject, unit, units, limit, _ in taken
        ]
        return claims, [number for *_, number in taken]

    def _read_clock(self) -> int:
        """Return microseconds since 1970 by the one clock that all processes of the ledger have."""
        if not self._dialect.clock_us:
            return time.time_ns() // 1000  # the processes of an SQLite ledger share a machine
        ((now_us,),) = self._db.fetch_rows(self._dialect.clock_us)
        return int(str(now_us))


class LockedBuckets:
    """Buckets that are locked in a transaction, at one time."""

    def __init__(self, states: dict[BucketKey, TokenBucket], now_us: int) -> None:
        self.states = states
        self.changed: set[BucketKey] = set()
        self._now_us = now_us

    def check(self, claims: tuple[RateClaim, ...]) -> RateRefusal | None:
        """Return the refusal of a request, None if all of its limits admit it."""
        states = [self._find_state(claim) for claim in claims]
        # The limit that refuses longest, so that a client that waits for it is not refused by another one.
        refusing = sorted(
            (state for state in states if state.wait_s is None or state.wait_s > 0),
            key=lambda state: state.wait_s or 0,
            reverse=True,
        )
        return RateRefusal((*refusing, *(state for state in states if state not in refusing))) if refusing else None

    def take(self, claim: RateClaim) -> int:
        """Take the claims of a request; return the number of its claim."""
        bucket = self._drain(claim)
        self.changed.add(find_bucket_key(claim))
        if claim.unit is not RateUnit.STREAMS:
            return bucket.take(claim.units)
        bucket.debt += claim.units * UNIT_DEBT
        return 0

    def give_back(self, claim: RateClaim, number: int, units: int) -> None:
        """Give back a part of a claim."""
        bucket = self._drain(claim)
        self.changed.add(find_bucket_key(claim))
        if claim.unit is RateUnit.STREAMS:
            bucket.debt = max(0, bucket.debt - units * UNIT_DEBT)
        elif units:
            bucket.give_back(number, units)

    def change_streams(self, claim: RateClaim, units: int) -> None:
        """Count more streams, or fewer if `units` is negative."""
        if units:
            bucket = self._drain(claim)
            self.changed.add(find_bucket_key(claim))
            bucket.debt = max(0, bucket.debt + units * UNIT_DEBT)

    def count_free(self, claim: RateClaim) -> int:
        """Return the units that can be taken now."""
        return self._drain(claim).count_free(claim.limit)

    def _find_state(self, claim: RateClaim) -> RateState:
        bucket = self._drain(claim)
        wait_us = bucket.wait_us(claim.limit, claim.units)
        reset_s = bucket.debt / claim.limit / 1_000_000
        is_full = claim.unit is RateUnit.STREAMS and wait_us > 0
        return RateState(
            claim,
            bucket.count_free(claim.limit),
            None if is_full else wait_us / 1_000_000,
            reset_s,
        )

    def _drain(self, claim: RateClaim) -> TokenBucket:
        bucket = self.states[find_bucket_key(claim)]
        if claim.unit is not RateUnit.STREAMS:
            bucket.drain(claim.limit, self._now_us)
        return bucket


def find_bucket_key(claim: RateClaim) -> BucketKey:
    """Return the key of the bucket of a limit."""
    return claim.project_id, claim.subject, claim.unit
