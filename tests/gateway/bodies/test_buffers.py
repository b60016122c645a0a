"""The memory of a body is used again, and never while its bytes are in use."""

from __future__ import annotations

import resource

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


def test_kept_memory_is_bounded() -> None:
    buffers = BodyBuffers()
    count = MAX_KEPT_BYTES // MAX_BODY_BYTES
    open_buffers = [buffers.open(b"x" * MAX_BODY_BYTES) for _ in range(count + 3)]
    large, small = buffers.open(b"x" * (MAX_BODY_BYTES + 1)), buffers.open(b"x" * (MIN_BODY_BYTES - 1))
    for buffer in (large, small, *open_buffers):
        buffer.release()

    assert buffers.kept_bytes == count * MAX_BODY_BYTES <= MAX_KEPT_BYTES
