"""Messages of a relay for the dashboard."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from tornado_proxy.local.dashboard.messages import (
    MINUTES,
    Finished,
    Introduction,
    Item,
    ModelSums,
    Refused,
    Running,
    Sums,
    Update,
)

AT = datetime(2026, 11, 28, 10, 14, 3, tzinfo=UTC)

INTRODUCTION = Introduction(
    url="http://127.0.0.1:8766",
    upstream="https://llm.example.com",
    source="the login of ada@example.com",
    project_id="0c9f8a5e-9a1e-4f6b-8c43-1d2a7f6f0a10",
    is_secure=True,
    variables=(
        "export OPENAI_BASE_URL=http://127.0.0.1:8766/openai/v1",
        "export OPENAI_API_KEY=tpl_example",
        "export ANTHROPIC_BASE_URL=http://127.0.0.1:8766/anthropic",
        "export ANTHROPIC_API_KEY=tpl_example",
        "unset ANTHROPIC_AUTH_TOKEN",
    ),
)

ITEMS = (
    Item("input_tokens", Decimal(720), "per_million_tokens", Decimal(2), Decimal("0.00144")),
    Item("output_tokens", Decimal(24), "per_million_tokens", Decimal(10), Decimal("0.00024")),
    Item("llm_proxy_surcharge", Decimal("0.00168"), "usd", Decimal("0.05"), Decimal("0.000084")),
)

GPT_ITEMS = (
    Item("input_tokens", Decimal(3810), "per_million_tokens", Decimal("2.5"), Decimal("0.009525")),
    Item("output_tokens", Decimal(1200), "per_million_tokens", Decimal(15), Decimal("0.018")),
    Item("llm_proxy_surcharge", Decimal("0.027525"), "usd", Decimal("0.05"), Decimal("0.00137625")),
)


def finished(number: int = 1, **changes: Any) -> Finished:
    """Return a request that has ended `number` seconds after AT."""
    members: dict[str, Any] = {
        "request_id": f"req_{number:032x}",
        "number": number,
        "ended_at": AT + timedelta(seconds=number),
        "status": 200,
        "outcome": "completed",
        "basis": "reported",
        "provider": "anthropic",
        "method": "POST",
        "path": "/v1/messages",
        "model": "claude-sonnet-5",
        "tokens": 744,
        "subtotal": Decimal("0.00168"),
        "surcharge": Decimal("0.000084"),
        "total": Decimal("0.001764"),
        "first_byte_ms": 412,
        "duration_ms": 1830,
        "items": ITEMS,
    }
    return Finished(**{**members, **changes})


def running(number: int = 1, **changes: Any) -> Running:
    """Return a request in flight."""
    members: dict[str, Any] = {
        "request_id": f"run_{number}",
        "provider": "anthropic",
        "method": "POST",
        "path": "/v1/messages",
        "model": "claude-opus-4-8",
        "started_at": AT,
        "age_ms": 12_340,
        "tokens": 18_204,
        "subtotal": Decimal("0.1127"),
        "surcharge": Decimal("0.005635"),
        "total": Decimal("0.118335"),
    }
    return Running(**{**members, **changes})


def update(*ended: Finished, **changes: Any) -> Update:
    """Return an update with requests that have ended, and their sums."""
    members: dict[str, Any] = {
        "sums": Sums(
            len(ended),
            sum(request.tokens for request in ended),
            sum((request.subtotal for request in ended), Decimal(0)),
            sum((request.surcharge for request in ended), Decimal(0)),
            sum((request.total for request in ended), Decimal(0)),
        ),
        "refused_count": 0,
        "error_count": sum(request.is_error for request in ended),
        "running_count": len(changes.get("running", ())),
        "minutes": (Decimal(0),) * MINUTES,
        "finished": ended,
    }
    return Update(**{**members, **changes})


def busy_update() -> Update:
    """Return the update of the pictures in docs/images/."""
    ended = [finished(number) for number in range(1, 22, 3)]
    ended += [
        finished(
            number,
            provider="openai",
            path="/v1/responses",
            model="gpt-5.4",
            tokens=5_010,
            subtotal=Decimal("0.027525"),
            surcharge=Decimal("0.00137625"),
            total=Decimal("0.02890125"),
            items=GPT_ITEMS,
            first_byte_ms=286,
            duration_ms=9_420,
        )
        for number in range(2, 22, 3)
    ]
    ended += [
        finished(3, basis="estimated", outcome="client_closed", status=499, total=Decimal("0.000912"), tokens=388),
        finished(
            12,
            provider="openai",
            path="/v1/chat/completions",
            model="gpt-4o-mini",
            status=429,
            tokens=0,
            total=Decimal(0),
            is_error=True,
            first_byte_ms=88,
            duration_ms=90,
            message="Rate limit reached for gpt-4o-mini: 200 requests a minute",
        ),
        finished(
            18,
            provider="openai",
            method="WS",
            path="/v1/realtime",
            model="gpt-realtime",
            status=101,
            basis="unsettled",
            total=Decimal(0),
            tokens=0,
            is_error=True,
            outcome="upstream_broken",
            notes=("the connection to the provider broke",),
        ),
    ]
    ended.sort(key=lambda request: request.ended_at)
    refused = Refused(
        AT + timedelta(seconds=9),
        401,
        "POST",
        "/v1/responses",
        "invalid_local_bearer",
        "missing or invalid bearer of the local proxy",
    )
    minutes = tuple(Decimal(abs(31 * n % 53 - 9 * (n % 7)) * (n > 30)) / 4000 for n in range(MINUTES))
    models = (
        ModelSums(
            "anthropic", "claude-sonnet-5", Sums(212, 1_403_118, Decimal("2.4"), Decimal("0.12"), Decimal("2.52"))
        ),
        ModelSums("openai", "gpt-5.4", Sums(96, 611_420, Decimal("1.31"), Decimal("0.0655"), Decimal("1.3755"))),
        ModelSums("openai", "gpt-4o-mini", Sums(41, 88_004, Decimal("0.0102"), Decimal("0.00051"), Decimal("0.01071"))),
        ModelSums("openai", "gpt-realtime", Sums(1, 0, unsettled=1)),
    )
    return update(
        *ended,
        sums=Sums(350, 2_102_542, Decimal("3.7202"), Decimal("0.18601"), Decimal("3.90621"), 1),
        refused_count=1,
        error_count=2,
        minutes=minutes,
        running=(
            running(1),
            running(
                2,
                model="gpt-5.4",
                provider="openai",
                path="/v1/responses",
                age_ms=3_120,
                tokens=2_810,
                subtotal=Decimal("0.01014"),
                surcharge=Decimal("0.000507"),
                total=Decimal("0.010647"),
            ),
            running(
                3,
                model="text-embedding-3-small",
                provider="openai",
                path="/v1/embeddings",
                age_ms=210,
                tokens=None,
                subtotal=None,
                surcharge=None,
                total=None,
            ),
        ),
        refused=(refused,),
        models=models,
    )
