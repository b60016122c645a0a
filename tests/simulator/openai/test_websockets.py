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


async def read_until(socket: WebSocketClientConnection, *kinds: str) -> list[dict]:
    events = []
    while not events or events[-1]["type"] not in kinds:
        message = await socket.read_message()
        assert message is not None
        events.append(json.loads(message))
    return events


async def send(socket: WebSocketClientConnection, kind: str, **members: object) -> None:
    await socket.write_message(json.dumps({"type": kind, **members}))


def user_item(text: str) -> dict:
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


async def test_responses_come_over_a_socket_and_go_on_from_each_other() -> None:
    simulator = Simulator()
    socket = await connect(simulator, "/v1/responses")
    asked = {"model": "gpt-4o-mini", "store": False}

    await send(socket, "response.create", input="one [[sim tokens=5]]", **asked)
    first = await read_until(socket, "response.completed")
    previous = first[-1]["response"]["id"]
    await send(socket, "response.create", input="two", previous_response_id=previous, **asked)
    second = await read_until(socket, "response.completed")
    await send(socket, "response.create", input="two", previous_response_id="resp_none", **asked)
    (error,) = await read_until(socket, "error")
    socket.close()
    await simulator.stop()

    assert [event["sequence_number"] for event in first] == list(range(len(first)))
    assert first[-1]["response"]["usage"]["output_tokens"] == 5
    assert second[-1]["response"]["usage"]["input_tokens"] == 9 + 5 + 1
    assert error["error"]["code"] == "previous_response_not_found"


async def test_a_warm_up_writes_nothing() -> None:
    simulator = Simulator()
    socket = await connect(simulator, "/v1/responses")

    await send(socket, "response.create", model="gpt-5.4", input="one two", generate=False)
    events = await read_until(socket, "response.completed")
    socket.close()
    await simulator.stop()

    assert [event["type"] for event in events] == ["response.created", "response.in_progress", "response.completed"]
    assert events[-1]["response"]["output"] == []
    assert events[-1]["response"]["usage"]["output_tokens"] == 0


async def test_a_socket_can_be_cut() -> None:
    simulator = Simulator()
    socket = await connect(simulator, "/v1/responses")

    await send(socket, "response.create", model="gpt-4o-mini", input="[[sim cut=after:3]]")
    received = 0
    while await socket.read_message() is not None:
        received += 1
    socket.close()
    await simulator.stop()

    assert (received, socket.close_code) == (3, None)


async def test_a_wrong_key_is_refused_before_the_upgrade() -> None:
    simulator = Simulator(keys={"openai": "sk-right"})

    with pytest.raises(HTTPClientError) as refused:
        await connect(simulator, "/v1/realtime?model=gpt-realtime", "sk-wrong")
    await simulator.stop()

    assert refused.value.code == 401


async def test_a_realtime_conversation_in_text_adds_up() -> None:
    simulator = Simulator()
    socket = await connect(simulator, "/v1/realtime?model=gpt-realtime")

    (created,) = await read_until(socket, "session.created")
    await send(socket, "session.update", session={"output_modalities": ["text"], "instructions": "Be brief."})
    (updated,) = await read_until(socket, "session.updated")
    await send(socket, "conversation.item.create", item=user_item("Hi [[sim tokens=5]]"))
    await read_until(socket, "conversation.item.done")
    await send(socket, "response.create")
    first = await read_until(socket, "rate_limits.updated")
    await send(socket, "response.create")
    second = await read_until(socket, "rate_limits.updated")
    socket.close()
    await simulator.stop()

    assert created["session"]["model"] == updated["session"]["model"] == "gpt-realtime"
    assert updated["session"]["output_modalities"] == ["text"]
    assert "".join(e["delta"] for e in first if e["type"] == "response.output_text.delta") == "The stand-in answers"
    usage, later = first[-2]["response"]["usage"], second[-2]["response"]["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (3 + 9, 5, 17)
    assert (later["input_tokens"], later["input_token_details"]["cached_tokens"]) == (12 + 5, 12)


async def test_a_spoken_answer_counts_text_and_audio() -> None:
    simulator = Simulator()
    socket = await connect(simulator, "/v1/realtime?model=gpt-realtime")

    await send(socket, "conversation.item.create", item=user_item("Hi [[sim tokens=4]]"))
    await send(socket, "response.create")
    events = await read_until(socket, "response.done")
    socket.close()
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
    socket = await connect(simulator, "/v1/realtime?model=gpt-realtime")

    await send(socket, "session.update", session={"audio": {"input": {"transcription": {"model": model}}}})
    await send(socket, "input_audio_buffer.append", audio=b64encode(bytes(72_000)).decode())
    await send(socket, "input_audio_buffer.commit")
    events = await read_until(socket, "conversation.item.input_audio_transcription.completed")
    await send(socket, "response.create")
    done = (await read_until(socket, "response.done"))[-1]
    socket.close()
    await simulator.stop()

    assert events[-1]["usage"] == usage
    assert done["response"]["usage"]["input_token_details"]["audio_tokens"] == 15


async def test_a_realtime_tool_call_is_answered_after_its_result() -> None:
    simulator = Simulator()
    socket = await connect(simulator, "/v1/realtime?model=gpt-realtime")

    await send(socket, "conversation.item.create", item=user_item('[[sim tool=f args={"a":1}]]'))
    await send(socket, "response.create")
    (call,) = (await read_until(socket, "response.done"))[-1]["response"]["output"]
    result = {"type": "function_call_output", "call_id": call["call_id"], "output": "done"}
    await send(socket, "conversation.item.create", item=result)
    await send(socket, "response.create")
    (message,) = (await read_until(socket, "response.done"))[-1]["response"]["output"]
    await send(socket, "nonsense")
    error = (await read_until(socket, "error"))[-1]
    socket.close()
    await simulator.stop()

    assert (call["name"], call["arguments"]) == ("f", '{"a":1}')
    assert message["type"] == "message"
    assert error["error"]["code"] == "invalid_value"
