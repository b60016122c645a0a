"""Status line and headers of a provider's response, parsed from libcurl's header lines."""

from __future__ import annotations

from dataclasses import dataclass

#: The characters that begin a folded header line (RFC 9112 section 5.2).
_BLANKS = (" ", "\t")


@dataclass(frozen=True, slots=True)
class UpstreamResponseHead:
    """Status line and headers of a response; header names as the provider wrote them, values decoded as Latin-1."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]

    def get(self, name: str) -> str | None:
        """Return the first value of the header `name` (lower case), or None if it is missing."""
        for key, value in self.headers:
            # The length first: it is cheaper than lower(), and rules out most headers.
            if len(key) == len(name) and key.lower() == name:
                return value
        return None


def parse_response_head(lines: list[bytes]) -> UpstreamResponseHead | None:
    """Return the head in `lines` (status line first), or None if the status line is invalid.

    Not Tornado's parse_response_start_line, which rejects `HTTP/2 200`: HTTP/2 has no reason phrase.  A folded header
    line is joined to the line before it.
    """
    if not lines:
        return None
    # Split at line feeds only: str.splitlines() also splits at U+0085, a valid byte of a Latin-1 header value.
    status_line, *header_lines = b"".join(lines).decode("latin-1").split("\n")
    parts = status_line.strip().split(" ", 2)
    if len(parts) < 2 or not parts[1].isdigit():
        return None
    fields = [line.partition(":") for line in _unfold(header_lines)]
    headers = tuple((name.strip(), value.strip()) for name, colon, value in fields if colon)
    return UpstreamResponseHead(int(parts[1]), parts[2] if len(parts) == 3 else "", headers)


def _unfold(lines: list[str]) -> list[str]:
    if not any(line[:1] in _BLANKS for line in lines if line):
        return lines
    unfolded: list[str] = []
    for line in lines:
        if line[:1] in _BLANKS and unfolded:
            unfolded[-1] = f"{unfolded[-1].rstrip()} {line.strip()}"
        else:
            unfolded.append(line)
    return unfolded
