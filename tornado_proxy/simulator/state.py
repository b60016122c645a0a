"""The options and the memory of a simulator: keys, recorded requests, stored objects, counted failures."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Mapping
from itertools import count

from tornado_proxy.simulator.model.prompt_cache import PromptCache
from tornado_proxy.simulator.object_stores import AnswerCall, Batch, RealtimeCall, Store, StoredResponse
from tornado_proxy.simulator.request_log import RequestLog

#: Texts whose failures are counted (`status=... times=...`); the oldest are dropped beyond it.
MAX_FAILING_TEXTS = 1000

#: Rate limit headers as each provider sends them with every response; the figures are constant.
_OPENAI_LIMITS = (
    ("x-ratelimit-limit-requests", "10000"),
    ("x-ratelimit-limit-tokens", "2000000"),
    ("x-ratelimit-remaining-requests", "9999"),
    ("x-ratelimit-remaining-tokens", "1999000"),
    ("x-ratelimit-reset-requests", "6ms"),
    ("x-ratelimit-reset-tokens", "0s"),
)
_ANTHROPIC_LIMITS = (
    ("anthropic-ratelimit-requests-limit", "10000"),
    ("anthropic-ratelimit-requests-remaining", "9999"),
    ("anthropic-ratelimit-requests-reset", "2030-01-01T00:00:00Z"),
    ("anthropic-ratelimit-tokens-limit", "12000000"),
    ("anthropic-ratelimit-tokens-remaining", "12000000"),
    ("anthropic-ratelimit-tokens-reset", "2030-01-01T00:00:00Z"),
)


class SimulatorState:
    """The part of a simulator that its handlers use.

    Args:
        keys: the accepted key of "openai" and of "anthropic"; a provider without an entry accepts every key.
        record: serve the last requests at /_simulator/requests.
        settle_s: seconds until background responses and message batches are done.
        accounts: the account of each key; a key without an entry belongs to one common account.  Message batches
            are found with keys of the account that made them.
        answer_call: answers the SDP offers of realtime calls; by default a call has no media.

    Attributes:
        requests: the last requests.
        messages: the last messages of WebSocket clients, each as a request with the method MESSAGE.
        streams: the number of open event streams and WebSockets.
        disconnects: the number of clients that disconnected before their response was complete.
    """

    def __init__(
        self,
        *,
        keys: Mapping[str, str] | None = None,
        record: bool = False,
        settle_s: float = 0.2,
        answer_call: AnswerCall | None = None,
        accounts: Mapping[str, str] | None = None,
    ) -> None:
        self.accounts: Mapping[str, str] = dict(accounts or {})
        self.keys: Mapping[str, str] = dict(keys or {})
        self.record = record
        self.settle_s = settle_s
        self.answer_call = answer_call
        self.requests = RequestLog()
        self.messages = RequestLog()
        self.streams = 0
        self.disconnects = 0
        self.prompt_cache = PromptCache()
        self.responses: Store[StoredResponse] = Store()
        self.batches: Store[Batch] = Store()
        #: Session settings by short-lived realtime key.
        self.session_keys: Store[Mapping[str, object]] = Store()
        self.realtime_calls: Store[RealtimeCall] = Store()
        self.openai_limits = _OPENAI_LIMITS
        self.anthropic_limits = _ANTHROPIC_LIMITS
        self._failures: OrderedDict[str, int] = OrderedDict()
        # Random per simulator: ids of two simulators in one test, or of a restarted one, must not collide.
        self._instance = secrets.token_hex(6)
        self._serial = count(1)

    def new_id(self, prefix: str) -> str:
        """Return an id that starts with `prefix` and is unique among all simulators."""
        return f"{prefix}{self._instance}{next(self._serial):012x}"

    def still_failing(self, text: str, times: int) -> bool:
        """Count a request with this text; return True for the first `times` of them, or always if `times` is 0."""
        if times == 0:
            return True
        failures = self._failures.get(text, 0)
        if failures >= times:
            return False
        self._failures[text] = failures + 1
        if len(self._failures) > MAX_FAILING_TEXTS:
            self._failures.popitem(last=False)
        return True
