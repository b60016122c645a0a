"""Bounds the names in a provider's response, which records, log lines and reports show.

A provider, or what answers in its place, can name a model of a megabyte.
"""

from __future__ import annotations

from operator import attrgetter

from msgspec.structs import replace

from tornado_proxy.domain.usage import Basis, UsageReport

#: Characters of a model, an object id or a request id; the longest known ones have less than 100.
MAX_NAME_CHARACTERS = 512

_get_model = attrgetter("model")


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
