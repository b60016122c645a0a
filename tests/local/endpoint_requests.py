"""A request of each HTTP endpoint, to be sent through `local` and `serve` to the simulator."""

from __future__ import annotations

import io
import json
import wave
from dataclasses import dataclass
from typing import Any

import httpx2 as httpx

#: Where a test fills in the text that the simulator reads directives from.
PROMPT = "PROMPT"


@dataclass(frozen=True)
class EndpointRequest:
    """A request.

    Attributes:
        path: The path, as the route table has it.
        options: Arguments of httpx2.request(); PROMPT in them is replaced.
        method: The method.
        basis: The basis of its record if it is completed.
    """

    path: str
    options: dict[str, Any]
    basis: str = "reported"
    method: str = "POST"

    @property
    def prefix(self) -> str:
        return "/anthropic" if self.path.startswith(("/v1/messages", "/v1/complete")) else "/openai"

    def send(
        self, client: httpx.Client, *, prompt: str = "hi", path_id: str = "", leave: bool = False
    ) -> httpx.Response:
        """Send the request and read the response, with `leave` its first chunk only."""
        url = self.prefix + self.path.replace("{id}", path_id)
        options = json.loads(json.dumps(self.options).replace(PROMPT, json.dumps(prompt)[1:-1]))
        if "files" in options:
            content = make_wav() if "audio" in self.path else b"\x89PNG...."
            options["files"] = {name: ("f.wav", content) for name in options["files"]}
        with client.stream(self.method, url, **options) as response:
            chunks = response.iter_raw()
            next(chunks, b"")
            if not leave:
                try:
                    for _ in chunks:
                        pass
                except httpx.RemoteProtocolError:
                    assert "cut=" in prompt
        return response


def make_wav(seconds: int = 2) -> bytes:
    """Return silence as a WAV file."""
    data = io.BytesIO()
    with wave.open(data, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(b"\0\0" * 16_000 * seconds)
    return data.getvalue()


MESSAGES = [{"role": "user", "content": PROMPT}]
CHAT = {"model": "gpt-4o-mini", "messages": MESSAGES}
RESPONSE = {"model": "gpt-5-mini", "input": PROMPT}
MESSAGE = {"model": "claude-haiku-4-5", "max_tokens": 200, "messages": MESSAGES}
IMAGE = {"model": "gpt-image-1", "prompt": PROMPT, "size": "1024x1024", "quality": "low"}
SPEECH = {"voice": "alloy", "input": PROMPT}
REALTIME = {"session": {"type": "realtime", "model": "gpt-realtime"}}

#: Charged endpoints whose response is one body.
WHOLE = {
    "chat": EndpointRequest("/v1/chat/completions", {"json": CHAT}),
    "responses": EndpointRequest("/v1/responses", {"json": RESPONSE}),
    "responses with a tool": EndpointRequest(
        "/v1/responses", {"json": {**RESPONSE, "model": "gpt-4o", "tools": [{"type": "web_search"}]}}
    ),
    "compact": EndpointRequest("/v1/responses/compact", {"json": RESPONSE}),
    "embeddings": EndpointRequest("/v1/embeddings", {"json": {"model": "text-embedding-3-small", "input": PROMPT}}),
    "speech by tokens": EndpointRequest("/v1/audio/speech", {"json": {"model": "gpt-4o-mini-tts", **SPEECH}}),
    "speech by characters": EndpointRequest("/v1/audio/speech", {"json": {"model": "tts-1", **SPEECH}}, "inferred"),
    "transcription by tokens": EndpointRequest(
        "/v1/audio/transcriptions", {"data": {"model": "gpt-4o-transcribe", "prompt": PROMPT}, "files": ["file"]}
    ),
    "transcription by time": EndpointRequest(
        "/v1/audio/transcriptions",
        {"data": {"model": "whisper-1", "response_format": "srt", "prompt": PROMPT}, "files": ["file"]},
        "inferred",
    ),
    "translation": EndpointRequest(
        "/v1/audio/translations", {"data": {"model": "whisper-1", "prompt": PROMPT}, "files": ["file"]}, "inferred"
    ),
    "image": EndpointRequest("/v1/images/generations", {"json": IMAGE}),
    "image by number": EndpointRequest(
        "/v1/images/generations", {"json": {"model": "dall-e-3", "prompt": PROMPT, "quality": "hd"}}, "inferred"
    ),
    "image edit": EndpointRequest("/v1/images/edits", {"data": IMAGE, "files": ["image"]}),
    "image variation": EndpointRequest(
        "/v1/images/variations", {"data": {"model": "dall-e-2", "n": "2"}, "files": ["image"]}, "inferred"
    ),
    "message": EndpointRequest("/v1/messages", {"json": MESSAGE}),
}

#: Charged endpoints whose response arrives in pieces.
STREAMS = {
    "chat": EndpointRequest("/v1/chat/completions", {"json": {**CHAT, "stream": True}}),
    "chat with usage": EndpointRequest(
        "/v1/chat/completions", {"json": {**CHAT, "stream": True, "stream_options": {"include_usage": True}}}
    ),
    "responses": EndpointRequest("/v1/responses", {"json": {**RESPONSE, "stream": True}}),
    "message": EndpointRequest("/v1/messages", {"json": {**MESSAGE, "stream": True}}),
    "speech": EndpointRequest(
        "/v1/audio/speech", {"json": {"model": "gpt-4o-mini-tts", **SPEECH, "stream_format": "sse"}}
    ),
    "speech as audio": WHOLE["speech by tokens"],
    "transcription": EndpointRequest(
        "/v1/audio/transcriptions",
        {"data": {"model": "gpt-4o-transcribe", "stream": "true", "prompt": PROMPT}, "files": ["file"]},
    ),
    "image": EndpointRequest("/v1/images/generations", {"json": {**IMAGE, "stream": True, "partial_images": 2}}),
    "image edit": EndpointRequest(
        "/v1/images/edits", {"data": {**IMAGE, "stream": "true", "partial_images": "2"}, "files": ["image"]}
    ),
}

#: Endpoints that cost nothing.
FREE = {
    "input tokens": EndpointRequest("/v1/responses/input_tokens", {"json": RESPONSE}, "free"),
    "count tokens": EndpointRequest(
        "/v1/messages/count_tokens", {"json": {"model": "claude-haiku-4-5", "messages": MESSAGES}}, "free"
    ),
    "models": EndpointRequest("/v1/models", {}, "free", "GET"),
    "client secret": EndpointRequest("/v1/realtime/client_secrets", {"json": REALTIME}, "free"),
    "realtime session": EndpointRequest("/v1/realtime/sessions", {"json": {"model": "gpt-realtime"}}, "free"),
    "transcription session": EndpointRequest(
        "/v1/realtime/transcription_sessions",
        {"json": {"input_audio_transcription": {"model": "gpt-4o-transcribe"}}},
        "free",
    ),
    "translation secret": EndpointRequest(
        "/v1/realtime/translations/client_secrets", {"json": {"session": {"model": "gpt-realtime-translate"}}}, "free"
    ),
    "batches": EndpointRequest("/v1/messages/batches", {}, "free", "GET"),
}

#: Requests by id, in the order in which they are sent: of a response, and of a batch.
OF_A_RESPONSE = [
    EndpointRequest("/v1/responses/{id}", {}, "free", "GET"),
    EndpointRequest("/v1/responses/{id}/input_items", {}, "free", "GET"),
    EndpointRequest("/v1/responses/{id}/cancel", {}, "free"),
    EndpointRequest("/v1/responses/{id}", {}, "free", "DELETE"),
]
OF_A_BATCH = [
    EndpointRequest("/v1/messages/batches/{id}", {}, "free", "GET"),
    EndpointRequest("/v1/messages/batches/{id}/results", {}, "free", "GET"),
    EndpointRequest("/v1/messages/batches/{id}", {}, "free", "DELETE"),
]
