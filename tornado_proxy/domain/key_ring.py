"""Encrypts the secrets of the state, so that the ledger's database alone reveals none of them.

AES-256-GCM with a random nonce (NIST SP 800-38D).  The text `v1|project|provider|field` is authenticated with each
secret, so that one which was moved to another project, provider or field cannot be opened.

    stored text    v1.<name of the key>.<base64 of nonce and ciphertext>
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tornado_proxy.domain.identity import Secret

_VERSION = "v1"
_KEY_BYTES = 32
_NONCE_BYTES = 12
_NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")


#: A project id and a provider, whose settings belong together.
Subject = tuple[str, str]


class CannotOpen(Exception):
    """A stored secret cannot be opened: its key is not in the ring, it was moved, or it is damaged."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a secret belongs; it can be opened there alone."""

    project_id: str
    provider: str
    field: str

    def encode(self) -> bytes:
        """Return the text that is authenticated with a secret."""
        return f"{_VERSION}|{self.project_id}|{self.provider}|{self.field}".encode()


def place_key(subject: Subject) -> Place:
    """Return the place of the provider key of some settings."""
    return Place(*subject, "api_key")


def place_url(subject: Subject) -> Place:
    """Return the place of the base URL of some settings."""
    return Place(*subject, "base_url")


@dataclass(frozen=True, slots=True)
class RingKey:
    """A key of a ring: its name, and the base64 of its bytes."""

    name: str
    secret: Secret


@dataclass(frozen=True, slots=True)
class KeyRing:
    """Keys, at least one.  The first one encrypts, all of them decrypt."""

    keys: tuple[RingKey, ...]

    def seal(self, secret: Secret, place: Place) -> str:
        """Return the text to store for a secret."""
        key, nonce = self.keys[0], os.urandom(_NONCE_BYTES)
        sealed = nonce + _make_cipher(key).encrypt(nonce, secret.reveal().encode(), place.encode())
        return f"{_VERSION}.{key.name}.{base64.b64encode(sealed).decode()}"

    def open(self, stored: str, place: Place) -> Secret:
        """Return the secret of a stored text.

        Raises:
            CannotOpen: the key is not in the ring, the text belongs to another place, or it is damaged.
        """
        version, _, rest = stored.partition(".")
        name, _, encoded = rest.partition(".")
        key = next((key for key in self.keys if key.name == name), None)
        if version != _VERSION or key is None:
            raise CannotOpen(f"the key ring has no key {name[:32]!r}")
        try:
            sealed = base64.b64decode(encoded, validate=True)
            return Secret(
                _make_cipher(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], place.encode()).decode()
            )
        except (InvalidTag, ValueError):
            raise CannotOpen(
                f"key {name} of the key ring does not open it: other bytes, or the text was moved or changed"
            ) from None

    def is_sealed_with_first(self, stored: str) -> bool:
        """Return True if the first key has encrypted a stored text."""
        return stored.startswith(f"{_VERSION}.{self.keys[0].name}.")


def parse_key_ring(text: str) -> KeyRing:
    """Return the ring of a text such as `k2:<base64 of 32 bytes>,k1:<base64 of 32 bytes>`.

    Raises:
        ValueError: with the rule that the text breaks, without any part of a key.
    """
    keys: dict[str, RingKey] = {}
    for number, entry in enumerate(text.split(","), 1):
        name, separator, encoded = entry.partition(":")
        if not separator or not _NAME.fullmatch(name):
            raise ValueError(
                f"key {number} of the ring must have the form NAME:BASE64, the name 1 to 32 letters, digits, _ and -"
            )
        if _count_bytes(encoded) != _KEY_BYTES:
            raise ValueError(f"key {number} of the ring must be the standard base64 of {_KEY_BYTES} bytes")
        if name in keys:
            raise ValueError(f"key {number} of the ring has the name of another one; give it a name of its own")
        keys[name] = RingKey(name, Secret(encoded))
    return KeyRing(tuple(keys.values()))


def _count_bytes(encoded: str) -> int:
    """Return how many bytes a base64 text has, 0 if it is none."""
    try:
        return len(base64.b64decode(encoded, validate=True))
    except (binascii.Error, ValueError):
        return 0


def _make_cipher(key: RingKey) -> AESGCM:
    return AESGCM(base64.b64decode(key.secret.reveal()))
