"""A translation session, which states no usage."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.providers.reading import reports_of
from tornado_proxy.domain.errors import BadRequest
from tornado_proxy.domain.usage import Basis, Meter, UsageReport
from tornado_proxy.providers.contract import SessionChanged, WorkRejected, WorkStarted
from tornado_proxy.providers.openai.realtime.translation import TranslationReader, open_translation

MODEL = "gpt-realtime-translate"


def event(kind: str, **members: object) -> str:
    return json.dumps({"type": kind, "event_id": "event_1", **members})


def begun() -> TranslationReader:
    reader = open_translation(f"model={MODEL}", ())
    reader.feed_server_frame(event("session.created", session={"id": "sess_1", "model": MODEL}))
    return reader


def seconds(report: UsageReport) -> dict[tuple[str | None, Meter], Decimal]:
    return {(one.model, quantity.meter): quantity.amount for one in report.items for quantity in one.quantities}


def test_opening_is_a_spend_by_the_minute() -> None:
    (spend,) = open_translation(f"model={MODEL}", ()).spends

    assert (spend.model, spend.meters) == (MODEL, frozenset({Meter.SESSION_SECONDS}))


@pytest.mark.parametrize("query", ["", "model=", "model=a&model=b"])
def test_a_query_without_one_model_is_refused(query: str) -> None:
    with pytest.raises(BadRequest):
        open_translation(query, ())


def test_the_session_is_started_work_from_its_first_event() -> None:
    reader = open_translation(f"model={MODEL}", ())
    created = event("session.created", session={"id": "sess_1", "model": MODEL})

    assert reader.feed_server_frame(created) == (WorkStarted("sess_1"),)
    assert reader.feed_server_frame(created) == ()


def test_a_session_event_is_a_change_only_if_it_can_be_charged_differently() -> None:
    reader = begun()
    transcription = {"audio": {"input": {"transcription": {"model": "gpt-realtime-whisper"}}}}
    updated = event("session.updated", session=transcription)

    (change,) = reader.feed_server_frame(updated)

    assert isinstance(change, SessionChanged)
    assert [spend.model for spend in change.spends] == [MODEL, "gpt-realtime-whisper"]
    assert change.spends == reader.spends
    assert reader.feed_server_frame(updated) == ()


def test_an_error_of_the_provider_is_rejected_work() -> None:
    assert begun().feed_server_frame(event("error", error={"message": "no"})) == (WorkRejected(),)


def test_the_largest_time_that_was_named_is_charged_once() -> None:
    reader = begun()

    for elapsed in (400, 61_500, 1_200):
        reader.feed_server_frame(event("session.output_audio.delta", delta="AAAA", elapsed_ms=elapsed))
    (report,) = reports_of(reader.feed_server_frame(event("session.closed")))

    assert seconds(report) == {(MODEL, Meter.SESSION_SECONDS): Decimal("61.5")}
    assert (report.basis, report.object_id) == (Basis.INFERRED, "sess_1")
    assert reader.close() == ()


def test_without_a_time_the_audio_that_was_sent_is_measured() -> None:
    reader = begun()

    reader.read_client_frame(event("session.input_audio_buffer.append", audio="A" * 64_000))
    reader.read_client_frame(event("session.input_audio_buffer.append", audio="A" * 32_000))

    (report,) = reader.close()
    assert seconds(report) == {(MODEL, Meter.SESSION_SECONDS): Decimal("1.5")}


def test_a_transcription_is_a_second_meter() -> None:
    reader = begun()
    session = {"audio": {"input": {"transcription": {"model": "gpt-realtime-whisper"}}}}

    frame = reader.read_client_frame(event("session.update", session=session))
    reader.feed_server_frame(event("session.updated", session=session))
    reader.feed_server_frame(event("session.output_audio.delta", elapsed_ms=2000))

    assert [(spend.model, spend.role) for spend in frame.spends] == [("gpt-realtime-whisper", "input_transcription")]
    (report,) = reader.close()
    assert seconds(report) == {
        (MODEL, Meter.SESSION_SECONDS): Decimal(2),
        ("gpt-realtime-whisper", Meter.AUDIO_SECONDS): Decimal(2),
    }


def test_a_transcription_that_nobody_could_meter_is_refused() -> None:
    session = {"audio": {"input": {"transcription": {"model": "gpt-4o-transcribe"}}}}

    with pytest.raises(BadRequest, match="charged by tokens"):
        begun().read_client_frame(event("session.update", session=session))


def test_a_session_that_never_began_costs_nothing() -> None:
    assert open_translation(f"model={MODEL}", ()).close() == ()


@given(frames=st.lists(st.text() | st.binary(), max_size=5))
def test_no_frame_of_a_provider_makes_it_raise(frames: list[str | bytes]) -> None:
    reader = begun()

    for frame in frames:
        reader.feed_server_frame(frame)

    reader.close()
