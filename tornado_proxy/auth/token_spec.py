"""The spec file of a participant token, in the format of meshagent-api's `ParticipantTokenSpec`.

    version: v1
    kind: ParticipantToken
    identity: ada
    room: lab              # optional
    role: agent            # optional: user, agent or tool
    api: {llm: {models: ["openai/*"]}}

Other sections of `api` are for other services and are copied into the token unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from tornado_proxy.domain.config.document import Document, list_children
from tornado_proxy.domain.config.document import Path as DocumentPath
from tornado_proxy.domain.errors import ConfigError

ROLES = ("user", "agent", "tool")

_MEMBERS = frozenset({"version", "kind", "identity", "room", "role", "api"})

#: (path, rule) of each fault.
_Faults = list[tuple[DocumentPath, str]]


@dataclass(frozen=True, slots=True)
class TokenSpec:
    """The content of a token.  `api` is the scope of its `api` grant, whose `llm` section is a mapping."""

    identity: str
    api: Mapping[str, object]
    room: str | None = None
    role: str | None = None

    def grants(self) -> list[dict[str, object]]:
        """Return the grants of a token with this spec."""
        scopes = {"room": self.room, "role": self.role, "api": self.api}
        return [{"name": name, "scope": scope} for name, scope in scopes.items() if scope is not None]


def read_spec(document: Document) -> TokenSpec:
    """Return the spec in `document`.

    Raises:
        ConfigError: The spec has faults; the error holds all of them.
    """
    if not isinstance(document.content, dict):
        raise ConfigError([document.fault((), "must be a mapping with version, kind, identity and api")])
    content: dict[str, Any] = document.content
    found = [
        *_find_unknown(content),
        *_check_constants(content),
        *_check_texts(content),
        *_check_api(content),
    ]
    if found:
        raise ConfigError([document.fault(path, rule) for path, rule in found])
    # As in meshagent-api: a section that is null is not granted and is left out of the token.
    api = {name: section for name, section in content["api"].items() if section is not None}
    return TokenSpec(content["identity"], api, content.get("room"), content.get("role"))


def find_pattern_fault(pattern: object) -> str | None:
    """Return the rule that a model pattern breaks, or None if it is valid."""
    if not isinstance(pattern, str):
        return "must be a pattern of the form provider/model"
    if " " in pattern or ("/" not in pattern and "*" not in pattern):
        return f"{pattern!r} matches no model; a pattern has the form provider/model, in which * matches any characters"
    return None


def _find_unknown(content: Mapping[str, Any]) -> _Faults:
    return [((key,), f"unknown key; known keys are {', '.join(sorted(_MEMBERS))}") for key in content.keys() - _MEMBERS]


def _check_constants(content: Mapping[str, Any]) -> _Faults:
    constants = {"version": "v1", "kind": "ParticipantToken"}
    return [((key,), f"must be {value}") for key, value in constants.items() if content.get(key) != value]


def _check_texts(content: Mapping[str, Any]) -> _Faults:
    faults: _Faults = []
    identity, room, role = content.get("identity"), content.get("room"), content.get("role")
    if not isinstance(identity, str) or not identity.strip():
        faults.append((("identity",), "must be the name of the participant"))
    if room is not None and (not isinstance(room, str) or not room.strip()):
        faults.append((("room",), "must be the name of a room"))
    if role is not None and role not in ROLES:
        faults.append((("role",), f"must be one of {', '.join(ROLES)}"))
    return faults


def _check_api(content: Mapping[str, Any]) -> _Faults:
    api = content.get("api")
    if not isinstance(api, dict):
        return [(("api",), "must be a mapping with an llm section")]
    llm = api.get("llm")
    if not isinstance(llm, dict):
        return [(("api", "llm"), "must be a mapping; llm: {} grants every model of the project")]
    unknown: _Faults = [
        (("api", "llm", key), "unknown key; the only known key is models") for key in llm.keys() - {"models"}
    ]
    return unknown + _check_models(llm.get("models")) + _find_fractions(api, ("api",))


def _find_fractions(value: object, path: DocumentPath) -> _Faults:
    """Return a fault for each number with a decimal point: no scope has one, and JSON makes a binary float of it."""
    if isinstance(value, Decimal):
        return [(path, "must not be a number with a decimal point")]
    return [fault for key, member in list_children(value) for fault in _find_fractions(member, (*path, key))]


def _check_models(models: object) -> _Faults:
    if models is None:
        return []
    path = ("api", "llm", "models")
    if not isinstance(models, list):
        return [(path, "must be a list of patterns of the form provider/model")]
    return [((*path, index), rule) for index, pattern in enumerate(models) if (rule := find_pattern_fault(pattern))]
