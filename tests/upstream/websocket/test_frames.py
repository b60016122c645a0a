"""Frames of RFC 6455, in every cut of their bytes; the library `websockets` is the other side."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from tornado_proxy.upstream.websocket.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    INVALID_PAYLOAD,
    MESSAGE_TOO_BIG,
    PING,
    PONG,
    PROTOCOL_ERROR,
    TEXT,
    FrameError,
    FrameReader,
    FrameWriter,
)

Messages = list[tuple[int, str | bytes]]

MAX_BYTES = 100_000


def write(opcode: Opcode, payload: bytes, *, masked: bool, fin: bool = True) -> bytes:
    return Frame(opcode, payload, fin).serialize(mask=masked)


def read(parts: Iterable[bytes], *, masked: bool, messages: Messages | None = None) -> tuple[Messages, int]:
    """Append the messages in `parts` to `messages`; return them, and the bytes of messages that are incomplete."""
    reader = FrameReader(masked=masked, max_message_bytes=MAX_BYTES)
    messages = [] if messages is None else messages
    for part in parts:
        reader.feed(part)
        while (message := reader.take()) is not None:
            if message[0] != CONTINUATION:
                messages.append(message)
            else:
                assert message[1] == b""
    return messages, reader.held_bytes


def cut(data: bytes, positions: Iterable[int]) -> list[bytes]:
    ends = sorted({0, len(data), *(position % (len(data) + 1) for position in positions)})
    return [data[start:end] for start, end in pairwise(ends)]


def make_sample(*, masked: bool) -> bytes:
    return b"".join(
        write(opcode, payload, masked=masked, fin=fin)
        for opcode, payload, fin in [
            (Opcode.TEXT, b"", True),
            (Opcode.TEXT, "ünï".encode(), True),
            (Opcode.BINARY, b"\x00\xff", True),
            (Opcode.PING, b"p" * 125, True),
            (Opcode.TEXT, b"a" * 125, True),
            (Opcode.TEXT, b"b" * 126, True),
            (Opcode.BINARY, b"c" * 65_535, True),
            (Opcode.BINARY, b"d" * 65_536, True),
            # In parts, the second of which begins inside a character, and with a ping between them.
            (Opcode.TEXT, b"in \xc3", False),
            (Opcode.PING, b"between", True),
            (Opcode.CONT, b"\xbc p", False),
            (Opcode.CONT, b"", False),
            (Opcode.CONT, b"arts", True),
            (Opcode.PONG, b"", True),
            (Opcode.CLOSE, b"\x03\xe8bye", True),
        ]
    )


EXPECTED: Messages = [
    (TEXT, ""),
    (TEXT, "ünï"),
    (BINARY, b"\x00\xff"),
    (PING, b"p" * 125),
    (TEXT, "a" * 125),
    (TEXT, "b" * 126),
    (BINARY, b"c" * 65_535),
    (BINARY, b"d" * 65_536),
    (PING, b"between"),
    (TEXT, "in ü parts"),
    (PONG, b""),
    (CLOSE, b"\x03\xe8bye"),
]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("cut_bytes", [1 << 30, 1, 1000])
def test_messages_are_the_same_in_every_cut(cut_bytes: int, masked: bool) -> None:
    data = make_sample(masked=masked)

    messages, held_bytes = read((data[at : at + cut_bytes] for at in range(0, len(data), cut_bytes)), masked=masked)

    assert messages == EXPECTED
    assert held_bytes == 0


@given(st.lists(st.integers(min_value=0), max_size=8), st.booleans())
def test_random_cuts_do_not_change_messages(positions: list[int], masked: bool) -> None:
    assert read(cut(make_sample(masked=masked), positions), masked=masked) == (EXPECTED, 0)


@pytest.mark.parametrize(
    ("sent", "held_bytes"),
    [
        pytest.param(b"\x81", 1, id="half of a head"),
        pytest.param(b"\x81\x7e\x01", 3, id="half of a length"),
        pytest.param(b"\x81\x05abc", 5, id="half of a payload"),
        pytest.param(b"\x01\x03abc", 3, id="the first part of a message"),
        pytest.param(b"\x01\x03abc\x80\x05de", 7, id="the first part and half of the second"),
        pytest.param(b"\x81\x03abc\x89\x00", 0, id="whole messages"),
    ],
)
def test_bytes_of_incomplete_messages_are_counted(sent: bytes, held_bytes: int) -> None:
    assert read([sent], masked=False)[1] == held_bytes


@pytest.mark.parametrize("cut_bytes", [1 << 30, 1])
@pytest.mark.parametrize(
    ("sent", "code", "reason"),
    [
        pytest.param(b"\x91\x00", PROTOCOL_ERROR, "a frame of an extension that was not agreed to", id="reserved bit"),
        pytest.param(b"\xc1\x00", PROTOCOL_ERROR, "a frame of an extension that was not agreed to", id="compressed"),
        pytest.param(b"\x83\x00", PROTOCOL_ERROR, "a frame with an unknown opcode", id="opcode 3"),
        pytest.param(b"\x8b\x00", PROTOCOL_ERROR, "a frame with an unknown opcode", id="opcode 11"),
        pytest.param(b"\x09\x00", PROTOCOL_ERROR, "a control frame that is long or in parts", id="ping in parts"),
        pytest.param(
            b"\x89\x7e\x00\x7e" + b"p" * 126, PROTOCOL_ERROR, "a control frame that is long or in parts", id="long ping"
        ),
        pytest.param(b"\x80\x01a", PROTOCOL_ERROR, "frames of a message out of order", id="no first part"),
        pytest.param(b"\x01\x01a\x81\x01b", PROTOCOL_ERROR, "frames of a message out of order", id="two first parts"),
        pytest.param(b"\x88\x01a", PROTOCOL_ERROR, "a close frame with half of a code", id="half a close code"),
        pytest.param(b"\x88\x03\x03\xe8\xff", INVALID_PAYLOAD, "text that is not valid UTF-8", id="close reason"),
        pytest.param(b"\x81\x80\0\0\0\0", PROTOCOL_ERROR, "masked server frame", id="masked"),
        pytest.param(b"\x81\x02\xc3\x28", INVALID_PAYLOAD, "text that is not valid UTF-8", id="no UTF-8"),
        pytest.param(b"\x81\x03\xed\xa0\x80", INVALID_PAYLOAD, "text that is not valid UTF-8", id="surrogate"),
        pytest.param(b"\x01\x01\xc3\x80\x01a", INVALID_PAYLOAD, "text that is not valid UTF-8", id="no UTF-8 in parts"),
        pytest.param(b"\x82\x7f\0\0\0\0\0\x01\x86\xa1", MESSAGE_TOO_BIG, "message too big", id="too long"),
        pytest.param(b"\x82\x7f" + b"\xff" * 8, MESSAGE_TOO_BIG, "message too big", id="length of 64 bits"),
        pytest.param(
            b"\x02\x7e\xff\xff" + b"a" * 65_535 + b"\x80\x7e\xff\xff", MESSAGE_TOO_BIG, "message too big", id="in parts"
        ),
    ],
)
def test_faulty_frame_is_an_error_as_soon_as_its_head_has_arrived(
    sent: bytes, code: int, reason: str, cut_bytes: int
) -> None:
    data = write(Opcode.TEXT, b"before", masked=False) + sent
    messages: Messages = []

    with pytest.raises(FrameError) as raised:
        read((data[at : at + cut_bytes] for at in range(0, len(data), cut_bytes)), masked=False, messages=messages)

    assert (raised.value.code, raised.value.reason) == (code, reason)
    assert messages == [(TEXT, "before")]


def test_message_of_the_largest_size_is_read() -> None:
    data = write(Opcode.BINARY, b"a" * MAX_BYTES, masked=True)

    assert read([data], masked=True) == ([(BINARY, b"a" * MAX_BYTES)], 0)


def test_client_frame_without_a_mask_is_an_error() -> None:
    with pytest.raises(FrameError, match="client frames must be masked"):
        read([b"\x81\x01a"], masked=True)


def parse(data: bytes, *, masked: bool) -> Frame:
    """Parse a frame with `websockets`."""
    at = 0

    def read_exact(size: int) -> Generator[None, None, bytes]:
        nonlocal at
        at += size
        return data[at - size : at]
        yield

    parsing = Frame.parse(read_exact, mask=masked)
    try:
        next(parsing)
    except StopIteration as done:
        assert at == len(data)
        frame: Frame = done.value
        return frame
    raise AssertionError("the frame is incomplete")


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
def test_written_frame_is_read_by_another_library(size: int, masked: bool) -> None:
    payload = bytes(range(256)) * (size // 256 + 1)
    frame = parse(FrameWriter(masked=masked).frame(BINARY, payload[:size]), masked=masked)

    assert (frame.opcode, frame.data, frame.fin) == (Opcode.BINARY, payload[:size], True)


def test_each_frame_of_a_client_has_a_mask_of_its_own() -> None:
    writer = FrameWriter(masked=True)
    masks = {writer.frame(TEXT, b"abc")[2:6] for _ in range(300)}

    assert len(masks) == 300
