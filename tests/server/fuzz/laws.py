"""The law on content: what a provider may receive, decided from the bytes alone and with none of the proxy's code."""

from __future__ import annotations

import email
import json
from collections.abc import Iterator

from tests.server.fuzz.documents import Json, Object, decode
from tests.server.fuzz.requests import REFERENCE_NAMES
from tests.server.fuzz.world import FOREIGN_MODELS, FOREIGN_OBJECTS, GRANTED, OPAQUE, TEXT_IS_NO_ID

#: OpenAI looks up an item of these types that has no members but these, and no content.
#: Source: OpenAI API reference, responses `input`, "Item reference"; an item may omit `type`.
_LOOKED_UP = (None, "message", "reasoning", "compaction")
_IDENTITY, _CONTENT = {"id", "type", "role", "status"}, {"content", "summary", "encrypted_content"}
#: Output of the provider that a client sends back; its files were created by the code that ran (Anthropic, "Code
#: execution tool").
_REPEATED_OUTPUT = ("code_execution_output", "bash_code_execution_output")


def find_violations(provider: str, content_type: str, body: bytes) -> list[str]:
    """Return each model outside the grant, and each object of another project, that `body` names."""
    if content_type.startswith("multipart/"):
        parts = _read_form(content_type, body)
        if parts:
            return [f"the form field model is {value!r}" for value in parts.get("model", []) if value not in GRANTED]
    try:
        document = decode(body)
    except (ValueError, RecursionError):
        names = (*FOREIGN_MODELS, *FOREIGN_OBJECTS)
        return [f"{name!r} in a body that is no JSON" for name in names if name.encode() in body]
    return list(_Visit(provider).visit(document, ""))


def _read_form(content_type: str, body: bytes) -> dict[str, list[str]]:
    """Return the text fields of a form; {} if it has none."""
    parsed = email.message_from_bytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body)
    fields: dict[str, list[str]] = {}
    for part in parsed.walk():
        name = part.get_param("name", header="content-disposition")
        payload = part.get_payload(decode=True)
        if isinstance(name, str) and isinstance(payload, bytes):
            fields.setdefault(name, []).append(payload.decode("utf-8", "replace"))
    return fields


class _Visit:
    """Finds the violations in a document for one provider."""

    def __init__(self, provider: str) -> None:
        self._opaque = OPAQUE[provider]
        self._references = REFERENCE_NAMES[provider] - {"id"}
        self._finds_items = provider == "openai"

    def visit(self, value: Json, name: str) -> Iterator[str]:
        """Yield the violations in the value of the member `name`."""
        if isinstance(value, Object):
            yield from self._visit_object(value, name)
        elif isinstance(value, tuple):
            for entry in value:
                yield from self.visit(entry, name)
        elif name == "model" and isinstance(value, str) and value not in GRANTED:
            yield f"{name!r} names the model {value!r}"
        elif value in FOREIGN_OBJECTS and name in self._references and name not in TEXT_IS_NO_ID:
            yield f"{name!r} names the object {value!r}"

    def _visit_object(self, value: Object, name: str) -> Iterator[str]:
        contents = {member.name: member.value for member in value.members}
        if contents.get("type") in _REPEATED_OUTPUT or _is_public_skill(contents):
            return
        for member in value.members:
            if member.name == "id" and member.value in FOREIGN_OBJECTS:
                if name in self._references or (self._finds_items and _is_looked_up(contents)):
                    yield f"the id in {name!r} names the object {member.value!r}"
            elif member.name not in self._opaque:
                yield from self.visit(member.value, member.name)


def _is_looked_up(item: dict[str, Json]) -> bool:
    """Return True if an item has an id and no content of its own."""
    if item.get("type") == "item_reference":
        return True
    has_content = any(item.get(name) for name in _CONTENT)
    return item.get("type") in _LOOKED_UP and not has_content and set(item) <= _IDENTITY | _CONTENT


def _is_public_skill(item: dict[str, Json]) -> bool:
    """Return True for a skill of Anthropic, which belongs to every account (API reference, `container.skills`)."""
    return item.get("type") == "anthropic" and "skill_id" in item


def show(body: bytes) -> str:
    """Return a body for a message, without its repetitions."""
    text = body.decode("utf-8", "backslashreplace")
    return text if len(text) < 2000 else json.dumps(text[:2000]) + "..."
