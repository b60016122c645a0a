"""Limits how many of something run at a time, over all callers and for each, so that they take bounded memory."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator

from tornado_proxy.domain.errors import RequestError


class CallerSlots:
    """Counts what runs for each caller.

    Args:
        limit: The most at a time over all callers.
        limit_per_caller: The most at a time for one caller.
        make_error: Makes the error of one too many.
    """

    def __init__(self, limit: int, limit_per_caller: int, make_error: Callable[[], RequestError]) -> None:
        self._limit, self._limit_per_caller = limit, limit_per_caller
        self._make_error = make_error
        self._running: Counter[str] = Counter()

    @contextlib.contextmanager
    def count(self, caller: str) -> Iterator[None]:
        """Count one for `caller` while the block runs.

        Raises:
            RequestError: as many run as may; the error of make_error().
        """
        if self._running[caller] >= self._limit_per_caller or self._running.total() >= self._limit:
            raise self._make_error()
        self._running[caller] += 1
        try:
            yield
        finally:
            self._running[caller] -= 1
            if not self._running[caller]:
                del self._running[caller]
