"""May this caller use this model?  Pure functions over `provider/model` patterns; `*` stands for any characters.

What meshagent-api matches (a whole name, or a beginning before a final `*`) matches here; a `*` elsewhere works too.
"""

from __future__ import annotations

from tornado_proxy.domain.errors import NotAllowed
from tornado_proxy.domain.identity import Caller, ModelPatterns, Project


def allows(patterns: ModelPatterns, provider: str, model: str) -> bool:
    """Whether `patterns` allow the model; no patterns at all allow every model, an empty list none."""
    if patterns.patterns is None:
        return True
    name = f"{provider}/{model}"
    return any(_matches(pattern, name) for pattern in patterns.patterns)


def require_model(caller: Caller, project: Project, provider: str, model: str) -> None:
    """Raise NotAllowed unless both the caller's token and its project allow the model."""
    if not allows(caller.granted, provider, model):
        raise NotAllowed(
            f"your token does not grant {provider}/{model}; ask for one whose llm.models allows it",
            param="model",
        )
    if not allows(project.models, provider, model):
        raise NotAllowed(
            f"project {project.name} may not use {provider}/{model}; its operator can add it to the project's models",
            param="model",
        )


def _matches(pattern: str, name: str) -> bool:
    """Whether `name` is `pattern`, each `*` standing for any characters.

    Not a regular expression: pattern and name come from different people, and `a*a*a*...b` would take a backtracking
    matcher hours.  Taking each part at its first place is right here, since only the last part is tied to the end.
    """
    first, *rest = pattern.split("*")
    if not rest:
        return name == pattern
    *between, last = rest
    end = len(name) - len(last)
    if not name.startswith(first) or not name.endswith(last) or end < len(first):
        return False
    position = len(first)
    for part in between:
        found = name.find(part, position, end)
        if found < 0:
            return False
        position = found + len(part)
    return True
