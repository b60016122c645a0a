"""What happens to requests while the ledger cannot be written, and that none is lost or counted twice."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from tests.harness import (
    OTHER_KEY_ID,
    OTHER_PROJECT,
    OTHER_SIGNING_SECRET,
    ROOT,
    ProxyProcess,
    mint,
    running_proxy,
    wait_until,
    write_config,
)
from tests.ledger.usage_lines import faults
from tests.postgres_server import PostgresServer, running_postgres
from tests.server.blocking_provider import (
    TOTAL_USD,
    BlockingProvider,
    chat,
    request_in_flight,
    running_blocking_provider,
)
from tests.server.load import Load
from tornado_proxy.simulator import Simulator, running_simulator

Fault = Callable[[ProxyProcess], contextlib.AbstractContextManager[None]]


@pytest.fixture
def provider() -> Iterator[BlockingProvider]:
    with running_blocking_provider() as one:
        yield one


@contextlib.contextmanager
def locked(proxy: ProxyProcess) -> Iterator[None]:
    """Another program keeps the write lock."""
    with contextlib.closing(sqlite3.connect(proxy.ledger, isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")
        yield
        db.execute("ROLLBACK")


@contextlib.contextmanager
def full_disk(proxy: ProxyProcess) -> Iterator[None]:
    """No file of the process may grow: EFBIG in place of ENOSPC, from the same system calls, whoever runs the test."""
    pid = proxy.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, before[1]))
    yield
    resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def moved_away(proxy: ProxyProcess) -> Iterator[None]:
    """The file is gone for a while."""
    aside = proxy.ledger.with_name("aside.db")
    proxy.ledger.rename(aside)
    yield
    aside.rename(proxy.ledger)


@contextlib.contextmanager
def replaced(proxy: ProxyProcess) -> Iterator[None]:
    """Another ledger stands in the file's place, which SQLite's log of changes would damage."""
    aside = proxy.ledger.with_name("aside.db")
    shutil.copyfile(proxy.ledger, aside)
    proxy.ledger.rename(proxy.ledger.with_name("first.db"))
    aside.rename(proxy.ledger)
    yield
    proxy.ledger.with_name("first.db").rename(proxy.ledger)


@contextlib.contextmanager
def damaged(proxy: ProxyProcess) -> Iterator[None]:
    """The disk gives back what was never written; then a backup is restored."""
    with (
        contextlib.closing(sqlite3.connect(proxy.ledger)) as db,
        contextlib.closing(sqlite3.connect(proxy.folder / "backup.db")) as backup,
    ):
        db.backup(backup)
    for file in proxy.folder.glob("ledger.db*"):
        if file.name in ("ledger.db", "ledger.db-wal", "ledger.db-shm"):
            with file.open("r+b") as opened:
                opened.write(b"no ledger " * (file.stat().st_size // 10))
    yield
    with proxy.ledger.open("r+b") as opened:
        opened.truncate()
        opened.write((proxy.folder / "backup.db").read_bytes())


def assert_turned_away(proxy: ProxyProcess) -> None:
    """Both providers' clients get a 503 that their SDKs understand; the process lives and is not ready."""
    openai = chat(proxy.base_url, "refused")
    assert openai.status_code == 503
    assert openai.json()["error"]["code"] == "ledger_unavailable"
    message = {"model": "claude-haiku-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    headers = {"x-api-key": mint(name="refused"), "anthropic-version": "2023-06-01"}
    anthropic = httpx.post(f"{proxy.base_url}/anthropic/v1/messages", json=message, headers=headers, timeout=30)
    assert anthropic.status_code == 503
    assert (anthropic.json()["type"], anthropic.json()["error"]["type"]) == ("error", "overloaded_error")
    assert proxy.fetch_admin("/healthz") == (200, "ok\n")
    assert proxy.fetch_admin("/readyz")[0] == 503


def assert_each_once(records: list[dict[str, Any]], users: list[str]) -> None:
    assert sorted(record["participant"] for record in records) == sorted(users)
    assert {record["total"] for record in records} == {TOTAL_USD}
    assert [fault for record in records for fault in faults(record)] == []


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        pytest.param(locked, "another program holds the file", id="locked"),
        pytest.param(full_disk, "free space", id="full disk"),
        pytest.param(moved_away, "the file is missing", id="gone"),
        pytest.param(replaced, "was replaced by another file while it was open", id="replaced"),
        pytest.param(damaged, "is damaged or no ledger", id="damaged"),
    ],
)
def test_while_the_ledger_fails_new_requests_get_503_and_those_in_flight_are_kept(
    fault: Fault, words: str, provider: BlockingProvider, tmp_path: Path
) -> None:
    with running_proxy(tmp_path, provider.url) as proxy:
        assert chat(proxy.base_url, "before").status_code == 200
        proxy.read_records(count=1)
        with request_in_flight(proxy, provider, "held") as answers, fault(proxy):
            if fault is full_disk:  # shows with the first write
                assert chat(proxy.base_url, "refused").status_code == 503
            wait_until(lambda: proxy.fetch_admin("/readyz")[0] == 503, "readiness to fail")
            wait_until(lambda: words in proxy.fetch_admin("/readyz")[1], f"{words}: {proxy.fetch_admin('/readyz')}")
            assert_turned_away(proxy)
            provider.release.set()
            wait_until(lambda: len(answers) == 1, "the answer of the request in flight")
            assert answers[0].status_code == 200
        wait_until(lambda: proxy.fetch_admin("/readyz") == (200, "ready\n"), "readiness to come back")
        assert chat(proxy.base_url, "after").status_code == 200

        assert_each_once(proxy.read_records(count=3), ["before", "held", "after"])
        assert "refused" not in provider.users
        told = [line for line in proxy.log if "the ledger cannot be written" in line]
        assert any(words in line for line in told), told
        proxy.wait_for_log("the ledger can be written again")


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A disk of 8 MB of its own."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("only root may mount a small disk")  # a full journal is tested without one
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_is_really_full_costs_no_record(provider: BlockingProvider, tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "var") as disk,
        running_proxy(tmp_path, provider.url, ledger={"url": "sqlite:///var/ledger.db"}) as proxy,
    ):
        proxy.ledger_url = f"sqlite:///{disk}/ledger.db"
        with request_in_flight(proxy, provider, "held"):
            filler = disk / "filler"
            fill(filler)
            wait_until(lambda: chat(proxy.base_url, "refused").status_code == 503, "a refusal")
            assert_turned_away(proxy)
            assert "free space" in proxy.fetch_admin("/readyz")[1]
            provider.release.set()
        filler.unlink()
        wait_until(lambda: proxy.fetch_admin("/readyz")[0] == 200, "readiness to come back")

        records = proxy.read_records(count=len(provider.users))
        assert sorted(record["participant"] for record in records) == sorted(provider.users)
        assert {record["total"] for record in records} == {TOTAL_USD}


def test_a_death_on_a_full_disk_costs_no_record_either(provider: BlockingProvider, tmp_path: Path) -> None:
    ledger = {"url": "sqlite:///var/ledger.db"}
    with small_disk(tmp_path / "var") as disk:
        with running_proxy(tmp_path, provider.url, ledger=ledger) as proxy:
            with request_in_flight(proxy, provider, "held") as answers:
                fill(disk / "filler")
                wait_until(lambda: chat(proxy.base_url, "refused").status_code == 503, "a refusal")
                provider.release.set()
                wait_until(lambda: len(answers) == 1, "the answer of the request in flight")
            wait_until(lambda: any(b'"held"' in one.read_bytes() for one in disk.glob("*.jsonl")), "a journal")
            proxy.signal(signal.SIGKILL)
            proxy.wait_exit()
        (disk / "filler").unlink()
        with running_proxy(tmp_path, provider.url, ledger=ledger) as again:
            again.ledger_url = f"sqlite:///{disk}/ledger.db"
            records = again.read_records()

    assert [record["total"] for record in records if record["participant"] == "held"] == [TOTAL_USD]
    assert sorted(record["participant"] for record in records) == sorted(provider.users)


def fill(filler: Path) -> None:
    """Take all the space that is left."""
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 4096):
            pass


def serve(config: Path) -> subprocess.CompletedProcess[str]:
    """Start a server that is expected to refuse."""
    secrets = ("TEST_OPENAI_KEY", "TEST_ANTHROPIC_KEY", "TEST_SIGNING_SECRET", "TEST_OTHER_SIGNING_SECRET")
    return subprocess.run(
        [sys.executable, "-m", "tornado_proxy", "serve", "--config", str(config)],
        capture_output=True,
        check=False,
        text=True,
        cwd=ROOT,
        env={**os.environ, **dict.fromkeys(secrets, "a-secret-of-more-than-thirty-two-characters")},
        timeout=30,
    )


def make_garbage(ledger: Path) -> None:
    ledger.write_bytes(b"this is no ledger " * 1000)


def make_foreign(ledger: Path) -> None:
    with contextlib.closing(sqlite3.connect(ledger)) as db:
        db.execute("CREATE TABLE songs (name TEXT)")


def make_newer(ledger: Path) -> None:
    with contextlib.closing(sqlite3.connect(ledger, isolation_level=None)) as db:
        db.executescript("CREATE TABLE meta (key, value); CREATE TABLE intents (x); CREATE TABLE records (x);")
        db.execute("INSERT INTO meta VALUES ('schema_version', '99')")


def make_folder(ledger: Path) -> None:
    ledger.mkdir()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        pytest.param(make_garbage, "restore a backup, or move it away", id="damaged"),
        pytest.param(make_foreign, "is a database of another program; name another one", id="another program's"),
        pytest.param(make_newer, "install the version that wrote it, or a later one", id="a later version's"),
        pytest.param(make_folder, "check the owner and mode of the file and its folder", id="a folder"),
    ],
)
def test_a_ledger_that_cannot_be_opened_is_one_line_that_says_what_to_do(
    make: Callable[[Path], None], words: str, tmp_path: Path
) -> None:
    make(tmp_path / "ledger.db")

    refused = serve(write_config(tmp_path, "http://127.0.0.1:9"))

    assert refused.returncode == 1
    (line,) = refused.stderr.splitlines()
    assert line.startswith(f"the ledger cannot be opened: {tmp_path}/ledger.db: ")
    assert words in line


def test_a_ledger_that_may_not_be_written_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    with small_disk(tmp_path / "var") as disk:
        (disk / "ledger.db").touch()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)

        refused = serve(write_config(tmp_path, "http://127.0.0.1:9", ledger={"url": "sqlite:///var/ledger.db"}))

    assert refused.returncode == 1
    (line,) = refused.stderr.splitlines()
    assert line.startswith(f"the ledger cannot be opened: {disk}/ledger.db: ")
    assert "Read-only file system" in line
    assert "check owner, mode and free space" in line


def assert_all_accounted(proxy: ProxyProcess, provider: BlockingProvider, *, callers: int) -> None:
    """Each request that reached the provider has one entry; what did not reach it is at most one of each caller."""
    # A database server may need a moment to find out that a process is dead.
    wait_until(lambda: set(provider.users) <= {one["participant"] for one in proxy.read_records()}, "all entries")
    entries = Counter(record["participant"] for record in proxy.read_records())
    assert max(entries.values()) == 1
    assert [fault for record in proxy.read_records() for fault in faults(record)] == []
    assert len(set(entries) - set(provider.users)) <= callers


def test_kill_9_under_load_leaves_each_request_with_one_entry(provider: BlockingProvider, tmp_path: Path) -> None:
    answered: list[str] = []
    for number in range(2):
        with (
            running_proxy(tmp_path, provider.url) as proxy,
            Load(proxy.base_url, f"round{number}") as load,
        ):
            seen = len(provider.users)
            wait_until(lambda: len(provider.users) > seen + 60, "some load")  # noqa: B023  # used within the round
            proxy.signal(signal.SIGKILL)
            proxy.wait_exit()
        answered += load.succeeded

    with running_proxy(tmp_path, provider.url) as proxy:
        assert_all_accounted(proxy, provider, callers=2 * 6)
        unsettled = [record for record in proxy.read_records() if record["basis"] == "unsettled"]
        # What a kill catches: calls under way, and records that waited for their commit.
        assert len(unsettled) < len(answered) / 2
        assert {record["outcome"] for record in unsettled} <= {"crashed"}


def test_two_processes_on_one_port_and_one_file_lose_and_double_nothing(
    provider: BlockingProvider, tmp_path: Path
) -> None:
    listen = {"host": "127.0.0.1", "port": 0, "reuse_port": True}
    with running_proxy(tmp_path, provider.url, listen=listen) as first:
        port = int(first.base_url.rpartition(":")[2])
        both = {**listen, "port": port}
        with running_proxy(tmp_path, provider.url, listen=both) as second:
            with Load(first.base_url, "both") as load:
                wait_until(lambda: len(load.succeeded) > 100, "some load")
                second.signal(signal.SIGKILL)
                second.wait_exit()
                seen = len(load.succeeded)
                wait_until(lambda: len(load.succeeded) > seen + 50, "load on the one that is left")
            served = [sum('"message":"request"' in line for line in one.log) for one in (first, second)]
            assert min(served) > 0, "the kernel gave one of them nothing"
        with running_proxy(tmp_path, provider.url, listen=both) as third:
            wait_until(lambda: third.fetch_admin("/readyz")[0] == 200, "the third")
            assert_all_accounted(third, provider, callers=6)


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


def test_a_server_that_goes_away_and_comes_back_loses_and_doubles_nothing(
    postgres: PostgresServer, provider: BlockingProvider, tmp_path: Path
) -> None:
    url = postgres.new_database()
    with running_proxy(tmp_path, provider.url, ledger={"url": url}) as proxy:
        proxy.ledger_url = url
        assert chat(proxy.base_url, "before").status_code == 200
        with request_in_flight(proxy, provider, "held"):
            postgres.stop()
            wait_until(lambda: proxy.fetch_admin("/readyz")[0] == 503, "readiness to fail")
            assert_turned_away(proxy)
            assert url in proxy.fetch_admin("/readyz")[1]
            provider.release.set()
        wait_for_journal(tmp_path)
        postgres.start()
        wait_until(lambda: proxy.fetch_admin("/readyz")[0] == 200, "readiness to come back")
        assert chat(proxy.base_url, "after").status_code == 200

        assert_each_once(proxy.read_records(count=3), ["before", "held", "after"])
        wait_until(lambda: journaled(tmp_path) == [], "an empty journal")


def test_a_process_that_dies_while_its_server_is_away_leaves_its_records_to_the_next(
    postgres: PostgresServer, provider: BlockingProvider, tmp_path: Path
) -> None:
    url = postgres.new_database()
    with running_proxy(tmp_path, provider.url, ledger={"url": url}) as proxy:
        with request_in_flight(proxy, provider, "held"):
            postgres.stop(signal.SIGQUIT)
            wait_until(lambda: proxy.fetch_admin("/readyz")[0] == 503, "readiness to fail")
            provider.release.set()
        wait_for_journal(tmp_path)
        proxy.signal(signal.SIGKILL)
        proxy.wait_exit()
    refused = serve(tmp_path / "proxy.yaml")
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"the ledger cannot be opened: {url}: the server cannot be reached")
    assert len(refused.stderr.splitlines()) == 1

    postgres.start()
    with running_proxy(tmp_path, provider.url, ledger={"url": url}) as again:
        again.ledger_url = url
        assert_each_once(again.read_records(), ["held"])


def journaled(folder: Path) -> list[str]:
    """Whose records wait beside a PostgreSQL ledger."""
    texts = [one.read_bytes().strip(b"\0\n") for one in folder.glob("ledger-journal/*.jsonl")]
    return [json.loads(line)["participant"] for text in texts for line in text.splitlines()]


def wait_for_journal(folder: Path) -> None:
    """Wait until the record of the request in flight is there."""
    wait_until(lambda: journaled(folder) == ["held"], "a record in the journal")


def test_kill_9_under_load_on_postgresql(postgres: PostgresServer, provider: BlockingProvider, tmp_path: Path) -> None:
    ledger = {"url": postgres.new_database()}
    with running_proxy(tmp_path, provider.url, ledger=ledger) as proxy, Load(proxy.base_url, "pg"):
        wait_until(lambda: len(provider.users) > 100, "some load")
        proxy.signal(signal.SIGKILL)
        proxy.wait_exit()

    with running_proxy(tmp_path, provider.url, ledger=ledger) as again:
        again.ledger_url = ledger["url"]
        assert_all_accounted(again, provider, callers=6)


def test_what_is_billed_later_is_settled_on_postgresql_and_belongs_to_who_made_it(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    url = postgres.new_database()
    with (
        running_simulator(Simulator(settle_s=0.1)) as upstream,
        running_proxy(tmp_path, upstream, ledger={"url": url}) as proxy,
        httpx.Client(base_url=f"{proxy.base_url}/v1", headers={"Authorization": f"Bearer {mint()}"}) as client,
    ):
        proxy.ledger_url = url
        body = {"model": "gpt-4o-mini", "input": "hi", "background": True}
        made = client.post("/responses", json=body)
        proxy.wait_for_log('"message":"request settled"')

        (record,) = proxy.read_records()
        own = client.get(f"/responses/{made.json()['id']}")
        stranger = mint(project=OTHER_PROJECT, key_id=OTHER_KEY_ID, secret=OTHER_SIGNING_SECRET)
        others = client.get(f"/responses/{made.json()['id']}", headers={"Authorization": f"Bearer {stranger}"})

    assert (record["request_id"], record["basis"]) == (made.headers["llm-proxy-request-id"], "reported")
    usage = own.json()["usage"]
    # 0.15 and 0.60 dollars a million tokens.
    cost = (usage["input_tokens"] * Decimal("0.15") + usage["output_tokens"] * Decimal("0.60")) / 1_000_000
    assert Decimal(record["subtotal"]) == cost
    assert others.status_code == 404


def test_without_the_driver_the_server_says_what_to_install(tmp_path: Path) -> None:
    config = write_config(tmp_path, "http://127.0.0.1:9", ledger={"url": "postgresql://db/ledger"})
    (tmp_path / "psycopg").mkdir()
    (tmp_path / "psycopg" / "__init__.py").write_text("raise ModuleNotFoundError('psycopg')")

    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from tornado_proxy.cli import main; main()"
    refused = subprocess.run(
        [sys.executable, "-c", code, "usage", "--config", str(config)],
        capture_output=True,
        check=False,
        text=True,
        cwd=ROOT,
        timeout=30,
    )

    assert refused.returncode == 1
    assert refused.stderr.splitlines() == [
        "a PostgreSQL ledger needs the driver psycopg: pip install 'tornado-proxy[postgresql]'"
    ]
