"""Removes entries from lists of the shape {"data": [{"id": ...}, ...], ...}, which the providers share."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from tornado_proxy.domain.errors import InvalidBody, UpstreamError
from tornado_proxy.providers.shared.json_body import read_members
from tornado_proxy.providers.shared.json_edit import edit_member


class _Entry(msgspec.Struct):
    id: str = ""


_ENTRIES = msgspec.json.Decoder(list[msgspec.Raw])
_ENTRY = msgspec.json.Decoder(_Entry)


def keep_entries(body: bytes, keep: Callable[[str], bool]) -> bytes:
    """Return `body` without the entries for whose id `keep` returns False.

    All other bytes are unchanged, cursors included.

    Raises:
        UpstreamError: `body` has another shape, so that the objects of others cannot be found in it.
    """
    try:
        if "data" not in read_members(body, ("data",)):
            raise InvalidBody("the body contains no list")
        return edit_member(body, "data", lambda data: _filter(data, keep))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, InvalidBody) as error:
        raise UpstreamError("the provider's response is no list that can be cut to what you may see") from error


def _filter(data: bytes, keep: Callable[[str], bool]) -> bytes:
    entries = [bytes(entry) for entry in _ENTRIES.decode(data)]
    wanted = [keep(_ENTRY.decode(entry).id) for entry in entries]
    return data if all(wanted) else _cut(data, entries, wanted)


def _cut(data: bytes, entries: list[bytes], wanted: list[bool]) -> bytes:
    """Return the array `data` without the unwanted entries and the separators before them."""
    parts: list[bytes] = []
    end = 1
    for entry, is_wanted in zip(entries, wanted, strict=True):
        start = data.index(entry, end)
        if is_wanted:
            # The first entry that is left must not keep the comma of those cut before it.
            separator = data[end:start] if parts else data[end:start].lstrip(b",")
            parts.append(separator + entry)
        end = start + len(entry)
    return b"[" + b"".join(parts) + data[end:]
