"""Opens the budgets of a ledger: a file beside an SQLite ledger, tables of its database on PostgreSQL."""

from __future__ import annotations

from pathlib import Path

from tornado_proxy.budgets.leases.slices import Slices
from tornado_proxy.budgets.store import BudgetDatabases, BudgetStore
from tornado_proxy.domain.config.ledger_address import LedgerAddress
from tornado_proxy.ledger.backends import make_backend
from tornado_proxy.ledger.sqlite.scratch_file import open_scratch_file
from tornado_proxy.ledger.writer.process_locks import ProcessLocks

#: The end of the name of the file.  The ledger's writer holds the lock of its own file for milliseconds, for which a
#: request that reserves would have to wait.
_FILE_SUFFIX = "-budgets"


def has_budgets(address: LedgerAddress) -> bool:
    """Return True if a process has counted budgets of the ledger at `address`.

    Raises:
        StoreError: the database cannot be opened.
    """
    if isinstance(address, Path):
        return address.with_name(address.name + _FILE_SUFFIX).exists()
    db = make_backend(address).connect(create=False)
    try:
        return "budget_meta" in db.list_tables()
    finally:
        db.close()


def open_store(
    address: LedgerAddress,
    locks: ProcessLocks,
    *,
    fsync: bool = False,
    slices: Slices | None = None,
) -> BudgetStore:
    """Return the budgets of the ledger at `address`, which exists already.

    Args:
        address: The address of the ledger.
        locks: The lock files of this machine's processes.
        fsync: True if each commit waits until the disk has it.
        slices: The slices of this process, if it has any.

    Raises:
        StoreError: a database cannot be opened.
        LedgerUnavailable: the driver of the database is not installed.
    """
    backend = make_backend(address, fsync=fsync)
    # Those without slices compare, list or count anew, once.
    ledger = backend.connect(create=False, is_brief=slices is None)
    if isinstance(address, Path):
        file = make_backend(address.with_name(address.name + _FILE_SUFFIX), fsync=fsync)
        # SQLite does not wait for another connection that makes a new file's journal at the same time.  Not `locks`:
        # another thread may hold that one, which would let this one pass.
        with ProcessLocks(address).hold_opening_lock():
            budgets = file.connect(create=True, is_brief=slices is None)
    else:
        budgets = ledger
    liveness = backend.make_liveness(ledger, locks)
    databases = BudgetDatabases(budgets, ledger, backend.dialect, locks, liveness, open_scratch_file)
    return BudgetStore(databases, Slices() if slices is None else slices)
