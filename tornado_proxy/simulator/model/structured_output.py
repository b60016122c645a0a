"""The smallest answer that fits a JSON Schema, for requests that ask for structured output."""

from __future__ import annotations

from collections.abc import Mapping

from tornado_proxy.simulator.json_values import as_list, as_object, as_text, encode_text

#: Schemas that refer to themselves end here.
_MAX_DEPTH = 8


def openai_answer(format_: object) -> str | None:
    """Text for `response_format` (chat) or `text.format` (responses), None where plain text is asked for."""
    asked = as_object(format_)
    match asked.get("type"):
        case "json_object":
            return '{"answer": "simulated"}'
        case "json_schema":
            schema = asked.get("schema") or as_object(asked.get("json_schema")).get("schema")
            return schema_answer(schema)
    return None


def schema_answer(schema: object) -> str:
    """JSON text that fits `schema`."""
    root = as_object(schema)
    return encode_text(_instance(root, root, 0))


def _instance(schema: Mapping[str, object], root: Mapping[str, object], depth: int) -> object:
    if depth > _MAX_DEPTH:
        return None
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    if options := as_list(schema.get("enum")):
        return options[0]
    for key in ("anyOf", "oneOf", "allOf"):
        if options := as_list(schema.get(key)):
            return _instance(as_object(options[0]), root, depth + 1)
    if "$ref" in schema:
        return _instance(_referred(as_text(schema["$ref"]), root), root, depth + 1)
    return _of_type(schema, root, depth)


def _of_type(schema: Mapping[str, object], root: Mapping[str, object], depth: int) -> object:
    kind = schema.get("type")
    match kind[0] if isinstance(kind, list) and kind else kind:
        case "object":
            properties = as_object(schema.get("properties"))
            return {name: _instance(as_object(value), root, depth + 1) for name, value in properties.items()}
        case "array":
            return [_instance(as_object(schema.get("items")), root, depth + 1)] if schema.get("minItems") else []
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
        case "null":
            return None
    return "simulated"


def _referred(reference: str, root: Mapping[str, object]) -> Mapping[str, object]:
    found = root
    for part in reference.removeprefix("#/").split("/"):
        found = as_object(found.get(part))
    return found
