"""Which URLs keep their content from others: https, and http to this machine."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit


def is_secure_url(url: str) -> bool:
    """Return True if `url` is https, or http to a loopback address; it must have a host and no credentials."""
    # urlsplit() raises ValueError for an invalid IPv6 address, and its `port` for a port that is not a number.
    try:
        parts = urlsplit(url)
        if not parts.hostname or "@" in parts.netloc or parts.port == 0:
            return False
    except ValueError:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname))


def is_loopback_url(url: str) -> bool:
    """Return True if `url`, for which is_secure_url() is True, leads to this machine."""
    return is_loopback(urlsplit(url).hostname or "")


def is_loopback(host: str) -> bool:
    """Return True if `host` is a name or address of this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
