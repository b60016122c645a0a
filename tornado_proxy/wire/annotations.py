"""Checks a client's annotations: headers `X-Meshagent-Annotation-<name>: <value>`, the form of meshagent-api.

Annotations are stored in the ledger and are never sent to a provider.
"""

from __future__ import annotations

from collections.abc import Mapping

from tornado_proxy.domain.errors import BadRequest

#: The start of the headers, in lower case.
PREFIX = "x-meshagent-annotation-"

# Each record stores all of its annotations and a report reads many records, so their size is limited.
_MAX_ANNOTATIONS = 16
_MAX_NAME_CHARACTERS = 64
_MAX_VALUE_CHARACTERS = 256


def check_annotations(found: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the (name, value) pairs of the annotations, sorted by name; names are in lower case.

    Raises:
        BadRequest: There are more than 16 annotations, or a name or value is too long.
    """
    if not found:
        return ()
    if len(found) > _MAX_ANNOTATIONS:
        raise BadRequest(
            f"too many annotations: a request can have {_MAX_ANNOTATIONS}, not {len(found)}",
            code="invalid_annotations",
        )
    for name, value in found.items():
        if len(name) > _MAX_NAME_CHARACTERS or len(value) > _MAX_VALUE_CHARACTERS:
            raise BadRequest(
                f"annotation {name[:_MAX_NAME_CHARACTERS]} is too long: a name can have {_MAX_NAME_CHARACTERS} "
                f"characters, a value {_MAX_VALUE_CHARACTERS}",
                code="invalid_annotations",
            )
    return tuple(sorted(found.items()))


def require_annotations(found: Mapping[str, str], required: Mapping[str, frozenset[str]]) -> None:
    """Check that a request has each annotation that its project requires.

    Args:
        found: The annotations by name in lower case.
        required: The allowed values by name; an empty set allows any value but the empty one.

    Raises:
        BadRequest: annotations are missing, or have a value that is not allowed; all of them are named.
    """
    faults = [fault for name, allowed in required.items() if (fault := _find_fault(name, found.get(name, ""), allowed))]
    if faults:
        raise BadRequest(f"the project requires annotations: {'; '.join(faults)}", code="annotations_required")


def _find_fault(name: str, value: str, allowed: frozenset[str]) -> str | None:
    if value and (not allowed or value in allowed):
        return None
    values = f" with one of {', '.join(sorted(allowed))}" if allowed else ""
    reason = f"{value[:60]!r} is not allowed" if value else "is missing"
    return f"{name} {reason}; send the header X-Meshagent-Annotation-{name}{values}"
