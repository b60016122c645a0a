"""The base of every handler of the REST API: credential, JSON bodies, responses and errors, one log line each.

A handler defines get() or post(), names its `methods`, calls respond(), and raises RequestError.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, ClassVar, TypeVar

import msgspec

from tornado_proxy.api.accounts.callers import ProjectMember, find_member, verify_user
from tornado_proxy.auth.oauth.claims import VerifiedUser
from tornado_proxy.domain.errors import BodyTooLarge, InvalidBody, MethodNotAllowed, RequestError
from tornado_proxy.domain.identity import Caller
from tornado_proxy.gateway.base_handler import REQUEST_ID_HEADER, BaseHandler
from tornado_proxy.gateway.services import Services
from tornado_proxy.observability import access_log
from tornado_proxy.observability.access_log import RequestLine
from tornado_proxy.snapshot import Snapshot

#: Bytes of a body: a token with every section of `api` has some 2,000.
MAX_BODY_BYTES = 64 * 1024

_Document = TypeVar("_Document")


class AccountsHandler(BaseHandler):
    """A handler of the REST API.  Waits for an identity provider or the ledger, which bound the time.

    Attributes:
        methods: The methods that the handler defines.
    """

    methods: ClassVar[tuple[str, ...]] = ("GET", "HEAD")

    def initialize(self, services: Services, path_template: str = "") -> None:
        """Keep the services and the template of the path, which log lines name."""
        super().initialize(services)
        self.path_template = path_template
        self.caller: Caller | None = None

    @cached_property
    def snapshot(self) -> Snapshot:
        """The configuration that the request keeps to its end."""
        return self.services.snapshots.current

    async def identify_user(self) -> VerifiedUser:
        """Return the user of the request's access token; see callers.verify_user()."""
        verified = await verify_user(self.snapshot, self.request.headers.get_all(), datetime.now(UTC))
        self.caller = Caller("", user=verified.user.subject, issuer=verified.user.issuer)
        return verified

    async def identify_member(self, project_id: str) -> ProjectMember:
        """Return the membership of the user in the project of the path; see callers.find_member()."""
        user = (await self.identify_user()).user
        member = find_member(self.snapshot, self.request.headers.get_all(), project_id, user)
        self.caller = Caller(member.project.id, user=user.subject, issuer=user.issuer, admin=member.admin)
        return member

    def read_body(self, kind: type[_Document]) -> _Document:
        """Return the body, a JSON object.

        Raises:
            BodyTooLarge, InvalidBody: the body is too large, or does not have the format of the path.
        """
        body = self.read_raw_body()
        try:
            return msgspec.json.decode(body, type=kind)
        except (msgspec.DecodeError, RecursionError) as error:
            raise InvalidBody(f"the body does not have the format of this path: {str(error)[:200]}") from None

    def read_raw_body(self) -> bytes:
        """Return the body.

        Raises:
            BodyTooLarge: it is too large.
        """
        if len(self.request.body) > MAX_BODY_BYTES:
            raise BodyTooLarge(f"the body is larger than {MAX_BODY_BYTES} bytes, the limit of this path")
        return self.request.body

    def head(self, *arguments: str) -> Awaitable[None] | None:
        """Respond as to GET; Tornado leaves the body out."""
        result: Awaitable[None] | None = self.get(*arguments)
        return result

    def respond(self, document: Mapping[str, object]) -> None:
        """Finish the response with a JSON document."""
        self.respond_with_bytes(json.dumps(document).encode() + b"\n")

    def respond_with_bytes(self, body: bytes, status: int = 200) -> None:
        """Finish the response with a body; it is JSON unless Content-Type was set before."""
        self.set_status(status)
        self.set_header("Content-Type", self._headers.get("Content-Type", "application/json"))
        self.set_header("Cache-Control", "no-store")
        self.set_header(REQUEST_ID_HEADER, self.request_id)
        access_log.log_account_request(self.request_id, status, self._line, self.caller)
        self.finish(body)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Log the rejection and finish the response with the error.  Called by Tornado for every exception."""
        error = self._request_error(status_code, kwargs.get("exc_info", (None, None, None))[1])
        access_log.log_rejection(self.request_id, error, self._line, caller=self.caller)
        self._set_error_headers(error)
        self.set_header("Cache-Control", "no-store")
        self.finish(self.make_error_body(error))

    def make_error_body(self, error: RequestError) -> bytes | str:
        """Return the body of an error response."""
        return self.provider.error_body(error, self.request_id)

    def _request_error(self, status_code: int, error: BaseException | None) -> RequestError:
        if status_code == 405 and not isinstance(error, RequestError):
            method = (self.request.method or "")[:20]
            return MethodNotAllowed(f"method {method} is not supported; use {' or '.join(self.methods)}", self.methods)
        return super()._request_error(status_code, error)

    @property
    def _line(self) -> RequestLine:
        return RequestLine(self.request.method or "", self.path_template)
