"""The smallest output that matches a JSON Schema, for requests for structured output."""

from __future__ import annotations

from collections.abc import Mapping

from tornado_proxy.simulator.json_values import as_list, as_object, as_text, encode_text

#: Levels of nesting; the limit ends schemas that refer to themselves.
_MAX_DEPTH = 8


def make_structured_output(format_: object) -> str | None:
    """Return the text for `response_format` (chat) or `text.format` (responses), or None for plain text."""
    members = as_object(format_)
    match members.get("type"):
        case "json_object":
            return '{"answer": "simulated"}'
        case "json_schema":
            schema = members.get("schema") or as_object(members.get("json_schema")).get("schema")
            return make_schema_output(schema)
    return None


def make_schema_output(schema: object) -> str:
    """Return JSON text that matches `schema`."""
    root = as_object(schema)
    return encode_text(_make_instance(root, root, 0))


def _make_instance(schema: Mapping[str, object], root: Mapping[str, object], depth: int) -> object:
    if depth > _MAX_DEPTH:
        return None
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    if options := as_list(schema.get("enum")):
        return options[0]
    # The first alternative: it need not be the smallest, but the output must be predictable.
    for key in ("anyOf", "oneOf", "allOf"):
        if options := as_list(schema.get(key)):
            return _make_instance(as_object(options[0]), root, depth + 1)
    if "$ref" in schema:
        return _make_instance(_resolve(as_text(schema["$ref"]), root), root, depth + 1)
    return _make_typed(schema, root, depth)


def _make_typed(schema: Mapping[str, object], root: Mapping[str, object], depth: int) -> object:
    kind = schema.get("type")
    match kind[0] if isinstance(kind, list) and kind else kind:
        case "object":
            properties = as_object(schema.get("properties"))
            return {name: _make_instance(as_object(value), root, depth + 1) for name, value in properties.items()}
        case "array":
            return [_make_instance(as_object(schema.get("items")), root, depth + 1)] if schema.get("minItems") else []
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
        case "null":
            return None
    return "simulated"


def _resolve(reference: str, root: Mapping[str, object]) -> Mapping[str, object]:
    found = root
    for part in reference.removeprefix("#/").split("/"):
        found = as_object(found.get(part))
    return found
