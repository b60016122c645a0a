"""Rules of an endpoint for the provider objects and models that its path names or its response lists."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OwnedObject:
    """The `{id}` of the path must be an object of the caller's project."""


@dataclass(frozen=True, slots=True)
class OwnedList:
    """The response lists objects; the caller sees those that its project created with requests to `created_by`."""

    created_by: str


@dataclass(frozen=True, slots=True)
class ModelList:
    """The response lists models; the caller sees those that it may use."""


@dataclass(frozen=True, slots=True)
class ModelObject:
    """The `{id}` of the path is a model that the caller must be able to use."""
