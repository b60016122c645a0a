"""Finds the records of one request by its id, for the caller who made it.

Our id has an index.  A provider's id has none, because writing one for each request costs more than a rare search; the
search is limited to the requests of SEARCHED_TIME.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from tornado_proxy.ledger.columns import PRINTED_COLUMNS
from tornado_proxy.ledger.database import Read
from tornado_proxy.ledger.dialect import quote_names
from tornado_proxy.ledger.reports.records_query import Record
from tornado_proxy.ledger.rows import format_time

#: The age of the requests among which a provider's id is searched.
SEARCHED_TIME = timedelta(days=1)

#: The columns of a found record.
COLUMNS = (*PRINTED_COLUMNS, "object_id", "upstream_request_id", "annotations")

#: Records of one provider's id: a WebSocket session has one for each response.
_MAX_RECORDS = 100

_COLUMN_NAMES = quote_names(COLUMNS)


@dataclass(frozen=True, slots=True)
class RequestLookup:
    """Selects the records of a request.

    Attributes:
        request_id: Our id, the provider's id of the request, or that of the object that it created.
        project_id: The project of the caller.
        caller: The columns that say who made the request, with their values; empty for all callers of the project.
        now: The time of the lookup, aware UTC.
        asker: The caller; each has a share of the reader.
    """

    request_id: str
    project_id: str
    caller: tuple[tuple[str, str], ...]
    now: datetime
    asker: str = ""


def find_records(read: Read, lookup: RequestLookup) -> list[Record]:
    """Return the record with our id, else those with the provider's id, oldest first."""
    owner = "".join(f' AND "{name}" = ?' for name, _ in lookup.caller)
    select = f"SELECT {_COLUMN_NAMES} FROM bills WHERE project_id = ?{owner}"  # noqa: S608  # names of ours
    values = [lookup.project_id, *(value for _, value in lookup.caller)]
    own = list(read(f"{select} AND request_id = ?", [*values, lookup.request_id]))
    if not own:
        since = format_time(lookup.now - SEARCHED_TIME)
        sql = (
            f"{select} AND started_at >= ? AND (upstream_request_id = ? OR object_id = ?) "
            f"ORDER BY started_at LIMIT {_MAX_RECORDS}"
        )
        own = list(read(sql, [*values, since, lookup.request_id, lookup.request_id]))
    return [dict(zip(COLUMNS, row, strict=True)) for row in own]
