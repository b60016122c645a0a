"""What a client says a call is for: headers `X-Meshagent-Annotation-<name>: <value>`, as meshagent-api sends them.

They are kept in the ledger and never go to a provider.
"""

from __future__ import annotations

from collections.abc import Iterable

from tornado_proxy.domain.errors import BadRequest

_PREFIX = "x-meshagent-annotation-"

#: A record holds them all, and a report reads many records.
_MOST = 16
_LONGEST_NAME = 64
_LONGEST_VALUE = 256


def read_annotations(headers: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Name, in lower case, and value of each annotation, in the order of names; the last of a name counts.

    Raises:
        BadRequest: there are too many, or one is too long.
    """
    # Nearly all names are shorter than the prefix, and need not be looked at.
    long = [(name.lower(), value) for name, value in headers if len(name) > len(_PREFIX)]
    found = {name.removeprefix(_PREFIX): value for name, value in long if name.startswith(_PREFIX)}
    if len(found) > _MOST:
        raise BadRequest(f"a call takes {_MOST} annotations at most, not {len(found)}", code="invalid_annotations")
    for name, value in found.items():
        if len(name) > _LONGEST_NAME or len(value) > _LONGEST_VALUE:
            raise BadRequest(
                f"the annotation {name[:_LONGEST_NAME]} is too long: a name has {_LONGEST_NAME} characters at most, "
                f"a value {_LONGEST_VALUE}",
                code="invalid_annotations",
            )
    return tuple(sorted(found.items()))
