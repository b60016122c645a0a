"""The OpenAI table: one row for each path and method that is served.  What is not here is 404."""

from __future__ import annotations

from tornado_proxy.providers.endpoint import Endpoint
from tornado_proxy.providers.openai.audio import AUDIO_ENDPOINTS
from tornado_proxy.providers.openai.chat import CHAT_ENDPOINTS
from tornado_proxy.providers.openai.embeddings import EMBEDDING_ENDPOINTS
from tornado_proxy.providers.openai.images import IMAGE_ENDPOINTS
from tornado_proxy.providers.openai.responses import RESPONSE_ENDPOINTS

OPENAI_ENDPOINTS = (
    *CHAT_ENDPOINTS,
    *RESPONSE_ENDPOINTS,
    *EMBEDDING_ENDPOINTS,
    *AUDIO_ENDPOINTS,
    *IMAGE_ENDPOINTS,
    Endpoint("openai", "GET", "/v1/models"),
    Endpoint("openai", "GET", "/v1/models/{id}"),
)
