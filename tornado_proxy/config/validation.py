"""Checks a document against its JSON Schema and says every fault in words, with file, line and key.

What a file holds is shown in a fault only where it cannot be a secret.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

from jsonschema import Draft202012Validator, validators
from jsonschema.exceptions import ValidationError

from tornado_proxy.config.bundled import schema
from tornado_proxy.config.secrets import SECRET_KEYS
from tornado_proxy.domain.document import Document
from tornado_proxy.domain.document import Path as DocumentPath
from tornado_proxy.domain.errors import Fault

#: What could be a secret wherever it stands: our and the providers' keys, PEM, a password in a URL, or a long run of
#: letters and digits.  It hides a long model name now and then; line and key still say where to look.
_SECRET_LIKE = re.compile(r"\b(sk|ma)-|-----BEGIN|://[^/]*@|(?=[^\s]*[0-9])(?=[^\s]*[A-Za-z])[A-Za-z0-9_+/=-]{24,}")

#: Characters of a value that a fault repeats.
_SHOWN = 60

#: Characters of a value that are looked at for a secret; the search takes time in the square of them.
_LOOKED_AT = 1000

_NOT_SHOWN = "(not shown: it could be a secret)"

_TYPE_WORDS = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "empty",
}

_LIMIT_WORDS = {
    "minimum": "{shown} is less than the minimum of {wanted}",
    "maximum": "{shown} is more than the maximum of {wanted}",
    "uniqueItems": "holds an item twice",
}


def check(document: Document, schema_name: str) -> list[Fault]:
    """Every fault of `document` against the schema, in file order; none where it is valid."""
    errors = list(_validator(schema_name).iter_errors(document.content))
    # What is of another type breaks other rules too, which say nothing more.
    mistyped = {tuple(error.absolute_path) for error in errors if error.validator == "type"}
    telling = [error for error in errors if error.validator == "type" or tuple(error.absolute_path) not in mistyped]
    # A set, because the validator says once for each missing key what _faults says of all of them.
    return sorted({fault for error in telling for fault in _faults(document, error)})


@functools.cache
def _validator(schema_name: str) -> Any:
    numbers = Draft202012Validator.TYPE_CHECKER.redefine(
        "number", lambda _, value: isinstance(value, int | Decimal) and not isinstance(value, bool)
    )
    extend: Any = validators.extend
    return extend(Draft202012Validator, {"pattern": _pattern}, type_checker=numbers)(schema(schema_name))


def _pattern(_validator: object, pattern: str, value: object, _schema: object) -> Iterator[ValidationError]:
    """The keyword `pattern`, whose `$` is the end of the text: Python's also stands before a last line end."""
    if isinstance(value, str) and (value.endswith("\n") or not re.search(pattern, value)):
        yield ValidationError("does not match")


def _faults(document: Document, error: ValidationError) -> Iterator[Fault]:
    path = tuple(error.absolute_path)
    present: Any = error.instance
    wanted: Any = error.validator_value
    match error.validator:
        case "oneOf" | "anyOf" if error.context:
            yield from _likely_branch(document, error)
        case "additionalProperties":
            yield from _unknown_keys(document, error, path)
        case "required":
            yield from (document.fault((*path, key), "is required") for key in wanted if key not in present)
        case _:
            yield document.fault(path, _rule(error, path))


def _unknown_keys(document: Document, error: ValidationError, path: DocumentPath) -> Iterator[Fault]:
    present: Any = error.instance
    rule: Any = error.schema
    known = list(rule.get("properties", ()))
    for key in (key for key in present if key not in known):
        if _could_be_secret(key, path):
            line = document.fault((*path, key), "").line
            at = document.fault(path, f"unknown key {_NOT_SHOWN}; known are {', '.join(known)}")
            yield Fault(at.file, line, at.key, at.rule)
            continue
        near = difflib.get_close_matches(key, known, 1)
        hint = f'did you mean "{near[0]}"?' if near else f"known are {', '.join(known)}"
        yield document.fault((*path, key), f'unknown key "{key}"; {hint}')


def _likely_branch(document: Document, error: ValidationError) -> Iterator[Fault]:
    """Faults of the alternative that the value comes closest to: the one that fails deepest, with the fewest faults."""
    by_branch: dict[object, list[ValidationError]] = {}
    for one in error.context or ():
        by_branch.setdefault(one.schema_path[0], []).append(one)
    fitting = [errors for errors in by_branch.values() if not _is_of_another_type(errors)]
    if not fitting:
        path = tuple(error.absolute_path)
        types = [str(one.validator_value) for errors in by_branch.values() for one in errors]
        yield document.fault(path, f"must be {_type_words(error.schema, types)}, not {_shown(error.instance, path)}")
        return
    for one in max(fitting, key=lambda errors: (max(len(one.path) for one in errors), -len(errors))):
        yield from _faults(document, one)


def _is_of_another_type(errors: Sequence[ValidationError]) -> bool:
    return any(error.validator == "type" and not error.path for error in errors)


def _rule(error: ValidationError, path: DocumentPath) -> str:
    shown = _shown(error.instance, path)
    wanted: Any = error.validator_value
    rule: Any = error.schema
    items = "key" if isinstance(error.instance, dict) else "item"
    match error.validator:
        case "type":
            return f"must be {_type_words(rule, [wanted] if isinstance(wanted, str) else wanted)}, not {shown}"
        case "enum":
            return f"must be one of {', '.join(map(str, wanted))}, not {shown}"
        case "minLength":
            return "must not be empty" if wanted == 1 else f"needs at least {wanted} characters"
        case "minItems" | "minProperties":
            return f"needs at least {_counted(wanted, items)}"
        case "maxItems" | "maxProperties":
            return f"can hold {_counted(wanted, items)} at most"
        case "pattern":
            return f"{shown} is not {rule.get('x-pattern-words', f'of the form {wanted}')}"
        case keyword:
            words = _LIMIT_WORDS.get(str(keyword), f"breaks the rule {keyword} of its schema")
            return words.format(shown=shown, wanted=wanted)


def _counted(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _type_words(rule: Any, types: Sequence[str]) -> str:
    return str(rule.get("x-type-words") or " or ".join(_TYPE_WORDS[one] for one in types))


def _shown(value: object, path: DocumentPath) -> str:
    if _could_be_secret(value, path):
        return f"what stands there {_NOT_SHOWN}"
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
            return repr(value if len(value) <= _SHOWN else value[:_SHOWN] + "...")
        case _:
            return str(value)


def _could_be_secret(value: object, path: DocumentPath) -> bool:
    below = any(key in SECRET_KEYS for key in path)
    return below or (isinstance(value, str) and _SECRET_LIKE.search(value[:_LOOKED_AT]) is not None)
