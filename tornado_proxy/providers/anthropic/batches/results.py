"""Reads the results of a message batch: JSON lines in any order; those that succeeded state usage.

    succeeded                     a message with its usage, at its own model and the batch tier
    errored, canceled, expired    free

Each custom_id counts once.  Lines are read one at a time, because results can have tens of megabytes.
Source: Anthropic API reference, "Retrieve Message Batch results".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import msgspec

from tornado_proxy.domain.request import NO_FACTS, RequestFacts
from tornado_proxy.domain.usage import Basis, ContainerUse, UsageItem, UsageReport
from tornado_proxy.providers.anthropic.messages.code_execution import CONTAINER_METHOD
from tornado_proxy.providers.anthropic.messages.report import report_message
from tornado_proxy.providers.contract import ResponseHead, UsageReader
from tornado_proxy.providers.shared.json_values import decode_object

#: The service tier of every message of a batch, in the words of the price files.
BATCH_TIER = "batch"

#: A longer result line is not read.  A message has at most about 10 MB.
MAX_LINE_BYTES = 64 * 1024 * 1024

#: Containers of one batch whose time is charged.  The ledger has a row for each, and writes them in one transaction.
MAX_CONTAINERS = 1000

_FREE = frozenset({"errored", "canceled", "expired"})

#: The types of results, which are the members of a batch's `request_counts` that count ended requests.
ENDED_KINDS = ("succeeded", "errored", "canceled", "expired")


def make_results_reader(facts: RequestFacts, head: ResponseHead) -> UsageReader:
    """Return the reader of a batch's results."""
    return BatchResultsReader(facts)


class BatchResultsReader:
    """Reads results.  Each that succeeded is a usage item; `raw` states how many results there are and succeeded."""

    object_id: str | None = None

    def __init__(self, facts: RequestFacts = NO_FACTS) -> None:
        self._facts = facts
        self._line: list[bytes] = []
        self._line_bytes = 0
        self._seen: set[str] = set()
        self._succeeded = 0
        self._items: list[UsageItem] = []
        # A dict keeps the order and drops repetitions: all lines of a batch can have the same fault.
        self._faults: dict[str, None] = {}
        self._notes: dict[str, None] = {}
        self._containers: dict[str, ContainerUse] = {}
        self._uncharged: set[str] = set()

    def feed(self, data: bytes) -> None:
        """Read the next body bytes."""
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._hold(line)
            self._end_line()
        self._hold(rest)

    def close(self, *, complete: bool) -> None:
        """Read a last line without a line end."""
        self._end_line()
        if not complete:
            self._add_fault("the results broke off")

    def result(self) -> UsageReport:
        """Return the usage of all results that succeeded; unsettled if one could not be read."""
        raw = msgspec.json.encode({"results": len(self._seen), "succeeded": self._succeeded}).decode()
        notes = (*self._notes, *self._describe_containers())
        certain = Basis.ESTIMATED if self._containers else Basis.INFERRED if notes else Basis.REPORTED
        basis = Basis.UNSETTLED if self._faults else certain
        return UsageReport(
            tuple(self._items),
            basis,
            raw,
            containers=tuple(replace(use, note=notes[-1]) for use in self._containers.values()),
            estimate_method=CONTAINER_METHOD if basis is Basis.ESTIMATED else None,
            faults=(*self._faults, *notes),
        )

    def _describe_containers(self) -> Iterator[str]:
        """Yield notes on the containers of all results; the last one is replaced when their time is charged."""
        if self._uncharged:
            yield f"more than {MAX_CONTAINERS} containers ran code; the time of {len(self._uncharged)} is not charged"
        if self._containers:
            yield f"{len(self._containers)} containers ran code; the results do not state their time"

    def _hold(self, data: bytes) -> None:
        self._line_bytes += len(data)
        if self._line_bytes <= MAX_LINE_BYTES:
            self._line.append(data)

    def _end_line(self) -> None:
        line = b"".join(self._line)
        too_long = self._line_bytes > MAX_LINE_BYTES
        self._line.clear()
        self._line_bytes = 0
        if too_long:
            self._add_fault("a result line is too long to be read")
        elif line.strip():
            self._read(decode_object(line) or {})

    def _read(self, entry: Mapping[str, object]) -> None:
        custom_id, result = entry.get("custom_id"), entry.get("result")
        if not isinstance(custom_id, str) or not isinstance(result, dict):
            self._add_fault("a result line cannot be read")
            return
        if custom_id in self._seen:
            return
        self._seen.add(custom_id)
        kind = result.get("type")
        if kind == "succeeded":
            self._succeeded += 1
            self._charge(custom_id, result.get("message"))
        elif kind not in _FREE:
            self._add_fault(f"the result of {custom_id[:64]!r} has an unknown type")

    def _charge(self, custom_id: str, message: object) -> None:
        usage = message.get("usage") if isinstance(message, dict) else None
        if not isinstance(message, dict) or not isinstance(usage, dict):
            self._add_fault(f"the result of {custom_id[:64]!r} states no usage")
            return
        # Usage that names no tier would be priced at the standard tier, twice the batch price.
        stated = {name: value for name, value in usage.items() if value is not None}
        report = report_message(message, {"service_tier": BATCH_TIER, **stated}, self._facts)
        self._items.extend(report.items)
        sentences = self._faults if report.basis is Basis.UNSETTLED else self._notes
        about_containers = {use.note for use in report.containers}
        sentences.update(dict.fromkeys(fault for fault in report.faults if fault not in about_containers))
        for use in report.containers:
            if use.container_id in self._containers or len(self._containers) < MAX_CONTAINERS:
                self._containers[use.container_id] = use
            else:
                self._uncharged.add(use.container_id)

    def _add_fault(self, fault: str) -> None:
        self._faults[fault] = None
