"""Clients of the Anthropic SDK whose requests go through the proxy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anthropic

from tornado_proxy.sdk.connection import ANTHROPIC, Connection, find_connection

if TYPE_CHECKING:
    import httpx2


def get_anthropic_client(
    *,
    base_url: str | None = None,
    api_key: str | None = None,
    project_id: str | None = None,
    http_client: httpx2.Client | None = None,
) -> anthropic.Anthropic:
    """Return an Anthropic client for the proxy.

    Args:
        base_url: The URL of the proxy's Anthropic routes, such as https://llm.example.com/anthropic; default:
            ANTHROPIC_BASE_URL, else MESHAGENT_API_URL with /anthropic.
        api_key: The token of the proxy; default: ANTHROPIC_API_KEY, else MESHAGENT_TOKEN.
        project_id: The project, which an OAuth access token needs; default: MESHAGENT_PROJECT_ID, else none is sent.
        http_client: The HTTP client to use, such as that of get_logging_http_client().

    Raises:
        ValueError: There is no URL or no credential, or one of both is unusable.
    """
    return make_client(find_connection(ANTHROPIC, base_url, api_key, project_id), http_client)


def get_async_anthropic_client(
    *,
    base_url: str | None = None,
    api_key: str | None = None,
    project_id: str | None = None,
    http_client: httpx2.AsyncClient | None = None,
) -> anthropic.AsyncAnthropic:
    """Return an asynchronous Anthropic client; arguments and errors are those of get_anthropic_client()."""
    return make_async_client(find_connection(ANTHROPIC, base_url, api_key, project_id), http_client)


def make_client(connection: Connection, http_client: httpx2.Client | None = None) -> anthropic.Anthropic:
    """Return the client of a connection."""
    return anthropic.Anthropic(
        base_url=connection.base_url,
        api_key=connection.api_key,  # with it the SDK reads no other credential, such as ANTHROPIC_AUTH_TOKEN
        default_headers=connection.headers,
        http_client=http_client,
    )


def make_async_client(
    connection: Connection, http_client: httpx2.AsyncClient | None = None
) -> anthropic.AsyncAnthropic:
    """Return the asynchronous client of a connection."""
    return anthropic.AsyncAnthropic(
        base_url=connection.base_url,
        api_key=connection.api_key,
        default_headers=connection.headers,
        http_client=http_client,
    )
