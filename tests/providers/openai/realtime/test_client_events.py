from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.providers.recorded import exchange
from tornado_proxy.domain.errors import InvalidBody, ModelNotPriced
from tornado_proxy.domain.usage import Meter
from tornado_proxy.providers.openai.realtime.client_events import error_event, read_client_event


def spends(text: str, model: str | None = "gpt-realtime") -> list[tuple[str, str | None]]:
    return [(spend.model, spend.role) for spend in read_client_event(text, model).spends]


def event(kind: str, **members: Any) -> str:
    return json.dumps({"event_id": "client_1", "type": kind, **members})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(event("session.update", session={"model": "gpt-x"}), [("gpt-x", None)], id="a model change"),
        pytest.param(
            event("session.update", session={"audio": {"input": {"transcription": {"model": "whisper-1"}}}}),
            [("whisper-1", "input_transcription")],
            id="transcription, general format",
        ),
        pytest.param(
            event("session.update", session={"input_audio_transcription": {"model": "whisper-1"}}),
            [("whisper-1", "input_transcription")],
            id="transcription, beta format",
        ),
        pytest.param(
            event(
                "transcription_session.update", session={"input_audio_transcription": {"model": "gpt-4o-transcribe"}}
            ),
            [("gpt-4o-transcribe", "input_transcription")],
            id="a transcription session",
        ),
        pytest.param(event("session.update", session={"audio": {"input": {"transcription": None}}}), [], id="off"),
        pytest.param(event("session.update", session={"instructions": "Be brief."}), [], id="instructions"),
        pytest.param(event("response.create"), [], id="a response"),
        pytest.param(event("response.create", response={"model": "gpt-x"}), [("gpt-x", None)], id="a response's model"),
        pytest.param(event("input_audio_buffer.append", audio="AAAA"), [], id="audio"),
        pytest.param(
            event("conversation.item.create", item={"content": [{"type": "input_text", "text": "hi"}]}), [], id="text"
        ),
        pytest.param(
            event("conversation.item.create", item={"content": [{"type": "input_image", "image_url": "data:"}]}),
            [("gpt-realtime", None)],
            id="an image",
        ),
        pytest.param(
            event("response.create", response={"input": [{"content": [{"type": "input_image"}]}]}),
            [("gpt-realtime", None)],
            id="an image in a response's input",
        ),
    ],
)
def test_an_event_has_the_spends_of_its_models_and_images(text, expected):
    assert spends(text) == expected
    assert spends(text.encode() if isinstance(text, str) else text) == expected


def test_the_family_of_a_transcription_model_decides_its_meters():
    def meters(model: str) -> frozenset[Meter]:
        session = {"audio": {"input": {"transcription": {"model": model}}}}
        return read_client_event(event("session.update", session=session), None).spends[0].meters

    for model in ("whisper-1", "gpt-realtime-whisper", "gpt-transcribe", "gpt-live-transcribe"):
        assert meters(model) == {Meter.AUDIO_SECONDS}
    assert meters("gpt-4o-transcribe") == {Meter.INPUT, Meter.INPUT_AUDIO, Meter.OUTPUT}


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"input_audio_buffer.append","audio":"AA","type":"session.update","session":{"model":"gpt-x"}}',
        '{"type":"session.update","session":{"model":"gpt-realtime","model":"gpt-x"}}',
        '{"type":"session.update","session":{"model":"gpt-realtime","mod\\u0065l":"gpt-x"}}',
        '{"type":"session.update","session":{"model":["gpt-x"]}}',
        '{"session":{"model":"gpt-x"}}',
        '{"type":1}',
        '["session.update"]',
        "",
        '{"type":"session.update"',
        '{"type":"x","a":' + "[" * 100_000,
        b"\xff\xfe{\x00",
    ],
)
def test_an_invalid_or_ambiguous_event_is_rejected(text):
    with pytest.raises(InvalidBody):
        read_client_event(text, "gpt-realtime")


def test_events_of_recorded_clients_are_accepted():
    for name in ("realtime-text-in-audio-out", "realtime-tool-round", "realtime-transcription"):
        for frame in exchange(name)["frames"]:
            if frame["from"] == "client":
                read_client_event(json.dumps(frame["data"]), "gpt-realtime")


def test_an_error_event_contains_the_id_of_the_clients_event():
    client_event = read_client_event(event("session.update", session={"model": "gpt-x"}), "gpt-realtime")

    error = json.loads(
        error_event(ModelNotPriced("no price for gpt-x", param="model"), client_event.event_id, "event_9")
    )

    assert error == {
        "type": "error",
        "event_id": "event_9",
        "error": {
            "type": "invalid_request_error",
            "code": "model_not_priced",
            "message": "no price for gpt-x",
            "param": "model",
            "event_id": "client_1",
        },
    }


@given(text=st.one_of(st.binary(max_size=100), st.text(max_size=100)))
def test_random_frames_raise_nothing_but_invalid_body(text):
    with contextlib.suppress(InvalidBody):
        read_client_event(text, "m")
