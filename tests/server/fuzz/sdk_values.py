"""Draws values of the official SDKs' request types, with the names of world.py for models and objects."""

from __future__ import annotations

import collections.abc
import functools
import typing
from typing import Any, NotRequired, Required

from typing_extensions import get_type_hints, is_typeddict

from tests.server.fuzz.choices import Choices
from tests.server.fuzz.documents import Json, Member, Object
from tests.server.fuzz.world import FOREIGN_MODELS, FOREIGN_OBJECTS, OWN_OBJECT, OWN_RESPONSE, may_hold_reference

#: Levels of nesting below which only the simplest values are drawn.
MAX_DEPTH = 7
#: Values in a body after which only the simplest ones are drawn.
MAX_VALUES = 40
#: Optional members that an object has at most.
_MAX_OPTIONAL = 4

_NUMBERS: tuple[Json, ...] = (0, 1, 2, 8, -1, 1.5, 10**400, 1e308, True)
_TEXTS = ("hi", "", "auto", "x" * 40, "é\u2028", "flex", "priority", "default")
#: JSON of the caller's own, and the contents of a file, which a JSON body has as text.
_FREE_VALUES: tuple[Json, ...] = ("aGk=", Object(), Object((Member("type", "object"),)))
_MAPPINGS = (dict, collections.abc.Mapping)


class Values(Choices):
    """Draws values of one request.

    Args:
        data: Random bytes.
        provider: The provider of the endpoint.
        models: The granted models that the endpoint serves.
    """

    def __init__(self, data: bytes, provider: str, models: tuple[str, ...]) -> None:
        super().__init__(data)
        self.provider = provider
        self._models = models
        self._drawn = 0

    def draw_object(self, request_type: Any, depth: int = 0) -> Object:
        """Return an object of a TypedDict: its required members and some of the others."""
        required, optional = _members_of(request_type)
        names = list(required)
        if "model" in optional and self.count(3):
            names.append("model")
        if optional and not self._is_large(depth):
            chosen = [self.choose(optional) for _ in range(self.count(_MAX_OPTIONAL))]
            names = list(dict.fromkeys((*names, *chosen)))
        hints = hints_of(request_type)
        return Object(tuple(Member(name, self.draw_value(hints[name], name, depth + 1)) for name in names))

    def draw_value(self, annotation: Any, name: str, depth: int) -> Json:
        """Return a value for the member `name` of the type `annotation`."""
        self._drawn += 1
        if name == "model":
            return self.draw_model()
        if may_hold_reference(name) and annotation is str:
            return self.draw_id(name)
        annotation = self._choose_type(annotation, depth)
        origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
        if origin is typing.Literal:
            return typing.cast(Json, self.choose(arguments))
        if origin in _MAPPINGS:
            return Object((Member("key", self.draw_value(arguments[1], "key", depth + 1)),))
        if origin is not None and arguments:  # every other generic type of the SDKs is a kind of list
            count = 0 if self._is_large(depth) else self.count(2)
            return tuple(self.draw_value(arguments[0], name, depth + 1) for _ in range(count))
        if is_typeddict(annotation):
            return self.draw_object(annotation, depth)
        return self._draw_simple(annotation, name)

    def draw_model(self) -> str:
        """Return a model, mostly one that the caller may use and the endpoint serves."""
        return self.choose((*self._models * 4, *FOREIGN_MODELS))

    def draw_id(self, name: str) -> str:
        """Return an id for the member `name`, of the caller's project or of another one."""
        own = OWN_RESPONSE if name.endswith("response_id") else OWN_OBJECT
        return self.choose((own, own, *FOREIGN_OBJECTS))

    def draw_foreign(self, name: str) -> str:
        """Return a model or an id for the member `name` that the caller may not use."""
        return self.choose(FOREIGN_MODELS if name == "model" else FOREIGN_OBJECTS)

    def _is_large(self, depth: int) -> bool:
        return depth >= MAX_DEPTH or self._drawn >= MAX_VALUES

    def _choose_type(self, annotation: Any, depth: int) -> Any:
        """Return one alternative of a union, a simple one if the value is nested deeply."""
        if typing.get_origin(annotation) is not typing.Union:
            return annotation
        alternatives = _alternatives_of(annotation)
        if self._is_large(depth):
            alternatives = [kind for kind in alternatives if not is_typeddict(kind)] or alternatives
        return self.choose(alternatives)

    def _draw_simple(self, annotation: Any, name: str) -> Json:
        if annotation is bool:
            return self.flip()
        if annotation in (int, float):
            return self.choose(_NUMBERS)
        if annotation is type(None):
            return None
        if annotation is str:
            return self.draw_id(name) if may_hold_reference(name) else self.choose(_TEXTS)
        return self.choose(_FREE_VALUES)


_alternatives: dict[int, tuple[Any, list[Any]]] = {}


def _alternatives_of(union: Any) -> list[Any]:
    """Return the alternatives of a union, nested ones included, without classes of responses."""
    # By identity: to hash a union of hundreds of types takes longer than anything else here.
    known = _alternatives.get(id(union))
    if known is None:
        known = _alternatives[id(union)] = (union, _flatten(union))
    return known[1]


def _flatten(union: Any) -> list[Any]:
    flat: list[Any] = []
    for alternative in typing.get_args(union):
        if typing.get_origin(alternative) is typing.Union:
            flat += _flatten(alternative)
        elif not isinstance(alternative, type) or is_typeddict(alternative) or alternative.__module__ == "builtins":
            flat.append(alternative)
    return flat or [str]


@functools.cache
def hints_of(request_type: Any) -> dict[str, Any]:
    """Return the types of the members of a TypedDict."""
    return get_type_hints(request_type)


@functools.cache
def _members_of(request_type: Any) -> tuple[list[str], list[str]]:
    """Return the names of the required and of the optional members.

    `__required_keys__` is no help: the SDKs' modules postpone the evaluation of annotations.
    """
    annotated = get_type_hints(request_type, include_extras=True)
    required = [name for name, hint in annotated.items() if _is_required(request_type, hint)]
    return required, sorted(set(annotated) - set(required))


def _is_required(request_type: Any, hint: Any) -> bool:
    origin = typing.get_origin(hint)
    return origin is Required or (request_type.__total__ and origin is not NotRequired)
