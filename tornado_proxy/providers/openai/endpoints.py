"""The endpoints of OpenAI's API that are relayed.  Any other path is 404."""

from __future__ import annotations

from tornado_proxy.providers.contract import Endpoint, HttpEndpoint
from tornado_proxy.providers.openai.audio.endpoints import audio_endpoints
from tornado_proxy.providers.openai.chat.endpoint import CHAT_ENDPOINTS
from tornado_proxy.providers.openai.embeddings import EMBEDDING_ENDPOINTS
from tornado_proxy.providers.openai.images.endpoint import IMAGE_ENDPOINTS
from tornado_proxy.providers.openai.realtime.http import REALTIME_HTTP_ENDPOINTS
from tornado_proxy.providers.openai.realtime.translation import TRANSLATION_SOCKET
from tornado_proxy.providers.openai.realtime.websocket import REALTIME_SOCKET
from tornado_proxy.providers.openai.responses.endpoint import RESPONSE_ENDPOINTS
from tornado_proxy.providers.openai.responses.websocket import RESPONSES_SOCKET
from tornado_proxy.providers.owned_objects import ModelList, ModelObject


def openai_endpoints(*, exact_speech: bool = True) -> tuple[Endpoint, ...]:
    """Return all endpoints.  `exact_speech`: see speech_endpoint."""
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
        HttpEndpoint("GET", "/v1/models", objects=ModelList()),
        HttpEndpoint("GET", "/v1/models/{id}", objects=ModelObject()),
    )


OPENAI_ENDPOINTS = openai_endpoints()
