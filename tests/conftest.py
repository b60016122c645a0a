from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from tornado.ioloop import IOLoop

# A machine that does other work beside the tests makes examples slow; that is no fault of the code under test.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


@pytest.fixture
def io_loop() -> Iterator[IOLoop]:
    """The loop of a `gen_test`, in place of pytest-tornado's own fixture.

    That one makes its loop current by a way that leaves another loop behind, unclosed; the warning about it fails
    whichever test runs when it is collected.
    """
    loop = IOLoop(make_current=False)
    asyncio.set_event_loop(loop.asyncio_loop)  # type: ignore[attr-defined]  # every IOLoop is on asyncio
    try:
        yield loop
    finally:
        asyncio.set_event_loop(None)
        loop.close(all_fds=True)
