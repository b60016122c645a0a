"""Who and what a request is made for, as its client states it: agent session, agent, turn, repository, end user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec


class Attribution(msgspec.Struct, frozen=True):
    """The fields of a request that name its purpose.  None is a field that the client does not state.

    Attributes:
        agent_session: The session of a coding agent or another agent, which lasts over many requests.
        agent: The agent within the session; None for the only one, or for the main one of Claude Code.
        parent_agent: The agent that has started this one.
        turn: One prompt of the session and everything that the agent did for it.
        request_kind: The client's own name of the kind of request, such as `turn` or `compaction`.
        client: The name and version of the program, from its User-Agent.
        repository: The address of the repository that the agent works on, without credentials.
        commit: The id of the commit that the agent works on.
        end_user: The person or customer that the caller makes the request for.
        end_user_source: The source of `end_user`, one of EndUserSource.
    """

    agent_session: str | None = None
    agent: str | None = None
    parent_agent: str | None = None
    turn: str | None = None
    request_kind: str | None = None
    client: str | None = None
    repository: str | None = None
    commit: str | None = None
    end_user: str | None = None
    end_user_source: str | None = None


#: The client states nothing.
NO_ATTRIBUTION = Attribution()

#: The names of the fields, which are columns of the ledger.
ATTRIBUTION_FIELDS = Attribution.__struct_fields__

#: The fields that are recorded only if the project's `attribution.repository` is set.
REPOSITORY_FIELDS = frozenset({"repository", "commit"})


class StatedField(StrEnum):
    """A field that a project can read from annotations and baggage members."""

    AGENT_SESSION = "agent_session"
    AGENT = "agent"
    TURN = "turn"


class EndUserSource(StrEnum):
    """A place that can name the end user; a project lists those that it trusts."""

    #: The participant or user of the credential.
    TOKEN = "token"  # noqa: S105  # a name
    #: A header that the project names.
    HEADER = "header"
    USER = "user"
    SAFETY_IDENTIFIER = "safety_identifier"
    METADATA_USER_ID = "metadata.user_id"


#: The header that meshagent-api sends: the name of the user for whom an agent acts.
DEFAULT_END_USER_HEADER = "meshagent-on-behalf-of"


@dataclass(frozen=True, slots=True)
class AttributionRules:
    """The facts that a project records of its requests.

    Attributes:
        repository: True to record repository and commit.
        annotations: The fields that annotations state, by the name of the annotation, in lower case.
        baggage: The fields that members of the W3C header `baggage` state, by the name of the member.
        end_user: The sources of the end user that are trusted; the first one that names it counts.
        end_user_header: The header of EndUserSource.HEADER, in lower case.
        required: Annotations that each charged request must have, with the values that are allowed; an empty set
            allows any.
    """

    repository: bool = False
    annotations: Mapping[str, StatedField] = field(default_factory=dict)
    baggage: Mapping[str, StatedField] = field(default_factory=dict)
    end_user: tuple[EndUserSource, ...] = ()
    end_user_header: str = DEFAULT_END_USER_HEADER
    required: Mapping[str, frozenset[str]] = field(default_factory=dict)
