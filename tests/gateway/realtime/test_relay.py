"""Every state and every end of a session relay, with fakes for the client and the provider."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from typing import Any

import pytest

from tests import harness, virtual_time
from tests.gateway.fakes import FakeSocket, Gateway, make_project, make_snapshot, own_keys
from tests.gateway.realtime.sessions import (
    CREATE,
    PING,
    REALTIME,
    SESSION_ID,
    Act,
    Session,
    created,
    delta,
    done,
    make_tariff_snapshot,
    play,
    session_updated,
)
from tornado_proxy.domain.record import Outcome
from tornado_proxy.domain.usage import Basis
from tornado_proxy.pricing.book.price_book import PriceBook
from tornado_proxy.snapshot import Snapshot

WORK = (created(), delta())
TRANSLATION = "/openai/v1/realtime/translations?model=gpt-realtime-translate"
CLEAR = b'{"type": "output_audio_buffer.clear"}'


@pytest.fixture
def gateway() -> Gateway:
    return Gateway(make_snapshot())


async def request_work(session: Session) -> None:
    """Let the client request a response that the provider starts and does not finish."""
    await session.from_client(CREATE)
    await session.from_provider(*WORK)


# OPEN: frames pass in both directions.


def test_frames_pass_unchanged_in_both_directions(gateway: Gateway) -> None:
    async def act(session: Session) -> None:
        await session.from_client(PING, CLEAR)
        await session.from_provider('{"type": "unknown"}', b"\xff")
        session.socket.end()

    session = play(gateway, act)

    assert session.socket.sent == [PING, CLEAR]
    assert session.client.received == ['{"type": "unknown"}', b"\xff"]
    assert session.records == []


LIMITS = '{"type":"rate_limits.updated","rate_limits":[{"name":"tokens","limit":15000000,"remaining":14999000}]}'
CODEX_LIMITS = '{"type":"codex.rate_limits","rate_limits":{"primary":{"used_percent":40.0}}}'
LIMITED = '{"type": "error", "status": 429, "error": {}, "headers": {"x-ratelimit-remaining-tokens": "0", "a": "b"}}'


@pytest.mark.parametrize(
    ("target", "frames", "shared"),
    [
        pytest.param(REALTIME, [created(), LIMITS, done(), LIMITS], [created(), done()], id="realtime"),
        pytest.param(REALTIME, [LIMITS.encode(), PING], [PING], id="binary"),
        pytest.param("/openai/v1/responses", [CODEX_LIMITS, PING], [PING], id="responses"),
        pytest.param(
            "/openai/v1/responses",
            [LIMITED],
            ['{"type":"error","status":429,"error":{},"headers":{"a":"b"}}'],
            id="error of responses",
        ),
    ],
)
def test_quota_of_the_account_reaches_only_clients_of_a_project_s_own_key(
    target: str, frames: list[str | bytes], shared: list[str | bytes]
) -> None:
    async def act(session: Session) -> None:
        await session.from_provider(*frames)
        session.socket.end()

    own_key = make_project(providers=own_keys(openai="sk-own"))
    for project, expected in ((own_key, frames), (make_project(), shared)):
        session = play(Gateway(make_snapshot(projects=[project])), act, target)
        assert session.client.received == expected


def test_session_that_drains_ends_at_a_quota_that_its_client_does_not_get(gateway: Gateway) -> None:
    async def act(session: Session) -> None:
        await request_work(session)
        session.relay.drain()
        await session.from_provider(done(), LIMITS)

    session = play(gateway, act)

    assert session.client.received == [*WORK, done()]
    assert [record.basis for record in session.records] == [Basis.REPORTED]


def test_requested_response_is_one_record_of_the_session(gateway: Gateway) -> None:
    async def act(session: Session) -> None:
        await session.from_client(CREATE)
        (intent,) = gateway.ledger.begun
        assert session.socket.sent == [CREATE]
        assert (intent.session, intent.model_requested) == (SESSION_ID, "gpt-realtime")
        await session.from_provider(*WORK, done())
        session.socket.end()

    session = play(gateway, act)

    (record,) = session.records
    assert gateway.ledger.begun == [record.intent]
    assert (record.basis, record.outcome, record.status, record.object_id) == (
        Basis.REPORTED,
        Outcome.COMPLETED,
        101,
        "resp_1",
    )
    assert session.client.received == [*WORK, done()]


def test_frame_waits_for_its_intent(gateway: Gateway) -> None:
    async def act(session: Session) -> None:
        stored = hold_ledger(gateway)
        sending = asyncio.ensure_future(session.from_client(CREATE))  # awaited below
        await virtual_time.settle()
        assert session.socket.sent == []
        stored.set()
        await sending
        assert session.socket.sent == [CREATE]
        session.socket.end()

    play(gateway, act)


def hold_ledger(gateway: Gateway) -> asyncio.Event:
    """Make the ledger store intents only after the returned event is set."""
    stored, begin = asyncio.Event(), gateway.ledger.begin

    async def begin_later(intent: Any) -> None:
        await stored.wait()
        await begin(intent)

    gateway.ledger.begin = begin_later  # type: ignore[method-assign]
    return stored


def test_work_that_the_provider_starts_itself_has_an_intent_before_the_client_sees_it(gateway: Gateway) -> None:
    async def act(session: Session) -> None:
        stored = hold_ledger(gateway)
        await session.from_provider(created(), PING)
        assert session.client.received == []
        stored.set()
        await virtual_time.settle()
        assert session.client.received == [created(), PING]
        await session.from_provider(done())
        session.socket.end()

    session = play(gateway, act)

    (record,) = session.records
    assert gateway.ledger.begun == [record.intent]
    assert record.basis is Basis.REPORTED


def test_client_that_reads_slowly_stops_the_provider(gateway: Gateway) -> None:
    async def act(session: Session) -> None:
        session.client.full = asyncio.Event()
        await session.from_provider("1", "2")
        assert session.client.received == ["1"]
        session.client.full.set()
        await virtual_time.settle()
        assert session.client.received == ["1", "2"]
        session.socket.end()

    play(gateway, act)


@pytest.mark.parametrize(
    ("frame", "shown"),
    [
        pytest.param(f'{{"a": "{harness.OPENAI_KEY}"}}', f'{{"a": "{"*" * len(harness.OPENAI_KEY)}"}}', id="text"),
        pytest.param(harness.OPENAI_KEY.encode(), b"*" * len(harness.OPENAI_KEY), id="binary"),
    ],
)
def test_provider_key_in_a_frame_is_masked(gateway: Gateway, frame: str | bytes, shown: str | bytes) -> None:
    async def act(session: Session) -> None:
        await session.from_provider(frame)
        session.socket.end()

    assert play(gateway, act).client.received == [shown]


# OPEN: rejected frames.


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        pytest.param("no JSON", "invalid_body", id="not JSON"),
        pytest.param('{"event_id": "evt_1"}', "invalid_body", id="no type"),
        pytest.param(
            '{"type": "session.update", "event_id": "evt_1", "session": {"model": "gpt-next"}}',
            "model_not_priced",
            id="model without a price",
        ),
        pytest.param(
            '{"type": "session.update", "event_id": "evt_1", "session": {"model": "gpt-realtime-mini"}}',
            "not_allowed",
            id="model that is not granted",
        ),
    ],
)
def test_rejected_frame_gets_an_error_event_and_goes_nowhere(frame: str, code: str) -> None:
    granted = {"openai/gpt-realtime", "openai/gpt-next"}
    gateway = Gateway(make_snapshot(projects=[make_project(models=make_patterns(*granted))]))

    async def act(session: Session) -> None:
        await session.from_client(frame, PING)
        session.socket.end()

    session = play(gateway, act)

    (event,) = [json.loads(text) for text in session.client.received]
    assert (event["type"], event["error"]["code"]) == ("error", code)
    assert event["event_id"].startswith("event_")
    assert event["error"]["event_id"] == ("evt_1" if code != "invalid_body" else None)
    assert session.socket.sent == [PING]
    assert gateway.ledger.begun == []


def make_patterns(*patterns: str) -> Any:
    return type(make_project().models)(patterns)


def test_request_for_work_is_rejected_while_the_ledger_cannot_be_written(gateway: Gateway) -> None:
    async def act(session: Session) -> None:
        gateway.ledger.fail("the disk is full")
        await session.from_client(CREATE)
        session.socket.end()

    session = play(gateway, act)

    (event,) = [json.loads(str(text)) for text in session.client.received]
    assert (event["error"]["code"], event["error"]["event_id"]) == ("ledger_unavailable", "evt_1")
    assert session.socket.sent == []
    assert session.records == []


# Ends.


async def provider_closes(session: Session) -> None:
    session.socket.end(4000, "bye")


async def provider_breaks(session: Session) -> None:
    session.socket.end(1011, "the connection to the provider broke", broken=True)


async def client_leaves(session: Session) -> None:
    session.leave(1000, "bye")


async def client_vanishes(session: Session) -> None:
    session.leave()


async def session_is_idle(session: Session) -> None:
    # Limits are checked four times per limit, so an idle session may last a quarter longer than its timeout.
    await asyncio.sleep(1200)


async def session_is_old(session: Session) -> None:
    # A message every 500 s keeps the idle timeout of 900 s away.
    for _ in range(10):
        await asyncio.sleep(500)
        await session.from_client(PING)


async def credential_is_revoked(session: Session) -> None:
    session.gateway.snapshots.current = make_snapshot(projects=[])
    await asyncio.sleep(130)


async def model_is_revoked(session: Session) -> None:
    session.gateway.snapshots.current = make_snapshot(projects=[make_project(models=make_patterns("openai/gpt-4o"))])
    await asyncio.sleep(130)


async def price_is_removed(session: Session) -> None:
    session.gateway.snapshots.current = make_tariff_snapshot(prices=PriceBook.from_documents([]))
    await asyncio.sleep(130)


async def model_has_no_price(session: Session) -> None:
    await session.from_provider(session_updated("gpt-next"))


async def server_shuts_down(session: Session) -> None:
    session.gateway.capacity.begin_drain()


async def shutdown_takes_too_long(session: Session) -> None:
    session.gateway.capacity.begin_drain()
    session.relay.end(Outcome.SHUTDOWN)


SHUTTING_DOWN = "the server is shutting down"
BROKE = "the connection to the provider broke"


@pytest.mark.parametrize(
    ("act", "client_close", "provider_close"),
    [
        pytest.param(provider_closes, (4000, "bye"), None, id="provider closes"),
        pytest.param(provider_breaks, (1011, BROKE), None, id="provider breaks"),
        pytest.param(client_leaves, (1000, "bye"), (1000, "bye"), id="client leaves"),
        pytest.param(client_vanishes, (1001, ""), (1001, ""), id="client vanishes"),
        pytest.param(session_is_idle, (1001, "no message for 900 s"), (1001, ""), id="idle"),
        pytest.param(
            session_is_old, (1001, "the session reached its lifetime of 3900 s; reconnect"), (1001, ""), id="lifetime"
        ),
        pytest.param(credential_is_revoked, (1008, "the credential is no longer valid: "), (1001, ""), id="revoked"),
        pytest.param(model_is_revoked, (1008, "the credential is no longer valid: "), (1001, ""), id="model revoked"),
        pytest.param(price_is_removed, (1008, "model 'gpt-realtime' has no price"), (1001, ""), id="price removed"),
        pytest.param(model_has_no_price, (1008, "model 'gpt-next'"), (1001, ""), id="no price"),
        pytest.param(server_shuts_down, (1001, SHUTTING_DOWN), (1001, ""), id="shutdown"),
    ],
)
def test_each_end_of_an_idle_session_has_its_close_codes_and_no_record(
    gateway: Gateway, act: Act, client_close: tuple[int, str], provider_close: tuple[int, str] | None
) -> None:
    session = play(gateway, act)

    code, reason = session.client.closes[0]
    assert (code, reason[: len(client_close[1])] if reason else "") == client_close
    assert session.relay.closed.code == client_close[0]
    assert session.socket.closes[:1] == ([] if provider_close is None else [provider_close])
    assert session.records == []
    assert (len(gateway.capacity), len(gateway.drains)) == (0, 0)


@pytest.mark.parametrize(
    ("end", "outcome", "fault"),
    [
        pytest.param(provider_closes, Outcome.UPSTREAM_BROKEN, None, id="provider closes"),
        pytest.param(provider_breaks, Outcome.UPSTREAM_BROKEN, BROKE, id="provider breaks"),
        pytest.param(session_is_idle, Outcome.PROXY_CLOSED, "no message for 900 s", id="idle"),
        pytest.param(session_is_old, Outcome.PROXY_CLOSED, "the session reached its lifetime", id="lifetime"),
        pytest.param(credential_is_revoked, Outcome.PROXY_CLOSED, "the credential is no longer", id="revoked"),
        pytest.param(model_has_no_price, Outcome.PROXY_CLOSED, "model 'gpt-next' has no price", id="no price"),
        pytest.param(shutdown_takes_too_long, Outcome.SHUTDOWN, None, id="shutdown takes too long"),
    ],
)
def test_each_end_of_a_working_session_leaves_an_estimate(
    gateway: Gateway, end: Act, outcome: Outcome, fault: str | None
) -> None:
    async def act(session: Session) -> None:
        await request_work(session)
        await end(session)

    session = play(gateway, act)

    (record,) = session.records
    assert (record.outcome, record.basis, record.object_id) == (outcome, Basis.ESTIMATED, "resp_1")
    assert gateway.ledger.begun == [record.intent]
    assert record.faults[0].startswith(fault if fault is not None else "response resp_1 reported no usage")


def test_reload_changes_the_prices_of_the_next_response_and_not_of_one_that_runs(gateway: Gateway) -> None:
    async def act(session: Session) -> None:
        await request_work(session)
        gateway.snapshots.current = make_tariff_snapshot(surcharge_rate=Decimal("0.5"))
        await session.from_provider(done())
        await session.from_client(CREATE)
        await session.from_provider(created("resp_2"), done("resp_2"))
        # The provider starts a response on its own.
        gateway.snapshots.current = make_tariff_snapshot(surcharge_rate=Decimal("0.25"))
        await session.from_provider(created("resp_3"), done("resp_3"))
        session.socket.end()

    costs = [record.cost for record in play(gateway, act).records]

    assert [cost.surcharge / cost.subtotal for cost in costs] == [Decimal("0.05"), Decimal("0.5"), Decimal("0.25")]


def test_request_has_the_prices_of_its_admission_if_a_reload_comes_while_its_intent_is_stored(gateway: Gateway) -> None:
    stored, begin = asyncio.Event(), gateway.ledger.begin

    async def begin_later(intent: Any) -> None:
        await stored.wait()
        await begin(intent)

    gateway.ledger.begin = begin_later  # type: ignore[method-assign]

    async def act(session: Session) -> None:
        wait = session.relay.from_client(CREATE)
        assert wait is not None
        admitted = asyncio.ensure_future(wait)
        await virtual_time.settle()
        gateway.snapshots.current = make_tariff_snapshot(surcharge_rate=Decimal("0.5"))
        await session.from_provider(LIMITS)
        stored.set()
        await admitted
        await session.from_provider(created(), done())
        session.socket.end()

    (record,) = play(gateway, act).records

    assert record.cost.surcharge / record.cost.subtotal == Decimal("0.05")


def test_request_for_a_model_whose_price_was_removed_is_refused(gateway: Gateway) -> None:
    async def act(session: Session) -> None:
        gateway.snapshots.current = make_tariff_snapshot(prices=PriceBook.from_documents([]))
        await session.from_client(CREATE)
        session.socket.end()

    session = play(gateway, act)

    (error,) = [json.loads(frame)["error"] for frame in session.client.received]
    assert error["code"] == "model_not_priced"
    assert (session.socket.sent, session.records) == ([], [])


def test_request_without_a_response_is_unsettled_at_the_end(gateway: Gateway) -> None:
    async def act(session: Session) -> None:
        await session.from_client(CREATE)
        session.socket.end()

    (record,) = play(gateway, act).records

    assert (record.basis, record.faults) == (Basis.UNSETTLED, ("the session ended before the provider responded",))


def test_message_of_either_side_postpones_the_idle_timeout(gateway: Gateway) -> None:
    async def act(session: Session) -> None:
        await asyncio.sleep(800)
        await session.from_client(PING)
        await asyncio.sleep(800)
        await session.from_provider("{}")
        await asyncio.sleep(800)
        assert session.client.closes == []

    assert play(gateway, act).client.closes[0] == (1001, "no message for 900 s")


def test_credential_that_stays_valid_is_checked_each_minute_and_the_session_goes_on() -> None:
    # Limits are checked four times per idle timeout, so more often than the credential.
    gateway = Gateway(make_snapshot(websockets={"idle_timeout_s": 80}))
    checked: list[Snapshot] = []
    recheck = gateway.admission.recheck

    async def count(*arguments: Any) -> None:
        checked.append(arguments[2])
        await recheck(*arguments)

    gateway.admission.recheck = count  # type: ignore[method-assign]

    async def act(session: Session) -> None:
        for _ in range(5):
            await asyncio.sleep(50)
            await session.from_provider("{}")
        assert len(checked) == 4
        session.socket.end()

    assert play(gateway, act).client.closes == [(1000, "")]


def test_close_reason_fits_into_a_control_frame(gateway: Gateway) -> None:
    async def act(session: Session) -> None:
        await session.from_provider(session_updated("gpt-next" * 40))

    (_, reason) = play(gateway, act).client.closes[0]

    assert reason is not None
    assert len(reason) == 120


def test_session_that_starts_with_a_model_without_a_price_is_closed(gateway: Gateway) -> None:
    started = json.dumps({"type": "session.created", "session": {"id": "sess_1", "model": "gpt-next"}})

    async def act(session: Session) -> None:
        await session.from_provider(started)

    session = play(gateway, act, TRANSLATION)

    assert session.client.received == []
    assert session.client.closes[0][0] == 1008
    assert [record.intent for record in session.records] == gateway.ledger.begun


# CLIENT_GONE


def test_running_work_is_read_to_its_end_when_the_client_leaves(gateway: Gateway) -> None:
    async def act(session: Session) -> None:
        await request_work(session)
        session.leave()
        assert (len(gateway.drains), session.socket.closes) == (1, [])
        await session.from_provider(delta())
        assert session.socket.closes == []
        await session.from_provider(done())

    session = play(gateway, act)

    (record,) = session.records
    assert (record.basis, record.outcome) == (Basis.REPORTED, Outcome.COMPLETED)
    assert session.client.received == list(WORK)
    assert session.socket.closes == [(1001, "")]
    assert len(gateway.drains) == 0


def test_running_work_is_aborted_when_the_client_leaves_and_the_policy_is_cancel() -> None:
    gateway = Gateway(make_snapshot(streams={"on_client_disconnect": "cancel"}))

    async def act(session: Session) -> None:
        await request_work(session)
        session.leave(1000, "bye")

    session = play(gateway, act)

    (record,) = session.records
    assert (record.basis, record.outcome) == (Basis.ESTIMATED, Outcome.CLIENT_CLOSED)
    assert session.socket.closes == [(1000, "bye")]


@pytest.mark.parametrize(
    ("streams", "reason"),
    [
        pytest.param({}, "took more than 120 s (streams.drain_limit_s)", id="time"),
        pytest.param({"drain_max": 0}, "0 responses are being drained already (streams.drain_max)", id="number"),
    ],
)
def test_drain_beyond_its_limits_is_an_estimate_that_states_the_reason(streams: dict[str, Any], reason: str) -> None:
    gateway = Gateway(make_snapshot(streams=streams))

    async def act(session: Session) -> None:
        await request_work(session)
        session.leave()

    session = play(gateway, act)

    (record,) = session.records
    assert (record.basis, record.outcome) == (Basis.ESTIMATED, Outcome.CLIENT_CLOSED)
    assert record.faults[0].endswith(reason)


def test_session_limit_that_ends_a_drain_is_still_the_client_s_end() -> None:
    gateway = Gateway(make_snapshot(streams={"drain_limit_s": 5000}))

    async def act(session: Session) -> None:
        await request_work(session)
        session.leave()

    (record,) = play(gateway, act).records

    assert (record.basis, record.outcome) == (Basis.ESTIMATED, Outcome.CLIENT_CLOSED)


def test_provider_that_breaks_while_a_session_drains_leaves_the_client_s_outcome(gateway: Gateway) -> None:
    async def act(session: Session) -> None:
        await request_work(session)
        session.leave()
        await provider_breaks(session)

    (record,) = play(gateway, act).records

    assert (record.outcome, record.faults[0]) == (Outcome.CLIENT_CLOSED, BROKE)


@pytest.mark.parametrize("working", [True, False])
def test_write_that_fails_counts_as_a_client_that_left(gateway: Gateway, working: bool) -> None:
    async def act(session: Session) -> None:
        if working:
            await request_work(session)
        session.client.gone = True  # Tornado has not called on_close() yet
        await session.from_provider("{}")
        assert session.socket.closes == ([] if working else [(1001, "")])
        if working:
            await session.from_provider(done())

    session = play(gateway, act)

    assert session.socket.closes == [(1001, "")]
    assert [record.basis for record in session.records] == ([Basis.REPORTED] if working else [])


def test_session_whose_writes_fail_is_recorded_as_the_client_s_end(gateway: Gateway) -> None:
    started = json.dumps({"type": "session.created", "session": {"id": "sess_1", "model": "gpt-realtime-translate"}})

    async def act(session: Session) -> None:
        await session.from_provider(started)
        session.client.gone = True
        await session.from_provider('{"type": "session.output_transcript.delta", "elapsed_ms": 60000}')

    (record,) = play(gateway, act, TRANSLATION).records

    # One minute at 0.034.
    assert (record.outcome, record.basis, record.cost.subtotal) == (
        Outcome.CLIENT_CLOSED,
        Basis.INFERRED,
        Decimal("0.034"),
    )


# DRAINING


def test_shutdown_waits_for_running_work(gateway: Gateway) -> None:
    async def act(session: Session) -> None:
        await request_work(session)
        gateway.capacity.begin_drain()
        await session.from_provider(delta())
        assert session.client.closes == []
        await session.from_provider(done())

    session = play(gateway, act)

    (record,) = session.records
    assert (record.basis, record.outcome) == (Basis.REPORTED, Outcome.COMPLETED)
    assert session.client.received[-1] == done()
    assert session.client.closes[0] == (1001, SHUTTING_DOWN)


def test_session_that_opens_while_the_server_shuts_down_ends_at_once(gateway: Gateway) -> None:
    async def act(session: Session) -> None:
        assert session.client.closes == [(1001, SHUTTING_DOWN)]

    gateway.capacity.begin_drain()
    session = play(gateway, act)

    assert session.socket.closes == [(1001, "")]
    assert len(gateway.capacity) == 0


def test_shutdown_while_a_session_drains_waits_for_its_work_too(gateway: Gateway) -> None:
    async def act(session: Session) -> None:
        await request_work(session)
        session.leave()
        gateway.capacity.begin_drain()
        await virtual_time.settle()
        assert session.socket.closes == []
        await session.from_provider(done())

    session = play(gateway, act)

    assert [record.basis for record in session.records] == [Basis.REPORTED]
    assert session.socket.closes == [(1001, "")]


def test_client_that_leaves_during_a_shutdown_ends_the_session_with_its_work(gateway: Gateway) -> None:
    async def act(session: Session) -> None:
        await request_work(session)
        gateway.capacity.begin_drain()
        session.leave()
        await session.from_provider(done())

    session = play(gateway, act)

    assert [record.basis for record in session.records] == [Basis.REPORTED]
    assert session.client.received == list(WORK)


# CLOSING


def test_frames_after_the_close_are_ignored(gateway: Gateway) -> None:
    async def act(session: Session) -> None:
        await server_shuts_down(session)
        await session.from_client(PING, CREATE)
        await session.from_provider("{}")
        session.socket.end(1001)

    session = play(gateway, act, socket=FakeSocket(confirms_close=False))

    assert session.socket.sent == []
    assert session.client.received == []
    assert gateway.ledger.begun == []
    assert session.client.closes == [(1001, SHUTTING_DOWN)]


def test_usage_that_arrives_after_the_close_is_recorded(gateway: Gateway) -> None:
    async def act(session: Session) -> None:
        await request_work(session)
        session.relay.end(Outcome.SHUTDOWN)
        await session.from_provider(done())
        session.socket.end(1001)

    (record,) = play(gateway, act, socket=FakeSocket(confirms_close=False)).records

    assert record.basis is Basis.REPORTED


def test_close_of_the_client_confirms_ours_and_keeps_the_outcome(gateway: Gateway) -> None:
    async def act(session: Session) -> None:
        await request_work(session)
        session.relay.end(Outcome.SHUTDOWN)
        session.leave(1001, SHUTTING_DOWN)
        session.socket.end(1001)

    session = play(gateway, act, socket=FakeSocket(confirms_close=False))

    assert [record.outcome for record in session.records] == [Outcome.SHUTDOWN]
    assert len(gateway.drains) == 0


def test_frame_to_a_provider_that_has_closed_is_dropped(gateway: Gateway) -> None:
    async def act(session: Session) -> None:
        session.socket.closed = True
        await session.from_client(PING)
        session.socket.end()

    assert play(gateway, act).socket.sent == []


def test_frame_that_is_admitted_as_the_session_ends_still_has_its_record(gateway: Gateway) -> None:
    async def act(session: Session) -> None:
        stored = hold_ledger(gateway)
        sending = asyncio.ensure_future(session.from_client(CREATE))  # awaited below
        await virtual_time.settle()
        session.socket.end()
        await session.running
        stored.set()
        await sending

    session = play(gateway, act)

    assert [record.intent for record in session.records] == gateway.ledger.begun
    assert [record.basis for record in session.records] == [Basis.UNSETTLED]
