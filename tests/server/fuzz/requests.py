"""Strategies of whole requests: the endpoints with their SDK types, and how a body and its headers are written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict

from anthropic.types.beta.message_count_tokens_params import MessageCountTokensParams
from anthropic.types.beta.message_create_params import MessageCreateParamsNonStreaming
from anthropic.types.beta.messages.batch_create_params import BatchCreateParams
from hypothesis import strategies as st
from openai.types.audio.speech_create_params import SpeechCreateParams
from openai.types.audio.transcription_create_params import TranscriptionCreateParamsNonStreaming
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from openai.types.embedding_create_params import EmbeddingCreateParams
from openai.types.image_edit_params import ImageEditParamsNonStreaming
from openai.types.image_generate_params import ImageGenerateParamsNonStreaming
from openai.types.realtime.client_secret_create_params import ClientSecretCreateParams
from openai.types.responses.input_token_count_params import InputTokenCountParams
from openai.types.responses.response_compact_params import ResponseCompactParams
from openai.types.responses.response_create_params import ResponseCreateParamsNonStreaming
from openai.types.responses.response_steer_event_param import ResponseSteerEventParam
from openai.types.responses.responses_client_event_param import ResponseCreate

from tests.providers.openai.audio.forms import form, wav
from tests.providers.request_types import member_names
from tests.server.fuzz.choices import RANDOM_BYTES
from tests.server.fuzz.documents import Json, Member, Object, encode
from tests.server.fuzz.mutations import mutate
from tests.server.fuzz.sdk_values import Values, hints_of
from tests.server.fuzz.world import may_hold_reference


class CompleteParams(TypedDict):
    """A request to /v1/complete, which no current SDK has a type for (Anthropic API reference)."""

    model: str
    prompt: str
    max_tokens_to_sample: int


@dataclass(frozen=True, slots=True)
class Target:
    """An endpoint: its path at the proxy, the SDK's type of its requests, and the granted models that it serves.

    `always` are members that each request has before it is mutated, required by the type or not.
    """

    path: str
    request_type: Any
    models: tuple[str, ...]
    always: tuple[str, ...] = ("model",)

    @property
    def provider(self) -> str:
        """The provider of the endpoint."""
        return self.path.split("/")[1]


_GPT = ("gpt-4o-mini", "gpt-5-mini")
_CLAUDE = ("claude-haiku-4-5", "claude-sonnet-4-5")
_IMAGES = ("gpt-image-1-mini", "gpt-image-2", "dall-e-2")

JSON_TARGETS = (
    Target("/openai/v1/chat/completions", CompletionCreateParamsNonStreaming, _GPT),
    Target("/openai/v1/responses", ResponseCreateParamsNonStreaming, _GPT, ("model", "input")),
    Target("/openai/v1/responses/compact", ResponseCompactParams, _GPT, ("model", "input")),
    Target("/openai/v1/responses/input_tokens", InputTokenCountParams, _GPT, ("model", "input")),
    Target("/openai/v1/embeddings", EmbeddingCreateParams, ("text-embedding-3-small",)),
    Target("/openai/v1/images/generations", ImageGenerateParamsNonStreaming, _IMAGES),
    Target("/openai/v1/images/edits", ImageEditParamsNonStreaming, _IMAGES),
    Target("/openai/v1/audio/speech", SpeechCreateParams, ("tts-1", "gpt-4o-mini-tts")),
    Target("/openai/v1/realtime/client_secrets", ClientSecretCreateParams, ("gpt-realtime-mini",), ("session",)),
    Target("/anthropic/v1/messages", MessageCreateParamsNonStreaming, _CLAUDE),
    Target("/anthropic/v1/messages/count_tokens", MessageCountTokensParams, _CLAUDE),
    Target("/anthropic/v1/messages/batches", BatchCreateParams, _CLAUDE, ()),
    Target("/anthropic/v1/complete", CompleteParams, ("claude-2",)),
)
TRANSCRIPTIONS = Target(
    "/openai/v1/audio/transcriptions",
    TranscriptionCreateParamsNonStreaming,
    ("whisper-1", "gpt-4o-mini-transcribe"),
)
_FRAMES = (
    Target("/openai/v1/responses", ResponseCreate, _GPT, ("model", "input")),
    Target("/openai/v1/responses", ResponseCreate, _GPT, ("model", "input")),
    Target("/openai/v1/responses", ResponseSteerEventParam, _GPT, ()),
)


def is_sdk_type(target: Target, provider: str) -> bool:
    """Return True if the requests of `target` have a type in the SDK of `provider`."""
    return target.request_type is not CompleteParams and target.path.startswith(f"/{provider}/")


#: The members that can refer to an object, by provider: every one in its SDK whose name says so.
REFERENCE_NAMES = {
    provider: frozenset(name for name in member_names(*types) if may_hold_reference(name))
    for provider in ("openai", "anthropic")
    for types in [[target.request_type for target in (*JSON_TARGETS, *_FRAMES) if is_sdk_type(target, provider)]]
}

#: Content types of a JSON body.  Providers may parse the body whatever its type is.
_CONTENT_TYPES = ("application/json",) * 27 + ("", "text/plain", "application/sdp", "multipart/form-data; boundary=XX")
_QUERIES = ("",) * 36 + ("?beta=true", "?model=gpt-5.4", "?id=object-of-unknown-origin")
#: What precedes and follows the text of a body.
_FRAMINGS = ((b"", b""),) * 60 + ((b"\xef\xbb\xbf", b""), (b" \n", b"\n"), (b"", b"{}"), (b"", b"\0"), (b"\xff", b""))
_RECORDING = wav(1.0)


#: Bytes of a body that is read on the event loop, at most 64 KiB.
_DENSE_BYTES = 60_000
#: Characters of a body in a failure.
MAX_SHOWN = 3000


@dataclass(frozen=True, slots=True, repr=False)
class Request:
    """An HTTP request; `target` is its path with the query."""

    target: str
    content_type: str
    body: bytes

    def __repr__(self) -> str:
        return f"Request({self.target!r}, {self.content_type!r}, {_shorten(repr(self.body))})"


class Frame(str):
    """A frame of a session, whose repr is short."""

    __slots__ = ()

    def __repr__(self) -> str:
        return _shorten(super().__repr__())


def _shorten(text: str) -> str:
    """Return the start of a long text: hypothesis prints a blob that reproduces it."""
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}... ({len(text)} characters)"


def _make_json_request(data: bytes) -> Request:
    target = JSON_TARGETS[data[0] % len(JSON_TARGETS)]
    values = Values(data[1:], target.provider, target.models)
    before, after = values.choose(_FRAMINGS)
    path = target.path + values.choose(_QUERIES)
    content_type = values.choose(_CONTENT_TYPES)
    text = encode(mutate(values, _draw_body(values, target)))
    return Request(path, content_type, before + text.encode() + after)


def make_dense_request(target: Target, name: str, entry: Json) -> Request:
    """Return a plain request whose member `name` is a list of `entry` that fills 60 KB."""
    plain = _draw_body(Values(b"", target.provider, target.models), target)
    kept = tuple(member for member in plain.members if member.name != name)
    text = encode(entry)
    entries = ",".join([text] * (_DENSE_BYTES // (len(text) + 1)))
    # Encoding the same entry 20,000 times takes longer than the server's work.
    body = encode(Object((*kept, Member(name, ())))).removesuffix("]}") + entries + "]}"
    return Request(target.path, "application/json", body.encode())


def _make_form_request(data: bytes) -> Request:
    values = Values(data, TRANSCRIPTIONS.provider, TRANSCRIPTIONS.models)
    path = TRANSCRIPTIONS.path + values.choose(_QUERIES)
    body = mutate(values, _draw_body(values, TRANSCRIPTIONS))
    members = body.members if isinstance(body, Object) else ()
    fields = [(member.name, member.value) for member in members if member.name != "file"]
    parts = [_make_part(name, value if isinstance(value, str) else encode(value)) for name, value in fields]
    return Request(path, "multipart/form-data; boundary=XX", b"".join(parts) + form(_RECORDING))


def _make_frame(data: bytes) -> Frame:
    target = _FRAMES[data[0] % len(_FRAMES)]
    values = Values(data[1:], target.provider, target.models)
    nested = values.count(3) == 3
    frame = _draw_body(values, target)
    if nested:
        kinds = tuple(member for member in frame.members if member.name == "type")
        request = Object(tuple(member for member in frame.members if member.name != "type"))
        frame = Object((*kinds, Member("response", request)))
    return Frame(encode(mutate(values, frame)))


def _draw_body(values: Values, target: Target) -> Object:
    """Return a body of the SDK's type with the members that a provider needs."""
    body = values.draw_object(target.request_type)
    hints = hints_of(target.request_type)
    missing = [name for name in target.always if name not in {member.name for member in body.members}]
    added = tuple(Member(name, values.draw_value(hints[name], name, 1)) for name in missing)
    # Streams are separate types in the SDKs, which differ in this member alone.
    members = [replaced for replaced in (*added, *body.members) if replaced.name != "stream"]
    if "stream" in hints and values.flip():
        members.append(Member("stream", True))
    return Object(tuple(members))


def _make_part(name: str, value: str) -> bytes:
    return f'--XX\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()


#: Requests with a JSON body.
JSON_REQUESTS = RANDOM_BYTES.map(_make_json_request)
#: Transcriptions: forms with text fields, which may repeat, and a recording.
FORM_REQUESTS = RANDOM_BYTES.map(_make_form_request)
#: The frames of a session of /v1/responses.
FRAME_LISTS = st.lists(RANDOM_BYTES.map(_make_frame), min_size=1, max_size=3)
