"""Keeps a provider key out of what a client sees, should a provider ever echo it.

The mask is as long as the key, so that lengths and framing stay true.  Only bytes that may be the start of a key at
the very end of a chunk are held until the next one; everything else passes at once.
"""

from __future__ import annotations

from tornado_proxy.domain.identity import Secret

#: Shorter secrets could stand in an answer by chance; no provider's key is as short.
_SHORTEST = 8


class Redactor:
    """Replaces each occurrence of `secret` in a stream of bytes, wherever the stream is split."""

    __slots__ = ("_held", "_key", "_mask")

    def __init__(self, secret: Secret) -> None:
        key = secret.reveal().encode()
        self._key = key if len(key) >= _SHORTEST else b""
        self._mask = b"*" * len(key)
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes; give what may go on."""
        key = self._key
        if not key:
            return data
        if self._held:
            data = self._held + data
            self._held = b""
        if key in data:
            data = data.replace(key, self._mask)
        start = self._possible_start(data)
        if start < 0:
            return data
        self._held = data[start:]
        return data[:start]

    def close(self) -> bytes:
        """Give what is still held: the stream ended before it became a key."""
        held, self._held = self._held, b""
        return held

    def headers(self, pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """The same for the values of headers."""
        key = self._key.decode()
        if not key or key not in "\n".join([value for _, value in pairs]):
            return pairs
        return [(name, value.replace(key, self._mask.decode())) for name, value in pairs]

    def _possible_start(self, data: bytes) -> int:
        """Where a key may begin that the data's end cuts off; -1 when none can."""
        start = max(0, len(data) - len(self._key) + 1)
        while True:
            start = data.find(self._key[:1], start)
            if start < 0 or self._key.startswith(data[start:]):
                return start
            start += 1
