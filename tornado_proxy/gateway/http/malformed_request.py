"""The response to a request that is not valid HTTP, which no handler can write."""

from __future__ import annotations

from http.client import responses

from tornado_proxy.domain.errors import BadRequest, CallerError, HeadTooLarge, RequestError
from tornado_proxy.http_server.request_parser import Fault


def make_malformed_error(fault: Fault) -> CallerError:
    """Return the error of a request that no handler can receive."""
    if fault.head_too_large:
        return HeadTooLarge(f"{fault.text}; send fewer or shorter headers, or a shorter target")
    return BadRequest(f"the request is not valid HTTP: {_begin_in_lower_case(fault.text)}", code="malformed_request")


def _begin_in_lower_case(text: str) -> str:
    is_header_name = "-" in text.split(" ", 1)[0]
    return text if is_header_name else f"{text[:1].lower()}{text[1:]}"


def write_rejection(error: RequestError, headers: list[tuple[str, str]], body: bytes) -> bytes:
    """Return the complete response, after which the connection is closed."""
    all_headers = [*headers, ("Content-Length", str(len(body))), ("Connection", "close")]
    lines = "".join(f"{name}: {value}\r\n" for name, value in all_headers)
    return f"HTTP/1.1 {error.status} {responses[error.status]}\r\n{lines}\r\n".encode("latin-1") + body
