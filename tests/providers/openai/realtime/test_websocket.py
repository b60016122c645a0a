from __future__ import annotations

import json

import pytest

from tests.providers.reading import read_frame, reports_of
from tornado_proxy.domain.errors import BadRequest, ModelNotPriced
from tornado_proxy.domain.usage import Basis
from tornado_proxy.providers.contract import QuotaStated, SessionChanged, WorkRejected, WorkStarted
from tornado_proxy.providers.openai.realtime.websocket import REALTIME_SOCKET, open_realtime


def event(kind: str, **members: object) -> str:
    return json.dumps({"type": kind, "event_id": "event_1", **members})


@pytest.mark.parametrize(
    ("query", "spends", "references"),
    [
        pytest.param("model=gpt-realtime", [("gpt-realtime", None)], (), id="a model"),
        pytest.param("model=gpt-realtime&call_id=rtc_1", [("gpt-realtime", None)], ("rtc_1",), id="a model and a call"),
        pytest.param("call_id=rtc_1", [], ("rtc_1",), id="a call, whose session names the model"),
        pytest.param("intent=transcription", [], (), id="a transcription without its model"),
        pytest.param(
            "intent=transcription&model=gpt-4o-transcribe",
            [("gpt-4o-transcribe", "input_transcription")],
            (),
            id="a transcription with its model",
        ),
    ],
)
def test_the_query_decides_opening_spends_and_references(
    query: str, spends: list[tuple[str, str | None]], references: tuple[str, ...]
) -> None:
    reader = open_realtime(query, ())

    assert [(spend.model, spend.role) for spend in reader.spends] == spends
    assert reader.references == references


@pytest.mark.parametrize("query", ["", "model=", "model=a&model=b", "model=a&call_id=1&call_id=2", "intent=other"])
def test_a_query_without_exactly_one_model_is_rejected(query: str) -> None:
    with pytest.raises(BadRequest):
        open_realtime(query, ())


def test_a_session_event_changes_model_and_spends() -> None:
    reader = open_realtime("model=gpt-realtime", ())

    transcription = {"audio": {"input": {"transcription": {"model": "whisper-1"}}}}
    updated = event("session.updated", session={"model": "gpt-realtime-2", **transcription})
    (change,) = reader.feed_server_frame(updated)

    assert isinstance(change, SessionChanged)
    assert [spend.model for spend in change.spends] == ["gpt-realtime-2", "whisper-1"]
    assert change.spends == reader.spends
    assert reader.model == "gpt-realtime-2"
    assert reader.feed_server_frame(updated) == ()


def test_a_session_event_that_confirms_the_opening_spends_is_no_change() -> None:
    reader = open_realtime("intent=transcription&model=gpt-4o-transcribe", ())
    opening_spends = reader.spends

    def updated(transcription: dict[str, str] | None) -> str:
        return event("transcription_session.updated", session={"input_audio_transcription": transcription})

    assert reader.feed_server_frame(updated({"model": "gpt-4o-transcribe"})) == ()
    assert reader.feed_server_frame(updated(None)) == ()
    assert reader.spends == opening_spends
    (change,) = reader.feed_server_frame(updated({"model": "whisper-1"}))
    assert isinstance(change, SessionChanged)
    assert [spend.model for spend in change.spends] == ["whisper-1"]


def test_a_response_is_work_from_created_to_done() -> None:
    reader = open_realtime("model=gpt-realtime", ())
    assert not reader.working

    created = event("response.created", response={"id": "resp_1"})
    assert reader.feed_server_frame(created) == (WorkStarted("resp_1"),)
    assert reader.feed_server_frame(created) == ()
    assert reader.working

    usage = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}
    done = event("response.done", response={"id": "resp_1", "status": "completed", "usage": usage})
    (report,) = reports_of(reader.feed_server_frame(done))

    assert report.object_id == "resp_1"
    assert report.basis is Basis.REPORTED
    assert not reader.working
    assert reader.feed_server_frame(done) == ()


def test_committed_audio_is_work_if_it_is_transcribed() -> None:
    reader = open_realtime("model=gpt-realtime", ())
    transcription = {"audio": {"input": {"transcription": {"model": "whisper-1"}}}}
    reader.feed_server_frame(event("session.updated", session=transcription))

    events = reader.feed_server_frame(event("input_audio_buffer.committed", item_id="item_1"))

    assert events == (WorkStarted("item_1"),)
    assert reader.working


def test_an_error_event_is_rejected_work() -> None:
    reader = open_realtime("model=gpt-realtime", ())

    assert reader.feed_server_frame(event("error", error={"message": "no"})) == (WorkRejected(),)
    assert reader.feed_server_frame(event("rate_limits.updated")) == (QuotaStated(),)


def test_only_a_request_for_a_response_has_facts() -> None:
    reader = open_realtime("model=gpt-realtime", ())

    create = read_frame(REALTIME_SOCKET, reader, event("response.create"))
    append = read_frame(REALTIME_SOCKET, reader, event("input_audio_buffer.append", audio="AAAA"))

    assert create.facts is not None
    assert create.facts.model == "gpt-realtime"
    assert append.facts is None


def test_a_refusal_contains_the_id_of_the_clients_event() -> None:
    reader = open_realtime("model=gpt-realtime", ())
    frame = read_frame(REALTIME_SOCKET, reader, event("response.create"))

    refusal = json.loads(reader.refusal(ModelNotPriced("no price", param="model"), frame, "event_own"))

    assert (refusal["type"], refusal["event_id"]) == ("error", "event_own")
    assert refusal["error"]["event_id"] == "event_1"
    assert refusal["error"]["code"] == "model_not_priced"
