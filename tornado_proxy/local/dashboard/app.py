"""The dashboard as a Textual app: messages of the relay in, keys of the person in, screens out."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from typing import ClassVar

from textual import work
from textual.app import App
from textual.binding import Binding, BindingType

from tornado_proxy.local.dashboard.cells import show_line
from tornado_proxy.local.dashboard.clipboard import copy_text
from tornado_proxy.local.dashboard.main_screen import MainScreen
from tornado_proxy.local.dashboard.messages import EndStatus, Introduction, Refused, Update, decode
from tornado_proxy.local.dashboard.state import DashboardState
from tornado_proxy.local.dashboard.styles import STYLES
from tornado_proxy.local.dashboard.views import DetailsView, ModelsView, ProblemsView, QuitQuestion, SetupView, View

#: Bytes of the longest message: 100 requests with 100 line items each.
_MAX_MESSAGE_BYTES = 64 * 1024 * 1024

#: Without colours Textual draws greys on its own themes, and the terminal's own colours on this one.
_COLOURLESS_THEME = "ansi-dark"
_DARK_THEME, _LIGHT_THEME = "textual-dark", "textual-light"

#: Seconds that a refusal is shown above the screen; later ones are in the list of errors only.
_ANNOUNCED_S = 8.0

#: Backgrounds in COLORFGBG ("15;0") that are light: white, and bright white.
_LIGHT_BACKGROUNDS = ("7", "15")


class DashboardApp(App[None]):
    """The dashboard; `connection` receives the messages of the relay."""

    CSS = STYLES
    ENABLE_COMMAND_PALETTE = False
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (120, "-wide")]  # noqa: RUF012  # Textual declares an instance variable
    BINDINGS: ClassVar[list[BindingType]] = [Binding("ctrl+q,ctrl+c", "quit", show=False, priority=True)]

    def __init__(self, connection: socket.socket) -> None:
        # The constructor of App chooses the filter that removes colours by this.
        super().__init__(ansi_color=True if "NO_COLOR" in os.environ else None)
        self._connection = connection
        self._state = DashboardState()
        self._paused = False
        self._announce_again_at = 0.0
        self._main = MainScreen()
        self.theme = _COLOURLESS_THEME if self.no_color else _choose_theme(os.environ.get("COLORFGBG", ""))

    def on_mount(self) -> None:
        """Show the main screen, and read messages."""
        self.push_screen(self._main)
        self._read()

    @work
    async def _read(self) -> None:
        """Read messages until the relay closes the connection."""
        reader, writer = await asyncio.open_connection(sock=self._connection, limit=_MAX_MESSAGE_BYTES)
        try:
            while line := await reader.readline():
                self._receive(decode(line))
        except ConnectionError:
            pass  # the relay has died
        finally:
            writer.close()
        self.exit(return_code=EndStatus.CLOSED)

    def _receive(self, message: Introduction | Update) -> None:
        if isinstance(message, Introduction):
            self._state.introduction = message
        else:
            self._state.apply(message)
            self._announce(message.refused)
        if not self._paused:
            self._show()

    def _announce(self, refused: tuple[Refused, ...]) -> None:
        """Show the last refusal of the local proxy for some seconds: the person at the machine can fix its cause."""
        own = [entry for entry in refused if entry.status]
        if own and time.monotonic() >= self._announce_again_at:
            self._announce_again_at = time.monotonic() + _ANNOUNCED_S
            text = show_line(f"{own[-1].code}: {own[-1].message}")
            self.notify(text, severity="warning", timeout=_ANNOUNCED_S, markup=False)

    def _show(self) -> None:
        """Show the state on the main screen, and on the view above it."""
        if self._main.is_mounted:
            self._main.show(self._state, paused=self._paused)
        if isinstance(self.screen, View) and self.screen.is_mounted:
            self.screen.show(self._state)

    def on_resize(self) -> None:
        """Show the state at the new size."""
        self.call_after_refresh(self._show)

    async def action_quit(self) -> None:
        """Quit, after a question if requests run."""
        if isinstance(self.screen, QuitQuestion):
            return
        if self._state.running_count:
            self.push_screen(QuitQuestion(self._state.running_count), self._quit_if)
        else:
            self.exit(return_code=EndStatus.QUIT)

    def _quit_if(self, confirmed: bool | None) -> None:  # noqa: FBT001  # called by Textual
        if confirmed:
            self.exit(return_code=EndStatus.QUIT_AND_ABORT)

    def action_pause(self) -> None:
        """Stop changing the screen, or go on."""
        self._paused = not self._paused
        self._show()

    def action_switch_theme(self) -> None:
        """Switch between dark and light."""
        if not self.no_color:
            self.theme = _LIGHT_THEME if self.theme == _DARK_THEME else _DARK_THEME

    def on_main_screen_filter_changed(self) -> None:
        """Show the requests that match."""
        self._show()

    def on_main_screen_request_selected(self, event: MainScreen.RequestSelected) -> None:
        """Show the bill of a recent request."""
        finished = self._state.find_request(event.number)
        if finished is not None:
            self._open(DetailsView(finished))

    def action_errors(self) -> None:
        """Show the errors."""
        self._open(ProblemsView())

    def action_models(self) -> None:
        """Show the usage by model."""
        self._open(ModelsView())

    def action_setup(self) -> None:
        """Show the set-up block."""
        self._open(SetupView())

    def action_copy_setup(self) -> None:
        """Copy the set-up block."""
        if self._state.introduction is not None:
            self._copy("\n".join((*self._state.introduction.variables, "")))

    def on_details_view_copy_requested(self, event: DetailsView.CopyRequested) -> None:
        """Copy the id of a request."""
        self._copy(event.text)

    @work(thread=True)
    def _copy(self, text: str) -> None:
        """Copy a text to the clipboard."""
        how = copy_text(text, lambda copied: self.call_from_thread(self.copy_to_clipboard, copied), os.environ)
        self.notify(how, markup=False)

    def _open(self, view: View) -> None:
        self.push_screen(view)
        view.call_after_refresh(view.show, self._state)


def _choose_theme(colours: str) -> str:
    """Return the theme for the terminal's background, as COLORFGBG states it; dark if it is not known."""
    return _LIGHT_THEME if colours.rpartition(";")[2] in _LIGHT_BACKGROUNDS else _DARK_THEME
