"""Finds every member of a JSON request that refers to an object of the provider account or names a model.

Admission knows the members that an endpoint's parser reads.  A provider reads more: a file id deep in the input, a
skill of a container, the model of a tool inside another member.  The walk visits the whole body and returns them, so
that none reaches the provider unchecked.

    body ── may_need_walk (json_body.py) ── no ──> nothing to find (nearly every request)
                    │ yes
                    └──> decode, rejecting repeated members ──> visit every object, in linear time

A member that the rules call
opaque holds JSON of the caller's own, such as a tool's schema, and is not visited.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import msgspec
from msgspec.structs import replace

from tornado_proxy.domain.errors import InvalidBody
from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.providers.shared.json_body import split_list, split_members
from tornado_proxy.providers.shared.member_rules import MemberRules
from tornado_proxy.providers.shared.strict_json import decode_strict, decode_strict_object

#: Nesting of a body.  Deeper ones are rejected: Python's recursion limit is 1,000, and no request needs a tenth of it.
MAX_DEPTH = 200

#: Bytes of a body that is decoded at once.  A decoded body takes five times its length, so the lists of a larger one
#: (messages, the requests of a batch) are decoded entry by entry if they are longer than MIN_LIST_BYTES.
MAX_BYTES_DECODED_WHOLE, MIN_LIST_BYTES = 1024 * 1024, 64 * 1024


@dataclass(slots=True)
class Findings:
    """Ids of objects that a body refers to, and models that it names."""

    references: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=list)


def walk_body(body: bytes, rules: MemberRules) -> Findings:
    """Return the objects and models that `body` names.

    Raises:
        InvalidBody: the body repeats a member of an object, nests too deeply, or names an object or a model with a
            value of the wrong type.
    """
    if len(body) <= MAX_BYTES_DECODED_WHOLE:
        return walk_content(decode_strict_object(body), rules)
    outline, lists = _split_large_lists(body)
    findings = walk_content(outline, rules)
    for name, entries in lists:
        hidden = name in rules.opaque or rules.skip(outline)
        # Decoded also if nothing in them can be a name: a repeated member is rejected anywhere.
        for value in _decode_entries(entries):
            if not hidden:
                _walk_entry(name, value, rules, findings)
    return findings


def walk_content(content: object, rules: MemberRules) -> Findings:
    """Return the objects and models that decoded JSON names.

    Raises:
        InvalidBody: as walk_body().
    """
    findings = Findings()
    _walk(content, 0, rules, findings)
    return findings


def _split_large_lists(body: bytes) -> tuple[dict[str, object], list[tuple[str, list[msgspec.Raw]]]]:
    """Return the decoded body with its large lists emptied, and the entries of these lists as written."""
    outline: dict[str, object] = {}
    lists: list[tuple[str, list[msgspec.Raw]]] = []
    for name, raw in split_members(body):
        if name in outline:
            raise InvalidBody(f'an object contains "{name[:100]}" twice; send it once')
        view = memoryview(raw)
        if len(view) > MIN_LIST_BYTES and bytes(view[:1]) == b"[":
            lists.append((name, split_list(raw)))
            outline[name] = [None]  # a list with content, but without names
        else:
            outline[name] = decode_strict(bytes(view))
    return outline, lists


def _decode_entries(entries: Iterable[msgspec.Raw]) -> Iterator[object]:
    """Yield the values of entries; MIN_LIST_BYTES of them are decoded at once, because each call takes microseconds."""
    group: list[msgspec.Raw] = []
    group_bytes = 0
    for entry in entries:
        group.append(entry)
        group_bytes += len(memoryview(entry))
        if group_bytes > MIN_LIST_BYTES:
            yield from _decode_group(group)
            group, group_bytes = [], 0
    yield from _decode_group(group)


def _decode_group(group: list[msgspec.Raw]) -> list[object]:
    decoded = decode_strict(b"[" + b",".join(group) + b"]")
    assert isinstance(decoded, list)
    return decoded


def _walk_entry(name: str, value: object, rules: MemberRules, findings: Findings) -> None:
    """Add the names in an entry of the list `name`, a member of the body itself."""
    if name in rules.references:
        findings.references.extend(_read_ids(name, value))
    _walk(value, 2, rules, findings)


def _walk(content: object, depth: int, rules: MemberRules, findings: Findings) -> None:
    """Add the names in decoded JSON, which is `depth` levels deep in the body, to `findings`."""
    pending: list[tuple[object, int]] = [(content, depth)]
    while pending:
        value, depth = pending.pop()
        if depth > MAX_DEPTH:
            raise InvalidBody(f"the body is nested more than {MAX_DEPTH} levels deep")
        if isinstance(value, dict):
            pending.extend((child, depth + 1) for child in _visit(value, rules, findings))
        elif isinstance(value, list):
            pending.extend((child, depth + 1) for child in value if isinstance(child, dict | list))


def add_findings(facts: RequestFacts, findings: Findings) -> RequestFacts:
    """Return `facts` with the references that the walk has found.

    Raises:
        InvalidBody: the body names a model that no spend of the request has: nothing has checked it.
    """
    check_models(findings.models, facts)
    return replace(facts, references=tuple(dict.fromkeys((*facts.references, *findings.references))))


def check_models(models: Iterable[str], facts: RequestFacts) -> None:
    """Raise InvalidBody if a body names a model that no spend of its request has: nothing has checked it."""
    checked = {spend.model for spend in facts.spends}
    for model in models:
        if model not in checked:
            message = f"the model {model[:100]!r} is named in a member that cannot name one here"
            raise InvalidBody(message, param="model")


def _visit(value: Mapping[str, object], rules: MemberRules, findings: Findings) -> Iterator[object]:
    """Record the names in one object; yield the values to visit next."""
    if rules.skip(value):
        return
    referenced = rules.item_reference(value)
    if referenced is not None:
        findings.references.append(referenced)
    for name, child in value.items():
        if name in rules.opaque:
            continue
        if name == "model":
            findings.models.extend(_read_models(child))
        elif name in rules.references:
            findings.references.extend(_read_ids(name, child))
        elif name in rules.reference_objects:
            findings.references.extend(_read_object_ids(name, child))
        if isinstance(child, dict | list):
            yield child


def _read_models(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,)
    raise InvalidBody('"model" must be text', param="model")


def _read_object_ids(name: str, value: object) -> Iterator[str]:
    """Yield the ids of the objects in `value`, which may be text, an object or a list."""
    for entry in value if isinstance(value, list) else (value,):
        if isinstance(entry, dict):
            yield from _read_ids(name, entry)


def _read_ids(name: str, value: object) -> Iterator[str]:
    if value is None:
        return
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for entry in value:
            yield from _read_ids(name, entry)
    elif isinstance(value, dict):
        yield from _read_ids(name, value.get("id"))
    else:
        raise InvalidBody(f'"{name}" must be an id', param=name)
