"""Every exception that the program raises on purpose, grouped by cause.

    ProxyError
    ├── RequestError            ends a request before the first byte of its response
    │   ├── CallerError             the request is at fault
    │   │   ├── BadRequest              400
    │   │   │   ├── InvalidBody             400 invalid_body
    │   │   │   └── ModelNotPriced          400 model_not_priced
    │   │   ├── NotAuthenticated        401
    │   │   ├── NotAllowed              403
    │   │   │   ├── InsufficientScope       403 insufficient_scope
    │   │   │   └── Stopped                 403 stopped
    │   │   ├── NotFound                404
    │   │   │   └── ContinuedNotFound       404 previous_response_not_found
    │   │   ├── MethodNotAllowed        405
    │   │   ├── RequestTimeout          408
    │   │   ├── BodyTooLarge            413
    │   │   ├── UpgradeRequired         426
    │   │   ├── HeadTooLarge            431
    │   │   ├── RateLimited             429
    │   │   │   ├── LimitReached            429 rate_limited
    │   │   │   └── BudgetReserved          429 budget_reserved
    │   │   ├── BudgetExceeded          402
    │   │   ├── UsagePending            409
    │   │   ├── IdempotencyKeyUsed      409
    │   │   ├── NoApiKey                409
    │   │   └── InvalidConfiguration    422
    │   ├── ServiceError            the proxy cannot serve the request now; the caller may retry
    │   │   ├── LedgerUnavailable       503
    │   │   ├── KeyNotConfigured        503
    │   │   ├── SettingsUnavailable     503
    │   │   ├── Overloaded              503
    │   │   ├── IdentityProviderUnavailable  503
    │   │   └── Draining                503
    │   └── UpstreamError           the provider is unreachable, or its response is incomplete
    │       ├── UpstreamUnreachable     502
    │       ├── UpstreamTimeout         504
    │       ├── UpgradeRejected         the provider's own status
    │       └── ExchangeAborted         the proxy ended the exchange: client gone, or shutdown
    ├── ConfigError             faults in an operator's files; never raised while serving a request
    └── ListenError             an address that cannot be bound; at start only

Only `gateway/base_handler.py` turns a RequestError into a response, in the provider's error format.
"""

from __future__ import annotations

from tornado_proxy.domain.budgets.rate_limits import RateState
from tornado_proxy.domain.config.fault import Fault
from tornado_proxy.domain.masking import mask_credentials


class ProxyError(Exception):
    """Base class of all exceptions of the program."""


class RequestError(ProxyError):
    """An error that ends a request before the first byte of its response.

    Attributes:
        status: The HTTP status.
        kind: The value of the error's `type` member.
        code: A stable word for programs (docs/errors.md).
        message: Text for people: the wrong value, the rule, what to do.  Texts that look like credentials are masked.
        client_message: The same for clients, who see no path and no address of the operator's databases.
        param: The name of the faulty field, masked in the same way, or None.
        model: The model that the request names, if it was read before the error; for the log.
        final: True if the same request fails again, so that SDKs must not retry it.
        retry_after_s: Seconds after which the same request can succeed, for a status that has Retry-After.
    """

    # The SDKs of the providers show `kind`, but choose their exception class by the HTTP status.
    status = 500
    kind = "api_error"
    code: str = "internal_error"
    final = False
    retry_after_s = 1  # the server's own state changes within a second

    def __init__(self, message: str, *, code: str | None = None, param: str | None = None) -> None:
        self.message = self.client_message = mask_credentials(message)
        super().__init__(self.message)
        self.param = param and mask_credentials(param)
        self.model: str | None = None
        if code is not None:
            self.code = code

    @property
    def client_wait_s(self) -> int | None:
        """The seconds of the header Retry-After, None for an error without one."""
        # Not for a 402: Codex 0.171 waits for it, days in silence, and its user never sees the message.
        return self.retry_after_s if self.status in (429, 503) else None


class CallerError(RequestError):
    """The request is at fault; a retry of the same request fails too, except where `final` is False."""

    status = 400
    kind = "invalid_request_error"
    final = True


class BadRequest(CallerError):
    """400: the request is malformed, or asks for something that the proxy rejects."""

    code = "bad_request"


class InvalidBody(BadRequest):
    """400: the body does not have the format of its route, such as invalid JSON or a duplicate member."""

    code = "invalid_body"


class ModelNotPriced(BadRequest):
    """400: the model, or the requested tier, has no price on this endpoint."""

    code = "model_not_priced"


class NotAuthenticated(CallerError):
    """401: the credential is missing or invalid."""

    status = 401
    kind = "authentication_error"
    code = "invalid_api_key"


class NotAllowed(CallerError):
    """403: the credential is valid, but does not allow this request."""

    status = 403
    kind = "permission_error"
    code = "not_allowed"


class InsufficientScope(NotAllowed):
    """403: the access token is valid but lacks `scope` (RFC 6750 section 3.1)."""

    code = "insufficient_scope"

    def __init__(self, scope: str) -> None:
        super().__init__(f"access token lacks the scope {scope}; log in again and request it")
        self.scope = scope


class Stopped(NotAllowed):
    """403: an admin has stopped the project, participant or agent session; the message says who and when."""

    code = "stopped"


class NotFound(CallerError):
    """404: no such route, or an object that belongs to another project."""

    status = 404
    kind = "not_found_error"
    code = "not_found"


class ContinuedNotFound(NotFound):
    """404: the message or response that the request continues is unknown, or belongs to another project."""

    code = "previous_response_not_found"

    def __init__(self, object_id: str) -> None:
        super().__init__(f"{object_id} was not found, so it cannot be continued; send the whole conversation again")


class MethodNotAllowed(CallerError):
    """405: the path exists, but not with this method.  `allowed` is the value of the `Allow` header."""

    status = 405
    code = "method_not_allowed"

    def __init__(self, message: str, allowed: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.allowed = allowed


class RequestTimeout(CallerError):
    """408: the client stopped sending before the end of the request."""

    status = 408
    final = False
    kind = "timeout_error"
    code = "request_timeout"


class BodyTooLarge(CallerError):
    """413: the body is larger than `limits.max_body_mb`."""

    status = 413
    kind = "request_too_large"
    code = "request_too_large"


class HeadTooLarge(CallerError):
    """431: the request line and the headers together are too large (RFC 6585 section 5)."""

    status = 431
    code = "headers_too_large"


class UpgradeRequired(CallerError):
    """426: the path is a WebSocket, and the request is not an upgrade (RFC 9110 section 15.5.22)."""

    status = 426
    code = "upgrade_required"


class RateLimited(CallerError):
    """429: the caller or its project holds its share of the server; the same request succeeds later."""

    status = 429
    final = False
    kind = "rate_limit_error"
    code = "rate_limited"


class LimitReached(RateLimited):
    """429: a limit of requests or tokens per minute, or of streams, is reached; `states` are those of the limits."""

    def __init__(self, message: str, retry_after_s: int, states: tuple[RateState, ...]) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.states = states


class BudgetExceeded(CallerError):
    """402: a budget is spent, until its period ends or an admin raises it."""

    status = 402
    kind = "billing_error"
    code = "budget_exceeded"


class BudgetReserved(RateLimited):
    """429: what requests under way can cost leaves no money for this one; most of it is free again soon."""

    code = "budget_reserved"
    retry_after_s = 2


class UsagePending(CallerError):
    """409: the usage of the object is not known yet, so a request that would end it is not sent."""

    status = 409
    code = "usage_pending"


class IdempotencyKeyUsed(CallerError):
    """409: the Idempotency-Key belongs to an earlier request, whose change was made."""

    status = 409
    code = "idempotency_key_used"


class NoApiKey(CallerError):
    """409: the project has no enabled API key, so no participant token can be signed."""

    status = 409
    code = "no_api_key"


class ServiceError(RequestError):
    """503: the proxy cannot serve the request now.  Nothing was sent to the provider, so a retry costs nothing."""

    status = 503
    code = "unavailable"


class LedgerUnavailable(ServiceError):
    """503: the ledger cannot be written, so the proxy starts no request."""

    code = "ledger_unavailable"

    def __init__(self, message: str, *, client_message: str | None = None) -> None:
        """Describe the failure; `client_message` leaves out what only the operator may see."""
        super().__init__(message)
        if client_message is not None:
            self.client_message = client_message


class KeyNotConfigured(ServiceError):
    """503: the provider key that an earlier request was made with is not configured any more."""

    code = "provider_not_configured"


class SettingsUnavailable(ServiceError):
    """503: the key ring is missing, or does not open the provider key that was set for the project."""

    code = "settings_unavailable"
    final = True
    retry_after_s = 60


class Overloaded(ServiceError):
    """503: the server runs as many requests, or holds as many bytes, as `limits` allow."""

    kind = "overloaded_error"
    code = "too_many_streams"


class IdentityProviderUnavailable(ServiceError):
    """503: an OAuth issuer cannot be asked, and its answer is not known.

    Not 401: a client that gets one discards a login that is valid.
    """

    code = "identity_provider_unavailable"

    def __init__(
        self, issuer: str, retry_after_s: int, consequence: str = "the access token cannot be checked"
    ) -> None:
        super().__init__(f"the identity provider {issuer} cannot be reached, so {consequence}")
        self.retry_after_s = retry_after_s


class Draining(ServiceError):
    """503: the process is shutting down."""

    code = "shutting_down"


class UpstreamError(RequestError):
    """The provider could not be reached, or its response is incomplete.

    `request_sent` is False only if the provider cannot have charged: nothing was sent, or the end was withheld.
    """

    status = 502
    code = "upstream_error"

    # True by default: a request counts as sent, and can be charged, until the opposite is certain.
    def __init__(self, message: str, *, request_sent: bool = True) -> None:
        super().__init__(message)
        self.request_sent = request_sent


class UpstreamUnreachable(UpstreamError):
    """502: no connection, a TLS error, or a response that is not HTTP."""

    code = "upstream_unreachable"


class UpstreamTimeout(UpstreamError):
    """504: no connection, or no byte of a response, within the configured time."""

    status = 504
    kind = "timeout_error"
    code = "upstream_timeout"


class UpgradeRejected(UpstreamError):
    """The provider rejected a WebSocket upgrade; its status, body and media type go to the client unchanged."""

    code = "upstream_refused"
    challenge: str | None = None  # its WWW-Authenticate

    def __init__(self, response_status: int, body: bytes, media_type: str, retry_after: str | None = None) -> None:
        super().__init__(
            f"the provider rejected the WebSocket upgrade with status {response_status}", request_sent=False
        )
        # `status` stays 502: the gateway sends `response_status` if it is an error status, else `status`.
        self.response_status = response_status
        self.body = body
        self.media_type = media_type
        self.retry_after = retry_after


class ExchangeAborted(UpstreamError):
    """The proxy ended the exchange: the client disconnected, or the process is shutting down."""

    code = "aborted"


class ConfigError(ProxyError):
    """The configuration is invalid.  `faults` holds every fault, ordered by file and line."""

    def __init__(self, faults: list[Fault]) -> None:
        # Sorted: checks run one after the other, but an operator reads and corrects a file from top to bottom.
        self.faults = tuple(sorted(faults))
        super().__init__("\n".join(str(fault) for fault in self.faults))


class InvalidConfiguration(CallerError):
    """422: a reload was requested, and the files have faults; the old configuration stays in use."""

    status = 422
    code = "invalid_configuration"

    def __init__(self, error: ConfigError) -> None:
        super().__init__(f"the configuration has faults; correct the files: {error}")
        self.faults = tuple(str(fault) for fault in error.faults)


class ListenError(ProxyError):
    """The address of `listen` or `admin` cannot be bound; the message names it."""
