"""POST /v1/audio/transcriptions and /v1/audio/translations, in every response format."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

from tornado_proxy.simulator.handlers.multipart_form import form_field, form_file
from tornado_proxy.simulator.handlers.provider_errors import ProviderFault, openai_error
from tornado_proxy.simulator.handlers.provider_handler import ProviderHandler
from tornado_proxy.simulator.handlers.sse_event import Event
from tornado_proxy.simulator.json_values import Json, encode
from tornado_proxy.simulator.model.output import Answer, piece_json, plan_answer
from tornado_proxy.simulator.model.tokens import count_tokens
from tornado_proxy.simulator.openai.audio.simulated_audio import HEARD_TOKENS_PER_SECOND, heard_seconds


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was heard: `seconds` of audio, with a prompt of `prompt_tokens`."""

    model: str
    answer: Answer
    seconds: float
    prompt_tokens: int
    usage: bool

    @property
    def by_duration(self) -> bool:
        """Whether the model is charged by the time it listens."""
        return self.model.startswith(("whisper", "gpt-transcribe"))

    def usage_json(self) -> Json:
        """Whole seconds, rounded up, or tokens; audio and text tokens are parts of the input."""
        if self.by_duration:
            return {"type": "duration", "seconds": ceil(self.seconds)}
        heard = ceil(self.seconds * HEARD_TOKENS_PER_SECOND)
        read = heard + self.prompt_tokens
        return {
            "type": "tokens",
            "input_tokens": read,
            "input_token_details": {"text_tokens": self.prompt_tokens, "audio_tokens": heard},
            "output_tokens": self.answer.tokens,
            "total_tokens": read + self.answer.tokens,
        }

    def with_usage(self, members: Json) -> Json:
        """The members and the usage, unless it is to be left out."""
        return {**members, "usage": self.usage_json()} if self.usage else members


class Transcriptions(ProviderHandler):
    """POST /v1/audio/transcriptions."""

    async def post(self) -> None:
        """Answer in the `response_format`, or with a stream."""
        transcript = await self.hear()
        format_ = form_field(self.request, "response_format", "json")
        if form_field(self.request, "stream") == "true" and not transcript.model.startswith("whisper"):
            await self.send_events(_events(transcript), _failure)
        elif format_ in ("text", "srt", "vtt"):
            await self.send_bytes(_plain(transcript, format_), "text/plain; charset=utf-8")
        elif format_ == "verbose_json":
            await self.send_json(transcript.with_usage(_verbose(transcript, "transcribe")))
        elif format_ == "diarized_json":
            await self.send_json(transcript.with_usage(_diarized(transcript)))
        else:
            await self.send_json(transcript.with_usage({"text": transcript.answer.text}))

    async def hear(self) -> Transcript:
        """Read the form; directives stand in its `prompt`."""
        model = self.required_model(form_field(self.request, "model"))
        prompt = form_field(self.request, "prompt")
        upload = form_file(self.request, "file")
        if not upload:
            raise ProviderFault(400, "file is required", param="file")
        asked = await self.obey(prompt)
        answer = plan_answer(asked, secret=self.credential())
        return Transcript(model, answer, heard_seconds(upload), count_tokens(prompt), not asked.no_usage)


class Translations(Transcriptions):
    """POST /v1/audio/translations: as whisper answers, without usage."""

    async def post(self) -> None:
        """Answer in the `response_format`."""
        transcript = await self.hear()
        format_ = form_field(self.request, "response_format", "json")
        if format_ in ("text", "srt", "vtt"):
            await self.send_bytes(_plain(transcript, format_), "text/plain; charset=utf-8")
        elif format_ == "verbose_json":
            await self.send_json(_verbose(transcript, "translate"))
        else:
            await self.send_json({"text": transcript.answer.text})


def _verbose(transcript: Transcript, task: str) -> Json:
    segment: Json = {
        "id": 0,
        "seek": 0,
        "start": 0.0,
        "end": transcript.seconds,
        "text": transcript.answer.text,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": -0.1,
        "compression_ratio": 1.0,
        "no_speech_prob": 0.01,
    }
    return {
        "task": task,
        "language": "english",
        "duration": transcript.seconds,
        "text": transcript.answer.text,
        "segments": [segment],
    }


def _diarized(transcript: Transcript) -> Json:
    text = transcript.answer.text
    segment: Json = {"type": "transcript.text.segment", "id": "seg_0", "speaker": "A", "text": text}
    timed: Json = {**segment, "start": 0.0, "end": transcript.seconds}
    return {"task": "transcribe", "duration": transcript.seconds, "text": text, "segments": [timed]}


def _plain(transcript: Transcript, format_: str) -> bytes:
    text = transcript.answer.text
    if format_ == "text":
        return f"{text}\n".encode()
    if format_ == "srt":
        return f"1\n{_clock(0, ',')} --> {_clock(transcript.seconds, ',')}\n{text}\n\n".encode()
    return f"WEBVTT\n\n{_clock(0, '.')} --> {_clock(transcript.seconds, '.')}\n{text}\n\n".encode()


def _clock(seconds: float, point: str) -> str:
    whole, thousandths = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{point}{thousandths:03}"


def _events(transcript: Transcript) -> Iterator[Event]:
    for piece in transcript.answer.pieces:
        yield "", b'{"type":"transcript.text.delta","delta":' + piece_json(piece) + b',"logprobs":[]}'
    done: Json = {"type": "transcript.text.done", "text": transcript.answer.text, "logprobs": []}
    yield "", encode(transcript.with_usage(done))
    yield "", b"[DONE]"


def _failure(_sent: int) -> list[Event]:
    return [("", encode(openai_error(500, "simulated failure")))]
