"""Multipart requests, as Tornado has parsed them."""

from __future__ import annotations

from tornado.httputil import HTTPServerRequest


def form_field(request: HTTPServerRequest, name: str, default: str = "") -> str:
    """The last value of a text field."""
    values = request.body_arguments.get(name)
    return values[-1].decode(errors="replace") if values else default


def form_file(request: HTTPServerRequest, name: str) -> bytes:
    """The content of an uploaded file, empty if there is none."""
    files = request.files.get(name)
    return files[0].body if files else b""


def count_files(request: HTTPServerRequest, *names: str) -> int:
    """How many files were uploaded under any of the names."""
    return sum(len(request.files.get(name, ())) for name in names)
