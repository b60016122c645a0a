"""Pages of a list that other projects fill are filled with the caller's own objects."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import parse_qsl

import pytest
from msgspec.structs import replace

from tests.gateway.fakes import FakeExchange
from tornado_proxy.domain.errors import UpstreamError
from tornado_proxy.gateway.http.owned_list import OwnedListUpstream
from tornado_proxy.upstream.http.messages import UpstreamRequest, make_response_head

OK = make_response_head(200, "OK", (("Content-Type", "application/json"),))
PATH = "http://provider.test/v1/messages/batches"


class ListingProvider:
    """A provider that lists `ids`, newest first, in pages."""

    def __init__(self, ids: list[str], *, status: int = 200) -> None:
        self.ids = ids
        self.status = status
        self.queries: list[dict[str, str]] = []

    def start(self, request: UpstreamRequest) -> FakeExchange:
        query = dict(parse_qsl(request.url.partition("?")[2]))
        self.queries.append(query)
        limit = int(query.get("limit", "20"))
        start = self.ids.index(query["after_id"]) + 1 if "after_id" in query else 0
        page, more = self.ids[start : start + limit], len(self.ids) > start + limit
        if "before_id" in query:
            end = self.ids.index(query["before_id"])
            page, more = self.ids[max(0, end - limit) : end], end > limit
        body = {
            "data": [{"id": name} for name in page],
            "has_more": more,
            "first_id": page[0] if page else None,
            "last_id": page[-1] if page else None,
        }
        head = replace(OK, status=self.status) if self.status < 300 else make_response_head(self.status, "No", ())
        return FakeExchange([head, json.dumps(body).encode()])


def listed(provider: ListingProvider, query: str, visible: set[str]) -> tuple[int, Any]:
    request = UpstreamRequest("GET", f"{PATH}?{query}", (), (), None, 1, 1)

    async def run() -> tuple[int, Any]:
        exchange = OwnedListUpstream(provider, visible).start(request)
        head = await exchange.head()
        body = b""
        while data := await exchange.read():
            body += data
        assert exchange.complete
        return head.status, json.loads(body)

    return asyncio.run(run())


IDS = ["own_9", *(f"other_{number}" for number in range(7)), "own_2", "other_x", "own_1", "other_y"]
OWN = {"own_9", "own_2", "own_1"}


@pytest.mark.parametrize(
    ("query", "ids", "has_more"),
    [
        pytest.param("limit=2", ["own_9", "own_2"], True, id="filled from several pages"),
        pytest.param("limit=2&after_id=own_9", ["own_2", "own_1"], True, id="after an own id"),
        pytest.param("limit=3", ["own_9", "own_2", "own_1"], False, id="to the end of the list"),
        pytest.param("limit=1", ["own_9"], True, id="the first page is enough"),
        pytest.param("", ["own_9", "own_2", "own_1"], False, id="default limit"),
        pytest.param("limit=2&before_id=own_1", ["own_9", "own_2"], False, id="backwards"),
        pytest.param("limit=1&before_id=own_1", ["own_2"], True, id="backwards, one"),
    ],
)
def test_page_is_filled_with_own_objects_and_has_own_cursors(query: str, ids: list[str], has_more: bool) -> None:
    _, page = listed(ListingProvider(IDS), query, OWN)

    assert [entry["id"] for entry in page["data"]] == ids
    assert (page["first_id"], page["last_id"]) == (ids[0], ids[-1])
    assert page["has_more"] is has_more


def test_page_without_own_objects_ends_and_names_no_other_id() -> None:
    provider = ListingProvider([f"other_{number}" for number in range(100)])

    _, page = listed(provider, "limit=2", OWN)

    assert page == {"data": [], "has_more": False, "first_id": None, "last_id": None}
    assert len(provider.queries) == 10


@pytest.mark.parametrize("status", [203, 299])
def test_page_of_any_successful_status_names_own_objects_only(status: int) -> None:
    _, page = listed(ListingProvider(IDS, status=status), "limit=2", OWN)

    assert ([entry["id"] for entry in page["data"]], page["last_id"]) == (["own_9", "own_2"], "own_2")


def test_error_of_the_provider_passes() -> None:
    assert listed(ListingProvider(IDS, status=429), "limit=2", OWN)[0] == 429


def test_list_that_cannot_be_read_is_an_error() -> None:
    class Broken(ListingProvider):
        def start(self, request: UpstreamRequest) -> FakeExchange:
            return FakeExchange([OK, b'{"data": {"id": "other"}}'])

    with pytest.raises(UpstreamError, match="cannot be cut"):
        listed(Broken(IDS), "limit=2", OWN)
