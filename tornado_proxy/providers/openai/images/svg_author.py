"""The text model that writes an SVG: its spend, and its usage beside that of the image model.

An image with `output_format: svg` is drawn by the image model as a reference and then written by a text model, which
the request names in `svg.model`.  `svg_usage` {model, input_tokens, output_tokens} states the tokens of that model; the
image model's own usage does not include them.

Source: openai-python 3.57, types ImageGenerateParams, ImageEditParams, ImagesResponse and ImageGeneration.
"""

from __future__ import annotations

from collections.abc import Mapping

from tornado_proxy.domain.request import Spend
from tornado_proxy.domain.usage import Meter, UsageItem
from tornado_proxy.providers.openai.shared.text_usage import read_text_usage
from tornado_proxy.providers.shared.json_values import as_text

#: The format that needs an author.
SVG = "svg"

#: The endpoint whose prices hold for the author.
_PRICED_AS = "/v1/responses"
_METERS = frozenset({Meter.INPUT, Meter.OUTPUT})


def author_spend(model: str) -> Spend:
    """Return the spend of a request whose SVG `model` writes."""
    return Spend(model, _METERS, endpoint=_PRICED_AS)


def read_author_usage(holder: Mapping[str, object]) -> tuple[UsageItem | None, tuple[str, ...]]:
    """Return the author's tokens that `holder`, a response or an image call, states, and faults in their counts.

    The item is None if there are none.
    """
    usage = holder.get("svg_usage")
    if not isinstance(usage, dict) or not usage:
        return None, ()
    text_usage = read_text_usage(usage)
    model = as_text(usage.get("model"))
    faults = text_usage.faults if model is not None else (*text_usage.faults, "svg_usage names no model")
    return UsageItem(text_usage.quantities, model=model, context_tokens=text_usage.context_tokens), faults
