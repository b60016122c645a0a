"""A sequence of choices from bytes that hypothesis draws.

One draw for each request, not one for each value: with the unions of the SDKs hypothesis itself would take longer than
the server.  It still finds a minimal example, because shorter and smaller bytes make simpler choices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from hypothesis import strategies as st

_T = TypeVar("_T")

#: Bytes of a request; each choice takes one or two.  Further choices are the simplest ones.
RANDOM_BYTES = st.binary(min_size=120, max_size=400)


class Choices:
    """Makes choices from bytes in order; each choice of zero, and each after the last byte, is the simplest."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def choose(self, options: Sequence[_T]) -> _T:
        """Return one of `options`, whose first is the simplest."""
        return options[self.count(len(options) - 1)]

    def count(self, limit: int) -> int:
        """Return a number from 0 to `limit`."""
        size = 1 if limit < 256 else 2
        taken = self._data[self._position : self._position + size]
        self._position += size
        return int.from_bytes(taken, "big") % (limit + 1)

    def flip(self) -> bool:
        """Return True or False, the simplest."""
        return bool(self.count(1))
