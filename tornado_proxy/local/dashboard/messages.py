"""The messages of the relay to the dashboard, one JSON object a line; amounts are text.

    Introduction, once ──> Update, at most four times a second

Nothing goes the other way: the dashboard tells how it ended by its exit status.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from enum import IntEnum

import msgspec

#: Finished requests and errors that are kept, in the relay until they are sent and in the dashboard to be shown.
MAX_RECENT, MAX_ERRORS = 200, 200

#: Models whose usage is summed by name; all others are summed as OTHER_MODELS.
MAX_MODELS = 200
OTHER_MODELS = "(other models)"

#: Minutes of the chart.
MINUTES = 120

#: Running requests in one update, the oldest first.
MAX_RUNNING = 50

#: Characters of a name and of a text; clients can invent models of any length.
MAX_NAME_CHARACTERS, MAX_TEXT_CHARACTERS = 200, 2000


class EndStatus(IntEnum):
    """The exit status of the dashboard: the person quits; quits and breaks running streams; the relay has ended."""

    QUIT = 0
    QUIT_AND_ABORT = 10
    CLOSED = 11


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """The base of all parts of a message."""


class Introduction(Message, frozen=True, tag="introduction"):
    """The facts that do not change; `variables` are the lines that a person copies into a shell."""

    url: str
    upstream: str
    source: str
    project_id: str
    is_secure: bool
    variables: tuple[str, ...]


class Sums(Message, frozen=True):
    """Sums of finished requests; `unsettled` ones have no known cost."""

    requests: int = 0
    tokens: int = 0
    subtotal: Decimal = Decimal(0)
    surcharge: Decimal = Decimal(0)
    total: Decimal = Decimal(0)
    unsettled: int = 0


class ModelSums(Message, frozen=True):
    """The sums of one model."""

    provider: str
    model: str
    sums: Sums


class Running(Message, frozen=True):
    """A request or session in flight.  Tokens and amounts are estimates; those that are not known are None."""

    request_id: str
    provider: str
    method: str
    path: str
    model: str
    started_at: datetime
    age_ms: int
    tokens: int | None = None
    subtotal: Decimal | None = None
    surcharge: Decimal | None = None
    total: Decimal | None = None


class Item(Message, frozen=True):
    """A line item of a bill; prices and amounts are None if not known."""

    type: str
    quantity: Decimal
    unit: str
    unit_price: Decimal | None = None
    amount: Decimal | None = None
    model: str | None = None


class Finished(Message, frozen=True):
    """A request that has ended.

    `number` counts them from 1.  `is_error` is True if it failed; `message` is the error message of its response.
    """

    request_id: str
    ended_at: datetime
    status: int | None
    outcome: str
    basis: str
    provider: str
    method: str
    path: str
    model: str
    tokens: int
    subtotal: Decimal
    surcharge: Decimal
    total: Decimal
    first_byte_ms: int | None
    duration_ms: int
    items: tuple[Item, ...] = ()
    notes: tuple[str, ...] = ()
    message: str = ""
    session: str = ""
    is_error: bool = False
    number: int = 0


class Refused(Message, frozen=True):
    """A request that the local proxy refused itself, or, with status 0, a warning of its log."""

    at: datetime
    status: int
    method: str
    path: str
    code: str
    message: str


class Update(Message, frozen=True, tag="update"):
    """The changes since the last update.  `minutes` is the spend of the last minutes, the current one last."""

    sums: Sums
    refused_count: int
    error_count: int
    running_count: int
    minutes: tuple[Decimal, ...]
    running: tuple[Running, ...] = ()
    finished: tuple[Finished, ...] = ()
    refused: tuple[Refused, ...] = ()
    models: tuple[ModelSums, ...] = ()


_encoder = msgspec.json.Encoder(decimal_format="string")
_decoder: msgspec.json.Decoder[Introduction | Update] = msgspec.json.Decoder(Introduction | Update)


def encode(message: Introduction | Update) -> bytes:
    """Return a message as one line."""
    return _encoder.encode(message) + b"\n"


def decode(line: bytes) -> Introduction | Update:
    """Return the message of a line."""
    return _decoder.decode(line)
