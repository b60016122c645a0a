"""Three laws that hold for any request body, on the real server with the simulator as its provider.

1. No request that reaches the provider names a model outside the caller's grant or an object of another project.
2. Each request that reaches the provider has a record, whose total is not zero unless a documented rule says so.
3. No callback of the server's event loop runs long: while it runs, all other streams wait.

Bodies are drawn from the request types of the official SDKs and then mutated: members repeated, written with escapes,
nested elsewhere, of the wrong type, or naming models and objects that the caller may not use.  The examples are the
same in each run; FUZZ_EXAMPLES=5000 draws 5,000 random ones for each test instead.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx2 as httpx
import pytest
from hypothesis import HealthCheck, given, settings

from tests.docs.pages import DOCS
from tests.harness import (
    ANTHROPIC_KEY,
    KEY_ID,
    OPENAI_KEY,
    OTHER_KEY_ID,
    OTHER_PROJECT,
    PROJECT,
    TIMEOUT_S,
    ProxyProcess,
    mint,
    mint_for_other_project,
    running_proxy,
    wait_until,
)
from tests.server.fuzz.documents import Json, Object
from tests.server.fuzz.exchanges import Client, Record, creates_response, select_records
from tests.server.fuzz.laws import find_violations, show
from tests.server.fuzz.requests import (
    FORM_REQUESTS,
    FRAME_LISTS,
    JSON_REQUESTS,
    JSON_TARGETS,
    Request,
    Target,
    make_dense_request,
)
from tests.server.fuzz.sdk_values import hints_of
from tests.server.fuzz.timed_server import BLOCKED, LONGEST, STARTED
from tests.server.fuzz.world import FOREIGN_ITEM, FOREIGN_RESPONSE, GRANTED, OWN_OBJECT, OWN_RESPONSE
from tornado_proxy.simulator import Simulator, running_simulator

#: Examples of each test in CI, and how many a developer asks for.
_JSON_EXAMPLES, _FORM_EXAMPLES, _SOCKET_EXAMPLES = 1500, 60, 200
_REQUESTED = int(os.environ.get("FUZZ_EXAMPLES", "0"))

#: Milliseconds of CPU time of one callback: a stream's p99 gap may be 20 ms.
MAX_CALLBACK_MS = 20.0

#: How often a body is sent again before it is blamed for a callback.
ATTEMPTS = 3
#: Seconds until a log line of the server has arrived.
LOG_DELAY_S = 0.2

#: Seconds: polls of deferred usage and commits of the ledger, so that an example does not wait for either.
SHORT_WAITS = {
    "tornado_proxy.metering.deferred_settlement.POLL_INTERVAL_S": 0.1,
    "tornado_proxy.ledger.writer.write_queue.BATCH_DELAY_S": 0.001,
}


@dataclass(frozen=True, slots=True)
class FreeRule:
    """A rule by which a request is free: the page that says so, and its words."""

    page: str
    words: str


ERRORS_ARE_FREE = FreeRule("usage.md", "A response with an error status is free.")
#: Endpoints whose requests are free.
FREE_ENDPOINTS = {
    "/v1/responses/input_tokens": FreeRule("usage.md", "Free: `/v1/responses/input_tokens`"),
    "/v1/realtime/client_secrets": FreeRule("endpoints.md", "`/v1/realtime/client_secrets` | free;"),
    "/v1/messages/count_tokens": FreeRule("usage.md", "Free: `/v1/messages/count_tokens`"),
}


class Setup:
    """A running server, a client of it, and the line of the server's log from which on the event loop is timed."""

    def __init__(self, proxy: ProxyProcess, client: Client, first_line: int) -> None:
        self.proxy = proxy
        self.client = client
        self.first_line = first_line

        #: What was sent last, newest last.
        self.sent: deque[Callable[[], object]] = deque(maxlen=2)
        self._checked = first_line

    def find_blocked(self) -> str | None:
        """Return a log line, new since the last call, of a callback that ran longer than MAX_CALLBACK_MS."""
        lines = self.proxy.log[self._checked :]
        self._checked += len(lines)
        return next((line for line in lines if BLOCKED in line and read_ms(line) > MAX_CALLBACK_MS), None)

    def send_again(self, send: Callable[[], object]) -> str | None:
        """Send something once more; return the line of a callback that ran too long."""
        send()
        time.sleep(LOG_DELAY_S)
        return self.find_blocked()

    def __repr__(self) -> str:
        return "setup"  # a failure would otherwise show all of the server's log


def fuzzed(examples: int) -> settings:
    """Return the settings of a test with this many examples, or with as many random ones as a developer asks for."""
    return settings(
        max_examples=_REQUESTED or examples,
        derandomize=not _REQUESTED,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )


def make_projects() -> list[dict[str, object]]:
    return [
        {
            "id": PROJECT,
            "name": "first",
            "api_keys": [{"id": KEY_ID, "secret": {"env": "TEST_SIGNING_SECRET"}}],
            "allowed_objects": [OWN_OBJECT],
        },
        {
            "id": OTHER_PROJECT,
            "name": "other",
            "api_keys": [{"id": OTHER_KEY_ID, "secret": {"env": "TEST_OTHER_SIGNING_SECRET"}}],
        },
    ]


def create_response(proxy: ProxyProcess, token: str) -> tuple[str, str]:
    """Return the ids of a new response and of its output item."""
    response = httpx.post(
        f"{proxy.base_url}/v1/responses",
        headers={"Authorization": f"Bearer {token}"},
        json={"model": "gpt-4o-mini", "input": "hi"},
        timeout=TIMEOUT_S,
    )
    return response.json()["id"], response.json()["output"][0]["id"]


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    simulator = Simulator(keys={"openai": OPENAI_KEY, "anthropic": ANTHROPIC_KEY}, settle_s=0.05)
    models = [f"{'anthropic' if model.startswith('claude') else 'openai'}/{model}" for model in sorted(GRANTED)]
    with (
        running_simulator(simulator) as url,
        running_proxy(
            tmp_path_factory.mktemp("fuzz"),
            url,
            program="tests.server.fuzz.timed_server",
            constants=SHORT_WAITS,
            projects=make_projects(),
        ) as proxy,
    ):
        own_response, _ = create_response(proxy, mint())
        foreign_response, foreign_item = create_response(proxy, mint_for_other_project())
        ids = {OWN_RESPONSE: own_response, FOREIGN_RESPONSE: foreign_response, FOREIGN_ITEM: foreign_item}
        client = Client(proxy, simulator, models, ids)
        proxy.signal(signal.SIGUSR2)
        proxy.wait_for_log(STARTED)
        yield Setup(proxy, client, len(proxy.log))
        client.close()


def check_names(provider: str, content_type: str, body: bytes) -> None:
    """Check that a body that the provider received names no model or object that the caller may not use."""
    violations = find_violations(provider, content_type, body)
    assert not violations, f"the provider received {violations} in {show(body)}"


def check_record(record: Record, *, failed: bool) -> None:
    """Check that a record has a cost, will have one, or is free by a documented rule."""
    if record.basis == "free":
        assert failed or record.endpoint in FREE_ENDPOINTS, f"no documented rule makes it free: {record}"
    elif record.basis != "pending":
        assert record.total > 0, f"a request that reached the provider costs nothing: {record}"


def check_loop(setup: Setup, send: Callable[[], object]) -> None:
    """Check that nothing that was sent last holds up the server's event loop; `send` sends it again.

    CPU time and not a stream's gap on the clock: a gap also counts the time in which the machine ran something else, so
    it says nothing about this server unless the test is alone on the machine.  A stream waits at least as long as the
    callback before it.  A garbage collection takes CPU time as well, but not each time; a body does.
    """
    # The line of a callback can arrive after the response, so the one before counts too.
    setup.sent.append(send)
    if setup.find_blocked():
        for again in tuple(setup.sent):
            blocked = [setup.send_again(again) for _ in range(ATTEMPTS)]
            assert not all(blocked), f"the body holds up the event loop each time: {blocked[-1]}"


def check_exchange(setup: Setup, request: Request) -> None:
    """Send a request; check the three laws, and that the server answered it in order."""
    outcome = setup.client.send(request)

    assert outcome.status < 500, show(outcome.body)
    provider = request.target.split("/")[1]
    for content_type, body in outcome.received:
        check_names(provider, content_type, body)
    if outcome.received:
        check_record(setup.client.read_record(outcome.request_id), failed=outcome.status >= 400)
    check_loop(setup, lambda: setup.client.send(request))


@fuzzed(_JSON_EXAMPLES)
@given(request_=JSON_REQUESTS)
def test_any_json_body_keeps_the_laws(setup: Setup, request_: Request) -> None:
    check_exchange(setup, request_)


@fuzzed(_FORM_EXAMPLES)
@given(request_=FORM_REQUESTS)
def test_any_form_keeps_the_laws(setup: Setup, request_: Request) -> None:
    check_exchange(setup, request_)


@fuzzed(_SOCKET_EXAMPLES)
@given(frames=FRAME_LISTS)
def test_any_frame_keeps_the_laws(setup: Setup, frames: list[str]) -> None:
    ends, received, records = setup.client.send_frames(frames)

    assert len(ends) == len(frames)
    for frame in received:
        check_names("openai", "application/json", frame)
    assert len(records) == sum(map(creates_response, received))
    failed = any(end["type"] == "error" for end in ends)
    for record in records:
        check_record(record, failed=failed)
    check_loop(setup, lambda: setup.client.send_frames(frames))


def test_deferred_usage_of_the_run_is_settled_with_a_cost(setup: Setup) -> None:
    wait_until(lambda: not setup.client.read_pending(), "the deferred usage of all examples")

    settled = [record for record in select_records(setup.proxy.ledger, "method", "POST") if record.basis != "free"]
    assert settled
    assert [record for record in settled if record.total <= 0] == []


@pytest.mark.parametrize("entry", [(), Object()], ids=["lists", "objects"])
@pytest.mark.parametrize("target", JSON_TARGETS, ids=lambda target: target.path)
def test_no_member_full_of_empty_values_holds_up_the_event_loop(setup: Setup, target: Target, entry: Json) -> None:
    """Empty values are the most that fit into a body that is read on the event loop, for each member of the type."""
    for name in hints_of(target.request_type):
        request = make_dense_request(target, name, entry)
        setup.client.send(request)
        check_loop(setup, lambda request=request: setup.client.send(request))  # type: ignore[misc]  # bound at once


def test_longest_callback_of_the_run_is_reported(setup: Setup) -> None:
    longest = [line for line in setup.proxy.log[setup.first_line :] if LONGEST in line][-1]

    sys.stdout.write(longest)  # shown by pytest -rP
    assert read_ms(longest) > 0


@pytest.mark.parametrize("rule", [ERRORS_ARE_FREE, *FREE_ENDPOINTS.values()], ids=lambda rule: rule.words)
def test_rule_of_a_free_request_is_documented(rule: FreeRule) -> None:
    text = (DOCS / rule.page).read_text("utf-8")

    assert rule.words in re.sub(r"\s+", " ", text)


def read_ms(line: str) -> float:
    """Return the milliseconds in a log line of the timed server."""
    match = re.search(r"([\d.]+) ms", line)
    assert match is not None, line
    return float(match[1])
