"""The JSON document that asks for a participant token, checked against the rights of its sender.  Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec

from tornado_proxy.api.accounts.callers import ProjectMember
from tornado_proxy.auth.token_spec import TokenSpec, read_spec
from tornado_proxy.domain.config.document import Document
from tornado_proxy.domain.errors import ConfigError, InvalidBody, NotAllowed
from tornado_proxy.domain.identity import MAX_NAME_CHARACTERS

#: The models of a token whose request names none: all of the project.
_ALL_MODELS: Mapping[str, object] = {"llm": {}}

#: The grants that a request can list, and its members of the same meaning.
_GRANT_MEMBERS = {"room": "room_name", "role": "role", "api": "api"}


class _Grant(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    scope: Any


class TokenRequest(msgspec.Struct, forbid_unknown_fields=True):
    """A request for a token: `name` or `email`, and either `grants` or the other three."""

    name: str | None = None
    email: str | None = None
    room_name: Any = None
    role: Any = None
    api: Any = None
    grants: list[_Grant] | None = None


class ConnectRequest(msgspec.Struct, forbid_unknown_fields=True):
    """A request to connect to a room; `email` names another participant than the sender."""

    email: str | None = None


def make_token_spec(asked: TokenRequest, member: ProjectMember) -> TokenSpec:
    """Return the content of the token.

    Raises:
        InvalidBody: a member has a wrong value.
        NotAllowed: the sender is no admin and asks for another's name, or for sections of other services.
    """
    name = _choose_name(asked.name, asked.email, member)
    members = _read_members(asked)
    room, api = members["room"], members["api"]
    if room is not None:
        _check_name(room, "room_name")
    spec = _read_spec(name, room, members["role"], _ALL_MODELS if api is None else _exact(api))
    if not member.admin and spec.api.keys() - {"llm"}:
        # Other services trust the same signing key.
        raise NotAllowed(
            "only an admin of the project may grant sections of api other than llm; omit them", param="api"
        )
    return spec


def make_room_spec(asked: ConnectRequest, room: str, member: ProjectMember) -> TokenSpec:
    """Return the content of a token for one room.

    Raises:
        InvalidBody, NotAllowed: As make_token_spec().
    """
    _check_name(room, "room")
    return TokenSpec(_choose_name(None, asked.email, member), _ALL_MODELS, room, "user")


def _choose_name(name: str | None, email: str | None, member: ProjectMember) -> str:
    if name is not None and email is not None and name != email:
        raise InvalidBody("name and email differ, and a token has one participant; send one of them", param="email")
    chosen = name if name is not None else email
    if chosen is None:
        return member.name
    _check_name(chosen, "email" if name is None else "name")
    if not member.admin and not member.is_own_name(chosen):
        raise NotAllowed("only an admin of the project may name another participant; omit name and email", param="name")
    return chosen


def _check_name(text: object, param: str) -> None:
    valid = isinstance(text, str) and text == text.strip() and 0 < len(text) <= MAX_NAME_CHARACTERS
    if not valid or not str(text).isprintable():
        raise InvalidBody(
            f"{param} must be 1 to {MAX_NAME_CHARACTERS} printable characters without spaces at its ends", param=param
        )


def _read_members(asked: TokenRequest) -> dict[str, Any]:
    """Return room, role and api, from `grants` or from the members of these names."""
    given = {grant: getattr(asked, member) for grant, member in _GRANT_MEMBERS.items()}
    if asked.grants is None:
        return given
    names = [grant.name for grant in asked.grants]
    if any(value is not None for value in given.values()):
        raise InvalidBody("send grants, or room_name, role and api, but not both", param="grants")
    if len(set(names)) < len(names) or set(names) - given.keys():
        raise InvalidBody(f"grants must be of {', '.join(given)}, each at most once", param="grants")
    return {**given, **{grant.name: grant.scope for grant in asked.grants}}


def _read_spec(name: str, room: str | None, role: object, api: object) -> TokenSpec:
    content = {"version": "v1", "kind": "ParticipantToken", "identity": name, "room": room, "role": role, "api": api}
    try:
        return read_spec(Document("the body", content))
    except ConfigError as error:
        faults = "; ".join(f"{fault.key} {fault.rule}" for fault in error.faults[:5])
        raise InvalidBody(f"the token would be invalid: {faults}", param=error.faults[0].key) from None


def _exact(value: Any) -> Any:
    """Return a JSON value with decimals in place of binary floats, as read_spec() expects it."""
    if isinstance(value, float):
        return Decimal(repr(value))
    if isinstance(value, dict):
        return {name: _exact(member) for name, member in value.items()}
    return [_exact(item) for item in value] if isinstance(value, list) else value
