"""The memory of a body is used again, and never while its bytes are in use."""

from __future__ import annotations

import random
import resource

import pytest

from tornado_proxy.gateway.bodies.buffers import MAX_BODY_BYTES, MAX_KEPT_BYTES, MIN_BODY_BYTES, BodyBuffers

CHUNK = b"a" * (256 * 1024)
BODY_BYTES = 4 * len(CHUNK)


def collect(buffers: BodyBuffers, *chunks: bytes, release: bool = True) -> bytes:
    buffer = buffers.open(chunks[0])
    for chunk in chunks[1:]:
        buffer.write(chunk)
    body = buffer.finish()
    if release:
        buffer.release()
    return body


def count_page_faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def test_second_body_of_a_megabyte_takes_no_new_pages() -> None:
    buffers = BodyBuffers()
    collect(buffers, *[CHUNK] * 4)
    before = count_page_faults()

    body = collect(buffers, *[CHUNK] * 4)

    assert len(body) == BODY_BYTES
    assert count_page_faults() - before < 64  # of 256 pages


def test_bytes_in_use_do_not_change_when_another_body_arrives() -> None:
    buffers = BodyBuffers()
    first = collect(buffers, b"1" * BODY_BYTES)

    second = collect(buffers, b"2" * BODY_BYTES)

    assert first == b"1" * BODY_BYTES
    assert second == b"2" * BODY_BYTES


def test_shorter_body_has_no_bytes_of_the_one_before() -> None:
    buffers = BodyBuffers()
    collect(buffers, b"1" * BODY_BYTES)

    assert collect(buffers, b"2" * 1000, b"3") == b"2" * 1000 + b"3"


def read_into(buffers: BodyBuffers, first: bytes, rest: bytes, *, max_bytes: int = 300_000) -> bytes:
    """Return a body whose rest is read into its memory, at most `max_bytes` bytes at a time, as from a socket."""
    buffer = buffers.open(first)
    start = 0
    while start < len(rest):
        memory = buffer.get_buffer(len(rest) - start)
        size = min(len(memory), max_bytes)
        memory[:size] = rest[start : start + size]
        memory.release()
        buffer.advance(size)
        start += size
    body = buffer.finish()
    buffer.release()
    return body


@pytest.mark.parametrize("most", [1000, 65_536, 10_000_000])
def test_body_that_is_read_into_memory_is_whole(most: int) -> None:
    buffers, sent = BodyBuffers(), random.Random(5).randbytes(1_300_000)

    assert read_into(buffers, sent[:16_000], sent[16_000:], max_bytes=most) == sent
    assert (
        read_into(buffers, sent[:7], sent[7:900_000], max_bytes=most) == sent[:900_000]
    )  # shorter, in the same memory
    assert read_into(buffers, sent[:7], sent[7:], max_bytes=most) == sent


def test_second_body_that_is_read_into_memory_takes_no_new_pages() -> None:
    buffers = BodyBuffers()
    read_into(buffers, CHUNK, CHUNK * 3)
    faults = []
    for _ in range(5):  # other work of the process takes pages now and then
        before = count_page_faults()
        assert len(read_into(buffers, CHUNK, CHUNK * 3)) == BODY_BYTES
        faults.append(count_page_faults() - before)

    assert min(faults) < 64  # of 256 pages


def test_bytes_in_use_do_not_change_when_another_body_is_read_into_memory() -> None:
    buffers = BodyBuffers()
    first = read_into(buffers, b"1", b"1" * BODY_BYTES)

    second = read_into(buffers, b"2", b"2" * BODY_BYTES)

    assert first == b"1" * (BODY_BYTES + 1)
    assert second == b"2" * (BODY_BYTES + 1)


@pytest.mark.parametrize(
    ("arrived_bytes", "memory_bytes"), [(131_072, 32_768), (400_000, 100_000), (8_000_000, 262_144)]
)
def test_body_gets_little_memory_before_its_bytes_arrive(arrived_bytes: int, memory_bytes: int) -> None:
    buffer = BodyBuffers().open(b"x" * arrived_bytes)

    assert len(buffer.get_buffer(50_000_000)) == memory_bytes


def test_kept_memory_is_bounded() -> None:
    buffers = BodyBuffers()
    count = MAX_KEPT_BYTES // MAX_BODY_BYTES
    open_buffers = [buffers.open(b"x" * MAX_BODY_BYTES) for _ in range(count + 3)]
    large, small = buffers.open(b"x" * (MAX_BODY_BYTES + 1)), buffers.open(b"x" * (MIN_BODY_BYTES - 1))
    for buffer in (large, small, *open_buffers):
        buffer.release()

    assert buffers.kept_bytes == count * MAX_BODY_BYTES <= MAX_KEPT_BYTES
