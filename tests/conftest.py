from __future__ import annotations

import asyncio
import functools
import gc
import os
from collections.abc import Generator, Iterator

import httpcore2
import pytest
from hypothesis import HealthCheck, settings
from tornado.ioloop import IOLoop

from tests.postgres_server import PostgresServer, running_postgres

# Other load on the machine makes examples slow, which is no fault of the code under test.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return the processes of `--numprocesses auto`: more than cores, because tests wait half of the time."""
    return len(os.sched_getaffinity(0)) + 2 if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1) + 2


# The garbage collector would search the imported modules and the tests for cycles, which takes 2 s during collection
# and 0.4 s at each full collection afterwards.
def pytest_configure() -> None:
    gc.disable()


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Collect the garbage of each file at its end, so that an open socket fails the file that left it."""
    if _ends_file(item, nextitem):
        gc.collect()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, object]:
    """Leave the strategies and caches of a file out of all later collections, which take a tenth of the time.

    The last test holds its fixtures until here, so their garbage is collected first; an open socket fails the next
    test.
    """
    result = yield
    if _ends_file(item, nextitem):
        gc.collect()
        gc.freeze()
    return result


def _ends_file(item: pytest.Item, nextitem: pytest.Item | None) -> bool:
    return nextitem is None or nextitem.path != item.path


@pytest.fixture(scope="session", autouse=True)
def _shared_authorities() -> Iterator[None]:
    """Read the certificates of public authorities once.  Each HTTP client of a test would take 20 ms of CPU time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpcore2, "default_ssl_context", functools.cache(httpcore2.default_ssl_context))
        yield


@pytest.fixture
def io_loop() -> Iterator[IOLoop]:
    """The loop of a `gen_test`; replaces the fixture of pytest-tornado.

    pytest-tornado 0.8.1 makes its loop current in a way that leaves another loop unclosed.  The warning about that loop
    fails the test that happens to run when it is collected.
    """
    loop = IOLoop(make_current=False)
    asyncio.set_event_loop(loop.asyncio_loop)  # type: ignore[attr-defined]  # every IOLoop is on asyncio
    try:
        yield loop
    finally:
        asyncio.set_event_loop(None)
        loop.close(all_fds=True)


# One server for all tests: initdb and the start take some seconds.
@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Run a server that all tests share, and no test stops."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def postgres_database(postgres: PostgresServer) -> Iterator[str]:
    """Yield the URL of an empty database."""
    with postgres.empty_database() as url:
        yield url
