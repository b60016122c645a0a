"""GET /v1/models and /v1/models/{id}, of both providers on one path: `anthropic-version` tells them apart."""

from __future__ import annotations

from tornado_proxy.simulator.handlers.provider_handler import ProviderHandler
from tornado_proxy.simulator.json_values import Json
from tornado_proxy.simulator.model.catalog import ANTHROPIC_MODELS, OPENAI_MODELS, anthropic_model, openai_model


class OpenAIModels(ProviderHandler):
    """GET /v1/models of OpenAI."""

    async def get(self) -> None:
        """All models."""
        await self.send_json({"object": "list", "data": [openai_model(model) for model in OPENAI_MODELS]})


class OneOpenAIModel(ProviderHandler):
    """GET /v1/models/{id} of OpenAI."""

    async def get(self, model: str) -> None:
        """The model; any name but those that are missing."""
        await self.send_json(openai_model(self.required_model(model)))


class AnthropicModels(ProviderHandler):
    """GET /v1/models of Anthropic."""

    anthropic = True

    async def get(self) -> None:
        """A page of `limit` models after `after_id`."""
        ids = [model for model, _ in ANTHROPIC_MODELS]
        after = self.get_query_argument("after_id", "")
        start = ids.index(after) + 1 if after in ids else 0
        limit = int(self.get_query_argument("limit", "20"))
        page = [anthropic_model(model, name) for model, name in ANTHROPIC_MODELS[start : start + limit]]
        answer: Json = {
            "data": page,
            "has_more": start + limit < len(ids),
            "first_id": page[0]["id"] if page else None,
            "last_id": page[-1]["id"] if page else None,
        }
        await self.send_json(answer)


class OneAnthropicModel(ProviderHandler):
    """GET /v1/models/{id} of Anthropic."""

    anthropic = True

    async def get(self, model: str) -> None:
        """The model; any name but those that are missing."""
        name = dict(ANTHROPIC_MODELS).get(self.required_model(model), model)
        await self.send_json(anthropic_model(model, name))
