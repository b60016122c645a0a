"""Parse the parameters of the usage API into a query to the ledger, limited to the usage that the caller may see.

Pure.  Unknown parameters are rejected: a misspelled filter would otherwise return a sum that is too large.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import msgspec

from tornado_proxy.api.project_parameter import find_recorded_project_id
from tornado_proxy.domain.errors import BadRequest, NotAllowed
from tornado_proxy.domain.identity import Caller, Project
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.reports.intervals import Interval
from tornado_proxy.ledger.reports.records_query import ATTRIBUTION_FILTERS, UsageFilter, is_named_group
from tornado_proxy.ledger.reports.usage import GROUPS, RECORD_GROUPS, UsageQuery
from tornado_proxy.ledger.rows import format_time

#: Parameters that filter by equality, each a member of UsageFilter.
_EQUALITY_FILTERS = (
    "provider",
    "participant",
    "user",
    "issuer",
    "room",
    "session",
    "endpoint",
    "basis",
    "provider_key",
    *ATTRIBUTION_FILTERS,
)

#: Every parameter.
PARAMETERS = (
    *("start", "end", "interval", "annotations", "group_by", "model", "type", "users"),
    *_EQUALITY_FILTERS,
    *("retries", "rows", "limit", "cursor", "format"),
)

#: Every parameter of the operator.
OPERATOR_PARAMETERS = ("project", *PARAMETERS)

#: Members of every row, so grouping by them changes nothing.
_ROW_GROUPS = ("provider", "model", "type")

#: Names in `users`.
_MAX_USERS = 100

#: Rows of one response: some 2 MB of JSON.
MAX_ROWS = 10_000

#: Characters of a parameter.  A cursor is the longest: it holds the names of one row.
_MAX_CHARACTERS = 32_768


@dataclass(frozen=True, slots=True)
class UsageRequest:
    """A query, and the page and format of its result.

    Attributes:
        query: The query to the ledger.
        limit: Rows per page, None to send all rows.
        after: The key of the last row of the previous page, None for the first page.
        csv: True for CSV, False for JSON.
    """

    query: UsageQuery
    limit: int | None
    after: tuple[str, ...] | None
    csv: bool

    def cursor(self, key: tuple[str, ...]) -> str:
        """Return the cursor of the page after the row with `key`."""
        parts = (_fingerprint(self.query), *key)
        return base64.urlsafe_b64encode(msgspec.json.encode(parts)).decode().rstrip("=")


def decode_arguments(arguments: Mapping[str, list[bytes]]) -> dict[str, list[str]]:
    """Return the parameters of a query, which Tornado has as bytes, as text."""
    return {name: [value.decode("utf-8", "replace") for value in values] for name, values in arguments.items()}


def read_usage_request(
    arguments: Mapping[str, list[str]], accept: str, caller: Caller, project: Project
) -> UsageRequest:
    """Parse a request of `caller` for usage of `project`, the caller's own.

    Args:
        arguments: The query parameters with all their values.
        accept: The Accept header, which chooses the format if `format` is missing.
        caller: The authenticated caller.
        project: The caller's project.

    Raises:
        BadRequest: a parameter is unknown, repeated or malformed.
        NotAllowed: the parameters name another participant or user, and the caller is no admin.
    """
    given = _read_values(arguments, PARAMETERS)
    which = _limit_to_caller(_make_filter(given, project.id), caller, project)
    return _make_request(given, accept, which, GROUPS)


def read_operator_request(
    arguments: Mapping[str, list[str]], accept: str, project_names: Mapping[str, str]
) -> UsageRequest:
    """Parse a request of the operator, who sees the usage of all projects, or with `project` of one.

    Args:
        arguments: The query parameters with all their values.
        accept: The Accept header, which chooses the format if `format` is missing.
        project_names: The names of the configured projects by id.

    Raises:
        BadRequest: a parameter is unknown, repeated or malformed.
        NotFound: there is no such project.
    """
    given = _read_values(arguments, OPERATOR_PARAMETERS)
    wanted = given.get("project")
    project_id = None if wanted is None else find_recorded_project_id(project_names, wanted)
    return _make_request(given, accept, _make_filter(given, project_id), ("project", *GROUPS))


def _read_values(arguments: Mapping[str, list[str]], known: tuple[str, ...]) -> Mapping[str, str]:
    return {name: _single_value(name, values, known) for name, values in arguments.items()}


def _make_request(given: Mapping[str, str], accept: str, which: UsageFilter, known: tuple[str, ...]) -> UsageRequest:
    """Return the request; `known` are the groups of the caller beside those of every row."""
    group_rows = _wants_group_rows(given.get("rows"))
    interval, groups = _read_groups(given.get("interval"), given.get("group_by"), known, group_rows=group_rows)
    query = UsageQuery(
        which=which,
        interval=interval,
        group_by=groups,
        model=given.get("model"),
        type=given.get("type"),
        annotations=_read_annotations(given.get("annotations")),
        group_rows=group_rows,
    )
    return UsageRequest(
        query=query,
        limit=_read_limit(given.get("limit")),
        after=_read_cursor(given.get("cursor"), query),
        csv=_wants_csv(given.get("format"), accept),
    )


def _single_value(name: str, values: list[str], known: tuple[str, ...]) -> str:
    if name not in known:
        similar = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {similar[0]}?" if similar else f"the parameters are {', '.join(known)}"
        raise BadRequest(f"unknown parameter {name[:40]}; {hint}", param=name[:40])
    if len(values) != 1:
        raise BadRequest(f"parameter {name} is repeated; send it once", param=name)
    if not values[0] or len(values[0]) > _MAX_CHARACTERS or "\0" in values[0]:
        raise BadRequest(
            f"parameter {name} is empty, longer than {_MAX_CHARACTERS} characters or no text; correct or omit it",
            param=name,
        )
    return values[0]


def _make_filter(given: Mapping[str, str], project_id: str | None) -> UsageFilter:
    filters = {name: given.get(name) for name in _EQUALITY_FILTERS}
    if filters["basis"] is not None and filters["basis"] not in set(Basis):
        raise BadRequest(f"basis must be one of {', '.join(Basis)}", param="basis")
    start, end = (read_time(name, given.get(name)) for name in ("start", "end"))
    if start is not None and end is not None and start >= end:
        raise BadRequest("start must be before end", param="start")
    return UsageFilter(
        project_id=project_id,
        since=None if start is None else format_time(start),
        until=None if end is None else format_time(end),
        callers=_read_users(given.get("users")),
        retries=_read_retries(given.get("retries")),
        **filters,
    )


def _read_users(text: str | None) -> str | None:
    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    if len(names) > _MAX_USERS or "" in names:
        raise BadRequest(f"users must be 1 to {_MAX_USERS} names with commas between them", param="users")
    return ",".join(names)


def _read_retries(text: str | None) -> str | None:
    if text not in (None, "only"):
        raise BadRequest('retries must be "only", which selects repeated requests; omit it for all', param="retries")
    return text


def _limit_to_caller(which: UsageFilter, caller: Caller, project: Project) -> UsageFilter:
    """Return the filter, limited to the caller's own usage unless it is an admin."""
    if caller.admin:
        return which
    if caller.participant is None and caller.user is None:
        raise NotAllowed("your credential names neither a participant nor a user, so no usage is yours")
    own = {"participant": caller.participant, "user": caller.user, "issuer": caller.issuer}
    for name, value in own.items():
        if getattr(which, name) not in (None, value):
            raise NotAllowed(
                f"you can read your own usage only; omit {name}, or ask an admin of project {project.name}", param=name
            )
    return replace(which, participant=caller.participant, user=caller.user, issuer=caller.issuer)


def read_time(name: str, text: str | None) -> datetime | None:
    """Parse a date or an RFC 3339 time; a time without an offset is UTC."""
    if text is None:
        return None
    try:
        # A "+" that the client did not percent-encode arrives as a space.
        time = datetime.fromisoformat(text.strip().replace(" ", "+") if "T" in text else text)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadRequest(
            f"{name} must be a date or a time such as 2026-11-01 or 2026-11-01T00:00:00Z (UTC)", param=name
        ) from None


def _wants_group_rows(text: str | None) -> bool:
    if text not in (None, "items", "groups"):
        raise BadRequest("rows must be items or groups", param="rows")
    return text == "groups"


def _read_groups(
    interval: str | None, group_by: str | None, known: tuple[str, ...], *, group_rows: bool
) -> tuple[Interval | None, tuple[str, ...]]:
    """Return the interval of the sums, and the other groups in the requested order."""
    names = [name.strip() for name in (group_by or "").split(",") if name.strip()]
    intervals = [interval] if interval is not None else []
    for name in names:
        if name not in (*known, *_ROW_GROUPS, *Interval) and not is_named_group(name):
            groups_known = ", ".join((*Interval, *_ROW_GROUPS, *known, "label.NAME", "annotation.NAME"))
            raise BadRequest(f"cannot group by {name[:40]}; the groups are {groups_known}", param="group_by")
        if name in set(Interval):
            intervals.append(name)
    if any(name not in set(Interval) for name in intervals):
        raise BadRequest(f"interval must be one of {', '.join(Interval)}", param="interval")
    if len(set(intervals)) > 1:
        raise BadRequest(f"group by one interval, not by {' and '.join(intervals)}", param="interval")
    if group_rows and "type" in names:
        raise BadRequest("rows=groups has no line items; omit type, or rows", param="group_by")
    groups = dict.fromkeys(
        name for name in names if name in known or is_named_group(name) or (group_rows and name in RECORD_GROUPS)
    )
    return (Interval(intervals[0]) if intervals else None), tuple(groups)


def _read_annotations(text: str | None) -> tuple[tuple[str, str], ...]:
    """Parse annotations as the package meshagent-api sends them: one JSON object of strings, names in any case."""
    if text is None:
        return ()
    try:
        annotations = msgspec.json.decode(text, type=dict[str, str])
    except (msgspec.DecodeError, RecursionError):
        raise BadRequest(
            'annotations must be a JSON object of strings, such as {"env": "prod"}', param="annotations"
        ) from None
    return tuple(sorted((name.lower(), value) for name, value in annotations.items()))


def _read_limit(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not 1 <= int(text) <= MAX_ROWS:
        raise BadRequest(f"limit must be a number of rows from 1 to {MAX_ROWS}", param="limit")
    return int(text)


def _read_cursor(cursor: str | None, query: UsageQuery) -> tuple[str, ...] | None:
    if cursor is None:
        return None
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        fingerprint, *key = msgspec.json.decode(base64.b64decode(padded, altchars="-_", validate=True), type=list[str])
    except (binascii.Error, msgspec.DecodeError, ValueError):
        raise BadRequest("cursor must be the next_cursor of the previous page, unchanged", param="cursor") from None
    if fingerprint != _fingerprint(query):
        raise BadRequest("the cursor belongs to other parameters; only limit may change between pages", param="cursor")
    return tuple(key)


def _fingerprint(query: UsageQuery) -> str:
    return hashlib.sha256(repr(query).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _wants_csv(format_name: str | None, accept: str) -> bool:
    if format_name is not None:
        if format_name not in ("json", "csv"):
            raise BadRequest("format must be json or csv", param="format")
        return format_name == "csv"
    return next(
        (
            media_type == "text/csv"
            for media_type in _media_types(accept)
            if media_type in ("text/csv", "application/json")
        ),
        False,
    )


def _media_types(accept: str) -> Iterable[str]:
    return (media_range.partition(";")[0].strip().lower() for media_range in accept.split(","))
