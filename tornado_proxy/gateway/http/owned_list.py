"""Fills a page of a list with the caller's own objects, although the provider lists those of all projects.

    client ── limit=20 ──> exchange ── page 1 ──> provider    3 of its entries are the project's own
                                    ── page 2 ──> provider    after the last id of page 1, whoever owns it
                                    ...                       until 20 are found, the list ends, or MAX_PAGES

The client sees one page: its entries, and cursors that name them.  An id of another project never leaves.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

import msgspec
from msgspec.structs import replace

from tornado_proxy.domain.errors import InvalidBody, UpstreamError
from tornado_proxy.domain.units import MIB
from tornado_proxy.gateway.admission.admitted import AdmittedRequest
from tornado_proxy.gateway.http.list_sources import ListSource
from tornado_proxy.providers.shared.json_body import has_member
from tornado_proxy.providers.shared.json_edit import edit_member
from tornado_proxy.upstream.http.messages import UpstreamRequest, UpstreamResponseHead
from tornado_proxy.upstream.http.protocols import ProviderExchange, Upstream

#: Pages that are requested for one page of a client.
MAX_PAGES = 10

#: Bytes of one page; the longest, of 1,000 batches, has 2 MB.
_MAX_PAGE_BYTES = 8 * MIB

#: Entries of a page for which no limit is requested (Anthropic API reference, "List Message Batches").
_DEFAULT_LIMIT = 20


class _Id(msgspec.Struct):
    id: str = ""


class _Page(msgspec.Struct):
    data: list[msgspec.Raw]
    has_more: bool = False


_ID = msgspec.json.Decoder(_Id)
_PAGE = msgspec.json.Decoder(_Page)


@dataclass(frozen=True, slots=True)
class OwnedListUpstream:
    """Starts exchanges whose response is a page of the objects in `visible`, and then of those of `further`."""

    upstream: Upstream
    visible: Container[str]
    further: tuple[ListSource, ...] = ()

    def start(self, request: UpstreamRequest) -> ProviderExchange:
        """Send a request for a list."""
        return OwnedListExchange(self.upstream, ListSource(request, self.visible), self.further)


def make_list_upstream(upstream: Upstream, admitted: AdmittedRequest) -> Upstream:
    """Return the upstream of a request: if it is one for a list of objects, one that fills its page."""
    if admitted.list_sources:
        first, *further = admitted.list_sources
        return OwnedListUpstream(upstream, first.visible, tuple(further))
    visible = admitted.visible_objects
    return upstream if visible is None else OwnedListUpstream(upstream, visible)


class OwnedListExchange:
    """The exchanges of all pages, as one."""

    def __init__(self, upstream: Upstream, source: ListSource, further: tuple[ListSource, ...]) -> None:
        self._upstream = upstream
        self._source = source
        self._further = list(further)
        self._query = _read_query(source)
        self._exchange = upstream.start(source.request)
        self._body: bytes | None = None

    @property
    def complete(self) -> bool:
        """True if the response is complete and read() has returned all of it."""
        return self._exchange.complete and not self._body

    @property
    def finished(self) -> bool:
        """True if nothing more is received."""
        return self._exchange.finished

    @property
    def held_bytes(self) -> int:
        """The number of bytes that have arrived and not been read."""
        return len(self._body) if self._body else self._exchange.held_bytes

    async def head(self) -> UpstreamResponseHead:
        """Return the head of the first page, after all pages have been read; an error passes as it is."""
        head = await self._exchange.head()
        if (
            200 <= head.status < 300
            and (head.fields.get("content-encoding") or "identity").strip().lower() == "identity"
        ):
            self._body = await self._fill()
        return head

    async def read(self) -> bytes:
        """Return the next bytes of the body, b"" at its end."""
        if self._body is None:
            return await self._exchange.read()
        body, self._body = self._body, b""
        return body

    def abort(self, reason: str) -> None:
        """End the running exchange."""
        self._exchange.abort(reason)

    async def _fill(self) -> bytes:
        first = await self._read_page()
        text = self._query.get("limit", "")
        limit = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else _DEFAULT_LIMIT
        backwards = "before_id" in self._query
        found: list[bytes] = []
        body, more = first, False
        try:
            for number in range(1, MAX_PAGES + 1):
                page = _PAGE.decode(body)
                own = [bytes(entry) for entry in page.data if _ID.decode(entry).id in self._source.visible]
                found = [*own, *found] if backwards else [*found, *own]
                more = page.has_more or bool(self._further)
                if len(found) >= limit or number == MAX_PAGES:
                    break
                if page.has_more and page.data:
                    body = await self._next_page(_ID.decode(page.data[0 if backwards else -1]).id, backwards=backwards)
                elif self._further:
                    body = await self._next_source()
                else:
                    break
            kept = found[-limit:] if backwards else found[:limit]
            return _compose(first, kept, has_more=bool(kept) and (more or len(kept) < len(found)))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, InvalidBody) as error:
            raise UpstreamError("the provider's list cannot be cut to what you may see") from error

    async def _next_page(self, cursor: str, *, backwards: bool) -> bytes:
        query = {**self._query, "before_id" if backwards else "after_id": cursor}
        url = f"{self._source.request.url.partition('?')[0]}?{urlencode(query)}"
        return await self._read_further(replace(self._source.request, url=url))

    async def _next_source(self) -> bytes:
        self._source = self._further.pop(0)
        self._query = _read_query(self._source)
        return await self._read_further(self._source.request)

    async def _read_further(self, request: UpstreamRequest) -> bytes:
        self._exchange = self._upstream.start(request)
        if not 200 <= (await self._exchange.head()).status < 300:
            raise UpstreamError("a further page of the provider's list could not be read")
        return await self._read_page()

    async def _read_page(self) -> bytes:
        chunks: list[bytes] = []
        size = 0
        while data := await self._exchange.read():
            size += len(data)
            if size > _MAX_PAGE_BYTES:
                raise UpstreamError(f"a page of the provider's list is larger than {_MAX_PAGE_BYTES // MIB} MiB")
            chunks.append(data)
        return b"".join(chunks)


def _read_query(source: ListSource) -> dict[str, str]:
    return dict(parse_qsl(source.request.url.partition("?")[2]))


def _compose(body: bytes, entries: list[bytes], *, has_more: bool) -> bytes:
    """Return the first page's body with other entries and cursors."""
    ids = [_ID.decode(entry).id for entry in entries]
    values = {
        "data": b"[" + b",".join(entries) + b"]",
        "has_more": b"true" if has_more else b"false",
        "first_id": msgspec.json.encode(ids[0] if ids else None),
        "last_id": msgspec.json.encode(ids[-1] if ids else None),
    }
    for name, value in values.items():
        if has_member(body, name):
            body = edit_member(body, name, lambda _, value=value: value)  # type: ignore[misc]  # bound now
    return body
