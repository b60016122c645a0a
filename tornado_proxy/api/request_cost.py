"""The cost of one request on the client port: `GET /accounts/projects/{id}/llm-proxy/requests/{id}`.

A caller sees its own requests, a project admin those of the project.  Any other id is not found, also if it exists.

    ?wait=5    look again until the cost is final, for up to 5 seconds
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal

from tornado.iostream import StreamClosedError

from tornado_proxy.api.caller_slots import CallerSlots
from tornado_proxy.api.project_handler import ProjectHandler
from tornado_proxy.api.usage_query import decode_arguments
from tornado_proxy.domain.errors import BadRequest, NotAllowed, NotFound, RateLimited, RequestError
from tornado_proxy.domain.identity import Caller
from tornado_proxy.domain.text import format_sum
from tornado_proxy.domain.usage import Basis
from tornado_proxy.gateway.base_handler import REQUEST_ID_HEADER
from tornado_proxy.gateway.services import Services
from tornado_proxy.ledger.reports.records_query import Record, add_exactly
from tornado_proxy.ledger.reports.request_lookup import RequestLookup
from tornado_proxy.reports.usage_members import record_members

#: The route; its groups are the project id and the request id.
REQUEST_PATH = r"/accounts/projects/([^/]+)/llm-proxy/requests/([^/]+)"

#: The longest wait, in seconds.
MAX_WAIT_S = 10.0

#: Seconds between two looks at the ledger, which has a record within 0.1 s of its end.
_LOOK_INTERVAL_S = 0.2

#: Requests that wait at a time, over all and for each caller.
_MAX_WAITING, _MAX_WAITING_PER_CALLER = 64, 8

#: An id of a request: ours has 36 characters, those of providers seldom more than 60.
_REQUEST_ID = re.compile(r"[!-~]{1,200}")

#: A number of seconds with up to three decimals.
_SECONDS = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3})?")


def make_waiters() -> CallerSlots:
    """Return the count of the requests that wait."""
    return CallerSlots(
        _MAX_WAITING,
        _MAX_WAITING_PER_CALLER,
        lambda: RateLimited("too many requests wait for a cost; send this one again without wait, or later"),
    )


class RequestCostHandler(ProjectHandler):
    """One request for the cost of another one.

    Waits for the ledger's reader, which bounds the time of each query; a wait ends after MAX_WAIT_S, or when the client
    leaves.
    """

    path_template = "/accounts/projects/{id}/llm-proxy/requests/{id}"
    methods = ("GET", "HEAD")

    def initialize(self, services: Services, waiters: CallerSlots | None = None) -> None:
        """Keep the services."""
        super().initialize(services)
        assert waiters is not None, "the route has it"
        self._waiters = waiters
        self._client_left = asyncio.Event()

    async def get(self, project_id: str, request_id: str) -> None:
        """Respond with the records of the request."""
        try:
            wait_s = read_wait(decode_arguments(self.request.query_arguments))
            caller, project = await self.authenticate(project_id)
            records = await self._find(make_lookup(request_id, caller, project.id), wait_s)
        except RequestError as error:
            await self.reject(error)
            return
        self.set_header("Content-Type", "application/json")
        self.set_header("Cache-Control", "no-store")
        self.set_header(REQUEST_ID_HEADER, self.request_id)
        with contextlib.suppress(StreamClosedError):  # the client has disconnected
            await self.finish(json.dumps(show_records(records)) + "\n")

    head = get

    def on_connection_close(self) -> None:
        """Called by Tornado when the client has left."""
        self._client_left.set()

    async def _find(self, lookup: RequestLookup, wait_s: float) -> Sequence[Record]:
        """Return the records, final ones if they are within `wait_s`.

        Raises:
            NotFound: the caller has no such request, or it has not ended.
        """
        records = await self._look(lookup)
        if wait_s and not is_final(records):
            with self._waiters.count(lookup.asker):
                ends_at = asyncio.get_running_loop().time() + wait_s
                while not is_final(records) and (left_s := ends_at - asyncio.get_running_loop().time()) > 0:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._client_left.wait(), min(left_s, _LOOK_INTERVAL_S))
                        break
                    records = await self._look(lookup)
        if not records:
            raise NotFound("you have no request with this id, or it has not ended; wait=5 waits for its end")
        return records

    async def _look(self, lookup: RequestLookup) -> Sequence[Record]:
        if _REQUEST_ID.fullmatch(lookup.request_id) is None:
            return ()
        return await self.services.ledger.find_requests(lookup)


def read_wait(arguments: Mapping[str, list[str]]) -> float:
    """Return the parameter `wait` in seconds, 0 if it is missing.

    Raises:
        BadRequest: it is no number from 0 to 10, or there is another parameter.
    """
    unknown = sorted(set(arguments) - {"wait"})
    if unknown:
        raise BadRequest(f"unknown parameter {unknown[0][:40]!r}; the only one is wait", param=unknown[0][:40])
    values = arguments.get("wait", ["0"])
    if len(values) != 1 or _SECONDS.fullmatch(values[0]) is None or float(values[0]) > MAX_WAIT_S:
        raise BadRequest(f"wait must be a number of seconds from 0 to {MAX_WAIT_S:g}", param="wait")
    return float(values[0])


def make_lookup(request_id: str, caller: Caller, project_id: str) -> RequestLookup:
    """Return the lookup of a request that `caller` may see.

    Raises:
        NotAllowed: the credential names no caller.
    """
    own = (("participant", caller.participant), ("user", caller.user), ("issuer", caller.issuer))
    columns = () if caller.admin else tuple((name, value) for name, value in own if value is not None)
    if not columns and not caller.admin:
        raise NotAllowed("your credential names neither a participant nor a user, so no request is yours")
    # A participant and a user of one name are two callers, and each project has its own.
    asker = f"{project_id} {caller.participant!r} {caller.user!r} {caller.issuer!r}"
    return RequestLookup(request_id, project_id, columns, datetime.now(UTC), asker)


def is_final(records: Sequence[Record]) -> bool:
    """Return True if there are records and none of them waits for usage."""
    return bool(records) and all(record["basis"] != Basis.PENDING for record in records)


def show_records(records: Sequence[Record]) -> dict[str, object]:
    """Return the JSON members of the response; amounts are decimals as text."""
    total = add_exactly([Decimal(str(record["total"])) for record in records])
    return {
        "final": is_final(records),
        "total": format_sum(total),
        "currency": "USD",
        "requests": [_show_record(record) for record in records],
    }


def _show_record(record: Record) -> dict[str, object]:
    annotations = record["annotations"]
    return {
        **record_members(record),
        "annotations": json.loads(annotations) if isinstance(annotations, str) else None,
    }
