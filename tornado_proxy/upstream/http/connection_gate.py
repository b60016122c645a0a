"""Sends one probe request to an origin without a recent connection; other requests to it wait for the connection.

Theory of operation.  Without the gate, a burst of requests would open one connection each, although HTTP/2 carries all
of them on one, and would look up the same name once each: a slow DNS server then keeps all of libcurl's resolver
threads busy, and requests to other providers queue behind them.

    first request ──> libcurl ──> connected: the gate opens for all waiting requests
                         │
                         ├ ended before that: the next request becomes the probe
                         └ NEXT_PROBE_S have passed: the next request becomes one more probe
    other requests ──> wait, at most for their own connect timeout

With TLS, the gate opens only after the connect time has passed once more: by then the provider's SETTINGS frame has
arrived with its limit of concurrent streams (RFC 9113 section 6.5.2), and libcurl opens more connections for requests
over the limit instead of having their streams refused.

The gate of an origin stays open for OPEN_S after a connect.  Then the next request is a probe again; if libcurl still
has a connection to the origin, the others wait for one turn of the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tornado_proxy.upstream.http.easy_handle import EasyHandle

#: Seconds that a gate stays open after a connect.  Half of libcurl's DNS cache lifetime (60 s), so that a probe, not a
#: burst, looks the name up again.
OPEN_S = 30.0

#: Seconds between two probes, so that one lost SYN does not hold up all requests.
NEXT_PROBE_S = 1.0

HandleCallback = Callable[["EasyHandle"], None]


class ConnectionGate:
    """Decides when an easy handle is added to libcurl's multi handle.

    Args:
        loop: The running event loop.
        add_to_multi: Called when a handle may start; it adds the handle to libcurl.
        on_connect_timeout: Called when a handle's connect timeout has passed without a connection; it ends the
            exchange, which calls leave().
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, add_to_multi: HandleCallback, on_connect_timeout: HandleCallback
    ) -> None:
        self._loop = loop
        self._add_to_multi = add_to_multi
        self._on_connect_timeout = on_connect_timeout
        #: Loop time until which the gate of an origin is open: a request enters only after that.
        self.open_until: dict[str, float] = {}
        self._closed_gates: dict[str, _ClosedGate] = {}

    def enter(self, handle: EasyHandle, origin: str, connect_timeout_s: float) -> None:
        """Add `handle` to libcurl as a probe, or when `origin` has a connection; wait at most `connect_timeout_s`."""
        now = self._loop.time()
        gate = self._closed_gates.get(origin)
        if gate is None:
            timer = self._loop.call_later(NEXT_PROBE_S, self._on_timer, origin)
            gate = self._closed_gates[origin] = _ClosedGate(timer)
        gate.deadlines[handle] = now + connect_timeout_s
        handle.gated_origin = origin
        if not gate.probes:
            self._start_probe(gate, handle)

    def leave(self, handle: EasyHandle) -> bool:
        """Remove `handle`, whose exchange has ended.  Return True if it has been added to libcurl."""
        origin, handle.gated_origin = handle.gated_origin, None
        if origin is None:
            return True
        gate = self._closed_gates[origin]
        del gate.deadlines[handle]
        was_added = handle in gate.probes
        gate.probes.discard(handle)
        if not gate.deadlines:
            self._remove(origin)
        elif not gate.probes:
            self._start_probe(gate, next(iter(gate.deadlines)))
        return was_added

    def on_connected(self, origin: str, connect_s: float) -> None:
        """Called when a probe has a connection to `origin`, which took `connect_s` seconds to open."""
        gate = self._closed_gates.get(origin)
        if gate is None:
            self.open_until[origin] = self._loop.time() + OPEN_S
            return
        if gate.opening:
            return
        gate.opening = True
        gate.timer.cancel()
        delay_s = connect_s if origin.startswith("https:") else 0.0
        gate.timer = self._loop.call_later(min(delay_s, NEXT_PROBE_S), self._open, origin)

    def _remove(self, origin: str) -> _ClosedGate:
        gate = self._closed_gates.pop(origin)
        gate.timer.cancel()
        if gate.opening:
            self.open_until[origin] = self._loop.time() + OPEN_S
        return gate

    def _open(self, origin: str) -> None:
        gate = self._remove(origin)
        for handle in gate.deadlines:
            handle.gated_origin = None
            if handle not in gate.probes:
                self._add_to_multi(handle)

    def _start_probe(self, gate: _ClosedGate, handle: EasyHandle) -> None:
        gate.probes.add(handle)
        handle.start_probe(self.on_connected)
        self._add_to_multi(handle)

    def _on_timer(self, origin: str) -> None:
        """Expire handles past their deadline and start one more probe."""
        gate = self._closed_gates[origin]
        gate.timer = self._loop.call_later(NEXT_PROBE_S, self._on_timer, origin)
        now = self._loop.time()
        for handle in [handle for handle, deadline in gate.deadlines.items() if deadline <= now]:
            self._on_connect_timeout(handle)
        waiting = [handle for handle in gate.deadlines if handle not in gate.probes]
        if waiting:
            self._start_probe(gate, waiting[0])


class _ClosedGate:
    """The handles of an origin without a connection: all with their deadlines (loop time), and the probes of them."""

    __slots__ = ("deadlines", "opening", "probes", "timer")

    def __init__(self, timer: asyncio.TimerHandle) -> None:
        self.timer = timer
        #: True if a probe has connected and `timer` is about to open the gate.
        self.opening = False
        self.probes: set[EasyHandle] = set()
        self.deadlines: dict[EasyHandle, float] = {}
