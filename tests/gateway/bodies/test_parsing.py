"""Large bodies are read by worker processes, with the same result as small ones, and their faults stay there."""

from __future__ import annotations

import asyncio
import fcntl
import gzip
import json
import logging
import os
import signal
import sys
import termios
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from tests import harness
from tests.gateway.fakes import Gateway, make_snapshot, request_head
from tornado_proxy.domain.errors import BodyTooLarge, InvalidBody, Overloaded, RequestError
from tornado_proxy.domain.units import MIB
from tornado_proxy.gateway.bodies import workers
from tornado_proxy.gateway.bodies.parsing import BodyParser
from tornado_proxy.gateway.bodies.reading import MAX_BYTES_READ_ON_LOOP, MAX_VALUES_READ_ON_LOOP, read_body
from tornado_proxy.gateway.bodies.workers import BodyWorkers
from tornado_proxy.gateway.context import RequestContext
from tornado_proxy.providers.contract import ClientFrame, HttpEndpoint, ParsedRequest, RequestView, WebSocketEndpoint

CHAT = "/openai/v1/chat/completions"
MESSAGES = "/anthropic/v1/messages"
BATCHES = "/anthropic/v1/messages/batches"
#: Text with more escapes than the event loop reads, in JSON and as it is.
LINES = "x\n" * MAX_BYTES_READ_ON_LOOP
PADDING = json.dumps(LINES)[1:-1]


def make_context(target: str = CHAT, **headers: str) -> RequestContext[HttpEndpoint]:
    gateway = Gateway(make_snapshot())
    head = request_head(target, headers=[("Content-Type", "application/json"), *headers.items()])
    return gateway.admission.authenticate(gateway.snapshot, head)


def run(act: Callable[[BodyParser], Awaitable[Any]]) -> Any:
    """Return the result of `act`, which may start worker processes."""

    async def main() -> Any:
        bodies = BodyParser()
        try:
            return await act(bodies)
        finally:
            bodies.close()

    return asyncio.run(main())


def list_workers() -> list[int]:
    """Return the ids of this process's body workers."""
    children = [
        int(number) for task in Path("/proc/self/task").iterdir() for number in (task / "children").read_text().split()
    ]
    return [number for number in children if b"bodies.worker" in Path(f"/proc/{number}/cmdline").read_bytes()]


def read_environment(worker: int) -> bytes:
    return Path(f"/proc/{worker}/environ").read_bytes()


def explode(view: RequestView) -> ParsedRequest:
    raise AssertionError("the server itself reads the body")


def test_small_body_of_many_values_is_never_read_by_the_server_itself() -> None:
    context = make_context()
    context = structs.replace(context, endpoint=replace(context.endpoint, parse=explode))
    body = json.dumps({"model": "gpt-4o-mini", "messages": [{}] * (MAX_VALUES_READ_ON_LOOP + 1)}).encode()
    assert len(body) < MAX_BYTES_READ_ON_LOOP

    parsed = run(lambda bodies: bodies.parse(context, body))

    assert parsed.facts.model == "gpt-4o-mini"


def explode_frame(frame: bytes, model: str | None) -> ClientFrame:
    raise AssertionError("the server itself reads the frame")


def make_session(target: str) -> RequestContext[WebSocketEndpoint]:
    gateway = Gateway(make_snapshot())
    context = gateway.admission.authenticate_upgrade(gateway.snapshot, request_head(target, method="GET"))
    assert isinstance(context, RequestContext)
    return structs.replace(context, endpoint=replace(context.endpoint, parse_frame=explode_frame))


def test_large_frame_is_never_read_by_the_server_itself() -> None:
    context = make_session("/openai/v1/responses")
    frame = json.dumps({"type": "response.create", "model": "gpt-4o-mini", "input": LINES, "stream_id": "a"})

    parsed = run(lambda bodies: bodies.parse_frame(context, frame, None))

    assert (parsed.facts.model, parsed.lane) == ("gpt-4o-mini", "a")
    assert [spend.model for spend in parsed.spends] == ["gpt-4o-mini"]


def test_large_frame_of_a_session_is_read_with_its_model() -> None:
    context = make_session("/openai/v1/realtime?model=gpt-realtime")
    frame = json.dumps({"type": "response.create", "event_id": "e", "response": {"instructions": LINES}})

    parsed = run(lambda bodies: bodies.parse_frame(context, frame, "gpt-realtime"))

    assert (parsed.event_id, parsed.facts.model) == ("e", "gpt-realtime")


def test_large_frame_that_is_ambiguous_is_refused() -> None:
    context = make_session("/openai/v1/responses")
    frame = f'{{"type":"response.create","model":"gpt-4o-mini","model":"gpt-4o","input":"{PADDING}"}}'

    with pytest.raises(InvalidBody, match="twice"):
        run(lambda bodies: bodies.parse_frame(context, frame, None))


def test_large_body_is_never_read_by_the_server_itself() -> None:
    context = make_context()
    context = structs.replace(context, endpoint=replace(context.endpoint, parse=explode))
    body = json.dumps({"model": "gpt-5.4", "messages": [LINES]}).encode()

    parsed = run(lambda bodies: bodies.parse(context, body))

    assert (parsed.facts.model, parsed.facts.body_bytes, parsed.body is body) == ("gpt-5.4", len(body), True)


EMBEDDINGS = "/openai/v1/embeddings"
RESPONSES = "/openai/v1/responses"
TURN = {"role": "user", "content": "word\n" * 2000}
PART = {"type": "text", "text": "word " * 20_000, "cache_control": {"type": "ephemeral", "ttl": "1h"}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "iVBORw0K" * 100_000}}
STORED = {"id": "msg_1", "type": "message", "role": "user", "content": "word " * 20_000}


@pytest.mark.parametrize(
    ("target", "members"),
    [
        pytest.param(CHAT, {"messages": [TURN] * 100, "user": "ada", "n": 2}, id="chat"),
        pytest.param(CHAT, {"messages": [{"role": "user", "content": [IMAGE]}], "service_tier": "flex"}, id="image"),
        pytest.param(CHAT, {"messages": [TURN] * 10, "stream": True}, id="stream"),
        pytest.param(CHAT, {"stream": True, "messages": [TURN] * 10, "stream_options": None}, id="no options"),
        pytest.param(CHAT, {"messages": [TURN] * 10, "stream_options": {"x": 1}, "stream": True}, id="some options"),
        pytest.param(CHAT, {"messages": [TURN, {"content": [{"file": {"file_id": "file-1"}}]}] * 9}, id="file"),
        pytest.param(RESPONSES, {"input": "word\u00e9 " * 200_000, "tools": [{"type": "web_search"}]}, id="text"),
        pytest.param(RESPONSES, {"input": [STORED, {"id": "msg_2", "type": "item_reference"}]}, id="items"),
        pytest.param(RESPONSES, {"input": [{"content": TURN["content"], "id": "msg_3"}]}, id="item without a type"),
        pytest.param(RESPONSES, {"input": "x" * 9000, "client_metadata": {"text": "y" * 900}}, id="described text"),
        pytest.param(
            MESSAGES, {"messages": [TURN] * 100, "metadata": {"user_id": "u"}, "max_tokens": 9}, id="messages"
        ),
        pytest.param(MESSAGES, {"messages": [{"role": "user", "content": [PART]}], "system": [PART]}, id="cache"),
        pytest.param(EMBEDDINGS, {"input": "word " * 100_000, "user": "ada"}, id="embeddings"),
    ],
)
def test_large_body_of_few_long_texts_is_read_as_a_small_one(target: str, members: dict[str, object]) -> None:
    """The endpoint's parser, which gets the whole body here, is the reference."""
    context = make_context(target)
    for content in ({"model": "gpt-5.4", **members}, {**members, "model": "gpt-5.4"}):
        body = json.dumps(content, ensure_ascii=False).encode()
        expected = read_body(context.provider, context.endpoint, RequestView(body, "application/json"))

        async def act(bodies: BodyParser, body: bytes = body) -> tuple[ParsedRequest, list[int]]:
            return await bodies.parse(context, body), list_workers()

        parsed, workers = run(act)

        assert parsed.facts == expected.facts
        assert b"".join(parsed.pieces) == expected.body
        assert workers == []


@pytest.mark.parametrize(
    "members",
    [
        pytest.param('"messages":[{"content":"TEXT"}],"x":[{"model":"gpt-4o"}]', id="second model"),
        pytest.param('"model":"gpt-4o","messages":[{"content":"TEXT"}]', id="repeated model"),
        pytest.param('"messages":[{"content":"TEXT"}],"x":[{"file_id":1}]', id="reference that is no text"),
        pytest.param('"messages":[{"content":"TEXT"}', id="cut off"),
        pytest.param('"messages":[{"content":"TEXT"}],}', id="no JSON"),
    ],
)
def test_large_body_of_few_long_texts_is_refused_as_a_small_one(members: str) -> None:
    context = make_context()

    async def refusals(bodies: BodyParser) -> list[tuple[str, str | None]]:
        errors = []
        for text in ("short", "long " * 100_000):
            with pytest.raises(InvalidBody) as refused:
                await bodies.parse(context, f'{{"model":"gpt-4o-mini",{members.replace("TEXT", text)}}}'.encode())
            errors.append((refused.value.message.partition(" (byte")[0], refused.value.param))
        return errors

    small, large = run(refusals)

    assert large == small


def test_change_of_a_large_body_comes_back_from_the_worker() -> None:
    context = make_context()
    body = json.dumps({"model": "gpt-5.4", "stream": True, "messages": [LINES]}).encode()

    parsed = run(lambda bodies: bodies.parse(context, body))

    assert parsed.facts.usage_injected
    assert json.loads(b"".join(parsed.pieces)) == {**json.loads(body), "stream_options": {"include_usage": True}}


def test_compressed_body_that_decodes_to_a_large_one_is_read() -> None:
    context = make_context(**{"Content-Encoding": "gzip"})
    body = json.dumps({"model": "gpt-5.4", "messages": ["x" * 2 * MIB]}).encode()

    parsed = run(lambda bodies: bodies.parse(context, gzip.compress(body)))

    assert (parsed.facts.model, parsed.body == body) == ("gpt-5.4", True)


@pytest.mark.parametrize(
    ("target", "body"),
    [
        pytest.param(CHAT, '{"model":"a","model":"b","messages":["PADDING"]}', id="doubled model"),
        pytest.param(CHAT, '{"model":"a","messages":["PADDING",{"file_id":"f","x":1,"x":2}]}', id="doubled in a list"),
        pytest.param(CHAT, '{"model":"a","file_id":"f","x":1,"x":2,"m":["PADDING"]}', id="doubled at the top"),
        pytest.param(CHAT, '{"model":"a","messages":["PADDING"', id="cut off"),
        pytest.param(CHAT, '{"model":"a","tools":[{"model":"b"}],"messages":["PADDING"]}', id="another model"),
        pytest.param(BATCHES, '{"requests":[{"params":{"model":"a","model":"b","x":"PADDING"}}]}', id="batch"),
        pytest.param(BATCHES, '{"requests":[{"params":{"x":"PADDING"}}]}', id="batch without a model"),
    ],
)
def test_large_body_is_refused_with_the_same_error_as_a_small_one(target: str, body: str) -> None:
    context = make_context(target)

    async def refusals(bodies: BodyParser) -> list[RequestError]:
        errors = []
        for padding in ("", PADDING, PADDING * 20):
            with pytest.raises(InvalidBody) as refused:
                await bodies.parse(context, body.replace("PADDING", padding).encode())
            errors.append(refused.value)
        return errors

    small, *large = run(refusals)

    shown = [(error.code, error.param, error.status, error.message.partition(" (byte")[0]) for error in (small, *large)]
    assert shown[1:] == [shown[0], shown[0]]


def test_body_of_too_many_values_is_refused_and_the_worker_reads_on() -> None:
    context = make_context(MESSAGES)
    many = b'{"model":"a","tools":[' + b",".join([b"{}"] * (8 * MIB)) + b"]}"
    good = json.dumps({"model": "gpt-5.4", "messages": [LINES]}).encode()

    async def act(bodies: BodyParser) -> str | None:
        with pytest.raises(BodyTooLarge, match=r"too many values: reading it takes more than 400 MiB"):
            await bodies.parse(context, many)
        (before,) = list_workers()
        facts = (await bodies.parse(context, good)).facts
        assert list_workers() == [before]
        return facts.model

    assert run(act) == "gpt-5.4"


def test_worker_that_ends_makes_its_request_fail_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    context = make_context()
    body = json.dumps({"model": "gpt-5.4", "messages": [LINES]}).encode()

    async def act(bodies: BodyParser) -> str | None:
        await bodies.parse(context, body)
        (worker,) = list_workers()
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(Overloaded) as failed:
            await bodies.parse(context, body)
        assert failed.value.code == "body_worker_ended"
        return (await bodies.parse(context, body)).facts.model

    with caplog.at_level(logging.ERROR):
        assert run(act) == "gpt-5.4"

    (record,) = [record for record in caplog.records if record.message == "body worker ended"]
    assert (vars(record)["path"], vars(record)["bytes"]) == ("/v1/chat/completions", len(body))
    assert list_workers() == []


def test_worker_killed_while_it_has_a_body_makes_its_request_fail_and_no_other() -> None:
    context = make_context()
    body = json.dumps({"model": "gpt-5.4", "messages": [LINES]}).encode()

    async def act(bodies: BodyParser) -> str | None:
        await bodies.parse(context, body)
        (worker,) = list_workers()
        await stop(worker)
        reading = asyncio.ensure_future(bodies.parse(context, body))
        async with asyncio.timeout(harness.TIMEOUT_S):
            while not read_pipe_bytes(worker):  # noqa: ASYNC110  # another process
                await asyncio.sleep(0.01)
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(Overloaded):
            await reading
        return (await bodies.parse(context, body)).facts.model

    assert run(act) == "gpt-5.4"


async def stop(worker: int) -> None:
    """Stop a worker that waits for a body; a signal alone can come after the next body."""
    os.kill(worker, signal.SIGSTOP)
    async with asyncio.timeout(harness.TIMEOUT_S):
        while Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[0] != "T":  # noqa: ASYNC110, ASYNC240
            await asyncio.sleep(0.01)


def read_pipe_bytes(worker: int) -> int:
    """Return how many bytes wait in the standard input of a worker."""
    with Path(f"/proc/{worker}/fd/0").open("rb") as pipe:
        return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def test_body_that_takes_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "MAX_READ_S", 0.0)
    monkeypatch.setattr(workers, "MAX_READ_S_PER_MIB", 0.0)
    context = make_context()
    body = json.dumps({"model": "gpt-5.4", "messages": [LINES]}).encode()

    with pytest.raises(BodyTooLarge, match="takes more than 0 s"):
        run(lambda bodies: bodies.parse(context, body))


def test_worker_has_no_key_in_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", harness.OPENAI_KEY)
    context = make_context()
    body = json.dumps({"model": "gpt-5.4", "messages": [LINES]}).encode()

    async def act(bodies: BodyParser) -> bytes:
        await bodies.parse(context, body)
        (worker,) = list_workers()
        return read_environment(worker)

    environment = run(act)

    assert b"PYTHONPATH=" in environment
    assert harness.OPENAI_KEY.encode() not in environment


def test_caller_waits_for_its_own_bodies_and_others_do_not() -> None:
    ada, bob = ("p", "ada", None), ("p", "bob", None)

    async def act() -> tuple[bool, bool]:
        workers = BodyWorkers()
        order: list[str] = []

        async def read(caller: workers.CallerKey, name: str) -> None:
            async with workers.turn(caller):
                order.append(name)

        async with workers.turn(ada):
            second = asyncio.ensure_future(read(ada, "ada's second"))
            await asyncio.wait_for(read(bob, "bob's"), harness.TIMEOUT_S)
            waited = not second.done()
        await asyncio.wait_for(second, harness.TIMEOUT_S)
        workers.close()
        return waited, order == ["bob's", "ada's second"]

    assert asyncio.run(act()) == (True, True)
