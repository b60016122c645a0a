"""Containers of code_interpreter and shell: what a response is charged for the ones that it ran code in.

    the response created it         a use with terms, and its minimum
    the request continues others    a use with terms: its container may be one of theirs, or a new one
    the request names it            a use without terms: only the request that created it knew them

The ledger knows the uses of earlier responses.  It replaces the minimum by the time that this use adds to the life of
the container (domain/container.py).  The record is never `reported` then: it is a lower bound, estimated by
CONTAINER_METHOD, and names the container.

Source: OpenAI pricing page, "Built-in tools"; guide "Code interpreter": an automatic container is the active one of the
conversation, or a new one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal

from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.domain.terms import NO_TERMS, Terms
from tornado_proxy.domain.usage import ContainerUse, Meter, Quantity
from tornado_proxy.providers.openai.responses.declared_tools import flatten_tools, tool_kind
from tornado_proxy.providers.shared.json_values import as_object, as_objects, as_text

#: The estimate method of a container's time.
CONTAINER_METHOD = "container_minimum"

#: Seconds of a container's life that are certain.  The price card has the minimum that is charged.
_CERTAIN_S = Decimal(1)

#: The member in which a tool that runs code names its container.
_TOOL_MEMBERS = {"code_interpreter": "container", "shell": "environment"}

#: The environment of a shell that runs on the client's machine, which costs nothing.
_LOCAL_ENVIRONMENT = "local"

#: Prefixes of ids that can bring an existing container with them: responses, conversations, output items, containers.
_CONTINUED = ("resp_", "conv_", "ci_", "sh_", "cntr_")


def new_container_terms(kind: str, tool: Mapping[str, object]) -> Terms | None:
    """Return the terms of the container that a tool of `kind` can create; None if it creates none."""
    container = tool.get(_TOOL_MEMBERS.get(kind, ""))
    # Text is the id of an existing container, which was charged to the request that created it.
    if not isinstance(container, dict) or container.get("type") == _LOCAL_ENVIRONMENT:
        return None
    memory_limit = as_text(container.get("memory_limit"))
    return NO_TERMS if memory_limit is None else Terms(memory_limit=memory_limit)


def referenced_containers(tools: Iterable[Mapping[str, object]]) -> tuple[str, ...]:
    """Return the ids of existing containers that a request's `tools` name."""
    containers = [tool.get(_TOOL_MEMBERS.get(tool_kind(tool), "")) for tool in tools]
    ids = (value.get("container_id") if isinstance(value, dict) else value for value in containers)
    return tuple(container_id for container_id in ids if isinstance(container_id, str))


def used_containers(response: Mapping[str, object]) -> dict[str, str]:
    """Return the ids of the containers that ran code, each with the tool that used it first."""
    used: dict[str, str] = {}
    for item in as_objects(response.get("output")):
        in_shell = as_text(as_object(item.get("environment")).get("container_id"))
        for container_id, tool in ((as_text(item.get("container_id")), "code_interpreter"), (in_shell, "shell")):
            if container_id is not None:
                used.setdefault(container_id, tool)
    return used


def read_containers(
    facts: RequestFacts, response: Mapping[str, object]
) -> tuple[tuple[Quantity, ...], tuple[ContainerUse, ...]]:
    """Return a quantity for each container that the response created for certain, and each container that it used."""
    if response.get("object") == "response.compaction":
        return (), ()  # it ran nothing: it repeats the items of its request
    named = {*facts.references, *referenced_containers(flatten_tools(as_objects(response.get("tools"))))}
    continued = any(response.get(name) for name in ("previous_response_id", "conversation"))
    continued = continued or any(object_id.startswith(_CONTINUED) for object_id in facts.references)
    quantities: list[Quantity] = []
    uses: list[ContainerUse] = []
    for container_id, tool in sorted(used_containers(response).items()):
        if container_id in named:
            note = f"container {container_id} is charged to the request that created it; {_MISSING}"
            uses.append(ContainerUse(container_id, None, note))
            continue
        terms = _terms(tool, facts, response)
        if continued:
            note = f"container {container_id} may be charged to an earlier request; {_MISSING}"
        else:
            quantities.append(Quantity(Meter.CONTAINER_SECONDS, _CERTAIN_S, terms))
            note = f"container {container_id} is charged its minimum; its further life is not in this record"
        uses.append(ContainerUse(container_id, terms, note))
    return tuple(quantities), tuple(uses)


_MISSING = "its time is not in this record"


def _terms(kind: str, facts: RequestFacts, response: Mapping[str, object]) -> Terms:
    """Return the terms of a new container: the response's tools say its memory, else the request's did."""
    tools = (tool for tool in flatten_tools(as_objects(response.get("tools"))) if tool_kind(tool) == kind)
    echoed = (new_container_terms(kind, tool) for tool in tools)
    requested = (spend.terms for spend in facts.spends if Meter.CONTAINER_SECONDS in spend.meters)
    return next((terms for terms in (*echoed, *requested) if terms is not None), NO_TERMS)
