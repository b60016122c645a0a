"""Read the fields and files of a multipart request that Tornado has parsed."""

from __future__ import annotations

from tornado.httputil import HTTPServerRequest


def read_form_field(request: HTTPServerRequest, name: str, default: str = "") -> str:
    """Return the last value of the text field `name`, or `default`."""
    # Tornado keeps all values of a repeated field; providers use the last one.
    values = request.body_arguments.get(name)
    return values[-1].decode(errors="replace") if values else default


def read_form_file(request: HTTPServerRequest, name: str) -> bytes:
    """Return the content of the first file uploaded as `name`, or empty bytes."""
    files = request.files.get(name)
    return files[0].body if files else b""


def count_files(request: HTTPServerRequest, *names: str) -> int:
    """Return how many files were uploaded under any of `names`."""
    return sum(len(request.files.get(name, ())) for name in names)
