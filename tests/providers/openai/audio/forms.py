"""Multipart forms and recordings that the audio tests upload."""

from __future__ import annotations

import struct

FORM = "multipart/form-data; boundary=XX"


def form(audio: bytes = b"", **fields: str) -> bytes:
    """Return a multipart body with `fields`, and `audio` as its file if given."""
    parts = [
        f'--XX\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    if audio:
        parts.append(b'--XX\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + audio + b"\r\n")
    return b"".join(parts) + b"--XX--\r\n"


def wav(seconds: float, rate: int = 8000, *, claimed_bytes: int | None = None) -> bytes:
    """Return silence of 16 bits, mono; its header states `claimed_bytes` of data if given."""
    data = b"\x00\x00" * int(seconds * rate)
    size = len(data) if claimed_bytes is None else claimed_bytes
    return (
        b"RIFF"
        + struct.pack("<I", (36 + size) & 0xFFFFFFFF)
        + b"WAVEfmt "
        + struct.pack("<IHHIIHH", 16, 1, 1, rate, rate * 2, 2, 16)
        + b"data"
        + struct.pack("<I", size)
        + data
    )
