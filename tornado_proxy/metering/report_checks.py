"""Checks what a provider's response reports, before it is charged and stored.

Names are bounded: a provider, or what answers in its place, can name a model of a megabyte, which records, log lines
and reports would show.

Counts must be known.  A provider can begin to state a new quantity at any time.  If it has a price of its own, the bill
would be too low, and nothing would say so.  So each name of a number above zero in usage must be one that the
provider's readers know, as a quantity or as a part of one; any other is a note of the record, a metric and, once for
each name, a line in the log.  Usage of known members only is found by decoding it, in less than half of the time of a
search for names.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from operator import attrgetter
from typing import Any

import msgspec
from msgspec.structs import replace

from tornado_proxy.domain.usage import Basis, UsageReport
from tornado_proxy.observability import metrics
from tornado_proxy.providers.conventions import UsageConvention
from tornado_proxy.providers.registry import PROVIDERS

_log = logging.getLogger(__name__)

#: Characters of a model, an object id or a request id; the longest known ones have less than 100.
MAX_NAME_CHARACTERS = 512

_get_model = attrgetter("model")

#: A member whose value begins as a number above zero does, in JSON without white space; a quotation mark inside a
#: string has a backslash before it.  The name is possessive (`+`): to try its shorter beginnings takes as long again.
_COUNT = re.compile(r'"([^"\\]{1,64}+)":([1-9][0-9]{0,17})')

#: Characters of usage that are searched: a batch has the usage of thousands of requests, which state the same names.
_MAX_CHARACTERS = 16 * 1024

#: Names that are told of at most: a response could state a new one each time.
_MAX_NAMES = 100

#: Objects inside each other that are decoded.
_DEPTH = 3


def _make_decoder(usage: UsageConvention) -> Callable[[str], object]:
    """Return a function that raises DecodeError for usage with a member that `usage` does not name."""
    members: list[Any] = [(name, int | float | str | bool | None, None) for name in usage.counts]
    members += [(name, str | None, None) for name in usage.texts]
    kind: Any = msgspec.defstruct("Details", members, forbid_unknown_fields=True)
    for _ in range(_DEPTH - 1):
        objects: list[Any] = [(name, kind | None, None) for name in usage.objects]
        kind = msgspec.defstruct("Usage", [*members, *objects], forbid_unknown_fields=True)
    decode: Callable[[str], object] = msgspec.json.Decoder(kind).decode
    return decode


_known_names = {provider.name: provider.usage.counts for provider in PROVIDERS}
_decoders = {provider.name: _make_decoder(provider.usage) for provider in PROVIDERS}
_told: set[tuple[str, str]] = set()


def limit_names(report: UsageReport) -> UsageReport:
    """Return `report` without names that are too long.  Pending usage of an object without its id is unsettled."""
    names = filter(None, (report.model, report.object_id, *report.objects, *map(_get_model, report.items)))
    longest = max(map(len, names), default=0)
    if longest <= MAX_NAME_CHARACTERS:
        return report
    object_id = _limit(report.object_id)
    is_unnamed = report.basis is Basis.PENDING and object_id is None
    return replace(
        report,
        basis=Basis.UNSETTLED if is_unnamed else report.basis,
        model=_limit(report.model),
        object_id=object_id,
        objects=tuple(name for name in report.objects if len(name) <= MAX_NAME_CHARACTERS),
        items=tuple(replace(item, model=_limit(item.model)) for item in report.items),
        faults=(*report.faults, f"the response has a name of {longest} characters, which is not kept"),
    )


def cut_name(name: str | None) -> str | None:
    """Return the start of a name that is only shown."""
    return name and name[:MAX_NAME_CHARACTERS]


def _limit(name: str | None) -> str | None:
    return None if name is None or len(name) > MAX_NAME_CHARACTERS else name


def note_unknown_counts(provider: str, usage: str | None) -> tuple[str, ...]:
    """Return a note for each count in `usage` (JSON text) that the readers of `provider` do not know."""
    known = _known_names.get(provider)
    if usage is None or known is None:
        return ()
    if len(usage) <= _MAX_CHARACTERS and _has_known_members(provider, usage):  # nearly always
        return ()
    counts = dict(_COUNT.findall(usage, 0, _MAX_CHARACTERS))
    return tuple(_note(provider, name, number) for name, number in counts.items() if name not in known)


def _has_known_members(provider: str, usage: str) -> bool:
    try:
        _decoders[provider](usage)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return False
    return True


def _note(provider: str, name: str, number: str) -> str:
    metrics.UNKNOWN_USAGE.labels(provider).inc()
    if (provider, name) not in _told and len(_told) < _MAX_NAMES:
        _told.add((provider, name))
        _log.warning("usage states an unknown count", extra={"provider": provider, "name_of_count": name})
    return f"usage states {number} {name}, which this version does not know: they are charged only as a part of others"
