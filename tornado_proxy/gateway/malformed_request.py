"""The response to a request that is not valid HTTP, which no handler can write."""

from __future__ import annotations

from tornado_proxy.domain.errors import BadRequest, RequestError


def make_malformed_error(fault: str) -> BadRequest:
    """Return the error; `fault` is the rule that the request breaks, without bytes of the client."""
    return BadRequest(f"the request is not valid HTTP: {fault[:1].lower()}{fault[1:]}", code="malformed_request")


def write_rejection(error: RequestError, headers: list[tuple[str, str]], body: bytes) -> bytes:
    """Return the complete response, after which the connection is closed."""
    all_headers = [*headers, ("Content-Length", str(len(body))), ("Connection", "close")]
    lines = "".join(f"{name}: {value}\r\n" for name, value in all_headers)
    return f"HTTP/1.1 {error.status} Bad Request\r\n{lines}\r\n".encode("latin-1") + body
