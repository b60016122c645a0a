"""The OpenAI table: one row for each path and method that is served.  What is not here is 404."""

from __future__ import annotations

from tornado_proxy.providers.endpoint import Endpoint
from tornado_proxy.providers.openai.audio import audio_endpoints
from tornado_proxy.providers.openai.chat import CHAT_ENDPOINTS
from tornado_proxy.providers.openai.embeddings import EMBEDDING_ENDPOINTS
from tornado_proxy.providers.openai.images import IMAGE_ENDPOINTS
from tornado_proxy.providers.openai.realtime_http import REALTIME_HTTP_ENDPOINTS
from tornado_proxy.providers.openai.realtime_socket import REALTIME_SOCKET
from tornado_proxy.providers.openai.responses import RESPONSE_ENDPOINTS
from tornado_proxy.providers.openai.responses_socket import RESPONSES_SOCKET
from tornado_proxy.providers.openai.translation_socket import TRANSLATION_SOCKET


def openai_endpoints(*, exact_speech: bool = True) -> tuple[Endpoint, ...]:
    """The rows.  `exact_speech`: the usage of speech is asked for where it is not stated (speech.py)."""
    return (
        *CHAT_ENDPOINTS,
        *RESPONSE_ENDPOINTS,
        RESPONSES_SOCKET,
        REALTIME_SOCKET,
        TRANSLATION_SOCKET,
        *REALTIME_HTTP_ENDPOINTS,
        *EMBEDDING_ENDPOINTS,
        *audio_endpoints(exact_speech=exact_speech),
        *IMAGE_ENDPOINTS,
        Endpoint("openai", "GET", "/v1/models"),
        Endpoint("openai", "GET", "/v1/models/{id}"),
    )


OPENAI_ENDPOINTS = openai_endpoints()
