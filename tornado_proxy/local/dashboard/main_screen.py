"""The screen with the totals, the chart, and the tables of requests."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.screen import Screen
from textual.widgets import DataTable, Footer, Input, Sparkline, Static

from tornado_proxy.local.dashboard.cells import fit, show_amount, show_count, show_line
from tornado_proxy.local.dashboard.fitted_table import FittedTable, SelectableTable
from tornado_proxy.local.dashboard.state import DashboardState
from tornado_proxy.local.dashboard.tables import (
    MODEL_COLUMNS,
    PROBLEM_COLUMNS,
    RECENT_COLUMNS,
    RUNNING_COLUMNS,
    make_model_rows,
    make_problem_rows,
    make_recent_rows,
    make_running_rows,
)

#: The totals: title, cells of the column, and the width of the terminal from which it is shown.
_TOTALS = (
    ("Requests", 9, 0),
    ("In flight", 10, 62),
    ("Errors", 8, 40),
    ("Tokens", 12, 52),
    ("Subtotal", 13, 65),
    ("Surcharge", 13, 78),
    ("Total", 13, 0),
)

_EMPTY = "No requests yet. Press s for the variables of your tools, c to copy them."
_NO_MATCH = "No recent request matches the filter. Press / and escape to show all."


class FilterLine(Input):
    """The line in which the person writes the filter."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "submit", "Keep the filter"),
        Binding("escape", "drop", "Show all", key_display="esc"),
    ]

    async def action_drop(self) -> None:
        """Empty the filter and leave the line."""
        self.value = ""
        await self.action_submit()


class MainScreen(Screen[None]):
    """Totals, spend a minute, requests in flight, recent requests; in a wide terminal also models and errors."""

    AUTO_FOCUS = "#recent"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "app.quit", "Quit"),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("p", "app.pause", "Pause"),
        Binding("s", "app.setup", "Set-up"),
        Binding("c", "app.copy_setup", "Copy"),
        Binding("e", "app.errors", "Errors"),
        Binding("m", "app.models", "Models"),
        Binding("t", "app.switch_theme", "Theme"),
    ]

    class RequestSelected(Message):
        """The person wants to see the bill of a recent request."""

        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

    class FilterChanged(Message):
        """Other requests are to be shown."""

    def __init__(self) -> None:
        super().__init__()
        self._filter = ""

    def compose(self) -> ComposeResult:
        """Yield the widgets from top to bottom."""
        yield Static(id="title", markup=False)
        yield Static(id="totals", markup=False)
        yield Static(id="spend", markup=False)
        yield Sparkline([0.0], id="chart")
        yield FittedTable(RUNNING_COLUMNS, id="running")
        with Horizontal():
            with Vertical(id="requests"):
                yield SelectableTable(RECENT_COLUMNS, id="recent")
                yield Static(_EMPTY, id="empty", markup=False)
            with Vertical(id="side"):
                yield FittedTable(MODEL_COLUMNS, id="models")
                yield FittedTable(PROBLEM_COLUMNS, id="problems")
        yield FilterLine(placeholder="words in model, path, status, id or error", id="filter")
        yield Footer(compact=True)

    def show(self, state: DashboardState, *, paused: bool) -> None:
        """Show the state."""
        width = self.size.width
        self.query_one("#title", Static).update(self._make_title(state, paused=paused))
        self.query_one("#totals", Static).update(_make_totals(state, width))
        minutes = state.minutes[-min(width, len(state.minutes)) :]
        self.query_one("#spend", Static).update(_make_spend(state, len(minutes)))
        self.query_one("#chart", Sparkline).data = [float(spend) for spend in minutes]
        title = f"In flight ({state.running_count})" if state.running_count else "In flight"
        self.query_one("#running", FittedTable).show(make_running_rows(state.running), title)
        recent = list(make_recent_rows(state.find_recent(self._filter)))
        table = self.query_one("#recent", FittedTable)
        table.set_class(not recent, "-empty")
        table.show(recent)
        empty = self.query_one("#empty", Static)
        empty.display = not recent
        empty.update(_NO_MATCH if state.recent else _EMPTY)
        self.query_one("#models", FittedTable).show(make_model_rows(state.models))
        self.query_one("#problems", FittedTable).show(make_problem_rows(state.problems))

    def _make_title(self, state: DashboardState, *, paused: bool) -> str:
        introduction = state.introduction
        name = "tornado-proxy local" if introduction is None else f"{introduction.url} to {introduction.upstream}"
        counts = ((state.sums.unsettled, "unsettled (!)"), (state.refused_count, "refused here"))
        notes = [f"{show_count(count)} {name}" for count, name in counts if count]
        notes += [f"filter: {show_line(self._filter)}"] if self._filter else []
        notes += ["PAUSED"] if paused else []
        note = "  ".join(notes)
        return fit(show_line(name), max(0, self.size.width - len(note) - 2)) + (f"  {note}" if note else "")

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        """Called when enter is pressed on a recent request."""
        event.stop()
        if event.row_key.value is not None:
            self.post_message(self.RequestSelected(int(event.row_key.value)))

    def action_filter(self) -> None:
        """Show the line for the filter."""
        line = self.query_one("#filter", Input)
        line.display = True
        line.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter while the person types."""
        self._filter = event.value
        self.post_message(self.FilterChanged())

    def on_input_submitted(self) -> None:
        """Hide the line; the filter stays."""
        self.query_one("#filter", Input).display = False
        self.query_one("#recent", FittedTable).focus()


def _make_totals(state: DashboardState, width: int) -> str:
    sums, estimated = state.live_sums
    mark = "~" if estimated else ""
    values = (
        show_count(sums.requests),
        show_count(state.running_count),
        show_count(state.error_count),
        mark + show_count(sums.tokens),
        mark + show_amount(sums.subtotal),
        mark + show_amount(sums.surcharge),
        mark + show_amount(sums.total),
    )
    shown = [
        (title, cells, value) for (title, cells, least), value in zip(_TOTALS, values, strict=True) if width >= least
    ]
    titles = "".join(fit(title, cells) for title, cells, _ in shown)
    return f"{titles}\n" + "".join(fit(value, cells) for _, cells, value in shown)


def _make_spend(state: DashboardState, minutes: int) -> str:
    text = f"Spend a minute, last {minutes} minutes: now {show_amount(state.minutes[-1])}"
    return f"{text}, highest {show_amount(max(state.minutes[-minutes:]))}"
