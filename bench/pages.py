"""Measure the pages of the dashboard over a ledger of generated requests.

    python -m bench.pages [--requests 1000000] [--postgresql | --url URL] [--rounds 3] [--folder FOLDER]

A server runs over the ledger, and each page is requested over HTTP, one at a time: the bill by each group and range,
the list of requests with each filter, one request, open costs, budgets, keys and prices, as HTML, CSV and JSON, and
the usage API.  The figures of a page are the medians of the rounds, in milliseconds: its time, and the CPU time of the
server, which other work on the machine hardly changes.  With PostgreSQL the CPU time of the database counts too.  The
exit status is 1 if a page needs a second of CPU time or more, or is refused, or if the sums of a page differ from those
of all records.  `--folder` keeps an SQLite ledger for the next run.
"""

from __future__ import annotations

import argparse
import contextlib
import http.cookiejar
import json
import statistics
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from click.testing import CliRunner

from bench.generated_ledger import DAYS, Size, fill, make_sums
from bench.machine import read_tree_cpu_s
from tests.harness import ADMIN_TOKEN, PROJECT, ProxyProcess, running_proxy
from tests.postgres_server import running_postgres
from tornado_proxy.cli import main as command_line
from tornado_proxy.dashboard.bill.bill_request import GROUP_TITLES
from tornado_proxy.domain.config.ledger_address import LedgerAddress, PostgresAddress
from tornado_proxy.ledger.backends import make_backend
from tornado_proxy.ledger.reports.record_sums import sum_records
from tornado_proxy.ledger.reports.records_query import UsageFilter

#: A page must need less CPU time, in milliseconds.
MAX_MS = 1000.0

RANGES = ("today", "yesterday", "7d", "30d", "month", "last-month")

#: Nothing listens there: no page needs a provider.
_NOWHERE = "http://127.0.0.1:9"

_FILTERS = {
    "participant": ("rare", "person-0", "no-one"),
    "room": ("rare", "room-7"),
    "session": ("rare",),
    "agent_session": ("rare", "agent-7-20"),
    "end_user": ("rare", "end-77"),
    "client": ("codex", "no-client"),
    "agent": ("no-agent",),
    "turn": ("no-turn",),
    "repository": ("no-repository",),
    "user": ("no-user",),
    "issuer": ("no-issuer",),
    "users": ("rare,no-one",),
    "basis": ("unsettled", "pending", "estimated", "inferred"),
    "model": ("o3-2026-03-05", "no-model"),
    "provider": ("openai", "anthropic"),
    "provider_key": ("main", "no-key"),
    "endpoint": ("/v1/responses", "/v1/embeddings"),
    "project": (PROJECT, "no-project"),
}


def list_pages(request_id: str) -> Iterator[str]:
    """Yield the paths of all pages, below /dashboard."""
    for span in RANGES:
        yield f"/?range={span}"
    for group in GROUP_TITLES:
        yield f"/?range=30d&group={group}"
    for pair in (("day", "model"), ("participant", "model"), ("hour", "room"), ("label.team", "participant")):
        yield f"/?range=30d&group={pair[0]}&subgroup={pair[1]}"
    yield "/?range=30d&group=participant&sort=change&top=500"
    yield "/?range=30d&group=annotation.env"
    for name, values in _FILTERS.items():
        for value in values:
            query = urllib.parse.urlencode({"range": "30d", name: value})
            yield f"/requests?{query}"
            yield f"/?{query}&group=model"
    yield from ("/requests?range=30d", "/requests?range=30d&limit=500")
    yield "/requests?range=30d&participant=rare&basis=reported&model=o3-2026-03-05"
    yield from (f"/requests/{request_id}", "/open", "/budgets", "/prices", "/now")
    for output in ("csv", "json"):
        yield f"/?range=30d&group=participant&format={output}"
        yield f"/requests?range=30d&participant=rare&limit=500&format={output}"
        yield f"/requests/{request_id}?format={output}"
        yield from (f"/open?format={output}", f"/budgets?format={output}", f"/prices?format={output}")


def list_queries(now: datetime) -> Iterator[str]:
    """Yield the queries of the usage API of the admin port."""
    start = f"{now - timedelta(days=DAYS - 1):%Y-%m-%d}"
    for rows in ("items", "groups"):
        for rest in ("", "&interval=day", "&group_by=participant", "&session=rare", "&end_user=rare"):
            yield f"/v1/usage?start={start}&rows={rows}{rest}"


class Client:
    """Requests pages with the operator's cookie."""

    def __init__(self, proxy: ProxyProcess) -> None:
        self._root = f"{proxy.admin_url}/dashboard"
        self._admin_url = proxy.admin_url
        jar = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self._opener = urllib.request.build_opener(jar)
        config = str(proxy.folder / "proxy.yaml")
        printed = CliRunner().invoke(command_line, ["dashboard", "--config", config, "--url", proxy.admin_url])
        link = urllib.parse.parse_qs(urllib.parse.urlsplit(printed.stdout.strip()).query)["link"][0]
        form = urllib.parse.urlencode({"link": link}).encode()
        headers = {"Origin": proxy.admin_url}
        self._opener.open(urllib.request.Request(f"{self._root}/sign-in", form, headers), timeout=60).close()

    def get(self, path: str) -> tuple[float, int, bytes]:
        """Return the milliseconds of a request, its status and its body."""
        is_page = not path.startswith("/v1/")
        headers = {} if is_page else {"Authorization": f"Bearer {ADMIN_TOKEN}"}
        request = urllib.request.Request((self._root if is_page else self._admin_url) + path, headers=headers)
        began = time.perf_counter()
        try:
            with self._opener.open(request, timeout=120) as response:
                status, body = response.status, response.read()
        except urllib.error.HTTPError as error:
            with error:
                status, body = error.code, error.read()
        return (time.perf_counter() - began) * 1000, status, body


@dataclass(frozen=True, slots=True)
class Figures:
    """The milliseconds of a page, those of CPU time, and its status."""

    ms: float
    cpu_ms: float
    status: int

    @property
    def is_fine(self) -> bool:
        return self.cpu_ms < MAX_MS and self.status == 200


def measure(client: Client, paths: list[str], pids: list[int], rounds: int) -> dict[str, Figures]:
    """Return the figures of each page, and print them; `pids` are the processes whose CPU time counts."""
    figures = {}
    for path in paths:
        results = []
        for _ in range(rounds):
            before = read_tree_cpu_s(pids)
            taken_ms, status, _ = client.get(path)
            after = read_tree_cpu_s(pids)
            results.append((taken_ms, (after - before) * 1000, status))
        taken, used, statuses = zip(*results, strict=True)
        figures[path] = Figures(statistics.median(taken), statistics.median(used), max(statuses))
        print(f"{figures[path].ms:9.1f} ms {figures[path].cpu_ms:7.0f} ms CPU {max(statuses)} {path}", flush=True)
    return figures


def find_request_id(client: Client) -> str:
    """Return the id of a request of the participant `rare`."""
    _, _, body = client.get("/requests?range=30d&limit=1&format=json")
    return str(json.loads(body)["requests"][0]["request_id"])


def compare_sums(client: Client, address: LedgerAddress) -> bool:
    """Return True if the bill by model of all time adds up to the records, each read."""
    _, _, body = client.get("/?start=2020-01-01&end=2100-01-01&group=model&format=json")
    shown = {
        str(row["model"]): (row["requests"], Decimal(row["total"]), row["unsettled"], row["pending"])
        for row in json.loads(body)["bill"]
    }
    read = {
        str(each.group[0]): (each.requests, each.total, each.unsettled, each.pending)
        for each in sum_records(make_backend(address), UsageFilter(), ["model"], use_sums=False)
    }
    print(f"{sum(each[0] for each in read.values())} records, {sum(each[1] for each in read.values())} USD")
    return shown == read


@contextlib.contextmanager
def _prepared(folder: Path, options: argparse.Namespace) -> Iterator[tuple[LedgerAddress, list[int]]]:
    """Yield the address of the filled ledger, and the process id of its database server."""
    with contextlib.ExitStack() as stack:
        address: LedgerAddress = folder / "ledger.db"
        pids: list[int] = []
        if options.postgresql:
            server = stack.enter_context(running_postgres())
            address = PostgresAddress(server.new_database(), None, folder / "journal")
            assert server.process is not None
            pids.append(server.process.pid)
        if options.url:
            address = PostgresAddress(options.url, None, folder / "journal")
            pids += options.database_pid
        elif options.postgresql or not (folder / "ledger.db").exists():
            began = time.monotonic()
            fill(address, Size(options.requests, int(time.time() * 1000)))
            print(f"{options.requests} records in {time.monotonic() - began:.0f} s, sums in {make_sums(address):.0f} s")
        yield address, pids


def run(options: argparse.Namespace, folder: Path) -> bool:
    """Measure; return True if each page was fast enough and the sums were the same."""
    with _prepared(folder, options) as (address, pids):
        ledger = {"url": "sqlite:///ledger.db"}
        if isinstance(address, PostgresAddress):
            ledger = {"url": address.url, "journal": str(address.journal)}
        with running_proxy(folder, _NOWHERE, ledger=ledger) as proxy:
            client = Client(proxy)
            paths = [*list_pages(find_request_id(client)), *list_queries(datetime.now(UTC))]
            paths = [path for path in paths if options.only in path]
            figures = measure(client, paths, [proxy.process.pid, *pids], options.rounds)
            same = compare_sums(client, address) if options.compare else True
    slow = [path for path, page in figures.items() if not page.is_fine]
    times, used = [page.ms for page in figures.values()], [page.cpu_ms for page in figures.values()]
    print(f"{len(figures)} pages, median {statistics.median(times):.0f} ms and {statistics.median(used):.0f} ms of CPU")
    print(f"{len(slow)} pages are too slow or refused; the sums are {'the same' if same else 'NOT THE SAME'}")
    return same and not slow


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--postgresql", action="store_true", help="a PostgreSQL server of its own, and no SQLite file")
    parser.add_argument("--url", default="", help="a PostgreSQL ledger that has been filled")
    parser.add_argument(
        "--database-pid", type=int, action="append", default=[], help="the process of its server, whose CPU time counts"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="only paths that contain this text")
    parser.add_argument("--folder", type=Path, help="keep the ledger here")
    parser.add_argument("--no-compare", dest="compare", action="store_false", help="do not read every record")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        folder.mkdir(parents=True, exist_ok=True)
        is_fine = run(options, folder)
    sys.exit(not is_fine)


if __name__ == "__main__":
    main()
