"""Decides which models a caller can see: in the list of models, and as the model in a path."""

from __future__ import annotations

from tornado_proxy.auth.permissions import allows
from tornado_proxy.domain.errors import NotFound
from tornado_proxy.domain.identity import ModelPatterns
from tornado_proxy.gateway.context import RequestContext
from tornado_proxy.providers.contract import Endpoint, HttpEndpoint

#: The start of the names of fine-tuned models.
_FINE_TUNED = "ft:"


def require_visible_model(context: RequestContext[HttpEndpoint]) -> None:
    """Raise NotFound if the path names a model that the caller cannot use, in the provider's own words."""
    model = context.path_id
    if model is None or context.snapshot.settings.models_list == "provider":
        return
    if not usable_model(context, model):
        raise NotFound(
            f"the model {model[:100]!r} does not exist, or you have no access to it",
            code="model_not_found",
            param="model",
        )


def usable_model(context: RequestContext[Endpoint], model: str) -> bool:
    """Return True if `model` has a price and is granted to the caller and its project.

    A fine-tuned model belongs to the provider account, which projects share, so its name must be granted to the project
    as such: by a pattern for fine-tuned models or in its allowed_objects.
    """
    provider = context.provider.name
    if model.startswith(_FINE_TUNED) and not _may_see_fine_tuned(context, model):
        return False
    return (
        context.snapshot.prices.resolve(provider, model) is not None
        and allows(context.caller.granted, provider, model)
        and allows(context.project.models, provider, model)
    )


def _may_see_fine_tuned(context: RequestContext[Endpoint], model: str) -> bool:
    project, provider = context.project, context.provider.name
    if context.has_own_key or model in project.allowed_objects:
        return True
    patterns = [pattern for pattern in project.models.patterns or () if pattern.startswith(f"{provider}/{_FINE_TUNED}")]
    return allows(ModelPatterns(tuple(patterns)), provider, model)
