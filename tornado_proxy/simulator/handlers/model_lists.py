"""GET /v1/models and /v1/models/{id} of both providers, which share the path.

routes.py chooses the provider by the request header `anthropic-version`.
"""

from __future__ import annotations

from tornado_proxy.simulator.handlers.provider_handler import AnthropicHandler, ProviderHandler
from tornado_proxy.simulator.json_values import Json
from tornado_proxy.simulator.model.catalog import (
    ANTHROPIC_MODELS,
    OPENAI_MODELS,
    make_anthropic_model,
    make_openai_model,
)


class OpenAIModels(ProviderHandler):
    """GET /v1/models of OpenAI."""

    async def get(self) -> None:
        """Respond with all models."""
        await self.send_json({"object": "list", "data": [make_openai_model(model) for model in OPENAI_MODELS]})


class OpenAIModelById(ProviderHandler):
    """GET /v1/models/{id} of OpenAI."""

    async def get(self, model: str) -> None:
        """Respond with the model; every name exists but those that start with `sim-missing`."""
        await self.send_json(make_openai_model(self.check_model(model)))


class AnthropicModels(AnthropicHandler):
    """GET /v1/models of Anthropic."""

    async def get(self) -> None:
        """Respond with a page of `limit` models after `after_id`."""
        ids = [model for model, _ in ANTHROPIC_MODELS]
        after = self.get_query_argument("after_id", "")
        # An unknown `after_id` starts at the first model.
        start = ids.index(after) + 1 if after in ids else 0
        limit = int(self.get_query_argument("limit", "20"))
        page = [make_anthropic_model(model, name) for model, name in ANTHROPIC_MODELS[start : start + limit]]
        response: Json = {
            "data": page,
            "has_more": start + limit < len(ids),
            "first_id": page[0]["id"] if page else None,
            "last_id": page[-1]["id"] if page else None,
        }
        await self.send_json(response)


class AnthropicModelById(AnthropicHandler):
    """GET /v1/models/{id} of Anthropic."""

    async def get(self, model: str) -> None:
        """Respond with the model; every name exists but those that start with `sim-missing`."""
        name = dict(ANTHROPIC_MODELS).get(self.check_model(model), model)
        await self.send_json(make_anthropic_model(model, name))
