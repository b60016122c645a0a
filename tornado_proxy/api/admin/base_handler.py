"""The base of every handler of the admin port: access checks, parameters, JSON responses and errors, the audit line.

A handler defines get(), post(), put() or delete(), calls respond(), and raises RequestError.  Everything else is here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

from tornado.web import RequestHandler

from tornado_proxy.api.admin.access_checks import check_bearer, check_host, check_origin
from tornado_proxy.api.admin.services import AdminServices
from tornado_proxy.api.audit import ChangeSource, log_change
from tornado_proxy.api.own_handler import OwnHandler
from tornado_proxy.domain.errors import BadRequest, InvalidConfiguration, MethodNotAllowed, RequestError
from tornado_proxy.gateway.base_handler import REQUEST_ID_HEADER, error_headers, make_request_error
from tornado_proxy.observability import access_log
from tornado_proxy.observability.access_log import RequestLine
from tornado_proxy.state.guarded_changes import GuardedChanges

_Result = TypeVar("_Result")

#: The name under which changes are logged and stored.
ACTOR = "admin"

_IDEMPOTENCY_KEY = re.compile(r"[!-~](?:[ -~]{0,198}[!-~])?")

_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE")


class _EveryMethod(tuple[str, ...]):
    """Contains every method: Tornado would answer 405 to another one before prepare() has checked the credential."""

    __slots__ = ()

    def __contains__(self, method: object) -> bool:
        return True


class AdminHandler(OwnHandler):
    """A handler of the admin port.

    Attributes:
        is_open: True if the handler needs no credential and no known Host, which health checks cannot send.
        parameters: The query parameters that the handler reads, by method; those of GET hold for HEAD.
    """

    SUPPORTED_METHODS = _EveryMethod()
    is_open: ClassVar[bool] = False
    parameters: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    def initialize(self, admin: AdminServices, path_template: str) -> None:
        """Keep the services and the template of the path."""
        self.admin = admin
        self.services = admin.services
        self.path_template = path_template

    def prepare(self) -> None:
        """Check the request's access, method and parameters.  Called by Tornado first."""
        access = self.services.snapshots.current.settings.admin_access
        check_origin(self.request.headers)
        if not self.is_open:
            check_host(self.request.headers, access)
            check_bearer(self.request.headers, access)
        self.check_method()
        self.check_parameters()

    def check_method(self) -> None:
        """Raise MethodNotAllowed unless the handler defines the method."""
        allowed = list_methods(type(self))
        if self.request.method not in allowed:
            method = (self.request.method or "")[:20]
            raise MethodNotAllowed(f"method {method} is not supported; use {' or '.join(allowed)}", allowed)

    def check_parameters(self) -> None:
        """Raise BadRequest for an unknown or repeated parameter; a misspelled dry_run would make the change."""
        method = self.request.method or ""
        known = self.parameters.get("GET" if method == "HEAD" else method, ())
        for name, values in self.request.query_arguments.items():
            if name not in known:
                rule = f"the parameters are {', '.join(known)}" if known else "there are none here"
                raise BadRequest(f"unknown parameter {name[:40]!r}; {rule}", param=name[:40])
            if len(values) != 1:
                raise BadRequest(f"parameter {name} is repeated; send it once", param=name)

    def read_parameter(self, name: str) -> str | None:
        """Return the value of a query parameter, None if it is missing."""
        values = self.request.query_arguments.get(name)
        return None if values is None else values[0].decode("utf-8", "replace")

    def is_dry_run(self) -> bool:
        """Return True if the request asks for the checks of a change without the change.

        Raises:
            BadRequest: dry_run is neither 0 nor 1.
        """
        value = self.request.query_arguments.get("dry_run", [b"0"])[0]
        if value not in (b"0", b"1"):
            raise BadRequest("dry_run must be 1 or 0", param="dry_run")
        return value == b"1"

    def respond(self, document: Mapping[str, object], status: int = 200) -> None:
        """Finish the response with a JSON document."""
        self.set_status(status)
        self.finish(json.dumps(document) + "\n")

    async def change_state(self, make_change: Callable[[GuardedChanges], _Result]) -> _Result:
        """Make a change of the state, which all processes of the ledger share, and return its result.

        The change is undone in a dry run, and refused if the request's Idempotency-Key was used before.

        Raises:
            BadRequest: the key is malformed.
            IdempotencyKeyUsed: the key was used before.
            LedgerUnavailable: the database fails, and nothing was changed.
        """
        key, dry_run = read_idempotency_key(self.request.headers.get_list("Idempotency-Key")), self.is_dry_run()
        return await self.admin.state.change(lambda store: make_change(GuardedChanges(store, key, dry_run)))

    def log_change(self, action: str, subject: str, *, old: object = None, new: object = None) -> None:
        """Write the audit line of a change.

        Args:
            action: The kind of change, such as `access key created`.
            subject: The public id of the changed thing.
            old: Its earlier document, without secrets; None if it is new.
            new: Its new document, without secrets; None if it is gone.
        """
        log_change(ChangeSource(self.request_id, ACTOR, self.request.remote_ip), action, subject, (old, new))

    def set_default_headers(self) -> None:
        """Set the headers of every response."""
        self.clear_header("Server")
        self.set_header("Content-Type", "application/json")
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header(REQUEST_ID_HEADER, self.request_id)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Finish the response with an error.  Called by Tornado for every exception."""
        error = make_request_error(status_code, kwargs.get("exc_info", (None, None, None))[1], self.request_id)
        self.set_status(error.status)
        for name, value in error_headers(error, self.request_id):
            self.set_header(name, value)
        if not self.is_open:
            line = RequestLine(self.request.method or "", self.path_template)
            access_log.log_rejection(self.request_id, error, line)
        self.finish(error_body(error))


def read_idempotency_key(values: list[str]) -> str | None:
    """Return the key in the header Idempotency-Key, None without that header.

    Raises:
        BadRequest: the key is malformed, or there are two.
    """
    if not values:
        return None
    if len(values) > 1 or not _IDEMPOTENCY_KEY.fullmatch(values[0]):
        raise BadRequest(
            "Idempotency-Key must be one text of 1 to 200 printable ASCII characters", param="Idempotency-Key"
        )
    return values[0]


def list_methods(handler: type[AdminHandler]) -> tuple[str, ...]:
    """Return the methods that a handler supports."""
    defined = [name for name in _METHODS if getattr(handler, name.lower()) is not RequestHandler._unimplemented_method]
    return tuple(name for name in defined if name != "HEAD" or "GET" in defined)


def error_body(error: RequestError) -> bytes:
    """Return `{"error": {message, type, param, code}}`, for a configuration with its `faults`."""
    shown: dict[str, object] = {
        "message": error.message,
        "type": error.kind,
        "param": error.param,
        "code": error.code,
    }
    if isinstance(error, InvalidConfiguration):
        shown["faults"] = list(error.faults)
    return json.dumps({"error": shown}).encode() + b"\n"
