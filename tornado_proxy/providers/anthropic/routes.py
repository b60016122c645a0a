"""The Anthropic table: one row for each path and method that is served.  What is not here is 404."""

from __future__ import annotations

from tornado_proxy.providers.anthropic import messages
from tornado_proxy.providers.anthropic.batches import BATCH_ENDPOINTS
from tornado_proxy.providers.anthropic.complete import COMPLETE_ENDPOINTS
from tornado_proxy.providers.endpoint import Endpoint

ANTHROPIC_ENDPOINTS = (
    Endpoint("anthropic", "POST", "/v1/messages", parse=messages.parse, reader=messages.reader),
    Endpoint("anthropic", "POST", "/v1/messages/count_tokens", parse=messages.parse, priced_as="/v1/messages"),
    *BATCH_ENDPOINTS,
    *COMPLETE_ENDPOINTS,
    Endpoint("anthropic", "GET", "/v1/models"),
    Endpoint("anthropic", "GET", "/v1/models/{id}"),
)
