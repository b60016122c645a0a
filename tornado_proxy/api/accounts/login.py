"""The login of MeshAgent's clients, which know the URL of this server only: passed on to the issuer of the login.

GET /config             without a credential: the issuer, the client and the scopes of a login
GET /oauth/authorize    a redirect to the issuer, with its own client and scopes in place of those of the request
POST /oauth/token       passed on to the issuer with the same client: codes, device codes, refresh tokens

The issuer checks the redirect URI, the code and PKCE; nothing of a login is kept here.  `login` names a public client,
so that the proxy has no secret to add, and a secret that a client sends is dropped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import ClassVar
from urllib.parse import parse_qsl, urlencode

from tornado_proxy import __version__
from tornado_proxy.api.accounts.base_handler import AccountsHandler
from tornado_proxy.domain.config.oauth import LoginClient
from tornado_proxy.domain.errors import BadRequest, NotFound, RequestError, ServiceError
from tornado_proxy.gateway.http.public_url import own_root
from tornado_proxy.issuers.client import IssuerClient
from tornado_proxy.issuers.login_server import LoginServer
from tornado_proxy.snapshot import Snapshot

#: Parameters of a login that are not passed on: those that are replaced, secrets, and signed requests (RFC 9101), whose
#: content would replace the client and the scopes again.
_DROPPED = frozenset(
    {"client_id", "client_secret", "scope", "request", "request_uri", "client_assertion", "client_assertion_type"}
)

#: The grants of a login; the issuer sees no passwords and no other assertions from here.
GRANTS = ("authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code")

_MAX_PARAMETERS = 50

_FORM = "application/x-www-form-urlencoded"


class ConfigHandler(AccountsHandler):
    """The facts that clients need before a login."""

    def get(self) -> None:
        """Respond with the login, if there is one, and with members that MeshAgent's clients require."""
        root = own_root(self.incoming, self.snapshot.settings.public)
        document: dict[str, object] = {
            "domains": {"api": root},
            "reserved_route_domains": [],
            "version": __version__,
        }
        issuer = next((client.issuer for client in self.snapshot.issuers if client.issuer.login is not None), None)
        if issuer is not None and issuer.login is not None:
            login = issuer.login
            document["oauth"] = {"issuer": issuer.name, "client_id": login.client_id, "scopes": list(login.scopes)}
        self.respond(document)


class AuthorizeHandler(AccountsHandler):
    """The start of a login in a browser."""

    async def get(self) -> None:
        """Redirect to the issuer."""
        server, login = find_login(self.snapshot)
        given = read_parameters(self.request.query)
        endpoint = (await server.find_endpoints()).authorization
        target = f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(make_authorization(given, login))}"
        self.set_header("Location", target)
        self.respond_with_bytes(b"", 302)


class TokenHandler(AccountsHandler):
    """A token request.  Its errors have the format of RFC 6749 section 5.2, which OAuth libraries read."""

    methods: ClassVar[tuple[str, ...]] = ("POST",)

    async def post(self) -> None:
        """Respond with the issuer's response."""
        server, login = find_login(self.snapshot)
        media_type = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if media_type != _FORM:
            raise BadRequest(f"the body of a token request must be {_FORM}", code="invalid_request")
        given = read_parameters(self.read_raw_body().decode("utf-8", "replace"))
        response = await server.request_token(make_token_form(given, login))
        self.set_header("Pragma", "no-cache")  # RFC 6749 section 5.1
        if response.status == 401:
            self.set_header("WWW-Authenticate", "Basic")  # RFC 9110 section 11.6.1
        self.respond_with_bytes(response.body, response.status)

    def make_error_body(self, error: RequestError) -> bytes:
        """Return the body of an error response."""
        code = "temporarily_unavailable" if isinstance(error, ServiceError) else error.code
        return json.dumps({"error": code, "error_description": error.message}).encode()


def find_login(snapshot: Snapshot) -> tuple[LoginServer, LoginClient]:
    """Return the login of the first issuer that has one.

    Raises:
        NotFound: no issuer has one.
    """
    found = _first_login(snapshot.issuers)
    if found is None:
        raise NotFound("this server has no login (oauth[].login); use a participant token, or ask the operator")
    return found


def _first_login(issuers: tuple[IssuerClient, ...]) -> tuple[LoginServer, LoginClient] | None:
    for client in issuers:
        if client.login_server is not None and client.issuer.login is not None:
            return client.login_server, client.issuer.login
    return None


def read_parameters(text: str) -> dict[str, str]:
    """Return the parameters of a query or form.

    Raises:
        BadRequest: one is repeated (RFC 6749 section 3.1), or there are too many.
    """
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=_MAX_PARAMETERS)
    except ValueError:
        raise BadRequest(f"at most {_MAX_PARAMETERS} parameters are allowed", code="invalid_request") from None
    given = dict(pairs)
    if len(given) < len(pairs):
        raise BadRequest("a parameter is repeated; send each once", code="invalid_request")
    return given


def make_authorization(given: Mapping[str, str], login: LoginClient) -> dict[str, str]:
    """Return the parameters of the issuer's authorization request."""
    kept = {name: value for name, value in given.items() if name not in _DROPPED}
    if "offline_access" in login.scopes:
        # OpenID Connect Core section 11: without consent the issuer ignores the scope and sends no refresh token.
        kept.setdefault("prompt", "consent")
    return {**kept, "client_id": login.client_id, "scope": " ".join(login.scopes)}


def make_token_form(given: Mapping[str, str], login: LoginClient) -> dict[str, str]:
    """Return the form of the issuer's token request; without `scope` the tokens have that of the login.

    Raises:
        BadRequest: the grant is none of a login.
    """
    if given.get("grant_type") not in GRANTS:
        raise BadRequest(f"grant_type must be one of {', '.join(GRANTS)}", code="unsupported_grant_type")
    return {**{name: value for name, value in given.items() if name not in _DROPPED}, "client_id": login.client_id}
