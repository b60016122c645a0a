"""Measure the work of budgets with a large ledger: its memory, its time, and its longest lock of a database.

    python -m bench.counting [--records 1000000] [--people 200000] [--postgresql]

A fifth of the records were settled later, and each 20th has a bound that is not forgotten yet.  Each task runs in a
process of its own; its memory is the highest while it runs, without that of its begin.  A lock is a transaction or a
statement that writes; on SQLite other writers wait for its end.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from bench.generated_ledger import Size, fill, make_sums
from tests.harness import OTHER_PROJECT, PROJECT
from tests.postgres_server import running_postgres
from tornado_proxy.budgets.backends import open_store
from tornado_proxy.budgets.leases.unheld_requests import forget_bounds
from tornado_proxy.budgets.store import BudgetStore
from tornado_proxy.domain.budgets.budget import Budget
from tornado_proxy.domain.budgets.budget_limits import BudgetLimits
from tornado_proxy.domain.budgets.counter import CounterKind, Period, Scope, encode_kind
from tornado_proxy.domain.config.ledger_address import LedgerAddress, PostgresAddress
from tornado_proxy.ledger.backends import make_backend
from tornado_proxy.ledger.columns import SETTLED_COLUMNS
from tornado_proxy.ledger.dialect import quote_names
from tornado_proxy.ledger.postgres.database import PostgresDatabase
from tornado_proxy.ledger.sqlite.database import SqliteDatabase
from tornado_proxy.ledger.sqlite.scratch_file import ScratchFile
from tornado_proxy.ledger.writer.process_locks import ProcessLocks
from tornado_proxy.reports.budgets import BudgetFigures, list_rows, show_rows

_PER_PERSON = CounterKind(Scope.PARTICIPANT, Period.TOTAL)
_PER_SESSION = CounterKind(Scope.AGENT_SESSION, Period.TOTAL)
_LIMITS = BudgetLimits({project: (Budget(_PER_PERSON, Decimal(10)),) for project in (PROJECT, OTHER_PROJECT)})

#: Makes a tenth of the counters of participants differ.
_SPOIL = "UPDATE budget_counters SET settled = '1' WHERE kind = ? AND subject LIKE ?"

#: The process whose bounds are forgotten.
_WRITER = "0123456789abcdef"

_Task = Callable[[BudgetStore, datetime], object]


@dataclass(frozen=True, slots=True)
class Figures:
    """The time of a task and its longest lock in seconds, and the memory that it took in MiB."""

    seconds: float
    lock_s: float
    memory_mb: float
    result: str


class _LockTimer:
    """Measures the longest transaction of a class of connections, but of those to scratch files."""

    def __init__(self) -> None:
        self.longest_s = 0.0

    def watch(self, database: type[Any]) -> None:
        """Measure the transactions and the single statements of a class."""
        transaction, run, timer = database.transaction, database.run, self

        @contextlib.contextmanager
        def timed_transaction(db: Any) -> Iterator[None]:
            with transaction(db):
                began = time.monotonic()
                yield
            timer._note(db, began)

        def timed_run(db: Any, sql: str, values: Sequence[object] = ()) -> None:
            began = time.monotonic()
            run(db, sql, values)
            timer._note(db, began)

        database.transaction, database.run = timed_transaction, timed_run

    def _note(self, db: Any, began: float) -> None:
        if not isinstance(db, ScratchFile):
            self.longest_s = max(self.longest_s, time.monotonic() - began)


def _register(kind: CounterKind) -> _Task:
    return lambda store, now: store.folding.register([kind], now)


def _list_budgets(store: BudgetStore, now: datetime) -> int:
    store.folding.limits = _LIMITS
    counters = store.list_limited_counters(_LIMITS, now)
    figures = BudgetFigures(counters, store.sum_reservations(counters), store.list_stated(now))
    return len(json.dumps(show_rows(list_rows(_LIMITS, figures, now))))


def _fold_settlements(store: BudgetStore, now: datetime) -> None:
    store.folding.fold_settlements()


def _forget(store: BudgetStore, now: datetime) -> None:
    forget_bounds(store._databases.ledger, _WRITER, 10**12)


_SPOILED = "compare, a tenth differs"

#: In this order.
_TASKS: dict[str, _Task] = {
    "open": lambda _store, _now: None,
    "new kind, per participant": _register(_PER_PERSON),
    "new kind, per agent session": _register(_PER_SESSION),
    "compare, none differs": lambda store, now: store.folding.correct(now),
    _SPOILED: lambda store, now: store.folding.correct(now),
    "settlements, none new": _fold_settlements,
    "list budgets": _list_budgets,
    "warnings of all counters": lambda store, _now: _watch(store),
    "forget bounds": _forget,
}


def _watch(store: BudgetStore) -> None:
    store.folding.limits = _LIMITS
    store.folding.check_warnings(datetime.now(UTC))


def _run_task(name: str, address: LedgerAddress) -> Figures:
    """Run a task in this process."""
    store = open_store(address, ProcessLocks(make_backend(address).files_path))
    timer = _LockTimer()
    if name == _SPOILED:
        store._budgets.run(_SPOIL, (encode_kind(_PER_PERSON), "%7"))
    timer.watch(PostgresDatabase if isinstance(address, PostgresAddress) else SqliteDatabase)
    # VmHWM begins anew.  https://docs.kernel.org/filesystems/proc.html, "clear_refs"
    Path("/proc/self/clear_refs").write_text("5")
    before = _read_kib("VmRSS")
    began = time.monotonic()
    result = _TASKS[name](store, datetime.now(UTC))
    seconds = time.monotonic() - began
    store.close()
    memory_mb = (_read_kib("VmHWM") - before) / 1024
    return Figures(seconds, timer.longest_s, memory_mb, "" if result is None else str(result))


def _read_kib(name: str) -> int:
    """Return a figure of this process's memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def _make_ledger(address: LedgerAddress, records: int, people: int) -> None:
    fill(address, Size(records, int(time.time() * 1000), is_narrow=True))
    is_sqlite = isinstance(address, Path)
    settled = quote_names(SETTLED_COLUMNS)
    figures = {"basis": "'reported'", "subtotal": "'0.01'", "surcharge": "'0.0005'", "total": "'0.0105'"}
    values = ", ".join(figures.get(name, f'r."{name}"') for name in SETTLED_COLUMNS)
    backend = make_backend(address)
    with contextlib.closing(backend.connect(create=False)) as db:
        if is_sqlite:
            opening = "DROP TRIGGER records_keep; DROP TRIGGER records_stay; "
            begun: Sequence[str] = ()
        else:
            opening = "ALTER TABLE records DISABLE TRIGGER USER; "
            begun = ("SET statement_timeout = 0",)
        for sql in begun:
            db.run(sql)
        db.run_script(
            opening + f"UPDATE records SET participant = 'person-' || (seq % {people}), "
            f"agent_session = CASE WHEN seq % 2 = 0 THEN 'session-' || (seq % {people}) END, "
            "basis = CASE WHEN seq % 5 = 2 THEN 'pending' ELSE 'reported' END;"
        )
        db.run_script(
            f"INSERT INTO settlements (request_id, {settled}, settled_at) SELECT r.request_id, {values}, r.ended_at "
            "FROM records r WHERE r.seq % 5 = 2 ORDER BY r.seq;"
        )
        db.run_script(
            "INSERT INTO unheld_bounds (request_id, writer, bound_total, bound_subtotal) "
            f"SELECT request_id, '{_WRITER}', '0.5', '0.4' FROM records WHERE seq % 5 = 1;"
        )
    make_sums(address)


def _measure(address: LedgerAddress, name: str) -> Figures:
    text = json.dumps(str(address) if isinstance(address, Path) else [address.url, str(address.journal)])
    out = subprocess.run(
        [sys.executable, "-m", "bench.counting", "--task", name, "--address", text],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return Figures(**json.loads(out))


def _read_address(text: str) -> LedgerAddress:
    address = json.loads(text)
    return Path(address) if isinstance(address, str) else PostgresAddress(address[0], None, Path(address[1]))


@contextlib.contextmanager
def _open_ledger(folder: Path, *, postgresql: bool) -> Iterator[LedgerAddress]:
    if not postgresql:
        yield folder / "ledger.db"
        return
    with running_postgres() as server:
        yield PostgresAddress(server.new_database(), None, folder / "journal")


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--people", type=int, default=200_000)
    parser.add_argument("--postgresql", action="store_true", help="a ledger on PostgreSQL")
    parser.add_argument("--task", choices=_TASKS, help=argparse.SUPPRESS)
    parser.add_argument("--address", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        print(json.dumps(asdict(_run_task(options.task, _read_address(options.address)))))
        return
    with tempfile.TemporaryDirectory() as name, _open_ledger(Path(name), postgresql=options.postgresql) as address:
        _make_ledger(address, options.records, options.people)
        print(f"{'':28} {'seconds':>9} {'lock s':>9} {'MiB':>7}  result")
        for task in _TASKS:
            figures = _measure(address, task)
            numbers = f"{figures.seconds:9.2f} {figures.lock_s:9.3f} {figures.memory_mb:7.0f}"
            print(f"{task:28} {numbers}  {figures.result}", flush=True)


if __name__ == "__main__":
    main()
