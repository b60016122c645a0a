"""Requests of a login to its issuer: discovery, tokens, device codes, revocation (RFC 6749, 7009, 8414, 8628)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

from tornado_proxy.auth.unverified_token import read_json_object, read_unverified
from tornado_proxy.domain.config.loopback import is_secure_url
from tornado_proxy.domain.errors import NotAuthenticated
from tornado_proxy.domain.identity import Secret
from tornado_proxy.issuers.http_fetch import Fetch, FetchError, fetch
from tornado_proxy.local.session.session import Client, Endpoints, Tokens

#: OpenID Connect Discovery section 4, then RFC 8414 section 3 for an issuer without a path.
_DISCOVERY_PATHS = ("/.well-known/openid-configuration", "/.well-known/oauth-authorization-server")

#: Characters of an issuer's own description of an error that are shown.
_MAX_DESCRIPTION_CHARACTERS = 300

DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"


class LoginError(Exception):
    """A login or refresh that cannot succeed.  `code` is the issuer's error code (RFC 6749 section 5.2), "" without."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class DeviceCode:
    """A device login that waits for a person (RFC 8628 section 3.2); `verification_url` includes the code if it can."""

    code: Secret
    user_code: str
    verification_url: str
    interval_s: float


async def discover(issuer: str) -> Endpoints:
    """Return the endpoints of an issuer.

    Raises:
        LoginError: the issuer has no valid discovery document.
        FetchError: it cannot be reached.
    """
    document: Mapping[str, object] = {}
    for path in _DISCOVERY_PATHS:
        try:
            # OpenID Connect Discovery section 4.1: a final slash of the issuer is removed.
            document = read_json_object((await fetch(Fetch(issuer.rstrip("/") + path))).body)
            break
        except FetchError as error:
            if error.status != 404:
                raise
        except ValueError:
            continue
    if document.get("issuer") != issuer:
        raise LoginError(f"{issuer} has no discovery document, or one of another issuer; check the URL of the issuer")
    return _read_endpoints(document)


def _read_endpoints(document: Mapping[str, object]) -> Endpoints:
    return Endpoints(
        token=_read_url(document, "token_endpoint"),
        authorization=_read_url(document, "authorization_endpoint"),
        device=_read_url(document, "device_authorization_endpoint"),
        revocation=_read_url(document, "revocation_endpoint"),
        states_issuer=document.get("authorization_response_iss_parameter_supported") is True,
    )


def _read_url(document: Mapping[str, object], name: str) -> str:
    url = document.get(name)
    return url if isinstance(url, str) and is_secure_url(url) else ""


async def request_tokens(endpoint: str, client_id: str, form: Mapping[str, str]) -> Tokens:
    """Send a token request and return the tokens.

    Args:
        endpoint: The token endpoint.
        client_id: The client, which is a public one.
        form: The grant.

    Raises:
        LoginError: the issuer refuses the grant, or its response holds no bearer token.
        FetchError: it cannot be reached, or has an error of its own.
    """
    now = datetime.now(UTC)
    content = await _post(endpoint, {"client_id": client_id, **form})
    access_token, kind = content.get("access_token"), content.get("token_type")
    if not isinstance(access_token, str) or not access_token or str(kind).lower() != "bearer":
        raise LoginError("the issuer returned no bearer token")
    return Tokens(
        access_token=Secret(access_token),
        obtained_at=now,
        lifetime=_read_lifetime(content.get("expires_in"), access_token, now),
        refresh_token=Secret(_read_text(content, "refresh_token")),
        id_token=Secret(_read_text(content, "id_token")),
    )


async def request_device_code(endpoint: str, client: Client, *, default_interval_s: float) -> DeviceCode:
    """Start a device login.

    Raises:
        LoginError: the issuer refuses it.
        FetchError: it cannot be reached.
    """
    content = await _post(endpoint, {"client_id": client.client_id, "scope": " ".join(client.scopes)})
    url = _read_text(content, "verification_uri_complete") or _read_text(content, "verification_uri")
    code, user_code, interval = content.get("device_code"), content.get("user_code"), content.get("interval")
    if not isinstance(code, str) or not isinstance(user_code, str) or not is_secure_url(url):
        raise LoginError("the issuer returned no device code")
    interval_s = float(interval) if isinstance(interval, int) and 0 < interval < 3600 else default_interval_s
    return DeviceCode(Secret(code), user_code, url, interval_s)


async def revoke(endpoint: str, client_id: str, token: Secret) -> None:
    """Revoke a refresh token, and with it the login.

    Raises:
        FetchError: the issuer cannot be reached, or refuses.
    """
    form = {"client_id": client_id, "token": token.reveal(), "token_type_hint": "refresh_token"}
    await fetch(Fetch(endpoint, urlencode(form)))


def read_user(tokens: Tokens) -> str:
    """Return the person that the tokens name, for people to read; "" if they do not say.

    The signature is not checked: the tokens come from the issuer itself over TLS (OpenID Connect Core 3.1.3.7, 6).
    """
    for token in (tokens.id_token, tokens.access_token):
        claims = _read_claims(token.reveal())
        for name in ("email", "preferred_username", "sub"):
            value = claims.get(name)
            if isinstance(value, str) and value.isprintable() and value:
                return value
    return ""


async def _post(endpoint: str, form: Mapping[str, str]) -> Mapping[str, object]:
    try:
        body = (await fetch(Fetch(endpoint, urlencode(form)))).body
    except FetchError as error:
        if error.status is None or not 400 <= error.status < 500 or error.status == 429:
            raise
        raise _read_error(error) from None
    try:
        return read_json_object(body)
    except ValueError:
        raise LoginError("the issuer returned no JSON object") from None


def _read_error(error: FetchError) -> LoginError:
    """Return the error of a response with a 4xx status (RFC 6749 section 5.2)."""
    try:
        content = read_json_object(error.body)
    except ValueError:
        content = {}
    code = _read_text(content, "error")
    text = _read_text(content, "error_description") or code or str(error)
    shown = "".join(character for character in text if character.isprintable())
    return LoginError(f"the issuer refused: {shown[:_MAX_DESCRIPTION_CHARACTERS]}", code)


def _read_text(content: Mapping[str, object], name: str) -> str:
    value = content.get(name)
    return value if isinstance(value, str) else ""


def _read_lifetime(expires_in: object, access_token: str, now: datetime) -> timedelta | None:
    """Return the lifetime that the issuer states, else that of a JWT's `exp`, None if neither is known."""
    if isinstance(expires_in, int) and 0 <= expires_in < 10**9:
        return timedelta(seconds=expires_in)
    expires_at = _read_claims(access_token).get("exp")
    if isinstance(expires_at, int | float):
        return max(timedelta(0), timedelta(seconds=expires_at - now.timestamp()))
    return None


def _read_claims(token: str) -> Mapping[str, object]:
    try:
        return read_unverified(token).claims
    except NotAuthenticated:
        return {}
