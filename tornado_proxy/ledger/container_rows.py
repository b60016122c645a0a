"""Converts the lives and uses of containers to text, and back."""

from __future__ import annotations

import json
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec

from tornado_proxy.domain.container import ContainerLife, ContainerPrice, ContainerTime

#: The columns of a container.  `request_id` is the request that used it first; the others are those of ContainerLife.
CONTAINER_COLUMNS = (
    "provider",
    "container_id",
    "project_id",
    "request_id",
    "memory_limit",
    "born_by",
    "lived_until",
    "seen_at",
    "charged_s",
    "price",
)

#: The columns of an account's free time.
ALLOWANCE_COLUMNS = ("provider", "account", "month", "used_s")

#: The columns of a container that a use changes, in the order of life_values().
LIFE_COLUMNS = ("memory_limit", "born_by", "lived_until", "seen_at", "charged_s", "price")

#: The memory of a container whose request named none (domain/terms.py).
_DEFAULT_MEMORY = "1g"

_encode = msgspec.json.Encoder().encode
_read_price = msgspec.json.Decoder(ContainerPrice).decode


def format_container_time(time: ContainerTime) -> str:
    """Return the containers of a request as JSON text."""
    try:
        return _encode(time).decode()
    except UnicodeEncodeError:
        # msgspec refuses half of a surrogate pair, which an id of a provider may hold; json escapes it.
        return json.dumps(msgspec.to_builtins(time))


def read_container_time(text: str) -> ContainerTime:
    """Return the containers of a request from their text."""
    # json and not msgspec, which refuses half of a surrogate pair.
    return msgspec.convert(json.loads(text), ContainerTime)


def life_values(life: ContainerLife) -> tuple[str | None, ...]:
    """Return the values of LIFE_COLUMNS."""
    memory = None if life.price is None else dict(life.price.terms).get("memory_limit", _DEFAULT_MEMORY)
    times = (moment.isoformat(timespec="milliseconds") for moment in (life.born_by, life.lived_until, life.seen_at))
    price = None if life.price is None else _encode(life.price).decode()
    return (memory, *times, f"{life.charged_s:f}", price)


def read_life(values: tuple[Any, ...]) -> ContainerLife | None:
    """Return the life in the values of LIFE_COLUMNS; None if no use was stored yet."""
    _, born_by, lived_until, seen_at, charged_s, price = values
    if born_by is None:
        return None
    return ContainerLife(
        datetime.fromisoformat(born_by),
        datetime.fromisoformat(lived_until),
        datetime.fromisoformat(seen_at),
        Decimal(charged_s),
        None if price is None else _read_price(price),
    )
