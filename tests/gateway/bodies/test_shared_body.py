"""A recording is in memory once while a worker measures it, cannot be changed by it, and is freed however that ends."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import wave
from pathlib import Path

import pytest

from tests import harness
from tests.gateway.bodies.test_parsing import list_workers, read_pipe_bytes, run, stop
from tests.gateway.fakes import Gateway, make_snapshot, request_head
from tornado_proxy.domain.errors import BadRequest, InvalidBody, Overloaded
from tornado_proxy.gateway.bodies.buffers import BodyBuffer
from tornado_proxy.gateway.bodies.parsing import BodyParser
from tornado_proxy.gateway.bodies.reading import read_body
from tornado_proxy.gateway.bodies.shared_body import SharedBody, open_shared_body
from tornado_proxy.gateway.context import RequestContext
from tornado_proxy.providers.contract import HttpEndpoint, RequestView

FORM = "multipart/form-data; boundary=b"


def make_context(size: int, **headers: str) -> RequestContext[HttpEndpoint]:
    gateway = Gateway(make_snapshot())
    stated = [("Content-Type", FORM), ("Content-Length", str(size)), *headers.items()]
    return gateway.admission.authenticate(
        gateway.snapshot, request_head("/openai/v1/audio/transcriptions", headers=stated)
    )


def make_form(audio: bytes, **fields: str) -> bytes:
    texts = "".join(
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields.items()
    )
    file = '--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    return f"{texts}{file}".encode() + audio + b"\r\n--b--\r\n"


def make_wav(seconds: int) -> bytes:
    data = io.BytesIO()
    with wave.open(data, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(os.urandom(32_000 * seconds))
    return data.getvalue()


BODY = make_form(make_wav(30), model="whisper-1", response_format="text")


def collect(bodies: BodyParser, context: RequestContext[HttpEndpoint], body: bytes) -> SharedBody:
    shared = bodies.open(context, body[:100_000])
    assert isinstance(shared, SharedBody)
    shared.write(body[100_000:])
    return shared


def count_shared_bodies() -> int:
    """Return how many descriptors and mappings of bodies this process has."""
    names = [path.readlink().name for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    return sum("request body" in text for text in (*names, *Path("/proc/self/maps").read_text().splitlines()))


def test_recording_is_read_as_one_in_a_copy_is_and_sent_as_it_is() -> None:
    context = make_context(len(BODY))

    async def act(bodies: BodyParser) -> bytes:
        parsed = await bodies.parse(context, collect(bodies, context, BODY))
        copied = read_body(context.provider, context.endpoint, RequestView(BODY, FORM))
        assert parsed.facts == copied.facts
        assert parsed.facts.inferred[0].amount == 30
        assert count_shared_bodies() == 2  # the mapping, and its descriptor
        return b"".join(parsed.pieces)

    assert run(act) == BODY
    assert count_shared_bodies() == 0


@pytest.mark.parametrize(
    ("body", "error"),
    [
        pytest.param(make_form(b"\x1a\x45\xdf\xa3" * 30_000, model="m", response_format="text"), BadRequest, id="webm"),
        pytest.param(BODY.replace(b"--b--", b"--b--x"), InvalidBody, id="text after the form"),
    ],
)
def test_recording_is_refused_as_one_in_a_copy_is_and_freed(body: bytes, error: type[Exception]) -> None:
    context = make_context(len(body))

    async def act(bodies: BodyParser) -> None:
        with pytest.raises(error) as refused:
            await bodies.parse(context, collect(bodies, context, body))
        with pytest.raises(error) as copied:
            read_body(context.provider, context.endpoint, RequestView(body, FORM))
        assert str(refused.value) == str(copied.value)

    run(act)
    assert count_shared_bodies() == 0


def test_memory_is_freed_when_the_worker_is_killed_while_it_has_it() -> None:
    context = make_context(len(BODY))

    async def act(bodies: BodyParser) -> None:
        await bodies.parse(context, collect(bodies, context, BODY))
        (worker,) = list_workers()
        await stop(worker)
        reading = asyncio.ensure_future(bodies.parse(context, collect(bodies, context, BODY)))
        async with asyncio.timeout(harness.TIMEOUT_S):
            while not read_pipe_bytes(worker):  # noqa: ASYNC110  # another process
                await asyncio.sleep(0.01)
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(Overloaded):
            await reading
        del reading
        assert (await bodies.parse(context, collect(bodies, context, BODY))).facts.model == "whisper-1"

    run(act)
    assert count_shared_bodies() == 0


def test_body_cannot_be_changed_or_cut_once_a_worker_has_it() -> None:
    shared = open_shared_body()
    assert shared is not None
    shared.write(b"bytes")
    shared.seal()
    view = shared.map()

    with pytest.raises(PermissionError):
        os.pwrite(shared.fd, b"other", 0)
    with pytest.raises(PermissionError):
        os.ftruncate(shared.fd, 0)
    assert bytes(view) == b"bytes"


def test_body_that_is_dropped_before_it_is_read_is_freed() -> None:
    async def act(bodies: BodyParser) -> None:
        collect(bodies, make_context(len(BODY)), BODY)

    run(act)
    assert count_shared_bodies() == 0


@pytest.mark.parametrize(
    "context",
    [
        pytest.param(make_context(1000), id="small"),
        pytest.param(make_context(len(BODY), **{"Content-Encoding": "gzip"}), id="compressed"),
    ],
)
def test_body_that_no_worker_measures_as_it_is_is_not_shared(context: RequestContext[HttpEndpoint]) -> None:
    assert isinstance(BodyParser().open(context, b"x"), BodyBuffer)


def test_system_without_shared_memory_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")

    assert isinstance(BodyParser().open(make_context(len(BODY)), b"x"), BodyBuffer)
