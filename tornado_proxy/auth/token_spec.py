"""What a participant token shall say, as its spec file does: the `ParticipantTokenSpec` of meshagent-api.

    version: v1
    kind: ParticipantToken
    identity: ada
    room: lab              # optional
    role: agent            # optional: user, agent or tool
    api: {llm: {models: ["openai/*"]}}

Other sections of `api` are for other services; they go into the token as they stand.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from tornado_proxy.domain.document import Document
from tornado_proxy.domain.document import Path as DocumentPath
from tornado_proxy.domain.errors import ConfigError

ROLES = ("user", "agent", "tool")

_MEMBERS = frozenset({"version", "kind", "identity", "room", "role", "api"})


@dataclass(frozen=True, slots=True)
class TokenSpec:
    """`api` is the scope of the `api` grant; its `llm` section is an object."""

    identity: str
    api: Mapping[str, object]
    room: str | None = None
    role: str | None = None

    def grants(self) -> list[dict[str, object]]:
        """The grants that a token of this spec carries."""
        named = {"room": self.room, "role": self.role, "api": self.api}
        return [{"name": name, "scope": scope} for name, scope in named.items() if scope is not None]


def read_spec(document: Document) -> TokenSpec:
    """The spec that a file holds.

    Raises:
        ConfigError: with every fault of it.
    """
    if not isinstance(document.content, dict):
        raise ConfigError([document.fault((), "must be a mapping with version, kind, identity and api")])
    content: dict[str, Any] = document.content
    found = [*_unknown(content), *_fixed(content), *_texts(content), *_api(content)]
    if found:
        raise ConfigError([document.fault(path, rule) for path, rule in found])
    # A section that is null is one that is not granted; it is left out, as meshagent-api leaves it out.
    api = {name: section for name, section in content["api"].items() if section is not None}
    return TokenSpec(content["identity"], api, content.get("room"), content.get("role"))


_Faults = list[tuple[DocumentPath, str]]


def _unknown(content: Mapping[str, Any]) -> _Faults:
    return [
        ((key,), f"is not known here; a spec has {', '.join(sorted(_MEMBERS))}") for key in content.keys() - _MEMBERS
    ]


def _fixed(content: Mapping[str, Any]) -> _Faults:
    wanted = {"version": "v1", "kind": "ParticipantToken"}
    return [((key,), f"must be {value}") for key, value in wanted.items() if content.get(key) != value]


def _texts(content: Mapping[str, Any]) -> _Faults:
    faults: _Faults = []
    identity, room, role = content.get("identity"), content.get("room"), content.get("role")
    if not isinstance(identity, str) or not identity.strip():
        faults.append((("identity",), "must be the participant's name"))
    if room is not None and (not isinstance(room, str) or not room.strip()):
        faults.append((("room",), "must be a room's name"))
    if role is not None and role not in ROLES:
        faults.append((("role",), f"must be one of {', '.join(ROLES)}"))
    return faults


def _api(content: Mapping[str, Any]) -> _Faults:
    api = content.get("api")
    if not isinstance(api, dict):
        return [(("api",), "must be a mapping with an llm section")]
    llm = api.get("llm")
    if not isinstance(llm, dict):
        return [(("api", "llm"), "must be a mapping; llm: {} grants every model of the project")]
    unknown: _Faults = [(("api", "llm", key), "is not known here; llm has models") for key in llm.keys() - {"models"}]
    return unknown + _models(llm.get("models")) + _fractions(api, ("api",))


def _fractions(value: object, path: DocumentPath) -> _Faults:
    """Numbers with a point, which no scope has and which JSON would make binary floats of."""
    if isinstance(value, Decimal):
        return [(path, "must not be a number with a point")]
    members: Iterable[tuple[str | int, object]] = ()
    if isinstance(value, dict):
        members = value.items()
    elif isinstance(value, list):
        members = enumerate(value)
    return [fault for name, one in members for fault in _fractions(one, (*path, name))]


def _models(models: object) -> _Faults:
    if models is None:
        return []
    place = ("api", "llm", "models")
    if not isinstance(models, list):
        return [(place, "must be a list of patterns such as openai/gpt-5*")]
    return [((*place, number), rule) for number, one in enumerate(models) if (rule := pattern_fault(one))]


def pattern_fault(pattern: object) -> str | None:
    """What is wrong with a model pattern, None where nothing is."""
    if not isinstance(pattern, str):
        return "must be a pattern such as openai/gpt-5*"
    if " " in pattern or ("/" not in pattern and "*" not in pattern):
        return f"{pattern!r} matches no model; patterns read provider/model, such as openai/gpt-5*"
    return None
