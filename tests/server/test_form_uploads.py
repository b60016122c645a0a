"""A form goes to the provider while its files arrive; whatever ends it early leaves a record, and no cost."""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import json
import signal
import socket
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import openai
import prometheus_client.utils
import pytest

from tests.harness import (
    KEY_ID,
    OTHER_KEY_ID,
    OTHER_PROJECT,
    PROJECT,
    TIMEOUT_S,
    ProxyProcess,
    mint,
    mint_for_other_project,
    wait_until,
)
from tests.server import raw_provider
from tests.server.raw_provider import connect, request_id_of, wait_for_metric
from tests.server.test_admin_api import send
from tests.server.test_audio_and_images import make_wav

MIB = 1024 * 1024
FILE = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4096 * 4
USAGE = {
    "input_tokens": 120,
    "input_tokens_details": {"text_tokens": 20, "image_tokens": 100},
    "output_tokens": 200,
    "total_tokens": 320,
}
RESPONSE = json.dumps({"created": 1, "data": [{"b64_json": "AA=="}], "usage": USAGE}).encode()
#: Of participants who have sent nothing yet.
_numbers = itertools.count()

#: 20 x 5 + 100 x 8 + 200 x 30 USD per million (conf/prices/openai.yaml), without surcharge.
SUBTOTAL = Decimal("0.0069")


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[raw_provider.ScriptedProvider]:
    key = {"id": KEY_ID, "secret": {"env": "TEST_SIGNING_SECRET"}}
    # One image is within the budget, nine are not.
    budget = {"period": "total", "usd": "5", "per": "participant", "strict": True}
    project = {
        "id": PROJECT,
        "name": "first",
        "api_keys": [key],
        "attribution": {"end_user": ["user"]},
        "budgets": [budget],
    }
    other_key = {"id": OTHER_KEY_ID, "secret": {"env": "TEST_OTHER_SIGNING_SECRET"}}
    projects = [project, {"id": OTHER_PROJECT, "name": "other", "api_keys": [other_key]}]
    with raw_provider.scripted_provider(tmp_path_factory.mktemp("proxy"), projects=projects) as scripted:
        yield scripted


def field(name: str, value: str) -> bytes:
    return f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()


def file(content: bytes = FILE, name: str = "image") -> bytes:
    head = f'--b\r\nContent-Disposition: form-data; name="{name}"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    return head.encode() + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--b--\r\n"


FORM = form(field("model", "gpt-image-2"), field("prompt", "blue"), file())


@contextlib.asynccontextmanager
async def sending(
    proxy: ProxyProcess, length: int, *, user: str = "", headers: str = "", path: str = "images/edits", token: str = ""
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Send the head of a request whose body has `length` bytes."""
    reader, writer = await connect(proxy)
    token = token or mint(name=user or f"user{next(_numbers)}")
    head = f"POST /v1/{path} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n{headers}"
    head += f"Authorization: Bearer {token}\r\nContent-Type: multipart/form-data; boundary=b\r\n\r\n"
    writer.write(head.encode())
    try:
        yield reader, writer
    finally:
        writer.close()


async def read_response(reader: asyncio.StreamReader) -> bytes:
    """Return a response with a Content-Length; nothing if the connection breaks."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
            return head + await reader.readexactly(int(length.partition(b":")[2]))
    except (ConnectionError, asyncio.IncompleteReadError):
        return b""


def respond(status: str = "200 OK", body: bytes = RESPONSE) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Received:
    """The requests that a provider gets, as far as it gets them.  Its responses are `answer`."""

    def __init__(self, *, early: bytes = b"", response: bytes = RESPONSE) -> None:
        self.heads: list[bytes] = []
        self.body = bytearray()
        self.changed = asyncio.Condition()
        self.ended = asyncio.Event()
        self._early = early
        self._response = response

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        length = int(
            next(x for x in head.lower().split(b"\r\n") if x.startswith(b"content-length:")).partition(b":")[2]
        )
        writer.write(self._early)
        try:
            while len(self.body) < length:
                data = await reader.read(MIB)
                if not data:
                    return
                self.body += data
                async with self.changed:
                    self.changed.notify_all()
            if not self._early:
                writer.write(respond(body=self._response))
            await writer.drain()
        finally:
            self.ended.set()

    async def wait_for(self, size: int) -> None:
        """Wait until the provider has `size` bytes of the body."""
        async with asyncio.timeout(TIMEOUT_S), self.changed:
            await self.changed.wait_for(lambda: len(self.body) >= size)


async def send_in_halves(
    proxy: ProxyProcess, received: Received, body: bytes, *, waits: bool = True, **head: str
) -> tuple[bytes, dict[str, Any]]:
    """Send a form whose second half follows when the provider has the first; return the response and the record."""
    half = len(body) // 2
    async with sending(proxy, len(body), **head) as (reader, writer):
        writer.write(body[:half])
        if waits:
            await received.wait_for(half - 500)  # the fields after a file are withheld
        writer.write(body[half:])
        response = await read_response(reader)
    return response, await asyncio.to_thread(proxy.read_record, request_id_of(response))


def error_of(response: bytes) -> tuple[int, str]:
    """Return the status and the message of an error response."""

    return int(response.split(b" ", 2)[1]), json.loads(response.partition(b"\r\n\r\n")[2])["error"]["message"]


def format_metric(value: int) -> str:
    """Return a value as /metrics has it."""
    return prometheus_client.utils.floatToGoString(value)


def read_record_of(proxy: ProxyProcess, user: str) -> dict[str, Any]:
    """Return the only record of a participant."""
    found: list[dict[str, Any]] = []

    def is_there() -> bool:
        found[:] = [record for record in proxy.read_records() if record["participant"] == user]
        return bool(found)

    wait_until(is_there, f"the record of {user}")
    return found[0]


def describe(record: dict[str, Any]) -> tuple[int | None, str, str, Decimal]:
    return record["status"], record["outcome"], record["basis"], Decimal(record["total"])


def test_file_reaches_the_provider_while_it_arrives_and_the_bytes_are_the_same(
    provider: raw_provider.ScriptedProvider,
) -> None:
    received = Received()

    response, record = provider.run(received.serve, lambda proxy: send_in_halves(proxy, received, FORM))

    assert response.endswith(RESPONSE)
    assert bytes(received.body) == FORM
    assert f"content-length: {len(FORM)}".encode() in received.heads[0].lower()
    assert (record["status"], record["outcome"], record["basis"]) == (200, "completed", "reported")
    assert Decimal(record["subtotal"]) == SUBTOTAL


def test_fields_between_and_after_the_files_count(provider: raw_provider.ScriptedProvider) -> None:
    received = Received()
    body = form(field("model", "gpt-image-2"), file(), field("n", "2"), file(name="mask"), field("user", "end-user-1"))

    response, record = provider.run(received.serve, lambda proxy: send_in_halves(proxy, received, body))

    assert response.endswith(RESPONSE)
    assert bytes(received.body) == body
    assert record["end_user"] == "end-user-1"
    assert Decimal(record["subtotal"]) == SUBTOTAL


@pytest.mark.parametrize(
    ("last", "message"),
    [
        pytest.param(field("model", "gpt-image-1"), "form field 'model' was sent 2 times; send it once", id="model"),
        pytest.param(field("svg[model]", "no-such-model"), "model 'no-such-model' has no price", id="price"),
        pytest.param(b"--b\r\n\r\nx\r\n", "must have one Content-Disposition header", id="headers"),
        pytest.param(b"--b--\r\n\r\n" + b"x" * 9000, "text after its closing boundary", id="text after the form"),
        pytest.param(field("x", "y" * 4000) * 80, "more than 256 KiB beside its files", id="too many fields"),
    ],
)
def test_field_after_the_file_that_may_not_be_sent_ends_the_request_without_cost(
    provider: raw_provider.ScriptedProvider, last: bytes, message: str
) -> None:
    received = Received()
    body = form(field("model", "gpt-image-2"), file(), last)

    async def act(proxy: ProxyProcess) -> tuple[bytes, dict[str, Any]]:
        result = await send_in_halves(proxy, received, body)
        await asyncio.wait_for(received.ended.wait(), TIMEOUT_S)
        await wait_for_metric(proxy, "llm_proxy_arriving_bytes 0.0")
        return result

    response, record = provider.run(received.serve, act)

    status, text = error_of(response)
    assert status == 400
    assert message in text
    assert not received.body.endswith(b"--b--\r\n")
    assert len(received.body) <= body.index(last)
    assert describe(record) == (400, "proxy_closed", "free", 0)


def test_token_in_a_field_that_is_refused_is_not_in_the_record(provider: raw_provider.ScriptedProvider) -> None:
    received, token = Received(), mint(name="careless")
    body = form(field("model", "gpt-image-2"), file(), field("svg[model]", token))

    async def act(proxy: ProxyProcess) -> tuple[bytes, dict[str, Any], Path]:
        return *await send_in_halves(proxy, received, body, token=token), proxy.ledger

    response, record, ledger = provider.run(received.serve, act)

    assert error_of(response)[0] == 400
    with sqlite3.connect(ledger) as database:
        (faults,) = database.execute(
            "SELECT faults FROM records WHERE request_id = ?", (record["request_id"],)
        ).fetchone()
    database.close()
    assert json.loads(faults) == ["the request was not sent whole: model_not_priced"]


def test_client_that_leaves_while_its_file_arrives_ends_the_providers_request(
    provider: raw_provider.ScriptedProvider,
) -> None:
    received = Received()

    async def act(proxy: ProxyProcess) -> dict[str, Any]:
        async with sending(proxy, len(FORM), user="leaver") as (_, writer):
            writer.write(FORM[:-100])
            await received.wait_for(len(FORM) - 200)
        await asyncio.wait_for(received.ended.wait(), TIMEOUT_S)
        await wait_for_metric(proxy, "llm_proxy_arriving_bytes 0.0")
        await wait_for_metric(proxy, "llm_proxy_requests_in_flight 0.0")
        return await asyncio.to_thread(read_record_of, proxy, "leaver")

    record = provider.run(received.serve, act)

    assert describe(record) == (499, "client_closed", "free", 0)


@pytest.mark.parametrize("delay_s", [0.0, 0.001, 0.005, 0.02])
def test_client_that_leaves_after_its_request_pays_only_if_the_provider_has_all_of_it(
    provider: raw_provider.ScriptedProvider, delay_s: float
) -> None:
    received = Received()
    user = f"impatient{delay_s}"

    async def act(proxy: ProxyProcess) -> dict[str, Any]:
        async with sending(proxy, len(FORM), user=user) as (_, writer):
            writer.write(FORM)
            await writer.drain()
            await received.wait_for(len(FORM) - 200)
            await asyncio.sleep(delay_s)
        await asyncio.wait_for(received.ended.wait(), TIMEOUT_S)
        return await asyncio.to_thread(read_record_of, proxy, user)

    record = provider.run(received.serve, act)

    expected = ("reported", SUBTOTAL) if bytes(received.body) == FORM else ("free", 0)
    assert (record["basis"], Decimal(record["subtotal"])) == expected
    assert record["outcome"] in ("client_closed", "completed")


def test_provider_that_rejects_early_is_relayed_when_the_client_has_sent_its_request(
    provider: raw_provider.ScriptedProvider,
) -> None:
    received = Received(early=respond("413 Content Too Large", b'{"error":{"message":"too large"}}'))
    body = form(field("model", "gpt-image-2"), file(FILE * 3))

    response, record = provider.run(received.serve, lambda proxy: send_in_halves(proxy, received, body, waits=False))

    assert error_of(response) == (413, "too large")
    assert describe(record) == (413, "completed", "free", 0)


def test_provider_that_breaks_off_before_it_has_the_request_costs_nothing(
    provider: raw_provider.ScriptedProvider,
) -> None:
    async def serve(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.readexactly(MIB)

    body = form(field("model", "gpt-image-2"), file(FILE * 3))
    received = Received()
    response, record = provider.run(serve, lambda proxy: send_in_halves(proxy, received, body, waits=False))

    assert error_of(response)[0] == 502
    assert describe(record) == (502, "upstream_error", "free", 0)


def test_client_is_not_read_while_the_provider_is_slower(provider: raw_provider.ScriptedProvider) -> None:
    received, opened = Received(), asyncio.Event()
    body = form(field("model", "gpt-image-2"), file(FILE * 4))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raw_provider.stop_reading(reader)
        await opened.wait()
        raw_provider.continue_reading(reader)
        await received.serve(reader, writer)

    async def act(proxy: ProxyProcess) -> bytes:
        async with sending(proxy, len(body)) as (reader, writer):
            # Small, so that the sockets hold little of the 16 MiB.
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
            writer.write(body)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(writer.drain(), 0.5)
            assert writer.transport.get_write_buffer_size() > 2 * MIB
            opened.set()
            return await read_response(reader)

    assert provider.run(serve, act).endswith(RESPONSE)
    assert bytes(received.body) == body


def test_number_of_images_after_the_file_is_reserved_and_a_refusal_frees_all(
    provider: raw_provider.ScriptedProvider,
) -> None:
    many = form(field("model", "gpt-image-2"), file(), field("n", "9"))

    async def act(proxy: ProxyProcess) -> list[tuple[tuple[int, str], dict[str, Any]]]:
        refused = []
        for _ in range(3):  # more than the budget would hold of one image each
            response, record = await send_in_halves(proxy, Received(), many, waits=False, user="capped")
            refused.append((error_of(response), record))
        return refused

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Received().serve(reader, writer)

    for (status, message), record in provider.run(serve, act):
        assert (status, describe(record)) == (402, (402, "proxy_closed", "free", 0))
        assert "budget" in message

    response, _ = provider.run(serve, lambda proxy: send_in_halves(proxy, Received(), FORM, waits=False, user="capped"))
    assert response.endswith(RESPONSE)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(form(file(), field("model", "gpt-image-2")), id="file first"),
        pytest.param(form(field("model", "gpt-image-2"), file(FILE[: 200 * 1024])), id="small"),
    ],
)
def test_form_whose_first_bytes_do_not_tell_enough_is_sent_when_it_has_arrived(
    provider: raw_provider.ScriptedProvider, body: bytes
) -> None:
    received = Received()

    async def act(proxy: ProxyProcess) -> bytes:
        async with sending(proxy, len(body)) as (reader, writer):
            writer.write(body[:-1])
            await wait_for_metric(proxy, f"llm_proxy_arriving_bytes {format_metric(len(body) - 1)}")
            assert not received.heads
            writer.write(body[-1:])
            return await read_response(reader)

    assert provider.run(received.serve, act).endswith(RESPONSE)
    assert bytes(received.body) == body


def test_model_that_is_not_granted_is_refused_before_anything_is_sent(provider: raw_provider.ScriptedProvider) -> None:
    received = Received()
    body = form(field("model", "no-such-model"), file())

    async def act(proxy: ProxyProcess) -> bytes:
        async with sending(proxy, len(body), headers="Expect: 100-continue\r\n") as (reader, writer):
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 (Continue)\r\n\r\n"
            writer.write(body)
            return await read_response(reader)

    assert error_of(provider.run(received.serve, act))[0] == 400
    assert not received.heads


def test_python_sdk_sends_fields_first_so_that_its_file_is_sent_while_it_arrives(
    provider: raw_provider.ScriptedProvider,
) -> None:
    received = Received()
    arrived = threading.Event()

    class SlowFile(io.BytesIO):
        """Has its second half when the provider has bytes of the first."""

        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > len(FILE) // 2:
                assert arrived.wait(TIMEOUT_S)
            return super().read(size)

    async def act(proxy: ProxyProcess) -> Any:
        def edit() -> Any:
            with openai.OpenAI(base_url=proxy.base_url + "/v1", api_key=mint(), max_retries=0) as client:
                return client.images.edit(image=("a.png", SlowFile(FILE)), prompt="blue", model="gpt-image-2")

        sent = asyncio.create_task(asyncio.to_thread(edit))
        await received.wait_for(MIB)
        arrived.set()
        return await sent

    image = provider.run(received.serve, act)

    assert image.usage.output_tokens == 200
    assert FILE in bytes(received.body)


WEBM = b"\x1a\x45\xdf\xa3" * MIB


def make_recording(audio: bytes, **fields: str) -> bytes:
    return form(*[field(name, value) for name, value in fields.items()], file(audio, "file"))


def test_recording_is_sent_while_it_arrives_and_its_length_is_billed(provider: raw_provider.ScriptedProvider) -> None:
    received = Received(response=b"hello")
    body = make_recording(make_wav(120), model="whisper-1", response_format="text")
    head = {"path": "audio/transcriptions", "token": mint_for_other_project()}

    response, record = provider.run(received.serve, lambda proxy: send_in_halves(proxy, received, body, **head))

    assert response.endswith(b"hello")
    assert bytes(received.body) == body
    # 120 s at 0.0001 USD (conf/prices/openai.yaml: 0.006 for a minute).
    assert (record["basis"], Decimal(record["subtotal"])) == ("inferred", Decimal("0.012"))


def test_recording_of_unknown_length_is_refused_before_its_end_is_sent(
    provider: raw_provider.ScriptedProvider,
) -> None:
    received = Received()
    body = make_recording(WEBM, model="whisper-1", response_format="text")
    head = {"path": "audio/transcriptions", "token": mint_for_other_project()}

    response, record = provider.run(received.serve, lambda proxy: send_in_halves(proxy, received, body, **head))

    status, message = error_of(response)
    assert (status, message[:45]) == (400, "the length of the uploaded audio cannot be re")
    assert not received.body.endswith(b"--b--\r\n")
    assert describe(record) == (400, "proxy_closed", "free", 0)


def test_recording_of_a_caller_with_a_budget_is_sent_when_its_length_is_known(
    provider: raw_provider.ScriptedProvider,
) -> None:
    received = Received(response=b"hello")
    body = make_recording(make_wav(30), model="whisper-1", response_format="text")

    async def act(proxy: ProxyProcess) -> bytes:
        async with sending(proxy, len(body), path="audio/transcriptions") as (reader, writer):
            writer.write(body[:-1])
            await wait_for_metric(proxy, f"llm_proxy_arriving_bytes {format_metric(len(body) - 1)}")
            assert not received.heads
            writer.write(body[-1:])
            return await read_response(reader)

    assert provider.run(received.serve, act).endswith(b"hello")


def test_upload_that_stalls_is_stopped_or_cut_by_the_shutdown_leaves_a_record(tmp_path: Path) -> None:
    """The client sees 408, 403 and a broken connection; a provider that has a part of the form sees the end."""
    received = [Received(), Received(), Received()]
    waiting = iter(received)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await next(waiting).serve(reader, writer)

    async def act(proxy: ProxyProcess) -> list[Any]:
        responses: list[Any] = []
        for number, user in enumerate(("stalled", "stopped", "cut")):
            async with sending(proxy, len(FORM), user=user) as (reader, writer):
                writer.write(FORM[:MIB])
                await received[number].wait_for(MIB - 10)
                if user == "stopped":
                    stop = {"participant": user, "reason": "runaway"}
                    await asyncio.to_thread(send, proxy, "POST", "/v1/stops", stop)
                if user == "cut":
                    await asyncio.to_thread(proxy.signal, signal.SIGTERM)
                    await asyncio.to_thread(proxy.wait_for_log, "draining")
                    await asyncio.to_thread(proxy.signal, signal.SIGTERM)
                responses.append(await read_response(reader))
            await asyncio.wait_for(received[number].ended.wait(), TIMEOUT_S)
        await asyncio.to_thread(proxy.wait_exit)
        return [*responses, *[describe(read_record_of(proxy, user)) for user in ("stalled", "stopped", "cut")]]

    constants: dict[str, float | list[float]] = {
        "tornado_proxy.http_server.server._SWEEP_INTERVAL_S": 0.1,
        "tornado_proxy.http_server.request_body._BODY_TIMEOUT_S": 1.0,
    }
    stalled, stopped, cut, *records = raw_provider.run_against(serve, tmp_path, act, constants=constants)

    assert error_of(stalled)[0] == 408
    assert error_of(stopped)[0] == 403
    assert cut == b""
    assert records == [
        (408, "client_closed", "free", 0),
        (403, "proxy_closed", "free", 0),
        (None, "shutdown", "free", 0),
    ]
