"""The dashboard in a terminal of Textual's own, with a relay that sends messages."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass

from textual.pilot import Pilot

from tests.local.dashboard.samples import INTRODUCTION
from tornado_proxy.local.dashboard.app import DashboardApp
from tornado_proxy.local.dashboard.messages import Introduction, Update, encode


@dataclass
class Shown:
    """A dashboard, and the relay's end of its connection."""

    app: DashboardApp
    pilot: Pilot[None]
    relay: socket.socket

    async def send(self, *messages: Introduction | Update) -> None:
        """Send messages, and wait until they are on the screen."""
        for message in messages:
            self.relay.sendall(encode(message))
        for _ in range(3):
            await self.pilot.pause(0.05)

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.pilot.pause(0.05)

    @property
    def lines(self) -> list[str]:
        """The lines of the screen."""
        width, height = self.app.size
        strips = self.app.screen._compositor.render_strips(self.app.size)
        return [strip.text[:width].rstrip() for strip in strips[:height]]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


@contextlib.asynccontextmanager
async def shown_dashboard(width: int = 80, height: int = 24, *, announcing: bool = False) -> AsyncIterator[Shown]:
    """Run a dashboard that has got its introduction; `announcing` shows notifications above the screen."""
    relay, others = socket.socketpair()
    app = DashboardApp(others)
    with relay:
        async with app.run_test(size=(width, height), notifications=announcing) as pilot:
            shown = Shown(app, pilot, relay)
            await shown.send(INTRODUCTION)
            yield shown
