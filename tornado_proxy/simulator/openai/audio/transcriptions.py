"""POST /v1/audio/transcriptions and /v1/audio/translations, in every response format."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

from tornado_proxy.simulator.handlers.multipart_form import read_form_field, read_form_file
from tornado_proxy.simulator.handlers.provider_errors import ProviderError, make_openai_failure
from tornado_proxy.simulator.handlers.provider_handler import ProviderHandler
from tornado_proxy.simulator.handlers.sse_event import Event
from tornado_proxy.simulator.json_values import Json, encode
from tornado_proxy.simulator.model.output import ModelOutput, encode_piece, plan_output
from tornado_proxy.simulator.model.tokens import count_tokens
from tornado_proxy.simulator.openai.audio.simulated_audio import INPUT_AUDIO_TOKENS_PER_S, measure_upload_s


@dataclass(frozen=True, slots=True)
class Transcript:
    """The transcript of `seconds` of audio, made with a prompt of `prompt_tokens`."""

    model: str
    output: ModelOutput
    seconds: float
    prompt_tokens: int
    usage: bool

    @property
    def charged_by_duration(self) -> bool:
        """True if the model is charged by the duration of the audio."""
        # Other models are charged by tokens; both kinds of usage differ in shape, too.
        return self.model.startswith(("whisper", "gpt-transcribe"))

    def usage_json(self) -> Json:
        """Return the usage: seconds, rounded up, or tokens; audio and text tokens are parts of the input."""
        if self.charged_by_duration:
            return {"type": "duration", "seconds": ceil(self.seconds)}
        audio_tokens = ceil(self.seconds * INPUT_AUDIO_TOKENS_PER_S)
        input_tokens = audio_tokens + self.prompt_tokens
        return {
            "type": "tokens",
            "input_tokens": input_tokens,
            "input_token_details": {"text_tokens": self.prompt_tokens, "audio_tokens": audio_tokens},
            "output_tokens": self.output.tokens,
            "total_tokens": input_tokens + self.output.tokens,
        }

    def add_usage(self, members: Json) -> Json:
        """Return the members and the usage, unless the response has to omit it."""
        return {**members, "usage": self.usage_json()} if self.usage else members


class Transcriptions(ProviderHandler):
    """POST /v1/audio/transcriptions."""

    async def post(self) -> None:
        """Respond in the `response_format`, or with a stream."""
        transcript = await self.transcribe()
        format_ = read_form_field(self.request, "response_format", "json")
        # whisper-1 ignores `stream` (audio reference).
        if read_form_field(self.request, "stream") == "true" and not transcript.model.startswith("whisper"):
            await self.send_events(_make_events(transcript), make_openai_failure)
        elif format_ in ("text", "srt", "vtt"):
            await self.send_bytes(_format_text(transcript, format_), "text/plain; charset=utf-8")
        elif format_ == "verbose_json":
            await self.send_json(transcript.add_usage(_make_verbose_json(transcript, "transcribe")))
        elif format_ == "diarized_json":
            await self.send_json(transcript.add_usage(_make_diarized_json(transcript)))
        else:
            await self.send_json(transcript.add_usage({"text": transcript.output.text}))

    async def transcribe(self) -> Transcript:
        """Read the form and return its transcript; directives are in its `prompt`.

        Raises:
            ProviderError: no model or no file.
        """
        model = self.check_model(read_form_field(self.request, "model"))
        prompt = read_form_field(self.request, "prompt")
        upload = read_form_file(self.request, "file")
        if not upload:
            raise ProviderError(400, "file is required", param="file")
        directives = await self.apply_directives(prompt)
        output = plan_output(directives, credential=self.find_credential())
        return Transcript(model, output, measure_upload_s(upload), count_tokens(prompt), not directives.no_usage)


class Translations(Transcriptions):
    """POST /v1/audio/translations: whisper's formats, without usage."""

    async def post(self) -> None:
        """Respond in the `response_format`."""
        transcript = await self.transcribe()
        format_ = read_form_field(self.request, "response_format", "json")
        if format_ in ("text", "srt", "vtt"):
            await self.send_bytes(_format_text(transcript, format_), "text/plain; charset=utf-8")
        elif format_ == "verbose_json":
            await self.send_json(_make_verbose_json(transcript, "translate"))
        else:
            await self.send_json({"text": transcript.output.text})


def _make_verbose_json(transcript: Transcript, task: str) -> Json:
    # One segment for the whole transcript; the figures of the decoder are constant.
    segment: Json = {
        "id": 0,
        "seek": 0,
        "start": 0.0,
        "end": transcript.seconds,
        "text": transcript.output.text,
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
        "text": transcript.output.text,
        "segments": [segment],
    }


def _make_diarized_json(transcript: Transcript) -> Json:
    text = transcript.output.text
    segment: Json = {"type": "transcript.text.segment", "id": "seg_0", "speaker": "A", "text": text}
    timed: Json = {**segment, "start": 0.0, "end": transcript.seconds}
    return {"task": "transcribe", "duration": transcript.seconds, "text": text, "segments": [timed]}


def _format_text(transcript: Transcript, format_: str) -> bytes:
    text = transcript.output.text
    if format_ == "text":
        return f"{text}\n".encode()
    # SRT separates milliseconds with a comma, WebVTT with a point.
    if format_ == "srt":
        return f"1\n{_format_time(0, ',')} --> {_format_time(transcript.seconds, ',')}\n{text}\n\n".encode()
    return f"WEBVTT\n\n{_format_time(0, '.')} --> {_format_time(transcript.seconds, '.')}\n{text}\n\n".encode()


def _format_time(seconds: float, point: str) -> str:
    whole_seconds, thousandths = divmod(round(seconds * 1000), 1000)
    return f"{whole_seconds // 3600:02}:{whole_seconds // 60 % 60:02}:{whole_seconds % 60:02}{point}{thousandths:03}"


def _make_events(transcript: Transcript) -> Iterator[Event]:
    for piece in transcript.output.pieces:
        yield "", b'{"type":"transcript.text.delta","delta":' + encode_piece(piece) + b',"logprobs":[]}'
    # The last event repeats the text, and only it states usage.
    done: Json = {"type": "transcript.text.done", "text": transcript.output.text, "logprobs": []}
    yield "", encode(transcript.add_usage(done))
    yield "", b"[DONE]"
