"""Anthropic's endpoints.  A path that is not listed here gets 404."""

from __future__ import annotations

from tornado_proxy.providers.anthropic.batches.endpoint import BATCH_ENDPOINTS
from tornado_proxy.providers.anthropic.complete import COMPLETE_ENDPOINTS
from tornado_proxy.providers.anthropic.count_tokens import COUNT_ENDPOINTS
from tornado_proxy.providers.anthropic.messages.endpoint import MESSAGE_ENDPOINTS
from tornado_proxy.providers.contract import HttpEndpoint
from tornado_proxy.providers.owned_objects import ModelList, ModelObject

ANTHROPIC_ENDPOINTS = (
    *MESSAGE_ENDPOINTS,
    *COUNT_ENDPOINTS,
    *BATCH_ENDPOINTS,
    *COMPLETE_ENDPOINTS,
    # The gateway removes models that the caller cannot use; `models_list` in proxy.yaml switches that off.
    HttpEndpoint("GET", "/v1/models", objects=ModelList()),
    HttpEndpoint("GET", "/v1/models/{id}", objects=ModelObject()),
)
