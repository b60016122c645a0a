"""`tornado-proxy ledger`: sums by hour and day, their verification, archives, removal of old records, copies."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from tornado_proxy.cli.options.config_lookup import exit_on_errors, find_ledger
from tornado_proxy.cli.options.config_option import config_option
from tornado_proxy.cli.options.format_option import format_option
from tornado_proxy.cli.verified_sums import print_verified
from tornado_proxy.domain.text import count_noun
from tornado_proxy.ledger.archives.archiving import archive_records, verify_archives
from tornado_proxy.ledger.archives.files import ArchiveError
from tornado_proxy.ledger.archives.pruning import prune_records
from tornado_proxy.ledger.backends import make_backend
from tornado_proxy.ledger.copying import CopyError, copy_ledger
from tornado_proxy.ledger.database import StoreError
from tornado_proxy.ledger.schema import prepare
from tornado_proxy.ledger.sums.rebuild import END_OF_TIME, catch_up
from tornado_proxy.ledger.sums.rebuild import rebuild as rebuild_sums
from tornado_proxy.state.store import StateStore

#: Days that records stay in the ledger at least: budgets of the month are compared with them.
MIN_KEPT_DAYS = 35

_CONFIG = config_option("The configuration that names the ledger.")
_LEDGER = click.option("--ledger", "url", help="The URL of the ledger, such as sqlite:///PATH; replaces --config.")
_BEFORE = click.option(
    "--before",
    type=click.DateTime(["%Y-%m-%d"]),
    required=True,
    help="Records that began before this day (UTC).",
)
_FOLDER = click.option(
    "--to", "folder", type=click.Path(path_type=Path), required=True, help="The folder of the archives."
)


_DAY = click.DateTime(["%Y-%m-%d"])
_SINCE = click.option("--since", type=_DAY, help="The first day (UTC); default: that of the first record.")
_UNTIL = click.option("--until", type=_DAY, help="The day after the last one; default: no limit.")

#: The first day, and the day after the last one.
_Days = tuple[str, str]
_ALL_DAYS: _Days = ("", END_OF_TIME)


def _days_option(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options --since and --until, which are the parameter `days`."""

    @functools.wraps(command)
    def run(*, since: datetime | None, until: datetime | None, **options: object) -> None:
        if since is not None and until is not None and since >= until:
            raise click.UsageError(
                f"--since {since:%Y-%m-%d} is not before --until {until:%Y-%m-%d}; correct one of them"
            )
        first = f"{since:%Y-%m-%d}" if since else _ALL_DAYS[0]
        command(days=(first, f"{until:%Y-%m-%d}" if until else _ALL_DAYS[1]), **options)

    return _SINCE(_UNTIL(run))


@click.group()
def ledger() -> None:
    """Sum, verify, archive, prune and copy the records of a ledger."""


@ledger.command()
@_CONFIG
@_LEDGER
@click.option(
    "--rebuild", is_flag=True, help="Correct all sums from the records; without it, add the records that they lack."
)
@_days_option
def rollup(config: Path, url: str | None, days: _Days, *, rebuild: bool) -> None:
    """Add records to the sums by hour and day, which reports read.

    A running server does this itself.  --rebuild compares the sums with the records and corrects those that differ,
    in short transactions, while servers run; sums of records that were pruned are kept.  --since and --until select
    days.

    \b
    Example:
      tornado-proxy ledger rollup --rebuild --since 2026-11-28 --until 2026-11-29
    """
    if days != _ALL_DAYS and not rebuild:
        raise click.UsageError("--since and --until select the days of --rebuild; without it all records are added")
    with _exit_on_faults():
        backend = make_backend(find_ledger(config, url))
        with contextlib.closing(backend.connect(create=False)) as db:
            prepare(db, backend)  # an earlier version may have made the tables
            rebuilt = rebuild_sums(db, backend.dialect, *days) if rebuild else None
            catch_up(db, backend.dialect)
            ((rows,),) = db.fetch_rows("SELECT count(*) FROM rollups")
    click.echo(f"ok: {count_noun(int(str(rows)), 'sum')}")
    if rebuilt is not None:
        click.echo(f"wrong sums: {rebuilt.corrected}; servers waited for {rebuilt.longest_s * 1000:.0f} ms at most")


@ledger.command()
@_CONFIG
@_LEDGER
@_BEFORE
@_FOLDER
def archive(config: Path, url: str | None, before: datetime, folder: Path) -> None:
    """Write old records to archives: a compressed file for each day, in a chain of hashes.

    Records stay in the ledger.  Those that are archived already, or whose cost the provider reports later, are left
    out.

    \b
    Example:
      tornado-proxy ledger archive --before 2026-09-01 --to /srv/ledger-archive
    """
    with _exit_on_faults():
        backend = make_backend(find_ledger(config, url))
        written = archive_records(
            backend,
            f"{before:%Y-%m-%d}",
            folder,
            lambda link: click.echo(f"{link.file}: {count_noun(link.records, 'record')}, {link.total} USD"),
        )
    records = sum(link.records for link in written)
    click.echo(f"ok: {count_noun(len(written), 'new file')}, {count_noun(records, 'record')}")


@ledger.command()
@_CONFIG
@_LEDGER
@_days_option
@click.option("--to", "folder", type=click.Path(path_type=Path), help="Verify the archives in this folder instead.")
@click.option("--alone", is_flag=True, help="With --to: read the archives only, and no ledger.")
@format_option("text", "json")
def verify(
    config: Path,
    url: str | None,
    days: _Days,
    folder: Path | None,
    output_format: str,
    *,
    alone: bool,
) -> None:
    """Verify that sums by hour and day are those of the records, or that archives are as they were written.

    Exit with status 1 if they are not.  Servers can run meanwhile.

    Without --to, each sum of each day is compared with the records of that day, and those that differ are printed; days
    whose records were pruned are left out.  With --to, each file is compared with its hash and the chain; and with the
    ledger: its last archive, and its sums of the days that were pruned.

    \b
    Example:
      tornado-proxy ledger verify --since 2026-11-01 --until 2026-12-01
      tornado-proxy ledger verify --to /srv/ledger-archive
    """
    if folder is None:
        if alone:
            raise click.UsageError("--alone reads archives; name their folder with --to")
        with _exit_on_faults():
            is_right = print_verified(make_backend(find_ledger(config, url)), days, output_format)
        sys.exit(0 if is_right else 1)
    if days != _ALL_DAYS or output_format != "text":
        raise click.UsageError("--since, --until and --format are of sums; leave them out with --to")
    with _exit_on_faults():
        archives = verify_archives(folder, None if alone else make_backend(find_ledger(config, url)))
    of_files = f"{count_noun(archives.files, 'file')}, {count_noun(archives.records, 'record')}"
    click.echo(f"ok: {of_files}, {archives.total:f} USD")


@ledger.command()
@_CONFIG
@_LEDGER
@_BEFORE
@_FOLDER
def prune(config: Path, url: str | None, before: datetime, folder: Path) -> None:
    """Remove old records that archives hold from the ledger.

    Verifies the archives first.  Sums by hour and day keep all amounts; a record that is not final, or that differs
    from its archive, stays.

    \b
    Example:
      tornado-proxy ledger prune --before 2026-09-01 --to /srv/ledger-archive
    """
    latest = datetime.now(UTC).date() - timedelta(days=MIN_KEPT_DAYS)
    if before.date() > latest:
        raise click.UsageError(
            f"--before {before:%Y-%m-%d} is too late: records stay for {MIN_KEPT_DAYS} days, because budgets are "
            f"compared with them; use {latest} or earlier"
        )
    with _exit_on_faults():
        pruned = prune_records(make_backend(find_ledger(config, url)), f"{before:%Y-%m-%d}", folder)
    removed = count_noun(pruned.removed, "record")
    click.echo(f"ok: {removed} removed, {pruned.kept} archived ones not in the ledger or different")


@ledger.command()
@_CONFIG
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path),
    required=True,
    help="The file of the SQLite ledger.",
)
def copy(config: Path, source: Path) -> None:
    """Copy an SQLite ledger into the empty ledger of the configuration, such as one in PostgreSQL.

    Records, settlements, sums, access keys, stops, limits that were changed, provider settings and cursors are copied,
    in one transaction.  No server may run on either.  Budgets are summed again at the next start.

    \b
    Example:
      tornado-proxy ledger copy --from var/ledger.db --config conf/proxy.yaml
    """
    if not source.is_file():
        raise click.ClickException(f"{source}: there is no such file; name that of the SQLite ledger")
    with _exit_on_faults():
        old, new = make_backend(source), make_backend(find_ledger(config, None))
        for backend in (old, new):
            with contextlib.closing(backend.connect(create=backend is new)) as db:
                prepare(db, backend)  # an earlier version may have made the tables
            with contextlib.closing(StateStore(backend)) as state:
                state.read_generation()  # makes its tables
        copied = copy_ledger(old, new)
    for table, rows in copied.items():
        if rows:
            click.echo(f"{table}: {count_noun(rows, 'row')}")
    click.echo(f"ok: {count_noun(copied['records'], 'record')}")


@contextlib.contextmanager
def _exit_on_faults() -> Iterator[None]:
    """Print what fails, and exit with status 1."""
    try:
        with exit_on_errors():
            yield
    except (ArchiveError, CopyError, StoreError) as error:
        click.echo(str(error), err=True)
        sys.exit(1)
