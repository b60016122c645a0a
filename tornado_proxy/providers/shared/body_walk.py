"""Finds every member of a JSON request that refers to an object of the provider account or names a model.

Admission knows the members that an endpoint's parser reads.  A provider reads more: a file id deep in the input, a
skill of a container, the model of a tool inside another member.  The walk visits the whole body and returns them, so
that none reaches the provider unchecked.

    body ── may_need_walk: one search for names ── no ──> nothing to find (nearly every request)
                    │ yes
                    └──> decode, rejecting repeated members ──> visit every object, in linear time

MemberRules are data of a provider, with their sources (providers/*/request_members.py).  A member that the rules call
opaque holds JSON of the caller's own, such as a tool's schema, and is not visited.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import msgspec
from msgspec.structs import replace

from tornado_proxy.domain.errors import InvalidBody
from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.providers.shared.json_body import split_list, split_members
from tornado_proxy.providers.shared.strict_json import decode_strict, decode_strict_object

#: Nesting of a body.  Deeper ones are rejected: Python's recursion limit is 1,000, and no request needs a tenth of it.
MAX_DEPTH = 200

#: Bytes of a body that is decoded at once.  A decoded body takes five times its length, so the lists of a larger one
#: (messages, the requests of a batch) are decoded entry by entry if they are longer than MIN_LIST_BYTES.
MAX_BYTES_DECODED_WHOLE, MIN_LIST_BYTES = 1024 * 1024, 64 * 1024

#: A member name with an escaped ASCII character.  No encoder writes one, so it can only hide a name from the search.
_ESCAPED_NAME = re.compile(rb'\\u00[0-7][0-9a-fA-F][^"\\]{0,100}(?:\\.[^"\\]{0,100}){0,20}"[ \t\r\n]*:')
_ESCAPED_ASCII = rb"\u00"

#: The length of a body, and the bytes for each of its quotation marks, from which on it is split at them.
MIN_SPLIT_BYTES, MIN_BYTES_PER_QUOTE = 64 * 1024, 1000

#: Bytes in three places of a body that are probed, and the quotation marks in each from which on it is not split.
_PROBED_BYTES, _MAX_PROBED_QUOTES = 4096, 16

#: Bytes of the longest name that is searched for, and more.
MAX_NAME_BYTES = 64

#: A letter, digit or sign written as an escape, in a name or a value.  JSON encoders write none of them so, but for <,
#: > and & in Go.
_ESCAPED_LETTER = re.compile(rb"\\u00[2-7]")


@dataclass(frozen=True, slots=True)
class MemberRules:
    """How a provider's requests name objects and models.

    Attributes:
        references: Members whose value is an id, a list of ids, or an object with an `id`.
        item_members: Members that `item_reference` reads an id from.
        reference_objects: Members that refer to an object only if their value is an object with an `id`.
        opaque: Members that hold JSON of the caller's own.
        item_reference: Returns the id of the object that an item refers to, None if the item has content of its own.
        skip: Returns True for an object that repeats output of the provider, whose ids are no references.
        names: The names of `references`, `item_members` and `reference_objects`.
        names_pattern: Finds one of them, or `model`, between quotation marks, without the second one: texts share it.
    """

    references: frozenset[str]
    item_members: frozenset[str]
    reference_objects: frozenset[str]
    opaque: frozenset[str]
    item_reference: Callable[[Mapping[str, object]], str | None]
    skip: Callable[[Mapping[str, object]], bool]
    names: frozenset[bytes] = field(init=False, repr=False, compare=False)
    names_pattern: re.Pattern[bytes] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names = sorted({*self.references, *self.item_members, *self.reference_objects})
        pattern = b'"(?:%s)(?=")' % b"|".join(re.escape(name.encode()) for name in (*names, "model"))
        object.__setattr__(self, "names", frozenset(name.encode() for name in names))
        object.__setattr__(self, "names_pattern", re.compile(pattern))


@dataclass(slots=True)
class Findings:
    """Ids of objects that a body refers to, and models that it names."""

    references: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=list)


def split_names(text: str) -> frozenset[str]:
    """Return the member names in `text`, which are separated by spaces and line ends."""
    return frozenset(text.split())


def may_need_walk(body: bytes, rules: MemberRules) -> bool:
    """Return True if `body` may name an object, or more than one model.

    Inside JSON text quotation marks are escaped, so `"name"` in the bytes is a member or a whole string value.
    """
    texts = _list_short_texts(body)
    if texts is None:
        names_found = _has_names(body, rules)
    else:
        names_found = not rules.names.isdisjoint(texts) or texts.count(b"model") > 1
    if names_found:
        return True
    return body.find(b"\\") >= 0 and body.find(_ESCAPED_ASCII) >= 0 and _ESCAPED_NAME.search(body) is not None


def _has_names(body: bytes, rules: MemberRules) -> bool:
    """Return True if `body` has a name of the rules, or `"model"` twice, in one pass.

    The pass takes 26 ns for each quotation mark: 2.7 ms for 1 MB of short messages, a substring search for each name 7.
    """
    first = rules.names_pattern.search(body)
    if first is None:
        return False
    return first[0] != b'"model' or rules.names_pattern.search(body, first.end()) is not None


def _list_short_texts(body: bytes) -> list[bytes] | None:
    """Return the short texts between two quotation marks of a large body; None if it is small or has many marks.

    A long prompt has few.  To find a single byte takes a fortieth of the time of a search for a name.
    """
    if len(body) < MIN_SPLIT_BYTES or _is_dense(body):
        return None
    texts: list[bytes] = []
    start = body.find(b'"')
    for _ in range(len(body) // MIN_BYTES_PER_QUOTE):
        if (end := body.find(b'"', start + 1)) < 0:
            return texts
        if end - start <= MAX_NAME_BYTES:
            texts.append(body[start + 1 : end])
        start = end
    return None


def _is_dense(body: bytes) -> bool:
    """Return True if `body` has many quotation marks in several places: it is not split in vain then."""
    quarter = len(body) // 4
    starts = (quarter, 2 * quarter, 3 * quarter)
    return all(body.count(b'"', start, start + _PROBED_BYTES) > _MAX_PROBED_QUOTES for start in starts)


def find_strings(body: bytes, names: Iterable[bytes]) -> frozenset[bytes]:
    """Return those of `names` that are in `body`, within quotation marks."""
    texts = _list_short_texts(body)
    if texts is None:
        return frozenset([name for name in names if body.find(b'"%b"' % name) >= 0])
    return frozenset(names).intersection(texts)


def has_escaped_letters(body: bytes) -> bool:
    """Return True if a letter, digit or sign in `body` is written as an escape, which can hide a name."""
    return body.find(b"\\") >= 0 and _ESCAPED_LETTER.search(body) is not None


def is_text_only(body: bytes, opaque: Iterable[bytes]) -> bool:
    """Return True if `body` has none of the members and types `opaque`, whose tokens are not in the body as text.

    A text that happens to be such a name makes the request seem larger than it is, never smaller.
    """
    return not find_strings(body, opaque) and not has_escaped_letters(body)


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
