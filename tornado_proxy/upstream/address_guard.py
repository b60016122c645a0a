"""Decides which addresses a base URL that was set over REST may lead to: public ones.

Such a URL is chosen by a project, not by the operator, and must not reach the operator's own network, nor the metadata
service of its cloud (CVE-2024-6587, CVE-2025-66405 in other gateways).  The address is checked when a socket is opened,
after the name lookup: a name can have another address then than it had when the URL was set (DNS rebinding).
"""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

REFUSAL = (
    "the base URL of this project leads to an address that is not public; set another one, or ask the operator for "
    "allow_private"
)

#: Networks that no public host has, beside those that `is_global` knows.  Sources: IANA special-purpose address
#: registries; 192.88.99.0/24 is 6to4 (RFC 7526); 168.63.129.16 is the platform service of Azure.
_REFUSED_V4 = tuple(
    IPv4Network(network)
    for network in ("0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32", "240.0.0.0/4")
)

#: Teredo and 6to4 carry an IPv4 address and are obsolete (RFC 4380, RFC 7526); fec0::/10 is site-local (RFC 3879);
#: 64:ff9b:1::/48 is NAT64 of a local network (RFC 8215); ::/96 is IPv4-compatible (RFC 4291).
_REFUSED_V6 = tuple(
    IPv6Network(network) for network in ("::/96", "64:ff9b:1::/48", "2001::/32", "2002::/16", "fec0::/10", "5f00::/16")
)

#: The prefix of NAT64 (RFC 6052): its last 32 bits are the IPv4 address that is reached.
_NAT64 = IPv6Network("64:ff9b::/96")


class AddressRefused(OSError):
    """A name leads to no public address."""


def is_public(address: str) -> bool:
    """Return True if `address`, in the form of a socket's address, belongs to a host of the public internet."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(parsed, IPv6Address):
        embedded = parsed.ipv4_mapped or (IPv4Address(int(parsed) & 0xFFFFFFFF) if parsed in _NAT64 else None)
        if embedded is None:
            return _is_global(parsed) and not any(parsed in network for network in _REFUSED_V6)
        parsed = embedded
    return _is_global(parsed) and not any(parsed in network for network in _REFUSED_V4)


def find_literal_address(host: str) -> str | None:
    """Return the address that a host of a URL is, None if it is a name.

    IPv4 addresses have notations that only the C library knows: `127.1`, `0x7f000001`, `2130706433`, `0177.0.0.1`.
    """
    host = host.rstrip(".")
    try:
        return str(ip_address(host))
    except ValueError:
        pass
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except (OSError, ValueError):
        return None


def _is_global(address: IPv4Address | IPv6Address) -> bool:
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)
