"""What a request to the usage API asks for: its parameters as a question to the ledger, cut to what the caller may see.

Pure.  A parameter that is not known is refused: a filter with a typing error would otherwise give a sum that is too
large.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from tornado_proxy.domain.errors import BadRequest, NotAllowed
from tornado_proxy.domain.identity import Caller, Project
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.reports.intervals import Interval
from tornado_proxy.ledger.reports.records_query import UsageFilter
from tornado_proxy.ledger.reports.usage import GROUPS, UsageQuery
from tornado_proxy.ledger.rows import format_time

#: Filters by equality that are members of UsageFilter.
_EQUAL = ("provider", "participant", "user", "room", "session", "endpoint", "basis")

#: Every parameter.
KNOWN = (
    *("start", "end", "interval", "annotations", "group_by", "model", "type"),
    *_EQUAL,
    *("limit", "cursor", "format"),
)

#: Members that every row has, so that grouping by them changes nothing.
_ALWAYS = ("provider", "model", "type")

#: Rows of one answer.
MOST_ROWS = 10_000

#: Characters of a parameter; a cursor holds the names of one row.
_LONGEST = 32_768


@dataclass(frozen=True, slots=True)
class UsageRequest:
    """A question, and how much of the answer to send in which shape.

    `limit` is None where the caller did not ask for pages; `after` is the key of the last row of the page before.
    """

    question: UsageQuery
    limit: int | None
    after: tuple[str, ...] | None
    csv: bool

    def cursor(self, key: tuple[str, ...]) -> str:
        """The cursor of the page after the row with `key`."""
        parts = (_mark(self.question), *key)
        return base64.urlsafe_b64encode(msgspec.json.encode(parts)).decode().rstrip("=")


def read_usage_request(
    arguments: Mapping[str, list[str]], accept: str, caller: Caller, project: Project
) -> UsageRequest:
    """Read the query of a request of `caller`, who asks for usage of its own project.

    Raises:
        BadRequest: a parameter is not known, stands twice or cannot be understood.
        NotAllowed: it asks for the usage of somebody else, and the caller is no admin.
    """
    given = {name: _one(name, values) for name, values in arguments.items()}
    interval, groups = _groups(given.get("interval"), given.get("group_by"))
    question = UsageQuery(
        which=_filter(given, caller, project),
        interval=interval,
        group_by=groups,
        model=given.get("model"),
        type=given.get("type"),
        annotations=_annotations(given.get("annotations")),
    )
    return UsageRequest(
        question=question,
        limit=_limit(given.get("limit")),
        after=_after(given.get("cursor"), question),
        csv=_wants_csv(given.get("format"), accept),
    )


def sees_all(caller: Caller, project: Project) -> bool:
    """Whether the caller is an admin of the project."""
    if caller.admin:
        return True
    return caller.user is not None and any(member.admin and member.user == caller.user for member in project.members)


def _one(name: str, values: list[str]) -> str:
    if name not in KNOWN:
        near = difflib.get_close_matches(name, KNOWN, 1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(KNOWN)}"
        raise BadRequest(f"the parameter {name[:40]} is not known; {hint}", param=name[:40])
    if len(values) != 1:
        raise BadRequest(f"the parameter {name} stands more than once; send it once", param=name)
    if not values[0] or len(values[0]) > _LONGEST or "\0" in values[0]:
        raise BadRequest(f"the parameter {name} is empty, too long or no text; leave it out or mend it", param=name)
    return values[0]


def _filter(given: Mapping[str, str], caller: Caller, project: Project) -> UsageFilter:
    wanted = {name: given.get(name) for name in _EQUAL}
    if wanted["basis"] is not None and wanted["basis"] not in set(Basis):
        raise BadRequest(f"basis is one of {', '.join(Basis)}", param="basis")
    if not sees_all(caller, project):
        if caller.participant is None and caller.user is None:
            raise NotAllowed("your credential names neither a participant nor a user, so that no usage is its own")
        for name, own in (("participant", caller.participant), ("user", caller.user)):
            if wanted[name] not in (None, own):
                raise NotAllowed(
                    f"you see your own usage only; leave {name} out, or ask an admin of project {project.name}",
                    param=name,
                )
            wanted[name] = own
    start, end = (_moment(name, given.get(name)) for name in ("start", "end"))
    if start is not None and end is not None and start >= end:
        raise BadRequest("start must be before end", param="start")
    return UsageFilter(
        project_id=project.id,
        since=None if start is None else format_time(start),
        until=None if end is None else format_time(end),
        **wanted,
    )


def _moment(name: str, text: str | None) -> datetime | None:
    """A date or an RFC 3339 time; without an offset it is UTC."""
    if text is None:
        return None
    try:
        # A plus that was not encoded arrives as a space.
        moment = datetime.fromisoformat(text.strip().replace(" ", "+") if "T" in text else text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadRequest(
            f"{name} is a date or a time such as 2026-11-01 or 2026-11-01T00:00:00Z (UTC)", param=name
        ) from None


def _groups(interval: str | None, group_by: str | None) -> tuple[Interval | None, tuple[str, ...]]:
    """The span that rows are summed in, and what else they are grouped by, in the order that was asked for."""
    names = [name.strip() for name in (group_by or "").split(",") if name.strip()]
    spans = [interval] if interval is not None else []
    for name in names:
        if name not in (*GROUPS, *_ALWAYS, *Interval):
            known = ", ".join((*Interval, *_ALWAYS, *GROUPS))
            raise BadRequest(f"cannot group by {name[:40]}; known are {known}", param="group_by")
        if name in set(Interval):
            spans.append(name)
    if any(span not in set(Interval) for span in spans):
        raise BadRequest(f"interval is one of {', '.join(Interval)}", param="interval")
    if len(set(spans)) > 1:
        raise BadRequest(f"one interval at a time, not {' and '.join(spans)}", param="interval")
    groups = dict.fromkeys(name for name in names if name in GROUPS)
    return (Interval(spans[0]) if spans else None), tuple(groups)


def _annotations(text: str | None) -> tuple[tuple[str, str], ...]:
    """Annotations as the package meshagent-api sends them: one JSON object of text.  Names have no case."""
    if text is None:
        return ()
    try:
        wanted = msgspec.json.decode(text, type=dict[str, str])
    except (msgspec.DecodeError, RecursionError):
        raise BadRequest('annotations is a JSON object of text, such as {"env": "prod"}', param="annotations") from None
    return tuple(sorted((name.lower(), value) for name, value in wanted.items()))


def _limit(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not 1 <= int(text) <= MOST_ROWS:
        raise BadRequest(f"limit is a number of rows from 1 to {MOST_ROWS}", param="limit")
    return int(text)


def _after(cursor: str | None, question: UsageQuery) -> tuple[str, ...] | None:
    if cursor is None:
        return None
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        mark, *key = msgspec.json.decode(base64.b64decode(padded, altchars="-_", validate=True), type=list[str])
    except (binascii.Error, msgspec.DecodeError, ValueError):
        raise BadRequest("cursor is the next_cursor of the page before, unchanged", param="cursor") from None
    if mark != _mark(question):
        raise BadRequest("a cursor goes with the parameters that it was given for, limit apart", param="cursor")
    return tuple(key)


def _mark(question: UsageQuery) -> str:
    return hashlib.sha256(repr(question).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _wants_csv(shape: str | None, accept: str) -> bool:
    if shape is not None:
        if shape not in ("json", "csv"):
            raise BadRequest("format is json or csv", param="format")
        return shape == "csv"
    return next(
        (kind == "text/csv" for kind in _media_types(accept) if kind in ("text/csv", "application/json")), False
    )


def _media_types(accept: str) -> Iterable[str]:
    return (one.partition(";")[0].strip().lower() for one in accept.split(","))
