"""Lists, in the shape that both providers share: {"data": [{"id": ...}, ...], ...}."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from tornado_proxy.domain.errors import InvalidBody
from tornado_proxy.providers.shared.json_body import edit_member, holds_member


class _Entry(msgspec.Struct):
    id: str = ""


_ENTRIES = msgspec.json.Decoder(list[msgspec.Raw])
_ENTRY = msgspec.json.Decoder(_Entry)


def keep_entries(body: bytes, keep: Callable[[str], bool]) -> bytes:
    """`body` without the entries whose id `keep` does not want.

    What is left stays as it is, byte for byte, and so do the list's other members: its cursors are the provider's.
    A body of another shape comes back as it is.
    """
    try:
        if not holds_member(body, "data"):
            return body
        return edit_member(body, "data", lambda data: _kept(data, keep))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, InvalidBody):
        return body


def _kept(data: bytes, keep: Callable[[str], bool]) -> bytes:
    entries = [bytes(entry) for entry in _ENTRIES.decode(data)]
    wanted = [keep(_ENTRY.decode(entry).id) for entry in entries]
    return data if all(wanted) else _cut(data, entries, wanted)


def _cut(data: bytes, entries: list[bytes], wanted: list[bool]) -> bytes:
    """The array `data` without the unwanted entries and what stands before each of them."""
    kept: list[bytes] = []
    place = 1
    for entry, is_wanted in zip(entries, wanted, strict=True):
        start = data.index(entry, place)
        if is_wanted:
            space = data[place:start].lstrip(b",") if not kept else data[place:start]
            kept.append(space + entry)
        place = start + len(entry)
    return b"[" + b"".join(kept) + data[place:]


class _Page(msgspec.Struct):
    data: list[_Entry] = []
    has_more: bool = False


_PAGE = msgspec.json.Decoder(_Page)


def own_cursors(body: bytes) -> bytes:
    """`body` with cursors (`first_id`, `last_id`) that name entries which are there.

    The `last_id` of a list that goes on is left alone: without it the next page could not be asked for.
    """
    try:
        page = _PAGE.decode(body)
        names = [entry.id for entry in page.data]
        cursors = {"first_id": names[0] if names else None, "last_id": names[-1] if names else None}
        for name, value in cursors.items():
            if holds_member(body, name) and not (page.has_more and name == "last_id"):
                written = msgspec.json.encode(value)
                body = edit_member(body, name, lambda _, written=written: written)  # type: ignore[misc]  # bound now
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, InvalidBody):
        return body
    return body
