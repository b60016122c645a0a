import json
from base64 import b64encode

import pytest
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

from tornado_proxy.simulator import Simulator

pytestmark = pytest.mark.gen_test


async def connect(simulator: Simulator, path: str, key: str = "k") -> WebSocketClientConnection:
    port = await simulator.start()
    return await websocket_connect(
        HTTPRequest(f"ws://127.0.0.1:{port}{path}", headers={"Authorization": f"Bearer {key}"})
    )


async def read_until(websocket: WebSocketClientConnection, *kinds: str) -> list[dict]:
    events = []
    while not events or events[-1]["type"] not in kinds:
        message = await websocket.read_message()
        assert message is not None
        events.append(json.loads(message))
    return events


async def send(websocket: WebSocketClientConnection, kind: str, **members: object) -> None:
    await websocket.write_message(json.dumps({"type": kind, **members}))


def user_item(text: str) -> dict:
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


async def test_responses_over_a_websocket_continue_from_each_other() -> None:
    simulator = Simulator()
    websocket = await connect(simulator, "/v1/responses")
    members = {"model": "gpt-4o-mini", "store": False}

    await send(websocket, "response.create", input="one [[sim tokens=5]]", **members)
    first = await read_until(websocket, "response.completed")
    previous = first[-1]["response"]["id"]
    await send(websocket, "response.create", input="two", previous_response_id=previous, **members)
    second = await read_until(websocket, "response.completed")
    await send(websocket, "response.create", input="two", previous_response_id="resp_none", **members)
    (error,) = await read_until(websocket, "error")
    websocket.close()
    await simulator.stop()

    assert [event["sequence_number"] for event in first] == list(range(len(first)))
    assert first[-1]["response"]["usage"]["output_tokens"] == 5
    assert second[-1]["response"]["usage"]["input_tokens"] == 9 + 5 + 1
    assert error["error"]["code"] == "previous_response_not_found"


async def test_events_repeat_the_lane_and_messages_are_recorded() -> None:
    simulator = Simulator()
    websocket = await connect(simulator, "/v1/responses")

    await send(websocket, "response.create", model="gpt-4o-mini", input="one", stream_id="left")
    events = await read_until(websocket, "response.completed")
    await send(websocket, "response.create", stream_id="right")
    events += await read_until(websocket, "error")
    websocket.close()
    await simulator.stop()

    assert {event["stream_id"] for event in events[:-1]} == {"left"}
    assert events[-1]["stream_id"] == "right"
    assert [json.loads(message.body)["stream_id"] for message in simulator.messages] == ["left", "right"]


async def test_response_without_generate_has_no_output() -> None:
    simulator = Simulator()
    websocket = await connect(simulator, "/v1/responses")

    await send(websocket, "response.create", model="gpt-5.4", input="one two", generate=False)
    events = await read_until(websocket, "response.completed")
    websocket.close()
    await simulator.stop()

    assert [event["type"] for event in events] == ["response.created", "response.in_progress", "response.completed"]
    assert events[-1]["response"]["output"] == []
    assert events[-1]["response"]["usage"]["output_tokens"] == 0


async def test_cut_directive_breaks_a_websocket() -> None:
    simulator = Simulator()
    websocket = await connect(simulator, "/v1/responses")

    await send(websocket, "response.create", model="gpt-4o-mini", input="[[sim cut=after:3]]")
    received = 0
    while await websocket.read_message() is not None:
        received += 1
    websocket.close()
    await simulator.stop()

    assert (received, websocket.close_code) == (3, None)


async def test_wrong_key_is_rejected_before_the_upgrade() -> None:
    simulator = Simulator(keys={"openai": "sk-right"})

    with pytest.raises(HTTPClientError) as refused:
        await connect(simulator, "/v1/realtime?model=gpt-realtime", "sk-wrong")
    await simulator.stop()

    assert refused.value.code == 401


async def test_realtime_usage_in_text_adds_up() -> None:
    simulator = Simulator()
    websocket = await connect(simulator, "/v1/realtime?model=gpt-realtime")

    (created,) = await read_until(websocket, "session.created")
    await send(websocket, "session.update", session={"output_modalities": ["text"], "instructions": "Be brief."})
    (updated,) = await read_until(websocket, "session.updated")
    await send(websocket, "conversation.item.create", item=user_item("Hi [[sim tokens=5]]"))
    await read_until(websocket, "conversation.item.done")
    await send(websocket, "response.create")
    first = await read_until(websocket, "rate_limits.updated")
    await send(websocket, "response.create")
    second = await read_until(websocket, "rate_limits.updated")
    websocket.close()
    await simulator.stop()

    assert created["session"]["model"] == updated["session"]["model"] == "gpt-realtime"
    assert updated["session"]["output_modalities"] == ["text"]
    assert "".join(e["delta"] for e in first if e["type"] == "response.output_text.delta") == "The stand-in answers"
    usage, later = first[-2]["response"]["usage"], second[-2]["response"]["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (3 + 9, 5, 17)
    assert (later["input_tokens"], later["input_token_details"]["cached_tokens"]) == (12 + 5, 12)


async def test_audio_response_counts_text_and_audio() -> None:
    simulator = Simulator()
    websocket = await connect(simulator, "/v1/realtime?model=gpt-realtime")

    await send(websocket, "conversation.item.create", item=user_item("Hi [[sim tokens=4]]"))
    await send(websocket, "response.create")
    events = await read_until(websocket, "response.done")
    websocket.close()
    await simulator.stop()

    details = events[-1]["response"]["usage"]["output_token_details"]
    assert details == {"text_tokens": 4, "audio_tokens": 20}
    assert [e["type"] for e in events if "audio" in e["type"]][-4:] == [
        "response.output_audio_transcript.delta",
        "response.output_audio.delta",
        "response.output_audio.done",
        "response.output_audio_transcript.done",
    ]


@pytest.mark.parametrize(
    ("model", "usage"),
    [
        ("gpt-realtime-whisper", {"type": "duration", "seconds": 2}),
        (
            "gpt-4o-transcribe",
            {
                "type": "tokens",
                "total_tokens": 21,
                "input_tokens": 15,
                "input_token_details": {"text_tokens": 0, "audio_tokens": 15},
                "output_tokens": 6,
            },
        ),
    ],
)
async def test_input_audio_is_transcribed_and_charged_by_its_model(model: str, usage: dict) -> None:
    simulator = Simulator()
    websocket = await connect(simulator, "/v1/realtime?model=gpt-realtime")

    await send(websocket, "session.update", session={"audio": {"input": {"transcription": {"model": model}}}})
    await send(websocket, "input_audio_buffer.append", audio=b64encode(bytes(72_000)).decode())
    await send(websocket, "input_audio_buffer.commit")
    events = await read_until(websocket, "conversation.item.input_audio_transcription.completed")
    await send(websocket, "response.create")
    done = (await read_until(websocket, "response.done"))[-1]
    websocket.close()
    await simulator.stop()

    assert events[-1]["usage"] == usage
    assert done["response"]["usage"]["input_token_details"]["audio_tokens"] == 15


async def test_realtime_tool_result_ends_the_tool_directive() -> None:
    simulator = Simulator()
    websocket = await connect(simulator, "/v1/realtime?model=gpt-realtime")

    await send(websocket, "conversation.item.create", item=user_item('[[sim tool=f args={"a":1}]]'))
    await send(websocket, "response.create")
    (call,) = (await read_until(websocket, "response.done"))[-1]["response"]["output"]
    result = {"type": "function_call_output", "call_id": call["call_id"], "output": "done"}
    await send(websocket, "conversation.item.create", item=result)
    await send(websocket, "response.create")
    (message,) = (await read_until(websocket, "response.done"))[-1]["response"]["output"]
    await send(websocket, "nonsense")
    error = (await read_until(websocket, "error"))[-1]
    websocket.close()
    await simulator.stop()

    assert (call["name"], call["arguments"]) == ("f", '{"a":1}')
    assert message["type"] == "message"
    assert error["error"]["code"] == "invalid_value"
