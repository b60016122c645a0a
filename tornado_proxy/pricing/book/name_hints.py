"""Finds the model that a name with typing errors means, for error messages."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

#: difflib compares a longer name with every model for milliseconds, and no real model name is as long.
MAX_HINT_CHARACTERS = 100

#: Characters of a model's name for each typing error: another name is a guess, and a wrong hint costs more than none.
CHARACTERS_PER_ERROR = 6


def find_nearest_name(name: str, names: Sequence[str]) -> str | None:
    """Return the one of `names` that differs from `name` by few typing errors, None if none does."""
    near = difflib.get_close_matches(name, names, 3) if len(name) < MAX_HINT_CHARACTERS else []
    nearest = min(near, key=lambda other: edit_distance(name, other), default=None)
    if nearest is None or edit_distance(name, nearest) > max(1, len(name) // CHARACTERS_PER_ERROR):
        return None
    return nearest


def edit_distance(text: str, other: str) -> int:
    """Return the number of characters to insert, delete or replace that turn one text into the other (Levenshtein)."""
    distances = list(range(len(other) + 1))
    for row, character in enumerate(text, 1):
        previous, distances[0] = distances[0], row
        for column, other_character in enumerate(other, 1):
            replaced = previous + (character != other_character)
            previous = distances[column]
            distances[column] = min(replaced, previous + 1, distances[column - 1] + 1)
    return distances[-1]
