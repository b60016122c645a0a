"""Checks a document against its JSON Schema and describes every fault with file, line, key and rule.

The schemas use keywords of their own, which other validators ignore:

    x-type-name        the name of the type in a fault: "a path or a list of projects"
    x-pattern-name     the name of the pattern in a fault: "a header name"
    x-provider         true: the text must be the name of a provider
    x-provider-prefix  true: the part before a slash must be the name of a provider, or start with *
    x-priced-path      true: the text must be an endpoint that a provider has prices for

A fault repeats a value of the file only if it cannot be a secret.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from jsonschema import Draft202012Validator, validators
from jsonschema.exceptions import ValidationError

from tornado_proxy.config.bundled import schema
from tornado_proxy.config.secrets import is_in_reference
from tornado_proxy.domain.config.document import Document
from tornado_proxy.domain.config.document import Path as DocumentPath
from tornado_proxy.domain.config.fault import Fault
from tornado_proxy.domain.text import count_noun
from tornado_proxy.providers.registry import PROVIDERS, list_priced_paths

#: Text that can be a secret in any place: our and the providers' keys, PEM, a password in a URL, or a long run of
#: letters and digits.  This sometimes hides a long model name; line and key still locate the fault.
_SECRET_LIKE = re.compile(r"\b(sk|ma)-|-----BEGIN|://[^/]*@|(?=[^\s]*[0-9])(?=[^\s]*[A-Za-z])[A-Za-z0-9_+/=-]{24,}")

#: Characters of a value that a fault repeats.
_MAX_SHOWN_CHARACTERS = 60

#: Characters of a value that are searched for a secret; the search takes quadratic time.
_MAX_SEARCHED_CHARACTERS = 1000

_HIDDEN = "(hidden: it could be a secret)"

_TYPE_NAMES = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "null": "empty",
}


def check(document: Document, schema_name: str) -> list[Fault]:
    """Return every fault of `document` against the schema `schema_name`, in file order."""
    errors = list(_validator(schema_name).iter_errors(document.content))
    # A value of the wrong type breaks other rules too; those faults say nothing more.
    mistyped = {tuple(error.absolute_path) for error in errors if error.validator == "type"}
    relevant = [error for error in errors if error.validator == "type" or tuple(error.absolute_path) not in mistyped]
    # A set: jsonschema reports one error for each missing key, and _describe() describes all keys each time.
    return sorted({fault for error in relevant for fault in _describe(document, error)})


@functools.cache
def _validator(schema_name: str) -> Any:
    # Documents have no floats, so that every limit is compared exactly.
    numbers = Draft202012Validator.TYPE_CHECKER.redefine(
        "number", lambda _, value: isinstance(value, int | Decimal) and not isinstance(value, bool)
    )
    keywords = {
        "pattern": _check_pattern,
        "x-provider": _check_provider,
        "x-provider-prefix": _check_provider_prefix,
        "x-priced-path": _check_priced_path,
    }
    extend: Any = validators.extend
    return extend(Draft202012Validator, keywords, type_checker=numbers)(schema(schema_name))


def _check_pattern(_validator: object, pattern: str, value: object, _schema: object) -> Iterator[ValidationError]:
    """Implement `pattern` with the `$` of ECMA 262: the end of the text.  Python's also matches before a final LF."""
    if isinstance(value, str) and (value.endswith("\n") or not re.search(pattern, value)):
        yield ValidationError("does not match")


def _check_provider(_validator: object, _keyword: object, value: object, _schema: object) -> Iterator[ValidationError]:
    if isinstance(value, str) and value not in _list_providers():
        yield ValidationError("is not a provider")


def _check_provider_prefix(
    _validator: object, _keyword: object, value: object, _schema: object
) -> Iterator[ValidationError]:
    provider, slash, _ = value.partition("/") if isinstance(value, str) else ("", "", "")
    if slash and not provider.startswith("*") and provider not in _list_providers():
        yield ValidationError("starts with no provider")


def _check_priced_path(
    _validator: object, _keyword: object, value: object, _schema: object
) -> Iterator[ValidationError]:
    if isinstance(value, str) and value not in list_priced_paths():
        yield ValidationError("is not a priced path")


def _list_providers() -> list[str]:
    return [provider.name for provider in PROVIDERS]


def _describe(document: Document, error: ValidationError) -> Iterator[Fault]:
    """Yield the faults of `error`; most errors are one fault."""
    path = tuple(error.absolute_path)
    present: Any = error.instance
    wanted: Any = error.validator_value
    if "propertyNames" in error.absolute_schema_path:
        yield _describe_invalid_key(document, error, path)
        return
    match error.validator:
        case "oneOf" | "anyOf" if error.context:
            yield from _describe_closest_branch(document, error)
        case "additionalProperties":
            rule: Any = error.schema
            known = list(rule.get("properties", ()))
            yield from (_describe_unknown_key(document, key, path, known) for key in present if key not in known)
        case "required":
            yield from (document.fault((*path, key), "is required") for key in wanted if key not in present)
        case _:
            yield document.fault(path, _describe_rule(error, path))


def _describe_invalid_key(document: Document, error: ValidationError, path: DocumentPath) -> Fault:
    """Return the fault of a key that breaks the rule for all keys of its mapping."""
    key: Any = error.instance
    rule: Any = error.schema
    if "x-provider" in rule:
        return _describe_unknown_key(document, key, path, _list_providers())
    # The path of a fault would show the key, which can be a secret, so report the parent, with the line of the key.
    line, parent = document.fault((*path, key), "").line, document.fault(path, "")
    return Fault(parent.file, line, parent.key, f"a key must be {rule.get('x-pattern-name', 'valid')}")


def _describe_unknown_key(document: Document, key: str, path: DocumentPath, known: Sequence[str]) -> Fault:
    if _could_be_secret(key, path):
        # The path of a fault would show the key, so report the fault at the parent, but with the line of the key.
        line = document.fault((*path, key), "").line
        parent = document.fault(path, f"unknown key {_HIDDEN}; known keys are {', '.join(known)}")
        return Fault(parent.file, line, parent.key, parent.rule)
    close = difflib.get_close_matches(key, known, 1)
    hint = f'did you mean "{close[0]}"?' if close else f"known keys are {', '.join(known)}"
    return document.fault((*path, key), f'unknown key "{key}"; {hint}')


def _describe_closest_branch(document: Document, error: ValidationError) -> Iterator[Fault]:
    """Yield the faults of the alternative that the value is closest to.

    That is the alternative whose faults are deepest in the value; of two, the one with fewer faults.
    """
    by_branch: dict[object, list[ValidationError]] = {}
    for branch_error in error.context or ():
        by_branch.setdefault(branch_error.schema_path[0], []).append(branch_error)
    # An alternative of another type is not the one that the operator meant.
    fitting = [errors for errors in by_branch.values() if not _has_wrong_type(errors)]
    if not fitting:
        path = tuple(error.absolute_path)
        types = [str(type_error.validator_value) for errors in by_branch.values() for type_error in errors]
        rule: Any = error.schema
        yield document.fault(path, f"must be {_name_type(rule, types)}, not {_show(error.instance, path)}")
        return
    closest = max(fitting, key=lambda errors: (max(len(error.path) for error in errors), -len(errors)))
    for branch_error in closest:
        yield from _describe(document, branch_error)


def _has_wrong_type(errors: Sequence[ValidationError]) -> bool:
    return any(error.validator == "type" and not error.path for error in errors)


def _describe_rule(error: ValidationError, path: DocumentPath) -> str:
    shown = _show(error.instance, path)
    wanted: Any = error.validator_value
    rule: Any = error.schema
    member = "key" if isinstance(error.instance, dict) else "item"
    match error.validator:
        case "type" | "minimum" | "maximum":
            types = rule["type"]
            return f"must be {_name_type(rule, [types] if isinstance(types, str) else types)}, not {shown}"
        case "enum" | "pattern" | "x-provider" | "x-priced-path" if allowed := _list_allowed(rule):
            return f"must be one of {', '.join(allowed)}, not {shown}"
        case "x-provider-prefix":
            return f"must start with * or a provider ({', '.join(_list_providers())}), not {shown}"
        case "pattern":
            return f"must be {rule.get('x-pattern-name', f'of the form {wanted}')}, not {shown}"
        case "minLength":
            return "must not be empty" if wanted == 1 else f"must have at least {wanted} characters"
        case "minItems" | "minProperties":
            return f"must have at least {count_noun(wanted, member)}"
        case "maxItems" | "maxProperties":
            return f"must have at most {count_noun(wanted, member)}"
        case "uniqueItems":
            return "must not contain an item twice"
        case keyword:
            return f"must satisfy {keyword} {wanted} of its schema, not {shown}"


def _list_allowed(rule: Mapping[str, Any]) -> list[str]:
    """Return the values that `rule` lists or takes from the registry, [] if it does neither."""
    if "x-provider" in rule:
        return _list_providers()
    if "x-priced-path" in rule:
        return sorted(list_priced_paths())
    return [str(value) for value in rule.get("enum", ())]


def _name_type(rule: Any, types: Sequence[str]) -> str:
    """Return the type that `rule` asks for, with its limits: "an integer from 0 to 65535"."""
    name = str(rule.get("x-type-name") or " or ".join(_TYPE_NAMES[type_name] for type_name in types))
    if "minimum" in rule and "maximum" in rule:
        return f"{name} from {rule['minimum']} to {rule['maximum']}"
    return f"{name} of at least {rule['minimum']}" if "minimum" in rule else name


def _show(value: object, path: DocumentPath) -> str:
    if _could_be_secret(value, path):
        return f"the present value {_HIDDEN}"
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
            return repr(value if len(value) <= _MAX_SHOWN_CHARACTERS else value[:_MAX_SHOWN_CHARACTERS] + "...")
        case _:
            return str(value)


def _could_be_secret(value: object, path: DocumentPath) -> bool:
    """Return True if `value` is inside a reference to a secret, where anything can be the secret, or looks like one."""
    return is_in_reference(path) or (
        isinstance(value, str) and _SECRET_LIKE.search(value[:_MAX_SEARCHED_CHARACTERS]) is not None
    )
