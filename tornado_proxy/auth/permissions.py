"""Decides which models a caller can use: pure functions over `provider/model` patterns, in which `*` matches anything.

Every pattern that meshagent-api matches (a full name, or a prefix before a final `*`) matches here; here `*` can also
occur elsewhere.
"""

from __future__ import annotations

from tornado_proxy.domain.errors import NotAllowed
from tornado_proxy.domain.identity import Caller, ModelPatterns, Project


def allows(patterns: ModelPatterns, provider: str, model: str) -> bool:
    """Return True if `patterns` allow the model: None allows every model, an empty list allows none."""
    if patterns.patterns is None:
        return True
    name = f"{provider}/{model}"
    return any(_matches(pattern, name) for pattern in patterns.patterns)


def covers(patterns: ModelPatterns, pattern: str) -> bool:
    """Return True if `patterns` allow every model that `pattern` allows, by one of them alone."""
    if patterns.patterns is None:
        return True
    # A pattern is matched as if it were a name: only a `*` can match its `*`, whatever replaces it.
    return any(_matches(covering, pattern) for covering in patterns.patterns)


def require_model(caller: Caller, project: Project, provider: str, model: str) -> None:
    """Raise NotAllowed unless both the caller's token and its project allow the model."""
    if not allows(caller.granted, provider, model):
        raise NotAllowed(
            f"your token does not grant {provider}/{model}; request one whose llm.models allows it",
            param="model",
        )
    if not allows(project.models, provider, model):
        raise NotAllowed(
            f"project {project.name} may not use {provider}/{model}; "
            "ask the operator to add it to the project's models",
            param="model",
        )


def _matches(pattern: str, name: str) -> bool:
    """Return True if `name` matches `pattern`, in which each `*` matches any characters.

    This is not a regular expression: token signers write patterns and callers write names, and `a*a*a*...b` would take
    a backtracking matcher hours.  The first match of each part is always right here, because only the last part is
    anchored at the end.
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
