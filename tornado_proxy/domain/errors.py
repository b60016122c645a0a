"""Every exception the program raises on purpose, split by whose fault it is.

    ProxyError
    ├── CallerError           the caller's request; carries an HTTP status and an error code
    │   ├── BadRequest            400
    │   │   ├── ModelNotPriced        400 model_not_priced
    │   │   └── InvalidBody       400
    │   ├── NotAuthenticated      401
    │   ├── NotAllowed            403
    │   ├── NotFound              404
    │   ├── MethodNotAllowed      405
    │   ├── RequestTimeout        408
    │   ├── BodyTooLarge          413
    │   └── UpgradeRequired       426
    ├── ServiceError          our own state; the caller may try again
    │   ├── LedgerUnavailable     503
    │   ├── Overloaded            503
    │   └── Draining              503
    ├── UpstreamError         the provider could not be reached or broke off
    │   ├── UpstreamUnreachable   502
    │   ├── UpstreamTimeout       504
    │   ├── UpgradeRejected       the provider's own status
    │   └── ExchangeAborted       our own doing: the client left, or the process ends
    ├── ConfigError           files that an operator wrote; never raised while a request is served
    └── ListenError          an address that cannot be bound; at the start only

`web/` alone turns a CallerError, ServiceError or UpstreamError into an answer, in the provider's error shape.
"""

from __future__ import annotations

from dataclasses import dataclass


class ProxyError(Exception):
    """Root of the tree."""


class RequestError(ProxyError):
    """An error that ends a request before the first byte of an answer.

    `status` is the HTTP status; `kind` the word that goes into the error's `type`
    member; `code` a stable word for programs (docs/errors.md); `param` names the faulty field, if one is.
    """

    status = 500
    kind = "api_error"
    code: str = "internal_error"

    def __init__(self, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        if code is not None:
            self.code = code


class CallerError(RequestError):
    """The request itself is at fault; sending it again unchanged will not help."""

    status = 400
    kind = "invalid_request_error"


class BadRequest(CallerError):
    """400: the request cannot be understood or is refused for what it says."""

    code = "bad_request"


class InvalidBody(BadRequest):
    """400: the body is not what its route takes (not JSON, a watched member twice, ...)."""

    code = "invalid_body"


class ModelNotPriced(BadRequest):
    """400: the model, or the tier it asks for, has no price on this endpoint."""

    code = "model_not_priced"


class NotAuthenticated(CallerError):
    """401: no credential, or one that is not valid."""

    status = 401
    kind = "authentication_error"
    code = "invalid_api_key"


class NotAllowed(CallerError):
    """403: a valid credential that may not do this."""

    status = 403
    kind = "permission_error"
    code = "not_allowed"


class NotFound(CallerError):
    """404: no such route, or an object of another project."""

    status = 404
    kind = "not_found_error"
    code = "not_found"


class MethodNotAllowed(CallerError):
    """405: the path is served, but not with this method."""

    status = 405
    code = "method_not_allowed"

    def __init__(self, message: str, allowed: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.allowed = allowed


class RequestTimeout(CallerError):
    """408: the rest of the request did not come."""

    status = 408
    kind = "timeout_error"
    code = "request_timeout"


class BodyTooLarge(CallerError):
    """413: the body is larger than `limits.max_body_mb`."""

    status = 413
    kind = "request_too_large"
    code = "request_too_large"


class UpgradeRequired(CallerError):
    """426: the path is a WebSocket, and the request does not ask for one (RFC 9110 section 15.5.22)."""

    status = 426
    code = "upgrade_required"


class ServiceError(RequestError):
    """Our own state stands in the way; nothing was sent to the provider."""

    status = 503
    code = "unavailable"


class LedgerUnavailable(ServiceError):
    """503: the ledger cannot be written, so no request may be started."""

    code = "ledger_unavailable"


class Overloaded(ServiceError):
    """503: `limits.max_streams` requests are in flight."""

    kind = "overloaded_error"
    code = "too_many_streams"


class Draining(ServiceError):
    """503: the process is shutting down."""

    code = "shutting_down"


class UpstreamError(RequestError):
    """The provider could not be reached, or its answer broke off.

    `request_sent` is False when no byte of the request can have left, so that nothing can have been charged.
    """

    status = 502
    code = "upstream_error"

    def __init__(self, message: str, *, request_sent: bool = True) -> None:
        super().__init__(message)
        self.request_sent = request_sent


class UpstreamUnreachable(UpstreamError):
    """502: no connection, a TLS fault, or an answer that is not HTTP."""

    code = "upstream_unreachable"


class UpstreamTimeout(UpstreamError):
    """504: no connection, or no byte, within the configured time."""

    status = 504
    kind = "timeout_error"
    code = "upstream_timeout"


class UpgradeRejected(UpstreamError):
    """The provider answered the upgrade to a WebSocket with an HTTP error; it is passed on as it came."""

    code = "upstream_refused"

    def __init__(self, response_status: int, body: bytes, media_type: str) -> None:
        super().__init__(f"the provider refused the WebSocket with status {response_status}", request_sent=False)
        self.response_status = response_status
        self.body = body
        self.media_type = media_type


class ExchangeAborted(UpstreamError):
    """We ended the exchange: the client left, or the process is going down."""

    code = "aborted"


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One thing wrong in a file an operator wrote.  `line` counts from 1; 0 means the whole file."""

    file: str
    line: int
    key: str
    rule: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.key}: {self.rule}" if self.key else f"{place}: {self.rule}"


class ConfigError(ProxyError):
    """Configuration that cannot be used.  Holds every fault found, in file order."""

    def __init__(self, faults: list[Fault]) -> None:
        self.faults = tuple(sorted(faults))
        super().__init__("\n".join(str(fault) for fault in self.faults))


class ListenError(ProxyError):
    """An address of `listen` or `admin` cannot be bound; the message names it."""
