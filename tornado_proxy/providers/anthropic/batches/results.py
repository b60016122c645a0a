"""The results of a message batch: JSON lines, unordered, of which those that succeeded state usage.

    succeeded                     a message with its usage, at its own model and the batch tier
    errored, canceled, expired    free

A custom_id that comes twice counts once.  Lines are read one by one: results may have tens of megabytes.
Source: Anthropic API reference, "Retrieve Message Batch results".
"""

from __future__ import annotations

from typing import Any

import msgspec

from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.domain.usage import Basis, UsageItem, UsageReport
from tornado_proxy.providers.anthropic.messages.report import decode_object, report_message
from tornado_proxy.providers.contract import ResponseHead, UsageReader

#: The tier of every message of a batch, in the registry's words.
BATCH_TIER = "batch"

#: Bytes of one result line; a message has at most some 10 MB.
MAX_LINE_BYTES = 64 * 1024 * 1024

_FREE = frozenset({"errored", "canceled", "expired"})


def results_reader(facts: RequestFacts, head: ResponseHead) -> UsageReader:
    """What reads the results of a batch."""
    return BatchResultsReader()


class BatchResultsReader:
    """Reads results; `raw` is how many there were and how many succeeded, each of which is a reading of its own."""

    object_id: str | None = None

    def __init__(self) -> None:
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._seen: set[str] = set()
        self._succeeded = 0
        self._readings: list[UsageItem] = []
        self._faults: dict[str, None] = {}

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._hold(line)
            self._end_line()
        self._hold(rest)

    def close(self, *, complete: bool) -> None:
        """Read a last line without an end."""
        self._end_line()
        if not complete:
            self._fault("the results broke off")

    def result(self) -> UsageReport:
        """All that succeeded, as readings."""
        raw = msgspec.json.encode({"results": len(self._seen), "succeeded": self._succeeded}).decode()
        basis = Basis.UNSETTLED if self._faults else Basis.REPORTED
        return UsageReport(tuple(self._readings), basis, raw, faults=tuple(self._faults))

    def _hold(self, data: bytes) -> None:
        self._held_bytes += len(data)
        if self._held_bytes <= MAX_LINE_BYTES:
            self._held.append(data)

    def _end_line(self) -> None:
        line = b"".join(self._held)
        too_long = self._held_bytes > MAX_LINE_BYTES
        self._held.clear()
        self._held_bytes = 0
        if too_long:
            self._fault("a result line is too long to be read")
        elif line.strip():
            self._read(decode_object(line))

    def _read(self, entry: dict[str, Any]) -> None:
        custom_id, result = entry.get("custom_id"), entry.get("result")
        if not isinstance(custom_id, str) or not isinstance(result, dict):
            self._fault("a result line cannot be read")
            return
        if custom_id in self._seen:
            return
        self._seen.add(custom_id)
        kind = result.get("type")
        if kind == "succeeded":
            self._succeeded += 1
            self._charge(custom_id, result.get("message"))
        elif kind not in _FREE:
            self._fault(f"the result of {custom_id[:64]!r} is of an unknown kind")

    def _charge(self, custom_id: str, message: object) -> None:
        usage = message.get("usage") if isinstance(message, dict) else None
        if not isinstance(message, dict) or not isinstance(usage, dict):
            self._fault(f"the result of {custom_id[:64]!r} states no usage")
            return
        stated = {name: value for name, value in usage.items() if value is not None}
        report = report_message(message, {"service_tier": BATCH_TIER, **stated})
        self._readings.extend(report.items)
        for fault in report.faults:
            self._fault(fault)

    def _fault(self, words: str) -> None:
        self._faults[words] = None
