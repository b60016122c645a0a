"""Finds the base URL, credential, project and model of a client: arguments first, then environment variables.

Variables are read when a client is made.  A blank value counts as unset.  Nothing falls back to a provider's own URL.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_PROJECT_HEADER = "Meshagent-Project-Id"

#: Request headers with which clients authenticate; the SDKs also take them from *_CUSTOM_HEADERS.
_CREDENTIAL_HEADERS = frozenset({"authorization", "x-api-key", "api-key"})


@dataclass(frozen=True, slots=True)
class ProviderVariables:
    """The names of a provider's environment variables, and its place below the root URL of the proxy.

    Attributes:
        prefix: How the variables begin: OPENAI, ANTHROPIC.
        path: What the SDK's base URL adds to the root URL of the proxy.
        own_host: The host of the provider itself.
    """

    prefix: str
    path: str
    own_host: str


OPENAI = ProviderVariables("OPENAI", "/openai/v1", "api.openai.com")
ANTHROPIC = ProviderVariables("ANTHROPIC", "/anthropic", "api.anthropic.com")


@dataclass(frozen=True, slots=True)
class Connection:
    """Where a client sends its requests, its credential, and the headers that each request gets."""

    base_url: str
    api_key: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)


def find_connection(
    variables: ProviderVariables, base_url: str | None, api_key: str | None, project_id: str | None
) -> Connection:
    """Return the connection of a client; None and blank arguments are looked up in the environment.

    Raises:
        ValueError: There is no URL or no credential, or one of both is unusable.
    """
    url = _find_base_url(variables, base_url)
    key, key_source = _find_api_key(variables, api_key)
    if key_source == "MESHAGENT_TOKEN" and urlsplit(url).hostname == variables.own_host:
        raise ValueError(
            f"the base URL is that of the provider, {variables.own_host}, which must not get MESHAGENT_TOKEN; "
            f"set {variables.prefix}_BASE_URL to the URL of the proxy"
        )
    headers = dict(_override_custom_headers(variables, key))
    project = _clean(project_id) or _clean(os.environ.get("MESHAGENT_PROJECT_ID"))
    if project:
        headers[_PROJECT_HEADER] = project
    return Connection(url, key, headers)


def find_model(variables: ProviderVariables, model: str | None) -> str:
    """Return the model: the argument, else the provider's variable.

    Raises:
        ValueError: There is none.
    """
    name = f"{variables.prefix}_MODEL"
    found = _clean(model) or _clean(os.environ.get(name))
    if not found:
        raise ValueError(f"no model: pass model= or set {name}")
    return found


def _find_base_url(variables: ProviderVariables, given: str | None) -> str:
    name = f"{variables.prefix}_BASE_URL"
    found = _clean(given) or _clean(os.environ.get(name))
    if found:
        return _check_url(found, "base_url" if _clean(given) else name)
    root = _clean(os.environ.get("MESHAGENT_API_URL"))
    if not root:
        raise ValueError(f"no URL of the proxy: pass base_url= or set {name} or MESHAGENT_API_URL")
    return _check_url(root, "MESHAGENT_API_URL").rstrip("/") + variables.path


def _check_url(url: str, source: str) -> str:
    """Return `url`; raise ValueError if it is no http URL.  The message has no URL with credentials."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        raise ValueError(f"{source} is not a URL; use one such as https://llm.example.com") from None
    if "@" in parts.netloc:
        # The HTTP library would send it as Authorization, in place of the token.
        raise ValueError(f"{source} contains a user name or password; pass the token as api_key instead")
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError(f"{source} is {url!r}, which is not an http URL; use one such as https://llm.example.com")
    return url


def _find_api_key(variables: ProviderVariables, given: str | None) -> tuple[str, str]:
    """Return the credential and the name of its source."""
    name = f"{variables.prefix}_API_KEY"
    candidates = {"api_key": given, name: os.environ.get(name), "MESHAGENT_TOKEN": os.environ.get("MESHAGENT_TOKEN")}
    for source, value in candidates.items():
        key = _clean(value)
        if not key:
            continue
        # The HTTP library would show the credential in its error.
        if not key.isascii() or not key.isprintable() or " " in key:
            raise ValueError(f"{source} has a character that no token has; it must be printable ASCII without spaces")
        return key, source
    raise ValueError(f"no credential: pass api_key= or set {name} or MESHAGENT_TOKEN")


def _override_custom_headers(variables: ProviderVariables, api_key: str) -> Iterator[tuple[str, str]]:
    """Yield a header with `api_key` for each credential that the SDK would read from *_CUSTOM_HEADERS."""
    for line in os.environ.get(f"{variables.prefix}_CUSTOM_HEADERS", "").split("\n"):
        name = line.partition(":")[0].strip()
        if name.lower() in _CREDENTIAL_HEADERS:
            yield name, f"Bearer {api_key}" if name.lower() == "authorization" else api_key


def _clean(value: str | None) -> str:
    return (value or "").strip()
