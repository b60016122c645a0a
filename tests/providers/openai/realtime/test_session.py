from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.providers.openai.reports import REALTIME_USAGE, amounts
from tests.providers.reading import reports_of
from tests.providers.recorded import exchange, expected_lines, lines
from tornado_proxy.domain.usage import Basis, Meter
from tornado_proxy.providers.contract import QuotaStated, SocketEvent, UsageReported
from tornado_proxy.providers.openai.realtime.session import RealtimeSession


def event(kind: str, **members: Any) -> str:
    return json.dumps({"type": kind, "event_id": "event_1", **members})


def done(response_id: str = "resp_1", usage: Any = REALTIME_USAGE, status: str = "completed") -> str:
    return event("response.done", response={"id": response_id, "status": status, "usage": usage})


@pytest.mark.parametrize(
    ("name", "url_model"),
    [
        ("realtime-text-in-audio-out", "gpt-realtime"),
        ("realtime-tool-round", "gpt-realtime-2.1"),
        ("realtime-transcription", "gpt-realtime"),
    ],
)
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
@pytest.mark.parametrize("as_bytes", [False, True])
def test_recorded_sessions_give_the_expected_lines(name, url_model, separators, as_bytes):
    session = RealtimeSession(url_model)
    events: list[SocketEvent] = []

    for frame in exchange(name)["frames"]:
        if frame["from"] == "server":
            text = json.dumps(frame["data"], separators=separators)
            events += session.feed_server_event(text.encode() if as_bytes else text)
    reports = [event.report for event in events if isinstance(event, UsageReported)]

    assert lines(reports) == expected_lines(name)
    assert {report.basis for report in reports} == {Basis.REPORTED}
    assert session.close() == ()


def test_text_audio_and_images_are_separate_from_their_cached_parts():
    (report,) = reports_of(RealtimeSession("gpt-realtime").feed_server_event(done()))

    assert amounts(report) == {
        "input_tokens": 100,
        "input_audio_tokens": 280,
        "input_image_tokens": 70,
        "cached_input_tokens": 200,
        "cached_input_audio_tokens": 120,
        "cached_input_image_tokens": 30,
        "output_tokens": 50,
        "output_audio_tokens": 150,
    }
    assert report.items[0].context_tokens == 800
    assert report.object_id == "resp_1"
    assert report.faults == ()
    assert json.loads(report.raw or "") == REALTIME_USAGE


def test_a_response_and_a_transcription_are_charged_once():
    session = RealtimeSession("gpt-realtime")
    transcribed = event(
        "conversation.item.input_audio_transcription.completed",
        item_id="item_1",
        content_index=0,
        usage={"type": "duration", "seconds": 2.1},
    )

    first = reports_of(session.feed_server_event(done()) + session.feed_server_event(transcribed))
    again = session.feed_server_event(done()) + session.feed_server_event(transcribed)
    (other,) = reports_of(session.feed_server_event(transcribed.replace('"content_index": 0', '"content_index": 1')))

    assert len(first) == 2
    assert again == ()
    assert amounts(other) == {"audio_seconds": 3}
    # A client may choose an item's id in conversation.item.create; the provider chooses those of responses.
    assert [(report.object_id, report.names_object) for report in first] == [("resp_1", True), ("item_1", False)]


@pytest.mark.parametrize("status", ["completed", "cancelled", "failed", "incomplete"])
def test_usage_counts_for_every_status(status):
    (report,) = reports_of(RealtimeSession("gpt-realtime").feed_server_event(done(status=status)))

    assert report.basis is Basis.REPORTED
    assert amounts(report)["output_audio_tokens"] == 150


def test_the_model_of_the_session_event_takes_precedence_over_the_url():
    session = RealtimeSession("gpt-realtime")
    (before,) = reports_of(session.feed_server_event(done("a")))
    session.feed_server_event(event("session.updated", session={"model": "gpt-realtime-2.1"}))
    (after,) = reports_of(session.feed_server_event(done("b")))

    assert (before.model, after.model) == ("gpt-realtime", "gpt-realtime-2.1")
    assert session.model == "gpt-realtime-2.1"
    assert [spend.model for spend in session.spends] == ["gpt-realtime-2.1"]


@pytest.mark.parametrize(
    "shape",
    [
        lambda model: {"audio": {"input": {"transcription": {"model": model}}}},
        lambda model: {"input_audio_transcription": {"model": model}},
    ],
    ids=["general", "beta"],
)
def test_a_transcription_is_charged_at_the_model_of_its_commit(shape):
    session = RealtimeSession("gpt-realtime")
    session.feed_server_event(event("session.created", session={"model": "gpt-realtime"} | shape("whisper-1")))
    session.feed_server_event(event("input_audio_buffer.committed", item_id="item_1"))
    session.feed_server_event(event("session.updated", session=shape("gpt-4o-transcribe")))
    usage = {"type": "tokens", "input_tokens": 12, "output_tokens": 4, "input_token_details": {"audio_tokens": 12}}

    completed = "conversation.item.input_audio_transcription.completed"
    (first,) = reports_of(session.feed_server_event(event(completed, item_id="item_1", content_index=0, usage=usage)))
    (second,) = reports_of(session.feed_server_event(event(completed, item_id="item_2", content_index=0, usage=usage)))

    assert (first.items[0].model, second.items[0].model) == ("whisper-1", "gpt-4o-transcribe")
    assert amounts(second) == {"input_audio_tokens": 12, "output_tokens": 4}
    assert [spend.model for spend in session.spends] == ["gpt-realtime", "gpt-4o-transcribe"]
    assert [spend.role for spend in session.spends] == [None, "input_transcription"]


@pytest.mark.parametrize("audio", ["response.output_audio.delta", "response.audio.delta"])
def test_an_unfinished_response_is_estimated_by_its_deltas(audio):
    session = RealtimeSession("gpt-realtime")
    session.feed_server_event(event("response.created", response={"id": "resp_1"}))
    for _ in range(4):
        session.feed_server_event(event(audio, response_id="resp_1", delta="A" * 64_000))
    session.feed_server_event(event("response.output_text.delta", response_id="resp_1", delta="Hi"))

    (report,) = session.close()

    # 4 x 64,000 characters of base64 are 192,000 bytes: 4 s of 24 kHz PCM, 20 tokens a second.
    assert 80 <= amounts(report)["output_audio_tokens"] <= 82
    assert amounts(report)["output_tokens"] == 1
    assert report.basis is Basis.ESTIMATED
    assert report.estimate_method == "realtime_deltas"
    assert "input is not known" in report.faults[0]
    assert session.close() == ()


def test_an_unfinished_transcription_is_unsettled_and_a_failed_one_is_free():
    session = RealtimeSession(None)
    session.feed_server_event(event("session.created", session={"input_audio_transcription": {"model": "whisper-1"}}))
    for item in ("item_1", "item_2"):
        session.feed_server_event(event("input_audio_buffer.committed", item_id=item))
    session.feed_server_event(event("conversation.item.input_audio_transcription.failed", item_id="item_1"))

    (report,) = session.close()

    assert report.basis is Basis.UNSETTLED
    assert report.object_id == "item_2"
    assert report.model == "whisper-1"


def test_a_failed_response_without_usage_or_output_is_free_and_a_cancelled_one_is_estimated():
    session = RealtimeSession("gpt-realtime")

    (failed,) = reports_of(session.feed_server_event(done("a", usage=None, status="failed")))
    (cancelled,) = reports_of(session.feed_server_event(done("b", usage=None, status="cancelled")))

    assert failed.basis is Basis.FREE
    assert cancelled.basis is Basis.ESTIMATED


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("input_token_details", "text_tokens"), 301),
        (("input_token_details", "cached_tokens_details", "audio_tokens"), 401),
        (("output_token_details", "audio_tokens"), 151),
        (("input_tokens",), -1),
        (("output_tokens",), "200"),
        (("input_tokens",), True),
    ],
)
def test_usage_that_does_not_add_up_is_unsettled(path, value):
    usage = json.loads(json.dumps(REALTIME_USAGE))
    holder = usage
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value

    (report,) = reports_of(RealtimeSession("gpt-realtime").feed_server_event(done(usage=usage)))

    assert report.faults
    assert report.basis is Basis.UNSETTLED
    assert all(quantity.amount > 0 for quantity in report.items[0].quantities)


def test_tokens_without_details_are_text():
    (report,) = reports_of(RealtimeSession("m").feed_server_event(done(usage={"input_tokens": 7, "output_tokens": 3})))

    assert amounts(report) == {"input_tokens": 7, "output_tokens": 3}
    assert report.items[0].quantities[0].meter is Meter.INPUT
    assert report.items[0].quantities[0].amount == Decimal(7)


def test_a_transcription_without_usage_is_unsettled():
    transcribed = event(
        "conversation.item.input_audio_transcription.completed", item_id="i", content_index=0, usage=None
    )

    (report,) = reports_of(RealtimeSession("m").feed_server_event(transcribed))

    assert report.basis is Basis.UNSETTLED


def test_the_type_of_an_event_can_follow_other_members():
    text = json.dumps(
        {"response": {"id": "r", "type": "session.updated", "usage": REALTIME_USAGE}, "type": "response.done"}
    )

    (report,) = reports_of(RealtimeSession("m").feed_server_event(text))

    assert report.object_id == "r"


@pytest.mark.parametrize("frame", ["[1]", "rubbish", '{"type":1}', '{"a":1,"type":"item.unknown"}', b"\xff"])
def test_frames_without_a_known_event_are_ignored(frame):
    assert RealtimeSession("m").feed_server_event(frame) == ()


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param('{"type":"rate_limits.updated","event_id":"e","rate_limits":[]}', id="type first"),
        pytest.param('{"event_id":"e","type":"rate_limits.updated","rate_limits":[]}', id="id first"),
        pytest.param(b'{"a":1,"type":"rate_limits.updated"}', id="another member first, binary"),
        pytest.param('{"type":"rate_limits.updated","rate_limits":', id="no JSON"),
    ],
)
def test_quota_of_the_account_is_an_event_wherever_the_type_is(frame):
    assert RealtimeSession("m").feed_server_event(frame) == (QuotaStated(),)


def test_deltas_are_counted_with_any_member_order_until_the_response_ends():
    session = RealtimeSession("m")
    delta = json.dumps({"delta": "A" * 3200, "type": "response.audio.delta", "response_id": "resp_1"})
    session.feed_server_event(event("response.created", response={"id": "resp_1"}))
    session.feed_server_event(delta)

    (report,) = reports_of(session.feed_server_event(done(usage=None, status="cancelled")))
    session.feed_server_event(event("response.created", response={"id": "resp_1"}))
    session.feed_server_event(delta)

    assert amounts(report) == {"output_audio_tokens": 2}
    assert session.close() == ()


@given(text=st.one_of(st.binary(max_size=200), st.text(max_size=200)))
def test_random_frames_never_raise(text):
    session = RealtimeSession("m")
    for frame in (
        text,
        b'{"type":"response.done","response":' + text.encode("utf-8", "replace") + b"}"
        if isinstance(text, str)
        else text,
    ):
        session.feed_server_event(frame)
    session.close()


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "usage", "session", "response", "input_tokens", "seconds", "type", "item_id"]), inner
        )
    ),
    max_leaves=15,
)


@given(
    kind=st.sampled_from(
        [
            "response.done",
            "response.created",
            "session.updated",
            "input_audio_buffer.committed",
            "conversation.item.input_audio_transcription.completed",
            "response.audio.delta",
        ]
    ),
    members=st.dictionaries(st.sampled_from(["response", "session", "usage", "item_id", "response_id"]), _json),
)
def test_random_members_never_raise(kind, members):
    session = RealtimeSession("m")
    for _ in range(2):
        session.feed_server_event(json.dumps({"type": kind, **members}))
    session.close()


@pytest.mark.parametrize("beside", [rb'"\ud83d"', b"-Infinity", b"[" * 5000 + b"]" * 5000])
def test_nothing_beside_usage_keeps_it_from_being_read(beside):
    session = RealtimeSession("gpt-realtime")
    usage = b'"usage":{"input_tokens":12,"output_tokens":200}'
    transcribed = b"conversation.item.input_audio_transcription.completed"

    session.feed_server_event(b'{"type":"response.created","response":{"id":"resp_1","x":%b}}' % beside)
    done = session.feed_server_event(
        b'{"type":"response.done","response":{"id":"resp_1","output":[%b],%b}}' % (beside, usage)
    )
    heard = session.feed_server_event(b'{"type":"%b","item_id":"i1","transcript":%b,%b}' % (transcribed, beside, usage))

    assert not session.working
    assert [amounts(report) for report in (*reports_of(done), *reports_of(heard))] == [
        {"input_tokens": 12, "output_tokens": 200}
    ] * 2
