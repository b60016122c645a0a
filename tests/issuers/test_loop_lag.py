"""The event loop while an issuer takes three seconds to answer."""

from __future__ import annotations

import asyncio
import sys
import time

import pytest

from tests.oauth.fake_issuer import running_fake_issuer
from tests.oauth.tokens import rsa_key
from tornado_proxy.auth.oauth.key_set import VerificationKey
from tornado_proxy.domain.config.oauth import KeySource
from tornado_proxy.issuers.key_cache import KeyCache

DELAY_S = 3


def test_no_callback_takes_five_milliseconds_while_the_issuer_takes_three_seconds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    # A key set of the largest size, so that parsing it counts.
    published = {"keys": [{**rsa_key().jwk, "kid": f"rsa-{number}"} for number in range(100)]}

    async def measure(url: str) -> tuple[float, int]:
        cache = KeyCache(KeySource(url))
        found = cache.find_key("rsa-7", "RS256")
        assert not isinstance(found, VerificationKey)
        waiting = asyncio.ensure_future(found)
        longest_s, turns = 0.0, 0
        while not waiting.done():
            # CPU time of this thread, which runs the loop: other processes on the machine do not count.
            before = time.thread_time()
            await asyncio.sleep(0.001)
            longest_s, turns = max(longest_s, time.thread_time() - before), turns + 1
        assert isinstance(await waiting, VerificationKey)
        return longest_s, turns

    with running_fake_issuer() as issuer:
        issuer.publish(published, delay_s=DELAY_S)
        longest_s, turns = asyncio.run(measure(issuer.url))

    with capsys.disabled():
        sys.stdout.write(f"\nlongest turn of the event loop: {1000 * longest_s:.2f} ms of CPU, of {turns} turns\n")
    assert longest_s < 0.005
    assert turns > 500
