"""Decodes an SSE stream of base64 audio to the audio bytes.

data: {"type":"speech.audio.delta","audio":"//PExA..."}     -> audio bytes, at once
data: {"type":"speech.audio.done","usage":{...}}            -> the end
data: {"type":"error",...}, or no end                       -> UpstreamError, so that the client's response breaks off

Source: OpenAI API reference, "Stream event (speech.audio.delta)" and "(speech.audio.done)".
"""

from __future__ import annotations

import msgspec

from tornado_proxy.domain.errors import UpstreamError
from tornado_proxy.providers.shared.json_values import decode_object
from tornado_proxy.wire.sse import SseOverflow, SseSplitter, parse_block


class _Event(msgspec.Struct):
    """The members that are read; msgspec decodes `audio` from base64."""

    type: str = ""
    audio: bytes = b""


_decode = msgspec.json.Decoder(_Event).decode


def _decode_event(data: bytes) -> _Event:
    try:
        return _decode(data)
    except msgspec.ValidationError:
        raise
    except (msgspec.DecodeError, UnicodeDecodeError):
        event = decode_object(data)  # not strictly valid JSON
        if event is None:
            raise
        return msgspec.convert(event, _Event)


class SpeechAudio:
    """A ResponseEdit that turns the provider's events into the audio that the client asked for."""

    def __init__(self) -> None:
        self._splitter = SseSplitter()
        self._done = False

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes of the stream; return the audio in the events that they complete.

        Raises:
            UpstreamError: the provider reports an error, or the stream is not one of audio events.
        """
        try:
            blocks = self._splitter.feed(data)
        except SseOverflow as error:
            raise UpstreamError("the provider's audio stream is not a stream of events") from error
        return b"".join(map(self._decode_audio, blocks))

    def close(self) -> bytes:
        """End the stream; return the audio of a last event without a blank line.

        Raises:
            UpstreamError: the stream ended before `speech.audio.done`.  Without the error a client would take the
                partial audio for complete.
        """
        audio = self._decode_audio(self._splitter.rest())
        if not self._done:
            raise UpstreamError("the provider's audio ended before it was complete")
        return audio

    def _decode_audio(self, block: bytes) -> bytes:
        data = parse_block(block).data
        if not data or data == b"[DONE]":
            return b""
        try:
            event = _decode_event(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise UpstreamError("the provider's audio stream contains an invalid event") from error
        if event.type == "speech.audio.delta":
            return event.audio
        if event.type == "error":
            raise UpstreamError("the provider's audio stream ended with an error")
        self._done = self._done or event.type == "speech.audio.done"
        return b""
