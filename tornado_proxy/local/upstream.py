"""Requests to the hosted proxy that are sent once more with another token if it refuses the first.

Only a 401 with `WWW-Authenticate: Bearer` is the hosted proxy's own: it does not pass that header of a provider.
"""

from __future__ import annotations

from dataclasses import replace

from msgspec import structs

from tornado_proxy.domain.errors import RequestError, UpgradeRejected
from tornado_proxy.domain.identity import Secret
from tornado_proxy.gateway.base_handler import REQUEST_ID_HEADER
from tornado_proxy.local.error_texts import ErrorTexts
from tornado_proxy.local.hosted import HostedProxy
from tornado_proxy.upstream.http.messages import Payload, UpstreamRequest, UpstreamResponseHead
from tornado_proxy.upstream.http.protocols import ProviderExchange, Upstream
from tornado_proxy.upstream.websocket.connection import UpstreamWebSocket, WebSocketRequest, connect

_UNAUTHORIZED = 401


class HostedUpstream:
    """Starts exchanges with the hosted proxy."""

    def __init__(self, upstream: Upstream, hosted: HostedProxy, error_texts: ErrorTexts) -> None:
        self._upstream = upstream
        self._hosted = hosted
        self._error_texts = error_texts

    def start(self, request: UpstreamRequest) -> ProviderExchange:
        """Send a request."""
        return _HostedExchange(self._upstream, self._hosted, request, self._error_texts)

    async def connect(self, request: WebSocketRequest) -> UpstreamWebSocket:
        """Open a WebSocket; as upstream/websocket/connection.py."""
        try:
            return await connect(request)
        except UpgradeRejected as rejection:
            if not _is_own_refusal(rejection.response_status, rejection.challenge):
                raise
            headers = await _renew(self._hosted, request.url, request.key_headers)
            if headers is None:
                raise
            return await connect(replace(request, key_headers=headers))


class _HostedExchange:
    """One request, and its second attempt if the first is refused; implements ProviderExchange."""

    def __init__(
        self, upstream: Upstream, hosted: HostedProxy, request: UpstreamRequest, error_texts: ErrorTexts
    ) -> None:
        self._upstream = upstream
        self._hosted = hosted
        self._error_texts = error_texts
        #: The request id of a response whose body is an error.
        self._failed_id: str | None = None
        self._request = request
        #: The body of a second attempt; the first one is dropped when a response arrives.
        self._body: Payload | None = request.body.copy() if isinstance(request.body, Payload) else None
        self._exchange = upstream.start(request)
        self._aborted: str | None = None

    @property
    def complete(self) -> bool:
        return self._exchange.complete

    @property
    def finished(self) -> bool:
        return self._exchange.finished

    @property
    def held_bytes(self) -> int:
        return self._exchange.held_bytes

    async def head(self) -> UpstreamResponseHead:
        body, request = self._body, self._request
        head = await self._exchange.head()
        self._body = None
        if not _is_own_refusal(head.status, head.fields.get("www-authenticate")):
            return self._note(head)
        headers = await _renew(self._hosted, request.url, request.key_headers)
        if headers is None or self._aborted is not None:
            return self._note(head)
        self._exchange.abort("the token is refused")
        self._exchange = self._upstream.start(structs.replace(request, key_headers=headers, body=body))
        return self._note(await self._exchange.head())

    async def read(self) -> bytes:
        data = await self._exchange.read()
        if self._failed_id is not None:
            self._error_texts.add(self._failed_id, data)
        return data

    def _note(self, head: UpstreamResponseHead) -> UpstreamResponseHead:
        self._failed_id = head.fields.get(REQUEST_ID_HEADER.lower()) if head.status >= 400 else None
        return head

    def abort(self, reason: str) -> None:
        self._aborted = reason
        self._exchange.abort(reason)


def _is_own_refusal(status: int, challenge: str | None) -> bool:
    return status == _UNAUTHORIZED and challenge is not None and challenge.lower().startswith("bearer")


async def _renew(
    hosted: HostedProxy, url: str, refused: tuple[tuple[str, Secret], ...]
) -> tuple[tuple[str, Secret], ...] | None:
    """Return the headers of a second attempt with another token; None if there is no other."""
    provider = hosted.find_provider(url)
    current = hosted.snapshots.current.projects
    token = next(iter(current.values())).providers[provider].keys[0].secret
    if hosted.key_headers(provider, token) == refused:
        try:
            replaced = await hosted.tokens.replace(token)
        except RequestError:
            return None  # the refusal of the hosted proxy is passed on
        if replaced is None:
            return None
        token = replaced
    hosted.use(token)
    return hosted.key_headers(provider, token)
