"""The head of a provider's answer."""

from __future__ import annotations

from dataclasses import dataclass

#: What a folded line begins with (RFC 9112 section 5.2).
_BLANKS = (" ", "\t")


@dataclass(frozen=True, slots=True)
class UpstreamResponseHead:
    """Status line and headers of an answer; header names as the provider wrote them, values decoded as Latin-1."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]

    def get(self, name: str) -> str | None:
        """The first value of the header `name` (lower case), None where there is none."""
        for key, value in self.headers:
            if len(key) == len(name) and key.lower() == name:
                return value
        return None


def parse_response_head(lines: list[bytes]) -> UpstreamResponseHead | None:
    """Status line and header lines as a head, None where the status line cannot be read.

    Ours because Tornado's parser refuses `HTTP/2 200`, which has no reason phrase.  A folded line joins the one before.
    """
    if not lines:
        return None
    status_line, *others = b"".join(lines).decode("latin-1").split("\n")
    parts = status_line.strip().split(" ", 2)
    if len(parts) < 2 or not parts[1].isdigit():
        return None
    fields = [line.partition(":") for line in _unfolded(others)]
    headers = tuple((name.strip(), value.strip()) for name, colon, value in fields if colon)
    return UpstreamResponseHead(int(parts[1]), parts[2] if len(parts) == 3 else "", headers)


def _unfolded(lines: list[str]) -> list[str]:
    if not any(line[:1] in _BLANKS for line in lines if line):
        return lines
    unfolded: list[str] = []
    for line in lines:
        if line[:1] in _BLANKS and unfolded:
            unfolded[-1] = f"{unfolded[-1].rstrip()} {line.strip()}"
        else:
            unfolded.append(line)
    return unfolded
