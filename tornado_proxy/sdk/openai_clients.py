"""Clients of the OpenAI SDK whose requests go through the proxy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import openai

from tornado_proxy.sdk.connection import OPENAI, Connection, find_connection

if TYPE_CHECKING:
    import httpx2


def get_openai_client(
    *,
    base_url: str | None = None,
    api_key: str | None = None,
    project_id: str | None = None,
    http_client: httpx2.Client | None = None,
) -> openai.OpenAI:
    """Return an OpenAI client for the proxy.

    Args:
        base_url: The URL of the proxy's OpenAI routes, such as https://llm.example.com/openai/v1; default:
            OPENAI_BASE_URL, else MESHAGENT_API_URL with /openai/v1.
        api_key: The token of the proxy; default: OPENAI_API_KEY, else MESHAGENT_TOKEN.
        project_id: The project, which an OAuth access token needs; default: MESHAGENT_PROJECT_ID, else none is sent.
        http_client: The HTTP client to use, such as that of get_logging_http_client().

    Raises:
        ValueError: There is no URL or no credential, or one of both is unusable.
    """
    return make_client(find_connection(OPENAI, base_url, api_key, project_id), http_client)


def get_async_openai_client(
    *,
    base_url: str | None = None,
    api_key: str | None = None,
    project_id: str | None = None,
    http_client: httpx2.AsyncClient | None = None,
) -> openai.AsyncOpenAI:
    """Return an asynchronous OpenAI client; arguments and errors are those of get_openai_client()."""
    return make_async_client(find_connection(OPENAI, base_url, api_key, project_id), http_client)


def make_client(connection: Connection, http_client: httpx2.Client | None = None) -> openai.OpenAI:
    """Return the client of a connection."""
    return openai.OpenAI(
        base_url=connection.base_url,
        api_key=connection.api_key,
        admin_api_key="",  # None would be read from OPENAI_ADMIN_KEY
        default_headers=connection.headers,
        http_client=http_client,
    )


def make_async_client(connection: Connection, http_client: httpx2.AsyncClient | None = None) -> openai.AsyncOpenAI:
    """Return the asynchronous client of a connection."""
    return openai.AsyncOpenAI(
        base_url=connection.base_url,
        api_key=connection.api_key,
        admin_api_key="",
        default_headers=connection.headers,
        http_client=http_client,
    )
