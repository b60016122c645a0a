"""Masks a provider key in everything that a client or a log can see, in case a provider echoes it.

The mask has the length of the key, so that Content-Length and framing stay correct.  Bytes at the end of a chunk that
can be the start of the key are held until the next chunk; all other bytes pass at once.
"""

from __future__ import annotations

from tornado_proxy.domain.identity import Secret

#: Shorter secrets occur in ordinary text by chance, and no provider's key is that short.
_MIN_SECRET_BYTES = 8


class Redactor:
    """Masks each occurrence of `secret` in a stream of bytes, however the stream is split into chunks."""

    __slots__ = ("_held", "_key", "_mask")

    def __init__(self, secret: Secret) -> None:
        key = secret.reveal().encode()
        self._key = key if len(key) >= _MIN_SECRET_BYTES else b""
        self._mask = b"*" * len(key)
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes and return those that can be sent."""
        key = self._key
        if not key:
            return data
        if self._held:
            data = self._held + data
            self._held = b""
        if key in data:
            data = data.replace(key, self._mask)
        start = self._find_partial_key(data)
        if start < 0:
            return data
        self._held = data[start:]
        return data[:start]

    def close(self) -> bytes:
        """Return the held bytes: the stream ended, so they are not the key."""
        held, self._held = self._held, b""
        return held

    def headers(self, pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return the headers with the key masked in their values."""
        key = self._key.decode()
        # One search over all values: a header almost never holds the key.
        if not key or key not in "\n".join([value for _, value in pairs]):
            return pairs
        return [(name, value.replace(key, self._mask.decode())) for name, value in pairs]

    def frame(self, message: str | bytes) -> str | bytes:
        """Return a WebSocket message with the key masked.  Messages are complete, so nothing is held."""
        key = self._key
        if not key:
            return message
        if isinstance(message, str):
            text = key.decode()
            return message.replace(text, self._mask.decode()) if text in message else message
        return message.replace(key, self._mask) if key in message else message

    def _find_partial_key(self, data: bytes) -> int:
        """Return the index at which the key can begin that the end of `data` cuts off; -1 if there is none."""
        start = max(0, len(data) - len(self._key) + 1)
        while True:
            start = data.find(self._key[:1], start)
            if start < 0 or self._key.startswith(data[start:]):
                return start
            start += 1
