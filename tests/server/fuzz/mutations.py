"""Changes of a valid body that a hostile or broken client could make, each at a place that is drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tests.server.fuzz.documents import Json, Member, Object, Path, edit_at, encode, iter_paths
from tests.server.fuzz.sdk_values import Values
from tests.server.fuzz.world import OTHER_REFERENCES

#: Members that a mutation adds anywhere, by provider: those that name objects and models in its SDK's types.
PLANTED = {
    "openai": (
        "model",
        "previous_response_id",
        "file_id",
        "file_ids",
        "vector_store_ids",
        "container_id",
        "skill_id",
        "tunnel_id",
        "comparison_response_id",
        "id",
        *OTHER_REFERENCES,
    ),
    "anthropic": ("model", "container", "file_id", "previous_message_id", "skill_id"),
}
#: Members under which a request can be nested: WebSocket frames, batches, and members that hold options.
_WRAPPERS = ("response", "params", "requests", "session", "metadata", "thread", "tools", "input")
#: Members that select what a request costs or how it is answered.
_SWITCHES = ("type", "stream", "background", "tools", "service_tier", "n", "usage", "include_usage", "generate")
_MISTYPED: tuple[Json, ...] = (None, True, 0, -1, 1.5, 10**400, "", "x", (), ((),), Object(), (Object(),), "null")
#: Levels of nesting; the server rejects more than 200 (MAX_DEPTH in body_walk.py).
MAX_LEVELS = 220
#: Copies of a value that make a body as long as the longest one that is read on the event loop, and longer.
_COPIES = (2, 30, 1000, 5000)
_MAX_INFLATED_BYTES = 80_000


def mutate(values: Values, document: Json) -> Json:
    """Return `document` with up to three mutations."""
    for _ in range(values.choose(_MUTATION_COUNTS)):
        mutation = values.choose(_MUTATIONS)
        document = mutation(values, document)
    return document


def _double(values: Values, document: Json) -> Json:
    """Repeat a member, with the same or another value."""

    def repeat(value: Json) -> Json:
        member, index = _draw_member(values, value)
        repeated = replace(member, value=_draw_other_value(values, member), escaped=values.flip())
        return _insert(value, repeated, values.choose((index, index + 1)))

    return _edit_object(values, document, repeat)


def _escape(values: Values, document: Json) -> Json:
    """Write the name of a member with escapes, and maybe give it another value."""

    def escape(value: Json) -> Json:
        member, index = _draw_member(values, value)
        kept = values.flip()
        escaped = replace(member, escaped=True, value=member.value if kept else _draw_other_value(values, member))
        assert isinstance(value, Object)
        return Object((*value.members[:index], escaped, *value.members[index + 1 :]))

    return _edit_object(values, document, escape)


def _mistype(values: Values, document: Json) -> Json:
    """Replace a value by one of another type."""
    return edit_at(document, _draw_path(values, document), lambda _: values.choose(_MISTYPED))


def _wrap(values: Values, document: Json) -> Json:
    """Put a value into a list or an object, up to some hundred levels deep."""
    levels = values.choose((1, 1, 1, 2, 100, MAX_LEVELS))
    # Once: more levels would meet Python's own recursion limit in this test.
    if any(len(path) > 30 for path, _ in iter_paths(document)):
        levels = 1
    name = values.choose(("", "id", *_WRAPPERS))

    def wrap(value: Json) -> Json:
        for _ in range(levels):
            value = Object((Member(name, value),)) if name else (value,)
        return value

    return edit_at(document, _draw_path(values, document), wrap)


def _plant(values: Values, document: Json) -> Json:
    """Add a member that names a model or an object that the caller may not use."""

    def plant(value: Json) -> Json:
        assert isinstance(value, Object)
        name = values.choose(PLANTED[values.provider])
        member = Member(name, _draw_shape(values, values.draw_foreign(name)), values.flip())
        # In place of a member of that name, as a repeated one is refused anyway.
        kept = Object(tuple(other for other in value.members if other.name != name))
        return _insert(kept, member, values.count(len(kept.members)))

    return _edit_object(values, document, plant)


def _switch(values: Values, document: Json) -> Json:
    """Add a member that changes how a request is read, or what it costs."""

    def add(value: Json) -> Json:
        name = values.choose(_SWITCHES)
        assert isinstance(value, Object)
        return _insert(value, Member(name, values.choose(_MISTYPED)), 0)

    return _edit_object(values, document, add)


def _inflate(values: Values, document: Json) -> Json:
    """Repeat an entry of a list, or a value, many times."""
    copies = values.choose(_COPIES)
    if len(encode(document)) > _MAX_INFLATED_BYTES // 2:
        return document

    def copy(value: Json) -> Json:
        source = value if isinstance(value, tuple) and value else (value,)
        return source * max(1, min(copies, _MAX_INFLATED_BYTES // len(encode(source))))

    return edit_at(document, _draw_path(values, document), copy)


#: Mostly one: a request with several faults is mostly refused for one of them, which hides the others.
_MUTATION_COUNTS = (0, 1, 1, 1, 1, 2, 3)
_MUTATIONS = (_plant, _plant, _plant, _plant, _double, _escape, _mistype, _wrap, _switch, _inflate)


def _draw_path(values: Values, document: Json) -> Path:
    return values.choose([path for path, _ in iter_paths(document)])


def _edit_object(values: Values, document: Json, edit: Callable[[Json], Json]) -> Json:
    """Return `document` with one of its objects edited; unchanged if it has none with members."""
    found = [path for path, value in iter_paths(document) if isinstance(value, Object) and value.members]
    if not found:
        return document
    return edit_at(document, values.choose(found), edit)


def _draw_member(values: Values, value: Json) -> tuple[Member, int]:
    assert isinstance(value, Object)
    index = values.count(len(value.members) - 1)
    return value.members[index], index


def _insert(value: Json, member: Member, index: int) -> Object:
    assert isinstance(value, Object)
    return Object((*value.members[:index], member, *value.members[index:]))


def _draw_other_value(values: Values, member: Member) -> Json:
    if member.name in PLANTED[values.provider]:
        return _draw_shape(values, values.draw_foreign(member.name))
    return values.choose((member.value, *_MISTYPED))


def _draw_shape(values: Values, name: str) -> Json:
    """Return an id or a model as text, in a list, or as the `id` of an object."""
    shapes: tuple[Json, ...] = (name, (name,), Object((Member("id", name),)), (Object((Member("id", name),)),))
    return values.choose(shapes)
