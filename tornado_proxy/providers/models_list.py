"""Lists of models, in the shape that both providers share: {"data": [{"id": ...}, ...], ...}."""

from __future__ import annotations

from collections.abc import Callable

import msgspec


class _Entry(msgspec.Struct):
    id: str = ""


_LIST = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ENTRIES = msgspec.json.Decoder(list[msgspec.Raw])
_ENTRY = msgspec.json.Decoder(_Entry)


def keep_models(body: bytes, keep: Callable[[str], bool]) -> bytes:
    """`body` without the entries whose id `keep` does not want.

    Entries stay as they are, byte for byte, and so do the list's other members: its cursors are the provider's.
    A body of another shape comes back as it is.
    """
    try:
        members = _LIST.decode(body)
        entries = _ENTRIES.decode(members["data"])
        kept = [entry for entry in entries if keep(_ENTRY.decode(entry).id)]
    except (msgspec.DecodeError, KeyError, UnicodeDecodeError, RecursionError):
        return body
    members["data"] = msgspec.Raw(b"[" + b",".join(bytes(entry) for entry in kept) + b"]")
    return msgspec.json.encode(members)
