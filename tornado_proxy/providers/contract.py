"""What a provider is to the rest of the program: a table of endpoints, and a few words on headers and errors.

Theory of operation.  `web/` matches a request to an `Endpoint`, hands the whole body to `parse`, and sends `body`.
When the head of the answer is there it asks for a `reader` and perhaps an `edit`; every chunk of the answer goes
through `reader.feed` first, then through `edit.feed`, then to the client:

    client body -> parse -> facts, body -> provider
    provider chunk -> reader.feed            (never changes anything, never raises)
                   -> edit.feed -> client    (only where docs/architecture.md says that bytes differ)
    end -> reader.close(complete=...) -> reader.result() -> UsageReport
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from tornado_proxy.domain.errors import RequestError
from tornado_proxy.domain.identity import Secret
from tornado_proxy.domain.request import RequestFacts, Spend
from tornado_proxy.domain.usage import UsageReport


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """Status and media type of an answer.  `media_type` is lower case without parameters, "" where it is missing."""

    status: int
    media_type: str

    @property
    def ok(self) -> bool:
        """Whether the provider did what was asked; an error status is never charged."""
        return 200 <= self.status < 300


class UsageReader(Protocol):
    """Reads usage out of one answer.  Never awaits, logs, raises or looks at a clock."""

    def feed(self, data: bytes) -> None:
        """Take the next body bytes, split anywhere, even inside a UTF-8 character."""

    def close(self, *, complete: bool) -> None:
        """The body has ended; `complete` is False when it broke off.  No feed afterwards."""

    def result(self) -> UsageReport:
        """What was read.  Called once, after close."""


class ResponseEdit(Protocol):
    """Changes the answer's bytes on their way to the client, in the few places where it must."""

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes from the provider; give what can go to the client now, perhaps b""."""

    def close(self) -> bytes:
        """The body has ended; give what is still held."""


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """The facts of a request, and the bytes to send: the client's own, or with a splice that `facts` tells of."""

    facts: RequestFacts
    body: bytes


#: (body, content type header) -> parsed request.  Raises InvalidBody or BadRequest.
Parse = Callable[[bytes, str], ParsedRequest]
MakeReader = Callable[[RequestFacts, ResponseHead], UsageReader]
MakeEdit = Callable[[RequestFacts, ResponseHead], ResponseEdit | None]
#: The Content-Type that the client must see, None where it is the provider's own.
AnswerType = Callable[[RequestFacts, ResponseHead], str | None]
#: (parsed request, content type header) -> the same with more facts.  Pure; may take tens of milliseconds, so it is run
#: in a thread between parse and admission.  Raises BadRequest.
Measure = Callable[[ParsedRequest, str], ParsedRequest]


@dataclass(frozen=True, slots=True)
class ClientFrame:
    """What one frame of a client asks for on a WebSocket.  `spends` and `references` are admitted before it goes on.

    `facts` are set where the frame asks for an answer that costs; `event_id` is the client's own name for it.
    """

    event_id: str | None = None
    spends: tuple[Spend, ...] = ()
    references: tuple[str, ...] = ()
    facts: RequestFacts | None = None


class SocketReader(Protocol):
    """Reads one WebSocket session, both ways: what frames ask for, and what was used.  Sans-I/O.

    Work (a response, a transcription) is known by the id that the provider gives it.
    """

    @property
    def references(self) -> tuple[str, ...]:
        """Ids of provider objects that opening the session names; they must be the project's own."""

    @property
    def model(self) -> str | None:
        """The model that answers, where the session has one."""

    @property
    def working(self) -> bool:
        """Whether something runs that is still to be paid for."""

    def spends(self) -> tuple[Spend, ...]:
        """What the session can be charged for without being asked, as far as is known now."""

    def read_client_frame(self, frame: str | bytes) -> ClientFrame:
        """Look at a frame before it goes to the provider.

        Raises:
            CallerError: it cannot be read, or two readers could read it differently.
        """

    def refusal(self, error: RequestError, frame: ClientFrame, own_id: str) -> str:
        """The frame that tells the client why its own was not sent on; `own_id` is a fresh event id."""

    def feed_server_frame(self, frame: str | bytes) -> tuple[UsageReport, ...]:
        """Take a frame of the provider; give what it settles, each with its work's id.  Never raises."""

    def take_begun(self) -> tuple[str, ...]:
        """The ids of work that the provider has begun since the last call."""

    def take_rejected(self) -> int:
        """How many requests for an answer the provider has turned down since the last call."""

    def close(self) -> tuple[UsageReport, ...]:
        """The session has ended; give what it leaves open, estimated or unsettled."""


#: (raw query, subprotocols that the client offers) -> what reads the session.  Raises BadRequest.
OpenReader = Callable[[str, tuple[str, ...]], SocketReader]


@dataclass(frozen=True, slots=True)
class Sideband:
    """How a call whose media flows past us is listened to, and ended, by its id: targets at the provider."""

    target: Callable[[str], str]
    hang_up: Callable[[str], str]
    open: OpenReader


#: (the provider's short-lived key, when it expires in seconds since 1970) -> the key of ours that stands for it.
Seal = Callable[[str, int], str]


@dataclass(frozen=True, slots=True)
class DeferredUsage:
    """How the usage of a call that the provider reports later is fetched, by the id of what it created.

    `state` is the path to ask, `finished` reads its answer; `results` is where usage then stands, None where it stands
    in the state itself, and `reader` reads it.  `slowest_s` is the longest wait between two looks, in seconds.
    """

    state: Callable[[str], str]
    finished: Callable[[bytes], bool]
    reader: MakeReader
    slowest_s: float
    results: Callable[[str], str] | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One path of a provider's API, as one method serves it.

    `path` is the provider's own, with `{id}` for one path segment: "/v1/responses/{id}".  `parse` is None where no
    body is looked at, `reader` None where the call is free.  `priced_as` is the registry's endpoint whose prices hold.
    `answer_type` is set where `edit` can change what kind of body it is, `measure` where facts are costly to find.
    `by_id`: the `{id}` of the path must be an object of the caller's project.  `lists` is the endpoint whose calls made
    the objects that this one lists.  `later` is set where usage can come later.  `rewrite_urls` puts our address
    in the place of the provider's where an answer tells the client what to fetch next: (body, our base URL) -> body.
    `socket` is set where the path is a WebSocket, and what is used is read from its frames.
    `secrets` puts keys of ours in the place of the provider's short-lived ones: (body, seal) -> body.  `session_keys`:
    such keys of ours are taken here.  `sideband` is set where media flows past us, metered over a WebSocket of ours.
    """

    provider: str
    method: str
    path: str
    parse: Parse | None = None
    reader: MakeReader | None = None
    edit: MakeEdit | None = None
    priced_as: str = ""
    answer_type: AnswerType | None = None
    measure: Measure | None = None
    by_id: bool = False
    lists: str = ""
    later: DeferredUsage | None = None
    rewrite_urls: Callable[[bytes, str], bytes] | None = None
    socket: OpenReader | None = None
    secrets: Callable[[bytes, Seal], bytes] | None = None
    session_keys: bool = False
    sideband: Sideband | None = None

    @property
    def free(self) -> bool:
        """Whether the provider charges nothing for a call."""
        return self.reader is None and self.socket is None


@dataclass(frozen=True, slots=True)
class Provider:
    """One provider's table and manners.

    `prefix` is the first path segment on our side.  `credential_headers` are the headers, lower case, that may bring
    a client's token; `key_headers` makes those that carry the provider key.  `passed_headers` and `passed_prefixes` are
    the request headers that go on; `withheld_headers` never do, whatever the config adds.  `account_headers` are answer
    headers that would name the provider account.  `error_body` writes an error as this provider would: (error, our
    request id) -> JSON bytes.  `request_id_header` is the provider's own id of an answer.  `own_headers` go with
    requests that the proxy makes by itself.
    """

    name: str
    prefix: str
    endpoints: tuple[Endpoint, ...]
    credential_headers: tuple[str, ...]
    key_headers: Callable[[Secret], Mapping[str, Secret]]
    error_body: Callable[[RequestError, str], bytes]
    request_id_header: str
    passed_headers: frozenset[str] = frozenset()
    passed_prefixes: tuple[str, ...] = ()
    withheld_headers: frozenset[str] = frozenset()
    account_headers: frozenset[str] = field(default_factory=frozenset)
    own_headers: tuple[tuple[str, str], ...] = ()
