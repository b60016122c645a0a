"""Checks a document against its JSON Schema and says every fault in words, with file, line and key.

What a file holds is shown in a fault only where it cannot be a secret.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any

from jsonschema import Draft202012Validator, validators
from jsonschema.exceptions import ValidationError

from tornado_proxy.config.bundled import schema
from tornado_proxy.domain.document import Document
from tornado_proxy.domain.errors import Fault

#: Members whose values are never repeated, here and in all that stands below them.
_SECRET_KEYS = frozenset({"api_key", "secret"})

#: Characters of a value that a fault repeats.
_SHOWN = 60


def check(document: Document, schema_name: str) -> list[Fault]:
    """Every fault of `document` against the schema, in file order; none where it is valid."""
    errors = _validator(schema_name).iter_errors(document.content)
    return sorted(fault for error in errors for fault in _faults(document, error))


@functools.cache
def _validator(schema_name: str) -> Any:
    numbers = Draft202012Validator.TYPE_CHECKER.redefine(
        "number", lambda _, value: isinstance(value, int | Decimal) and not isinstance(value, bool)
    )
    extend: Any = validators.extend
    return extend(Draft202012Validator, type_checker=numbers)(schema(schema_name))


def _faults(document: Document, error: ValidationError) -> Iterator[Fault]:
    branches = error.context or []
    if error.validator in ("oneOf", "anyOf") and branches:
        yield from _likely_branch(document, branches)
        return
    path = tuple(error.absolute_path)
    present: Any = error.instance
    rule: Any = error.schema
    wanted: Any = error.validator_value
    match error.validator:
        case "additionalProperties" | "unevaluatedProperties":
            known = list(rule.get("properties", {}))
            for key in sorted(set(present) - set(known)):
                near = difflib.get_close_matches(key, known, 1)
                hint = f'; did you mean "{near[0]}"?' if near else f"; known are {', '.join(known)}"
                yield document.fault((*path, key), f"unknown key{hint}")
        case "required":
            for key in wanted:
                if key not in present:
                    yield document.fault(path, f'"{key}" is required')
        case _:
            yield document.fault(path, _rule(error, path))


def _likely_branch(document: Document, branches: Iterable[ValidationError]) -> Iterator[Fault]:
    """Faults of the alternative that the value comes closest to: the one that fails deepest, with the fewest faults."""
    by_branch: dict[object, list[ValidationError]] = {}
    for error in branches:
        by_branch.setdefault(error.schema_path[0], []).append(error)

    def closeness(errors: list[ValidationError]) -> tuple[int, int, int]:
        right_type = all(error.validator != "type" or len(error.path) > 0 for error in errors)
        return (int(right_type), max(len(error.path) for error in errors), -len(errors))

    for error in max(by_branch.values(), key=closeness):
        yield from _faults(document, error)


def _rule(error: ValidationError, path: tuple[str | int, ...]) -> str:
    shown = _shown(error.instance, path)
    wanted: Any = error.validator_value
    rule: Any = error.schema
    match error.validator:
        case "type":
            return f"must be {_type_words(wanted)}, not {shown}"
        case "enum":
            return f"must be one of {', '.join(map(str, wanted))}, not {shown}"
        case "const":
            return f"must be {wanted}, not {shown}"
        case "minimum":
            return f"{shown} is less than the minimum of {wanted}"
        case "maximum":
            return f"{shown} is more than the maximum of {wanted}"
        case "minItems" | "minProperties" | "minLength":
            return f"needs at least {wanted}"
        case "uniqueItems":
            return "holds an item twice"
        case "pattern":
            return f"{shown} is not {rule.get('x-pattern-words', f'of the form {wanted}')}"
        case _:
            return f"breaks the rule {error.validator}: {wanted}"


def _type_words(wanted: str | list[str]) -> str:
    words = {"object": "a mapping", "array": "a list", "string": "text", "integer": "a whole number"}
    words |= {"number": "a number", "boolean": "true or false", "null": "empty"}
    names = [wanted] if isinstance(wanted, str) else wanted
    return " or ".join(words.get(name, name) for name in names)


def _shown(value: object, path: tuple[str | int, ...]) -> str:
    if any(key in _SECRET_KEYS for key in path):
        return "what stands there (not shown: it could be a secret)"
    match value:
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case None:
            return "empty"
        case bool():
            return str(value).lower()
        case str():
            return repr(value[:_SHOWN])
        case _:
            return str(value)
