"""POST /v1/embeddings."""

from __future__ import annotations

import struct
from base64 import b64encode

from tornado_proxy.simulator.handlers.provider_errors import ProviderError
from tornado_proxy.simulator.handlers.provider_handler import ProviderHandler
from tornado_proxy.simulator.json_values import Json, as_count
from tornado_proxy.simulator.openai.prompt import make_text_prompt

#: Dimensions of text-embedding-3-small without `dimensions` (embeddings guide).
_DEFAULT_DIMENSIONS = 1536
#: Dimensions of the largest model.
_MAX_DIMENSIONS = 3072


class Embeddings(ProviderHandler):
    """POST /v1/embeddings."""

    async def post(self) -> None:
        """Respond with one vector for each input; inputs are texts or lists of token numbers."""
        body = self.read_json()
        model = self.check_model(body.get("model"))
        input_ = body.get("input")
        # A list of integers is one input, already split into tokens.
        inputs = (
            input_
            if isinstance(input_, list) and not all(isinstance(part, int | float) for part in input_)
            else [input_]
        )
        texts = [part for part in inputs if isinstance(part, str)]
        dimensions = as_count(body.get("dimensions"), _DEFAULT_DIMENSIONS)
        if dimensions > _MAX_DIMENSIONS:
            raise ProviderError(400, f"dimensions must be at most {_MAX_DIMENSIONS}", param="dimensions")
        token_numbers = sum(len(part) for part in inputs if isinstance(part, list))
        # Numbers are tokens already, so they count as they are.
        prompt = make_text_prompt(*texts)
        directives = await self.apply_directives(prompt.user_text)
        tokens = (prompt.tokens if texts else 0) + token_numbers
        if not tokens:
            raise ProviderError(400, "input must be text, tokens, or a list of either, and not empty", param="input")
        vector = _make_vector(dimensions, body.get("encoding_format"))
        response: Json = {
            "object": "list",
            "data": [{"object": "embedding", "index": index, "embedding": vector} for index in range(len(inputs))],
            "model": model,
        }
        if not directives.no_usage:
            response["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
        await self.send_json(response)


def _make_vector(length: int, encoding: object) -> object:
    """Return a unit vector along the first axis, as numbers or in base64."""
    values = [1.0] + [0.0] * (max(1, length) - 1)
    return b64encode(struct.pack(f"<{len(values)}f", *values)).decode() if encoding == "base64" else values
