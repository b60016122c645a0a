"""The contract between a provider's folder and the rest of the program: endpoints, usage readers, headers, errors.

Theory of operation.  `gateway/` matches a request to an endpoint and calls `parse` with a view of it.  After the
response head it asks for a usage reader and perhaps an edit.  Every chunk passes the reader, then the edit:

    request view   -> parse -> facts, body -> provider
    provider chunk -> reader.feed            (never changes anything, never raises)
                   -> edit.feed -> client    (only where docs/architecture.md says that bytes differ)
    end of body    -> reader.close(complete=...) -> reader.result() -> UsageReport
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from datetime import datetime
from typing import Protocol

import msgspec

from tornado_proxy.domain.budgets.rate_limits import RateState
from tornado_proxy.domain.errors import RequestError
from tornado_proxy.domain.identity import Secret
from tornado_proxy.domain.request import RequestFacts, Spend
from tornado_proxy.domain.usage import UsageReport
from tornado_proxy.providers import conventions
from tornado_proxy.providers.owned_objects import ModelList, ModelObject, OwnedList, OwnedObject
from tornado_proxy.providers.shared.member_rules import MemberRules
from tornado_proxy.wire.multipart import Form
from tornado_proxy.wire.splice import Splice


class RequestView(msgspec.Struct, frozen=True):
    """A request as its endpoint's parser sees it.

    `path_id` is the `{id}` segment of the path, None if the path has none.  `query` is raw, without the question mark.
    `form` is set in place of `body` if a form is in memory that processes share.  There are no headers: large bodies
    are read in another process, which shall not have the client's credential.
    """

    body: bytes
    content_type: str = ""
    path_id: str | None = None
    query: str = ""
    form: Form | None = None


class ResponseHead(msgspec.Struct, frozen=True):
    """Status and media type of a response.  `media_type` is lower case without parameters, "" if missing."""

    status: int
    media_type: str

    @property
    def ok(self) -> bool:
        """True if the status is 2xx.  Providers never charge for an error status."""
        return 200 <= self.status < 300


class UsageReader(Protocol):
    """Reads usage from one response.  Never awaits, logs, raises or looks at a clock."""

    @property
    def object_id(self) -> str | None:
        """The id of the object that the request created, as soon as the response names it."""

    def feed(self, data: bytes) -> None:
        """Read the next body bytes, split anywhere, even inside a UTF-8 character."""

    def close(self, *, complete: bool) -> None:
        """End the body.  `complete` is False if the response broke off.  No feed afterwards."""

    def result(self) -> UsageReport:
        """Return the usage.  Called once, after close."""


class ResponseEdit(Protocol):
    """Changes response bytes on their way to the client."""

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes from the provider; return the bytes that can go to the client now, perhaps b""."""

    def close(self) -> bytes:
        """End the body; return the bytes still held."""


class ParsedRequest(msgspec.Struct, frozen=True):
    """The facts of a request, and the bytes to send: `body`, changed by `splice` if set, or `shared` memory."""

    facts: RequestFacts
    body: bytes
    splice: Splice | None = None
    shared: memoryview | None = None

    @property
    def pieces(self) -> tuple[bytes | memoryview, ...]:
        """The bytes to send."""
        whole = self.body if self.shared is None else self.shared
        return (whole,) if self.splice is None else self.splice.split(self.body)


#: Raises InvalidBody or BadRequest.
Parse = Callable[[RequestView], ParsedRequest]
#: Adds facts that take long to find, between parse and admission.  Pure.  Raises BadRequest.
Measure = Callable[[ParsedRequest, RequestView], ParsedRequest]
MakeReader = Callable[[RequestFacts, ResponseHead], UsageReader]
MakeEdit = Callable[[RequestFacts, ResponseHead], ResponseEdit | None]
#: (the provider's short-lived key, its expiry in seconds since 1970) -> the key of ours that replaces it.
Seal = Callable[[str, int], str]


@dataclass(frozen=True, slots=True)
class ResponseEdits:
    """The ways in which an endpoint's response differs between provider and client.

    `body` edits chunks as they pass; `content_type` returns that of the edited body, None for the provider's own.
    `rewrite_urls` edits a whole body so that URLs lead to the proxy: (body, our base URL) -> body.  `seal_secrets`
    replaces the provider's short-lived keys in a whole body by ours.
    """

    body: MakeEdit | None = None
    content_type: Callable[[RequestFacts, ResponseHead], str | None] | None = None
    rewrite_urls: Callable[[bytes, str], bytes] | None = None
    seal_secrets: Callable[[bytes, Seal], bytes] | None = None


@dataclass(frozen=True, slots=True)
class DeferredUsage:
    """How to fetch usage that the provider reports after the response, by the id of the created object.

    `state` is the path to poll and `finished` reads its response.  `results` is the path that then states usage, None
    if the state itself does; `reader` reads it.  Polls are at most `max_interval_s` apart.

    `cancel` is the path to which a POST ends running work.  Some work ends a while later; `is_cancelling` returns True
    for its state meanwhile.  `cancels_deleted` is True if the work of an object that a client deletes is cancelled,
    False if the client must wait for its end.  `check` compares the report of the results with the state: it returns a
    description of the missing results, None without any.  `estimate` reports what the facts alone tell, for an object
    that the provider no longer has.
    """

    state: Callable[[str], str]
    finished: Callable[[bytes], bool]
    reader: MakeReader
    max_interval_s: float
    cancel: Callable[[str], str]
    results: Callable[[str], str] | None = None
    cancels_deleted: bool = False
    is_cancelling: Callable[[bytes], bool] = lambda _: False
    check: Callable[[bytes, UsageReport], str | None] | None = None
    estimate: Callable[[RequestFacts], UsageReport] | None = None


@dataclass(frozen=True, slots=True)
class ClientFrame:
    """The request in one WebSocket frame of a client.  `spends` and `references` are admitted before it is sent on.

    `event_id` is the client's own id of the frame.  `facts` are set if it requests work that costs, in `lane`, in which
    work runs in order.  `steers` is the id of running work that the frame changes; that work alone tells whether it may
    name `named_models`.  `audio_characters` is the length of its audio in base64.
    """

    event_id: str | None = None
    spends: tuple[Spend, ...] = ()
    references: tuple[str, ...] = ()
    facts: RequestFacts | None = None
    lane: str = ""
    steers: str | None = None
    named_models: tuple[str, ...] = ()
    audio_characters: int = 0


@dataclass(frozen=True, slots=True)
class WorkStarted:
    """The provider has started work (a response, a transcription) that will be charged.

    `facts` rate work that no frame requested; None if only the session's model is known.
    """

    work_id: str
    lane: str = ""
    facts: RequestFacts | None = None


@dataclass(frozen=True, slots=True)
class WorkRejected:
    """The provider has rejected a request for work.  Nothing is charged.

    `event_id` is the client's id of the rejected frame, None if the provider does not state it: then the oldest request
    of the lane is meant.
    """

    lane: str = ""
    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class UsageReported:
    """Work has ended.  `report.object_id` is its id, if any; `failed` is True if the provider reports a failure."""

    report: UsageReport
    failed: bool = False


@dataclass(frozen=True, slots=True)
class SessionChanged:
    """The session can now be charged for `spends`, which may name another model than before."""

    spends: tuple[Spend, ...]


@dataclass(frozen=True, slots=True)
class QuotaStated:
    """The frame states the quota of the provider account, which is for the clients of a project with its own key only.

    `rest` is the frame without the quota, for all other clients; None if it says nothing else.
    """

    rest: str | None = None


SocketEvent = WorkStarted | WorkRejected | UsageReported | SessionChanged | QuotaStated


class SocketReader(Protocol):
    """Reads one WebSocket session in both directions: requests for work, and usage.  Sans-I/O."""

    @property
    def references(self) -> tuple[str, ...]:
        """Ids of provider objects that opening the session names; they must be the project's own."""

    @property
    def model(self) -> str | None:
        """The model of the session, None if each request names its own."""

    @property
    def working(self) -> bool:
        """True while work runs that will be charged."""

    @property
    def spends(self) -> tuple[Spend, ...]:
        """Spends of the session itself, without a further request.  Changes are events (SessionChanged)."""

    def accept_frame(self, frame: ClientFrame) -> ClientFrame:
        """Note a client's frame, as its endpoint has parsed it, and return it with the facts that the session knows.

        Raises:
            CallerError: the frame refers to work that does not run in this session.
        """

    def refusal(self, error: RequestError, frame: ClientFrame, event_id: str) -> str:
        """Return the frame that tells the client why its frame was rejected; `event_id` is a new id for it."""

    def feed_server_frame(self, frame: str | bytes) -> tuple[SocketEvent, ...]:
        """Read a provider's frame; return its events in order.  Never raises."""

    def close(self) -> tuple[UsageReport, ...]:
        """End the session; return reports of unfinished work, estimated or unsettled."""


#: (raw query, subprotocols that the client offers) -> reader of the session.  Raises BadRequest.
OpenReader = Callable[[str, tuple[str, ...]], SocketReader]

#: (frame of a client, model of the session) -> the request of the frame.  Pure, so that another process can do it for a
#: large frame.  Raises CallerError if the frame cannot be parsed, or two parsers could read it differently.
ParseFrame = Callable[[bytes, str | None], ClientFrame]


@dataclass(frozen=True, slots=True)
class Sideband:
    """The WebSocket over which a realtime call is metered if its media does not pass the proxy.

    `target` and `hang_up` return targets at the provider for a call id; `open_reader` makes the reader.
    """

    target: Callable[[str], str]
    hang_up: Callable[[str], str]
    open_reader: OpenReader


@dataclass(frozen=True, slots=True)
class HttpEndpoint:
    """One path of a provider's API, as one method serves it.

    `path` is the provider's own, with `{id}` for one path segment: "/v1/responses/{id}".  `parse` is None if no body is
    read.  Requests are charged if `reader` is set (from the response) or `sideband` is (from its frames); else they are
    free.  `deferred_usage` is set if usage can come after the response.  `shows_usage` is set if the response can state
    the deferred usage of the object in the path, `ends_usage` if the usage cannot be fetched after the request, which
    deletes the object.  `ends_work`: the request ends work that is charged, so that no stop refuses it.  `priced_as` is
    the endpoint of the price list whose prices hold, "" for `path`.  `session_keys`: short-lived keys of ours are
    accepted.  `takes_batch`: a body holds many requests, and may be larger than others.  `content_members` are the
    names of members that hold text of a prompt or data, of which `parse` reads at most whether it is empty: of a large
    body it gets an outline without them (shared/body_outline.py).  `admits_by_fields`: of a form `parse` reads no
    content of a file, so that it may be sent while files arrive.  `rewrites_body`: the proxy may rewrite a whole
    response body, because a list, a URL or a short-lived key is in it.
    """

    method: str
    path: str
    _: KW_ONLY
    parse: Parse | None = None
    measure: Measure | None = None
    reader: MakeReader | None = None
    sideband: Sideband | None = None
    deferred_usage: DeferredUsage | None = None
    shows_usage: DeferredUsage | None = None
    ends_usage: DeferredUsage | None = None
    ends_work: bool = False
    response_edits: ResponseEdits = ResponseEdits()
    objects: OwnedObject | OwnedList | ModelList | ModelObject | None = None
    priced_as: str = ""
    session_keys: bool = False
    takes_batch: bool = False
    content_members: frozenset[bytes] = frozenset()
    admits_by_fields: bool = False
    rewrites_body: bool = field(init=False)
    #: True if the provider charges for a request, so that it must name a priced spend.
    charged: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "charged", self.reader is not None or self.sideband is not None)
        edits = self.response_edits
        listed = isinstance(self.objects, OwnedList | ModelList)
        rewrites = listed or edits.rewrite_urls is not None or edits.seal_secrets is not None
        object.__setattr__(self, "rewrites_body", rewrites)

    def owned_object(self, path_id: str | None) -> str | None:
        """Return the id in the path if it names an object of a project, else None."""
        return path_id if isinstance(self.objects, OwnedObject) else None


@dataclass(frozen=True, slots=True)
class WebSocketEndpoint:
    """One WebSocket path of a provider's API; `resumes` is True if frames can refer to work of earlier sessions."""

    path: str
    open_reader: OpenReader
    parse_frame: ParseFrame
    _: KW_ONLY
    priced_as: str = ""
    session_keys: bool = False
    resumes: bool = False
    method: str = field(default="GET", init=False)
    charged: bool = field(default=True, init=False)


Endpoint = HttpEndpoint | WebSocketEndpoint


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider's endpoints, headers and error format.

    `title` is for people, `prefix` the first path segment on our side, `default_base_url` the public API.  `endpoints`
    hold for the default ProviderOptions; `make_endpoints` is set if others need other endpoints.  Price files can name
    `priced_paths`, served or not.  `credential_headers` (lower case) can carry a client's token; `key_headers` returns
    those that carry the provider key.  Request headers in `passed_headers` and `passed_prefixes` are forwarded;
    `withheld_headers` never are, whatever the configuration adds.  `account_headers` of responses would name the
    provider account; headers with `quota_prefixes` state its quota and, over time, the use that others make of it.
    `error_body` writes an error as this provider would: (error, our request id) -> JSON bytes.  `rate_headers` names
    limits as this provider does: (limits, now) -> headers of a 429.
    `request_id_header` holds the provider's id of a response.  `optional_version`: below the prefix, paths without /v1
    are served as well: some clients expect a base URL with it.  `own_headers` go with the proxy's own requests.
    `member_rules` say which members of a JSON body refer to objects and models.  The query of a POST request may have
    `post_parameters` only.  `usage` names the members of usage that the readers know.  `is_proxy`: it is a proxy of
    this kind, whose request id replaces ours.
    """

    name: str
    title: str
    prefix: str
    default_base_url: str
    sdk_variables: conventions.SdkVariables
    example: conventions.ExampleRequest
    price_lists: conventions.PriceListConvention
    endpoints: tuple[Endpoint, ...]
    priced_paths: frozenset[str]
    credential_headers: tuple[str, ...]
    key_headers: Callable[[Secret], Mapping[str, Secret]]
    error_body: Callable[[RequestError, str], bytes]
    rate_headers: Callable[[Sequence[RateState], datetime], list[tuple[str, str]]]
    request_id_header: str
    passed_headers: frozenset[str] = frozenset()
    passed_prefixes: tuple[str, ...] = ()
    withheld_headers: frozenset[str] = frozenset()
    account_headers: frozenset[str] = frozenset()
    quota_prefixes: tuple[str, ...] = ()
    optional_version: bool = False
    own_headers: tuple[tuple[str, str], ...] = ()
    websocket: conventions.WebSocketConvention | None = None
    member_rules: MemberRules | None = None
    post_parameters: frozenset[str] = frozenset()
    usage: conventions.UsageConvention = conventions.NO_USAGE
    make_endpoints: Callable[[conventions.ProviderOptions], tuple[Endpoint, ...]] | None = None
    is_proxy: bool = False

    def configure(self, options: conventions.ProviderOptions) -> Provider:
        """Return the provider with the endpoints for `options`."""
        return self if self.make_endpoints is None else replace(self, endpoints=self.make_endpoints(options))
