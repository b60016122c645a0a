"""Lets servers write between the transactions of a command."""

from __future__ import annotations

import time

from tornado_proxy.ledger.dialect import Dialect

#: Seconds between two transactions, at least.
_MIN_PAUSE_S = 0.01


def pause_for_writers(dialect: Dialect, began: float) -> float:
    """Return the seconds since the begin of a transaction that has ended; give writers as much time for theirs.

    A writer that waits for an SQLite file does not queue: it asks again, after up to 0.1 s.  In the short gaps of
    transactions that follow each other it would ask in vain, until its time is over.
    """
    elapsed_s = time.monotonic() - began
    if not dialect.row_lock:
        time.sleep(max(elapsed_s, _MIN_PAUSE_S))
    return elapsed_s
