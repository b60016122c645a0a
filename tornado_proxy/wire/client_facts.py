"""Reads from the headers and body members that clients send anyway who and what a request is made for.

CLIENTS is the whole knowledge about clients: a row for each header or body member that states a field.  It knows no
provider.  A new client is a new entry of the table.

    headers ── find_stated_headers: one pass ──> values ─┐
    body ── RequestFacts.described (parsed already) ─────┴──> attribute_request ──> Attribution

All values come from a stranger: they are bounded and printable, and select nothing but report rows.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import Any
from urllib.parse import unquote

import msgspec

from tornado_proxy.domain.attribution import (
    DEFAULT_END_USER_HEADER,
    NO_ATTRIBUTION,
    REPOSITORY_FIELDS,
    Attribution,
    AttributionRules,
    EndUserSource,
)
from tornado_proxy.wire.annotations import PREFIX as ANNOTATION_PREFIX
from tornado_proxy.wire.headers import MAX_CACHED_NAMES

#: Characters of a field.  Ids of sessions and turns have 36, addresses of repositories seldom more than 100.
MAX_FIELD_CHARACTERS = 256

#: Bytes of a `baggage` header that are read, and members of it: the limits that W3C Baggage section 3.3.2 names.
_MAX_BAGGAGE_CHARACTERS, _MAX_BAGGAGE_MEMBERS = 8192, 64


@dataclass(frozen=True, slots=True)
class Statement:
    """A place where a client states a field.

    Attributes:
        field: The field of Attribution.
        header: The name of a header, in lower case; "" if it is a body member.
        body: The name in RequestFacts.described, such as `metadata.user_id`.
        member: The path of a member in the JSON text of the value, `*` for the first member; "" for the value itself.
        pattern: A pattern of the whole value, whose group `group` is the field.
    """

    field: str
    header: str = ""
    body: str = ""
    member: tuple[str, ...] = ()
    pattern: re.Pattern[str] | None = None
    group: str = ""


@dataclass(frozen=True, slots=True)
class Client:
    """A client that states fields; of several statements of a field the first one that is present counts."""

    name: str
    source: str
    statements: tuple[Statement, ...]


#: The `metadata.user_id` of Claude Code before 2.1.
_CLAUDE_USER = re.compile(
    r"user_(?P<user>[0-9a-f]{64})_account_(?P<account>[0-9a-f-]*)_session_(?P<session>[0-9a-f-]{36})"
)

#: The members of Codex's turn metadata, a JSON object that is in a header and in the body.
_WORKSPACE = ("workspaces", "*")
_TURN_METADATA = (
    ("agent_session", ("session_id",)),
    ("agent", ("agent_name",)),
    ("parent_agent", ("parent_thread_id",)),
    ("turn", ("turn_id",)),
    ("request_kind", ("request_kind",)),
    ("repository", (*_WORKSPACE, "associated_remote_urls", "origin")),
    ("repository", (*_WORKSPACE, "associated_remote_urls", "*")),
    ("commit", (*_WORKSPACE, "latest_git_commit_hash")),
)


def _turn_metadata(header: str = "", body: str = "") -> tuple[Statement, ...]:
    return tuple(Statement(name, header, body, member) for name, member in _TURN_METADATA)


CLIENTS = (
    Client(
        "Claude Code",
        "requests of Claude Code 2.1.197; the agent headers are in the program, and are sent by sub-agents",
        (
            Statement("agent_session", header="x-claude-code-session-id"),
            Statement("agent", header="x-claude-code-agent-id"),
            Statement("parent_agent", header="x-claude-code-parent-agent-id"),
            Statement("agent_session", body="metadata.user_id", member=("session_id",)),
            Statement(
                "agent_session",
                body="metadata.user_id",
                pattern=_CLAUDE_USER,
                group="session",
            ),
        ),
    ),
    Client(
        "Codex",
        "requests of Codex 0.171.0, over HTTP and over a WebSocket",
        (
            # The body first: the headers of a WebSocket are those of its first turn.
            *_turn_metadata(body="client_metadata.x-codex-turn-metadata"),
            Statement("agent_session", body="client_metadata.session_id"),
            Statement("turn", body="client_metadata.turn_id"),
            *_turn_metadata(header="x-codex-turn-metadata"),
            Statement("parent_agent", header="x-codex-parent-thread-id"),
            Statement("agent_session", header="session-id"),
            Statement("agent", body="client_metadata.thread_id"),
            Statement("agent", header="thread-id"),
        ),
    ),
)

_STATEMENTS = tuple(statement for client in CLIENTS for statement in client.statements)
_USER_AGENT, _BAGGAGE, _TRACEPARENT = "user-agent", "baggage", "traceparent"
#: The header of W3C Trace Context section 3.2.2; neither id may be zero.  Later versions can have more parts.
_TRACE_CONTEXT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?=-|$)")
#: The form of `safety_identifier` where a request has no body (OpenAI guide "Safety best practices", Realtime API).
_SAFETY_IDENTIFIER = "openai-safety-identifier"
_HEADERS = frozenset(
    {
        _USER_AGENT,
        _BAGGAGE,
        _TRACEPARENT,
        _SAFETY_IDENTIFIER,
        *(statement.header for statement in _STATEMENTS if statement.header),
    }
)

#: A product and its version (RFC 9110 section 10.1.5): `claude-cli/2.1.197 (external, cli)`.
_PRODUCT = re.compile(r"([^\s/()]+)(?:/([^\s()]+))?")
#: Query and fragment of a URL.
_QUERY = re.compile(r"[?#]")
#: The addresses of repositories that git takes: a URL, and `user@host:path`.  The groups hold no credential.
_URL = re.compile(
    r"([a-z][a-z0-9+.-]*://)(?:[^/@\s?#]*@)?([A-Za-z0-9.-]+|\[[0-9a-fA-F:.]+\])(:\d+)?(/[A-Za-z0-9._~/%+-]*)?"
)
_SSH_ADDRESS = re.compile(r"(?:[^/@:\s?#]*@)?([A-Za-z0-9.-]+)(:[A-Za-z0-9._~/%+-]+)")
#: The form of the providers' SDKs: `OpenAI/Python 3.57.0`.
_SDK_PRODUCT = re.compile(r"([A-Za-z]+/[A-Za-z]+) (\d[^\s()]*)")


_get_name = itemgetter(0)


class StatedHeaders(msgspec.Struct, frozen=True):
    """The headers of a request that describe it, by name in lower case; of a repeated one the last value counts.

    `traceparent` is the span of the client that the request belongs to; None without one.
    """

    values: Mapping[str, str] = msgspec.field(default_factory=dict)
    annotations: Mapping[str, str] = msgspec.field(default_factory=dict)
    traceparent: str | None = None


NOTHING_STATED = StatedHeaders()


def find_stated_headers(
    headers: Collection[tuple[str, str]], end_user_header: str = DEFAULT_END_USER_HEADER
) -> StatedHeaders:
    """Return the headers that describe a request; `end_user_header` is in lower case."""
    names = tuple(map(_get_name, headers))
    find = _find_describing if len(names) <= MAX_CACHED_NAMES else _find_describing.__wrapped__
    places = find(names, end_user_header)
    if not places:
        return NOTHING_STATED
    stated = list(headers)
    values: dict[str, str] = {}
    annotations: dict[str, str] = {}
    for at, name in places:
        if name.startswith(ANNOTATION_PREFIX):
            annotations[name.removeprefix(ANNOTATION_PREFIX)] = stated[at][1]
        else:
            values[name] = stated[at][1]
    traceparent = values.pop(_TRACEPARENT, None)
    return StatedHeaders(values, annotations, None if traceparent is None else read_traceparent(traceparent))


@lru_cache(maxsize=128)  # bounded, because a client chooses the names; it sends the same ones with each request
def _find_describing(names: tuple[str, ...], end_user_header: str) -> tuple[tuple[int, str], ...]:
    """Return the places of the headers that describe a request, and their names in lower case."""
    lower = [name.lower() for name in names]
    return tuple((at, name) for at, name in enumerate(lower) if name == end_user_header or _describes(name))


def _describes(name: str) -> bool:
    return name in _HEADERS or (len(name) > len(ANNOTATION_PREFIX) and name.startswith(ANNOTATION_PREFIX))


def attribute_request(
    stated: StatedHeaders, described: Iterable[tuple[str, str]], rules: AttributionRules, caller: str | None = None
) -> Attribution:
    """Return who and what a request is made for.

    Args:
        stated: The headers that describe it.
        described: Members of its body, as in RequestFacts.
        rules: The facts that the project records.
        caller: The participant or user of the credential.
    """
    user_agent = stated.values.get(_USER_AGENT)
    client = None if user_agent is None else read_client(user_agent[:MAX_FIELD_CHARACTERS])
    body = dict(described)
    # Most requests are of a client without a row in the table.
    if not body and not stated.annotations and not rules.end_user and len(stated.values) <= (user_agent is not None):
        return NO_ATTRIBUTION if client is None else Attribution(client=client)
    found = _read_statements(stated.values, body)
    if not rules.repository:
        found = {name: value for name, value in found.items() if name not in REPOSITORY_FIELDS}
    end_user = _find_end_user(stated.values, body, rules, caller) if rules.end_user else {}
    return Attribution(client=client, **{**found, **_read_rules(stated, rules), **end_user})


def _find_end_user(
    headers: Mapping[str, str], body: Mapping[str, str], rules: AttributionRules, caller: str | None
) -> dict[str, str]:
    """Return the end user and its source: the first trusted one that names it."""
    texts = {
        EndUserSource.TOKEN: caller,
        EndUserSource.HEADER: headers.get(rules.end_user_header),
        EndUserSource.USER: body.get("user"),
        EndUserSource.SAFETY_IDENTIFIER: body.get("safety_identifier") or headers.get(_SAFETY_IDENTIFIER),
        EndUserSource.METADATA_USER_ID: read_user_id(body.get("metadata.user_id", "")),
    }
    for source in rules.end_user:
        end_user = clean_field(texts[source] or "")
        if end_user is not None:
            return {"end_user": end_user, "end_user_source": source.value}
    return {}


def read_user_id(text: str) -> str:
    """Return the user in `metadata.user_id`; that of Claude Code also has the session, and is no name by itself."""
    match = _CLAUDE_USER.fullmatch(text)
    if match is not None:
        return match["account"] or match["user"]
    document = _decode_object(text) if text.startswith("{") else None
    if not isinstance(document, dict):
        return text
    return _find_member(document, ("account_uuid",)) or _find_member(document, ("device_id",))


def _read_statements(headers: Mapping[str, str], body: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    documents: dict[str, Any] = {}
    for statement in _STATEMENTS:
        text = headers.get(statement.header) if statement.header else body.get(statement.body)
        if text is None or statement.field in found:
            continue
        if statement.member:
            if text not in documents:
                documents[text] = _decode_object(text)
            text = _find_member(documents[text], statement.member)
        elif statement.pattern is not None:
            match = statement.pattern.fullmatch(text)
            text = "" if match is None else match[statement.group]
        value = clean_field(cut_credentials(text) if statement.field == "repository" else text)
        if value is not None:
            found[statement.field] = value
    return found


def _read_rules(stated: StatedHeaders, rules: AttributionRules) -> dict[str, str]:
    """Return the fields that annotations and baggage state by the project's rules; an annotation wins."""
    found: dict[str, str] = {}
    baggage = read_baggage(stated.values.get(_BAGGAGE, "")) if rules.baggage else {}
    for values, names in ((baggage, rules.baggage), (stated.annotations, rules.annotations)):
        for name, stated_field in names.items():
            value = clean_field(values.get(name, ""))
            if value is not None:
                found[stated_field.value] = value
    return found


def clean_field(text: str) -> str | None:
    """Return a client's text as it is recorded: bounded, printable, None if nothing is left."""
    cut = text[:MAX_FIELD_CHARACTERS].strip()
    if not cut.isprintable():
        cut = "".join(character if character.isprintable() else "?" for character in cut)
    return cut or None


def read_traceparent(header: str) -> str | None:
    """Return the first four parts of a `traceparent` header, None if it is not valid."""
    match = _TRACE_CONTEXT.match(header.strip())
    return None if match is None else match[0]


@lru_cache(maxsize=1024)
def read_client(user_agent: str) -> str | None:
    """Return the name and version of the program: `claude-cli/2.1.197`, or of its SDK: `OpenAI/Python/3.57.0`.

    `user_agent` has at most MAX_FIELD_CHARACTERS, because it is kept.
    """
    sdk = _SDK_PRODUCT.match(user_agent)
    if sdk is not None:
        return clean_field(f"{sdk[1]}/{sdk[2]}")
    product = _PRODUCT.match(user_agent)
    return None if product is None else clean_field("/".join(part for part in product.groups() if part))


def read_baggage(header: str) -> dict[str, str]:
    """Return the members of a `baggage` header, without their properties.

    Source: W3C Baggage section 3.3.1: `name=value;property, name2=value2`, values percent-encoded.
    """
    members: dict[str, str] = {}
    for entry in header[:_MAX_BAGGAGE_CHARACTERS].split(",")[:_MAX_BAGGAGE_MEMBERS]:
        name, equals, value = entry.partition(";")[0].partition("=")
        if equals:
            members[name.strip()] = unquote(value.strip())
    return members


def cut_credentials(address: str) -> str:
    """Return the address of a repository without user, password, query and fragment.

    "" for an address in which a credential could be anywhere else.
    """
    plain = address if "@" in address else _QUERY.split(address, maxsplit=1)[0]
    match = _URL.fullmatch(plain) or _SSH_ADDRESS.fullmatch(plain)
    return "" if match is None else "".join(part for part in match.groups() if part)


def _decode_object(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def _find_member(document: Any, path: tuple[str, ...]) -> str:
    """Return the text at `path`, "" if there is none."""
    for name in path:
        if not isinstance(document, dict):
            return ""
        document = next(iter(document.values()), None) if name == "*" else document.get(name)
    return document if isinstance(document, str) else ""
