"""Limits of requests, tokens and streams: what requests take of them, and refusals; with fake counters."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.gateway.budgets.test_gate import BODY, ID, admit, authenticate
from tests.gateway.fakes import Gateway, make_project, make_snapshot
from tornado_proxy.domain.budgets.rate_limits import ProjectLimits, RateClaim, RateRefusal, RateState, RateUnit
from tornado_proxy.domain.errors import BadRequest, LimitReached
from tornado_proxy.gateway.base_handler import error_headers
from tornado_proxy.providers.anthropic.provider import ANTHROPIC
from tornado_proxy.providers.contract import Provider
from tornado_proxy.providers.openai.provider import OPENAI

#: 84 bytes and 4,096 hidden tokens of input, 10 of output.
TOKENS = len(BODY) + 4096 + 10

REQUESTS = RateClaim("project", "", RateUnit.REQUESTS, 600, 1)


async def open_gateway(limits: ProjectLimits | None, **settings: Any) -> Gateway:
    """Return the gateway of a project with these limits."""
    gateway = Gateway(make_snapshot(projects=[make_project(limits=limits)], **settings))
    await gateway.budgets.follow(gateway.snapshot)
    return gateway


def list_taken(gateway: Gateway) -> list[tuple[str, RateUnit, int, int]]:
    """Return subject, unit, limit and units of what the request has taken."""
    return [(claim.subject, claim.unit, claim.limit, claim.units) for claim in gateway.keeper.reserved[ID].claims]


def test_request_takes_of_the_limits_of_its_project_and_participant() -> None:
    async def run() -> None:
        limits = ProjectLimits({RateUnit.REQUESTS: 600, RateUnit.TOKENS: 9000}, {RateUnit.REQUESTS: 60})
        gateway = await open_gateway(limits)
        assert await admit(gateway) is None
        assert list_taken(gateway) == [
            ("", RateUnit.REQUESTS, 600, 1),
            ("", RateUnit.TOKENS, 9000, TOKENS),
            ("participant ada", RateUnit.REQUESTS, 60, 1),
        ]

    asyncio.run(run())


def test_only_streamed_responses_are_streams() -> None:
    async def run() -> None:
        gateway = await open_gateway(ProjectLimits({RateUnit.STREAMS: 5}))
        assert await admit(gateway) is None
        assert gateway.keeper.asked == 0
        assert await admit(gateway, BODY[:-1] + b',"stream":true}') is None
        assert list_taken(gateway) == [("", RateUnit.STREAMS, 5, 1)]

    asyncio.run(run())


def test_project_without_limits_has_the_default_ones() -> None:
    async def run(own: ProjectLimits | None) -> int:
        gateway = await open_gateway(own, budgets={"default_limits": ProjectLimits({RateUnit.REQUESTS: 9})})
        await admit(gateway)
        return gateway.keeper.asked

    assert asyncio.run(run(None)) == 1
    assert asyncio.run(run(ProjectLimits())) == 0


def test_free_request_takes_nothing() -> None:
    async def run() -> None:
        gateway = await open_gateway(ProjectLimits({RateUnit.REQUESTS: 1, RateUnit.TOKENS: 1}))
        await gateway.admit(authenticate(gateway, "/v1/models", "GET"), b"", ID)
        assert gateway.keeper.asked == 0

    asyncio.run(run())


def test_request_that_can_use_more_tokens_than_the_limit_is_400() -> None:
    async def run() -> None:
        gateway = await open_gateway(ProjectLimits({}, {RateUnit.TOKENS: TOKENS - 1}))
        error = await admit(gateway)
        assert type(error) is BadRequest
        assert error.message.startswith(
            f"this request can use {TOKENS} tokens, and participant ada is limited to {TOKENS - 1} per minute"
        )
        assert gateway.keeper.asked == 0

    asyncio.run(run())


def refused(claim: RateClaim, wait_s: float | None, remaining: int = 0) -> RateRefusal:
    """Return the refusal of a limit that is whole again in 59.5 s."""
    return RateRefusal((RateState(claim, remaining, wait_s, 59.5),))


@pytest.mark.parametrize(("wait_s", "retry_after_s"), [(0.01, 1), (1.0, 1), (2.1, 3)])
def test_refusal_says_when_the_request_can_be_sent_again(wait_s: float, retry_after_s: int) -> None:
    async def run() -> None:
        gateway = await open_gateway(ProjectLimits({RateUnit.REQUESTS: 600}))
        gateway.keeper.refusal = refused(REQUESTS, wait_s)
        error = await admit(gateway)
        assert isinstance(error, LimitReached)
        assert error.retry_after_s == retry_after_s
        assert error.message == (
            "project first is limited to 600 requests per minute; 0 are left now; "
            f"send the request again in {retry_after_s} s"
        )
        assert gateway.ledger.begun == []

    asyncio.run(run())


def test_refused_stream_can_be_sent_again_soon() -> None:
    async def run() -> None:
        gateway = await open_gateway(ProjectLimits({RateUnit.STREAMS: 3}))
        gateway.keeper.refusal = refused(RateClaim("project", "user eve", RateUnit.STREAMS, 3, 1), None)
        with pytest.raises(LimitReached, match="user eve has 3 streams open") as caught:
            await gateway.budgets.open_stream(authenticate(gateway), "session")
        assert caught.value.retry_after_s == 2

    asyncio.run(run())


def test_session_is_a_stream_until_it_is_closed() -> None:
    async def run() -> None:
        gateway = await open_gateway(ProjectLimits({RateUnit.STREAMS: 3}))
        await gateway.budgets.open_stream(authenticate(gateway), "session")
        assert list(gateway.keeper.reserved) == ["session"]
        for _ in range(2):
            gateway.budgets.close_stream("session")
        assert gateway.keeper.ended == {"session": {RateUnit.STREAMS: 0}}

    asyncio.run(run())


@pytest.mark.parametrize(
    ("provider", "name"),
    [(OPENAI, "x-ratelimit-limit-requests"), (ANTHROPIC, "anthropic-ratelimit-requests-limit")],
)
def test_refusal_states_its_limits_in_the_headers_of_the_provider(provider: Provider, name: str) -> None:
    error = LimitReached("no", 3, refused(REQUESTS, 2.1).states)
    headers = dict(error_headers(error, ID, provider))
    assert (headers["Retry-After"], headers[name]) == ("3", "600")
