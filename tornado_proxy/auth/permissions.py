"""May this caller use this model?  Pure functions over `provider/model` patterns; `*` stands for any characters."""

from __future__ import annotations

import functools
import re

from tornado_proxy.domain.errors import NotAllowed
from tornado_proxy.domain.identity import Caller, ModelPatterns, Project


def allows(patterns: ModelPatterns, provider: str, model: str) -> bool:
    """Whether `patterns` allow the model; no patterns at all allow every model, an empty list none."""
    if patterns.patterns is None:
        return True
    return _compiled(patterns.patterns).fullmatch(f"{provider}/{model}") is not None


def require_model(caller: Caller, project: Project, provider: str, model: str) -> None:
    """Raise NotAllowed unless both the caller's token and its project allow the model."""
    if not allows(caller.granted, provider, model):
        raise NotAllowed(
            f"your token does not grant {provider}/{model}; ask for one whose llm.models allows it",
            code="model_not_granted",
            param="model",
        )
    if not allows(project.models, provider, model):
        raise NotAllowed(
            f"project {project.name} may not use {provider}/{model}; its operator can add it to the project's models",
            code="model_not_allowed",
            param="model",
        )


@functools.lru_cache(maxsize=4096)
def _compiled(patterns: tuple[str, ...]) -> re.Pattern[str]:
    alternatives = (".*".join(re.escape(part) for part in pattern.strip().split("*")) for pattern in patterns)
    return re.compile("|".join(f"(?:{text})" for text in alternatives) if patterns else r"(?!)", re.DOTALL)
