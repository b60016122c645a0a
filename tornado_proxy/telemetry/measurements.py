"""Makes measurements for metrics of a record or of its settlement."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal

from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.changes import ChangeKind
from tornado_proxy.telemetry import names
from tornado_proxy.telemetry.names import Names, find_operation
from tornado_proxy.telemetry.spans import Attributes, count_tokens, find_error, read_seconds

#: The ends of the names of audio and image meters; all other tokens are text.
_MODALITIES = {"audio": "audio", "image": "image"}


@dataclass(frozen=True, slots=True)
class Measurement:
    """A value of a metric."""

    metric: str
    value: float
    attributes: Attributes


def make_measurements(kind: ChangeKind, row: Mapping[str, object], naming: Names) -> list[Measurement]:
    """Return the measurements of a change; times come with the record, tokens when they are known."""
    operation = find_operation(str(row["method"]), str(row["endpoint"]))
    if not operation or kind in (ChangeKind.LOST, ChangeKind.GIVEN_UP):
        return []
    attributes: Attributes = {names.OPERATION: operation, naming.provider: str(row["provider"])}
    for column, name in (("model_requested", names.REQUEST_MODEL), ("model", names.RESPONSE_MODEL)):
        # A model that the provider does not know can be any text of a caller.
        if row[column] is not None and row["model"] is not None:
            attributes[name] = str(row[column])
    times = _measure_times(row, attributes, naming) if kind is ChangeKind.RECORD else ()
    tokens = _measure_tokens(row, attributes, naming) if row["basis"] != Basis.PENDING else ()
    return [*times, *tokens]


def _measure_times(row: Mapping[str, object], attributes: Attributes, naming: Names) -> Iterator[Measurement]:
    error = find_error(row)
    seconds = read_seconds(row, "ended_at")
    assert seconds is not None
    yield Measurement(naming.duration, seconds, {**attributes, names.ERROR_TYPE: error} if error else attributes)
    first_byte_s = read_seconds(row, "first_byte_at")
    if first_byte_s is not None:
        yield Measurement(naming.first_chunk, first_byte_s, attributes)


def _measure_tokens(row: Mapping[str, object], attributes: Attributes, naming: Names) -> Iterator[Measurement]:
    counts = count_tokens(row, naming)
    if naming.token_usage:
        for name, kind in ((names.INPUT_TOKENS, "input"), (names.OUTPUT_TOKENS, "output")):
            if name in counts:
                yield Measurement(naming.token_usage, counts[name], {**attributes, names.TOKEN_TYPE: kind})
        return
    for modality, part in _split_by_modality(row).items():
        for name, count in count_tokens(part, naming).items():
            yield Measurement(naming.token_counters[name], count, {**attributes, names.TOKEN_MODALITY: modality})


def _split_by_modality(row: Mapping[str, object]) -> dict[str, Mapping[str, object]]:
    """Return the row with the line items of each modality; reasoning tokens are text."""
    items: dict[str, list[object]] = {}
    for item in json.loads(str(row["line_items"] or "[]")):
        if Decimal(item["quantity"]) > 0:
            modality = next((name for part, name in _MODALITIES.items() if part in item["type"]), "text")
            items.setdefault(modality, []).append(item)
    return {
        modality: {"line_items": json.dumps(found), "usage": row["usage"] if modality == "text" else None}
        for modality, found in items.items()
    }
