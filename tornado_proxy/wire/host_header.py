"""The Host header: the name by which a client addresses the server.

A page whose own name resolves to this machine (DNS rebinding) sends that name, so a port that trusts its network must
compare the name with those that it knows.
"""

from __future__ import annotations

import ipaddress
import re

#: The value of a Host header (RFC 9110 section 7.2): a name or an IPv4 address, or an IPv6 address in brackets, and
#: perhaps a port.
_HOST = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::\d{0,5})?")


def parse_host(value: str) -> str | None:
    """Return the name or address in a Host header, normalized; None if the value is malformed."""
    match = _HOST.fullmatch(value)
    return None if match is None else normalize_host_name(match["ipv6"] or match["name"])


def normalize_host_name(name: str) -> str:
    """Return a name in lower case without a final dot, or an address in its shortest form."""
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name.lower().removesuffix(".")


def is_loopback_name(name: str) -> bool:
    """Return True if a normalized name can only mean this machine: localhost, 127.0.0.0/8 or ::1."""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"
