"""Rules of a base URL: the part of a provider's URLs to which the paths of endpoints are appended."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit


def normalize_base_url(url: str) -> str:
    """Return a base URL in the form that paths are appended to."""
    # OPENAI_BASE_URL and similar variables end with /v1; a provider's paths start with it.
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


def find_base_url_fault(url: str, endpoint_paths: Iterable[str]) -> str | None:
    """Return the rule that a base URL breaks, None if it breaks none.

    The rule does not repeat the URL, because it can hold a password.

    Args:
        url: The URL.
        endpoint_paths: Paths that follow a base URL, longest first; copied with it, each request would name its path
            twice.
    """
    # urlsplit() raises ValueError for an invalid IPv6 address, and its `port` for a port that is not a number.
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not url.isascii() or not url.isprintable() or " " in url:
        return "must be an http or https URL such as https://api.example.com"
    if "?" in url or "#" in url or "@" in parts.netloc:
        return "must have no query, fragment or credentials"
    endpoint = next((known for known in endpoint_paths if parts.path.rstrip("/").endswith(known)), None)
    return None if endpoint is None else f"must end before the path of an endpoint; remove {endpoint}"
