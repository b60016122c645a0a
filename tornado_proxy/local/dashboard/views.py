"""Screens above the main one: the bill of a request, errors, models, the set-up block, the question before quitting."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Footer, Static

from tornado_proxy.local.dashboard.cells import show_block, show_line, show_time
from tornado_proxy.local.dashboard.details import describe_request
from tornado_proxy.local.dashboard.fitted_table import FittedTable
from tornado_proxy.local.dashboard.messages import Finished
from tornado_proxy.local.dashboard.state import DashboardState, Problem
from tornado_proxy.local.dashboard.tables import MODEL_COLUMNS, make_model_rows, show_problem_status

#: The key that a view has in any case.
_BACK = Binding("escape,q", "dismiss", "Back", key_display="esc")


class View(ModalScreen[None]):
    """A screen that covers the main one, until escape is pressed."""

    BINDINGS: ClassVar[list[BindingType]] = [_BACK]

    def show(self, state: DashboardState) -> None:
        """Show the state."""


class TextView(View):
    """A view of a text that can be scrolled."""

    title_text = ""

    def compose(self) -> ComposeResult:
        """Yield the widgets from top to bottom."""
        yield Static(self.title_text, classes="title", markup=False)
        with VerticalScroll():
            yield Static(id="text", markup=False)
        yield Footer(compact=True)

    def make_text(self, state: DashboardState) -> str:
        """Return the text for the state."""
        raise NotImplementedError  # abstract: the metaclass of Textual's screens excludes ABC

    def show(self, state: DashboardState) -> None:
        """Show the text for the state."""
        self.query_one("#text", Static).update(self.make_text(state))


class DetailsView(TextView):
    """The bill of one request."""

    title_text = "Request"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "dismiss", show=False),
        Binding("c", "copy_id", "Copy the request id"),
    ]

    class CopyRequested(Message):
        """The person wants to have a text in the clipboard."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    def __init__(self, finished: Finished) -> None:
        super().__init__()
        self._finished = finished

    def make_text(self, state: DashboardState) -> str:
        """Return the bill."""
        return "\n".join(describe_request(self._finished))

    def action_copy_id(self) -> None:
        """Copy the id, for `tornado-proxy explain`."""
        self.post_message(self.CopyRequested(self._finished.request_id))


class ProblemsView(TextView):
    """The last errors with their whole messages."""

    title_text = "Errors, the newest first"

    def make_text(self, state: DashboardState) -> str:
        """Return the errors, the newest first."""
        return "\n\n".join(map(_describe_problem, state.problems)) or "No errors."


def _describe_problem(problem: Problem) -> str:
    words = (show_time(problem.at), show_problem_status(problem), problem.method, problem.path, problem.title)
    return f"{show_line(' '.join(word for word in words if word))}\n{show_block(problem.message)}"


class SetupView(TextView):
    """The variables with which SDKs and tools use the proxy."""

    title_text = "Set-up: paste this into the shell of your tools"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("c", "app.copy_setup", "Copy")]

    def make_text(self, state: DashboardState) -> str:
        """Return the variables, and where requests go."""
        introduction = state.introduction
        if introduction is None:
            return ""
        security = "with the bearer above" if introduction.is_secure else "by any program of this machine"
        facts = (
            f"URL        {introduction.url}, {security}",
            f"upstream   {introduction.upstream}",
            f"credential {introduction.source}",
            f"project    {introduction.project_id}",
        )
        return "\n".join((*introduction.variables, "", *map(show_line, facts)))


class ModelsView(View):
    """The usage by model."""

    def compose(self) -> ComposeResult:
        """Yield the widgets from top to bottom."""
        yield Static("Usage by model, the dearest first", classes="title", markup=False)
        yield FittedTable(MODEL_COLUMNS, id="all-models")
        yield Footer(compact=True)

    def show(self, state: DashboardState) -> None:
        """Show the models."""
        self.query_one("#all-models", FittedTable).show(make_model_rows(state.models))


class QuitQuestion(ModalScreen[bool]):
    """Asks whether to quit while requests run; the result is True to quit."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y,enter", "answer(True)", "Quit"),
        Binding("escape,n", "answer(False)", "Return"),
    ]

    def __init__(self, running_count: int) -> None:
        super().__init__()
        self._running_count = running_count

    def compose(self) -> ComposeResult:
        """Yield the question."""
        count = self._running_count
        state, them = ("1 request is", "it") if count == 1 else (f"{count} requests are", "them")
        with Vertical(id="question"):
            yield Static(f"{state} in flight. Quit and break {them} off?\n\ny quits, escape returns.", markup=False)

    def action_answer(self, answer: bool) -> None:  # noqa: FBT001  # Textual's way to pass a parameter
        """Close the question with its answer."""
        self.dismiss(answer)
