"""The ids of requests, which begin with their time: `req_`, milliseconds since 1970, 80 random bits, both in hex.

Ids of one time are neighbours in an index, as those of UUID version 7 are (RFC 9562 section 6.11): with random ids each
record changed a page of its own in the ledger's index.
"""

from __future__ import annotations

import os
import re
import time
from datetime import UTC, datetime, timedelta

_TIME = re.compile("req_([0-9a-f]{12})")

#: Random bytes of an id, and ids drawn at a time: the system call costs more than all else of an id.
_RANDOM_BYTES, _IDS_PER_DRAW = 10, 256

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

#: Random parts of ids that have been drawn and not been used.
_random_parts: list[str] = []


def new_request_id() -> str:
    """Return a new id of the current time, which responses carry as `Llm-Proxy-Request-Id`."""
    if not _random_parts:
        drawn = os.urandom(_RANDOM_BYTES * _IDS_PER_DRAW).hex()
        _random_parts.extend(drawn[at : at + 2 * _RANDOM_BYTES] for at in range(0, len(drawn), 2 * _RANDOM_BYTES))
    return f"req_{time.time_ns() // 1_000_000:012x}{_random_parts.pop()}"


def begin_of_ids(at: datetime) -> str:
    """Return what ids from `at` on, aware UTC, are not below, and earlier ones are."""
    return f"req_{(at - _EPOCH) // timedelta(milliseconds=1):012x}"


def read_time(request_id: str) -> datetime:
    """Return when an id was made, aware UTC.

    Raises:
        ValueError: it is no id of new_request_id().
    """
    found = _TIME.match(request_id)
    if found is None:
        raise ValueError(f"not the id of a request: {request_id!r}")
    return _EPOCH + timedelta(milliseconds=int(found[1], 16))
