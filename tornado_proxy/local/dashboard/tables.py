"""The tables of the dashboard: their columns, and the rows for their values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tornado_proxy.local.dashboard.cells import (
    show_age,
    show_amount,
    show_count,
    show_duration,
    show_line,
    show_mark,
    show_time,
)
from tornado_proxy.local.dashboard.fitted_table import Column, Row
from tornado_proxy.local.dashboard.messages import Finished, ModelSums, Running
from tornado_proxy.local.dashboard.state import Problem

#: The title of the first column states how many requests run.
RUNNING_COLUMNS = (
    Column("In flight"),
    Column("Request", 26, from_width=75),
    Column("Age", 7, right=True),
    Column("Tokens", 10, right=True, from_width=45),
    Column("Cost", 12, right=True),
)

RECENT_COLUMNS = (
    Column("Time", 8),
    Column("Status", 6),
    Column("Model"),
    Column("Request", 26, from_width=95),
    Column("First byte", 10, right=True, from_width=69),
    Column("Duration", 8, right=True, from_width=58),
    Column("Tokens", 9, right=True),
    Column("Cost", 12, right=True),
)

MODEL_COLUMNS = (
    Column("Model"),
    Column("Provider", 10, from_width=90),
    Column("Requests", 8, right=True),
    Column("Tokens", 11, right=True, from_width=45),
    Column("Subtotal", 11, right=True, from_width=70),
    Column("Surcharge", 11, right=True, from_width=70),
    Column("Total", 12, right=True),
)

PROBLEM_COLUMNS = (
    Column("Time", 8),
    Column("Status", 6),
    Column("Error"),
)


def make_running_rows(running: Iterable[Running]) -> Iterator[Row]:
    """Yield a row for each request in flight; its cost is an estimate."""
    for request in running:
        cost = "-" if request.total is None else f"~{show_amount(request.total)}"
        yield (
            request.request_id,
            (
                show_line(request.model or request.provider),
                show_line(f"{request.method} {request.path}"),
                show_age(request.age_ms),
                show_count(request.tokens),
                cost,
            ),
        )


def make_recent_rows(recent: Iterable[Finished]) -> Iterator[Row]:
    """Yield a row for each finished request."""
    for finished in recent:
        yield (
            str(finished.number),
            (
                show_time(finished.ended_at),
                show_status(finished),
                show_line(finished.model or "-"),
                show_line(f"{finished.method} {finished.path}"),
                show_duration(finished.first_byte_ms),
                show_duration(finished.duration_ms),
                show_count(finished.tokens),
                show_mark(finished.basis) + show_amount(finished.total),
            ),
        )


def make_model_rows(models: Iterable[ModelSums]) -> Iterator[Row]:
    """Yield a row for each model."""
    for entry in models:
        sums = entry.sums
        yield (
            f"{entry.provider}/{entry.model}",
            (
                show_line(entry.model or "-"),
                show_line(entry.provider),
                show_count(sums.requests),
                show_count(sums.tokens),
                show_amount(sums.subtotal),
                show_amount(sums.surcharge),
                ("!" if sums.unsettled else "") + show_amount(sums.total),
            ),
        )


def make_problem_rows(problems: Iterable[Problem]) -> Iterator[Row]:
    """Yield a row for each error."""
    for number, problem in enumerate(problems):
        text = f"{problem.title}: {problem.message}" if problem.title else problem.message
        yield str(number), (show_time(problem.at), show_problem_status(problem), show_line(text))


def show_status(finished: Finished) -> str:
    """Return the status of a request with "x" if it failed, "-" if the client saw none."""
    return f"{finished.status or '-'}{' x' if finished.is_error else ''}"


def show_problem_status(problem: Problem) -> str:
    """Return the status of an error, "log" for a warning of the log, "-" if the client saw none."""
    return "log" if problem.status == 0 else str(problem.status or "-")
