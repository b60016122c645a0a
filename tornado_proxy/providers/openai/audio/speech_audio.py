"""The bytes of spoken audio out of the SSE stream that carries them in base64.

data: {"type":"speech.audio.delta","audio":"//PExA..."}     -> audio bytes, as early as they came
data: {"type":"speech.audio.done","usage":{...}}            -> the end
data: {"type":"error",...}, or no end                       -> UpstreamError: the client must see a broken answer
"""

from __future__ import annotations

import msgspec

from tornado_proxy.domain.errors import UpstreamError
from tornado_proxy.wire.sse import SseOverflow, SseSplitter, parse_block


class _Event(msgspec.Struct):
    """The members that matter; `audio` is decoded from base64."""

    type: str = ""
    audio: bytes = b""


_decode = msgspec.json.Decoder(_Event).decode


class SpeechAudio:
    """An edit that turns the provider's events into the audio that the client asked for."""

    def __init__(self) -> None:
        self._splitter = SseSplitter()
        self._done = False

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes of the stream; give the audio in them.

        Raises:
            UpstreamError: the provider says that it failed, or what it sends is not a stream of audio.
        """
        try:
            blocks = self._splitter.feed(data)
        except SseOverflow as error:
            raise UpstreamError("the provider's audio stream is not a stream of events") from error
        return b"".join(map(self._audio, blocks))

    def close(self) -> bytes:
        """Give the audio of a last event without a blank line.

        Raises:
            UpstreamError: the stream ended before the audio did, so that what was given is not the whole.
        """
        audio = self._audio(self._splitter.rest())
        if not self._done:
            raise UpstreamError("the provider's audio ended before it was complete")
        return audio

    def _audio(self, block: bytes) -> bytes:
        data = parse_block(block).data
        if not data or data == b"[DONE]":
            return b""
        try:
            event = _decode(data)
        except msgspec.MsgspecError as error:
            raise UpstreamError("the provider's audio stream holds an event that cannot be read") from error
        if event.type == "speech.audio.delta":
            return event.audio
        if event.type == "error":
            raise UpstreamError("the provider's audio stream ended with an error")
        self._done = self._done or event.type == "speech.audio.done"
        return b""
