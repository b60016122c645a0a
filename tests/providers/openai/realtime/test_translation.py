from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.providers.reading import read_frame, reports_of
from tornado_proxy.domain.errors import BadRequest
from tornado_proxy.domain.usage import Basis, Meter, UsageReport
from tornado_proxy.providers.contract import SessionChanged, WorkRejected, WorkStarted
from tornado_proxy.providers.openai.realtime.translation import TRANSLATION_SOCKET, TranslationReader, open_translation

MODEL = "gpt-realtime-translate"


def event(kind: str, **members: object) -> str:
    return json.dumps({"type": kind, "event_id": "event_1", **members})


def started() -> TranslationReader:
    reader = open_translation(f"model={MODEL}", ())
    reader.feed_server_frame(event("session.created", session={"id": "sess_1", "model": MODEL}))
    return reader


def seconds(report: UsageReport) -> dict[tuple[str | None, Meter], Decimal]:
    return {(item.model, quantity.meter): quantity.amount for item in report.items for quantity in item.quantities}


def test_opening_a_session_is_a_spend_by_its_length() -> None:
    (spend,) = open_translation(f"model={MODEL}", ()).spends

    assert (spend.model, spend.meters) == (MODEL, frozenset({Meter.SESSION_SECONDS}))


@pytest.mark.parametrize("query", ["", "model=", "model=a&model=b"])
def test_a_query_without_exactly_one_model_is_rejected(query: str) -> None:
    with pytest.raises(BadRequest):
        open_translation(query, ())


def test_the_first_session_event_starts_work() -> None:
    reader = open_translation(f"model={MODEL}", ())
    created = event("session.created", session={"id": "sess_1", "model": MODEL})

    assert reader.feed_server_frame(created) == (WorkStarted("sess_1"),)
    assert reader.feed_server_frame(created) == ()


def test_a_session_event_reports_a_change_only_if_the_spends_differ() -> None:
    reader = started()
    transcription = {"audio": {"input": {"transcription": {"model": "gpt-realtime-whisper"}}}}
    updated = event("session.updated", session=transcription)

    (change,) = reader.feed_server_frame(updated)

    assert isinstance(change, SessionChanged)
    assert [spend.model for spend in change.spends] == [MODEL, "gpt-realtime-whisper"]
    assert change.spends == reader.spends
    assert reader.feed_server_frame(updated) == ()


def test_an_error_of_the_provider_is_rejected_work() -> None:
    assert started().feed_server_frame(event("error", error={"message": "no"})) == (WorkRejected(),)


def test_the_largest_elapsed_time_is_charged_once() -> None:
    reader = started()

    for elapsed in (400, 61_500, 1_200):
        reader.feed_server_frame(event("session.output_audio.delta", delta="AAAA", elapsed_ms=elapsed))
    (report,) = reports_of(reader.feed_server_frame(event("session.closed")))

    assert seconds(report) == {(MODEL, Meter.SESSION_SECONDS): Decimal("61.5")}
    assert (report.basis, report.object_id) == (Basis.INFERRED, "sess_1")
    assert reader.close() == ()


def test_without_an_elapsed_time_the_length_of_sent_audio_is_charged() -> None:
    reader = started()

    read_frame(TRANSLATION_SOCKET, reader, event("session.input_audio_buffer.append", audio="A" * 64_000))
    read_frame(TRANSLATION_SOCKET, reader, event("session.input_audio_buffer.append", audio="A" * 32_000))

    (report,) = reader.close()
    assert seconds(report) == {(MODEL, Meter.SESSION_SECONDS): Decimal("1.5")}


def test_a_transcription_is_a_second_meter() -> None:
    reader = started()
    session = {"audio": {"input": {"transcription": {"model": "gpt-realtime-whisper"}}}}

    frame = read_frame(TRANSLATION_SOCKET, reader, event("session.update", session=session))
    reader.feed_server_frame(event("session.updated", session=session))
    reader.feed_server_frame(event("session.output_audio.delta", elapsed_ms=2000))

    assert [(spend.model, spend.role) for spend in frame.spends] == [("gpt-realtime-whisper", "input_transcription")]
    (report,) = reader.close()
    assert seconds(report) == {
        (MODEL, Meter.SESSION_SECONDS): Decimal(2),
        ("gpt-realtime-whisper", Meter.AUDIO_SECONDS): Decimal(2),
    }


def test_a_transcription_charged_by_tokens_is_rejected() -> None:
    session = {"audio": {"input": {"transcription": {"model": "gpt-4o-transcribe"}}}}

    with pytest.raises(BadRequest, match="charged by tokens"):
        read_frame(TRANSLATION_SOCKET, started(), event("session.update", session=session))


def test_a_session_that_never_started_has_no_report() -> None:
    assert open_translation(f"model={MODEL}", ()).close() == ()


@given(frames=st.lists(st.text() | st.binary(), max_size=5))
def test_random_frames_of_a_provider_never_raise(frames: list[str | bytes]) -> None:
    reader = started()

    for frame in frames:
        reader.feed_server_frame(frame)

    reader.close()
