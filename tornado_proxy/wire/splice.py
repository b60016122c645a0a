"""Changes of a few bytes in a body, without a copy of the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Splice:
    """`text` in place of the bytes from `start` to `end` of a body."""

    start: int
    end: int
    text: bytes

    def split(self, body: bytes) -> tuple[bytes | memoryview, ...]:
        """Return the pieces of the changed body, of which those of `body` are views."""
        view = memoryview(body)
        return view[: self.start], self.text, view[self.end :]


def find_splice(before: bytes, after: bytes) -> Splice:
    """Return the shortest splice that makes `after` of `before`."""
    shorter = min(len(before), len(after))
    start = _find_largest(shorter, lambda low, high: before[low:high] == after[low:high])
    same = _find_largest(
        shorter - start,
        lambda low, high: before[len(before) - high : len(before) - low] == after[len(after) - high : len(after) - low],
    )
    return Splice(start, len(before) - same, after[start : len(after) - same])


def _find_largest(limit: int, is_equal: Callable[[int, int], bool]) -> int:
    """Return the largest number up to `limit` of which is_equal(0, number) is true, by halving the rest."""
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        if is_equal(low, middle):
            low = middle
        else:
            high = middle - 1
    return low
