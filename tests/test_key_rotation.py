"""Several keys are used in turn; one that the provider rejects is not used for a time."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from tornado_proxy.domain.identity import KeyId, ProviderKey, Secret
from tornado_proxy.key_rotation import KeyRotation, KeySetAside
from tornado_proxy.observability import metrics

KEYS = tuple(ProviderKey(name, Secret(f"sk-{name}")) for name in ("a", "b", "c"))
ACCOUNT = ("openai", "")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def rotation(clock: Clock) -> KeyRotation:
    return KeyRotation(clock)


def choose(rotation: KeyRotation, times: int = 6, **options: str) -> str:
    return "".join(rotation.choose(ACCOUNT, KEYS, **options).name for _ in range(times))


def respond(rotation: KeyRotation, name: str, status: int, retry_after: str | None = None) -> None:
    key = next(key for key in KEYS if key.name == name)
    rotation.note_response("openai", KeyId(name, key.fingerprint), status, retry_after)


def test_keys_are_used_in_turn(rotation: KeyRotation) -> None:
    assert choose(rotation) == "abcabc"


def test_each_account_has_its_own_turns(rotation: KeyRotation) -> None:
    chosen = [rotation.choose((provider, ""), KEYS).name for provider in ("openai", "anthropic") * 3]

    assert chosen == ["a", "a", "b", "b", "c", "c"]


@pytest.mark.parametrize(
    ("status", "retry_after", "free_after_s"),
    [
        pytest.param(401, None, 60, id="rejected"),
        pytest.param(401, "3600", 60, id="Retry-After of a 401 does not count"),
        pytest.param(429, "21", 21, id="limited"),
        pytest.param(429, " 900 ", 900, id="limited for long"),
        pytest.param(429, "9" * 30, 24 * 3600, id="number without sense"),
        pytest.param(429, "20", 0, id="20 s are no reason"),
        pytest.param(429, None, 0, id="no time"),
        pytest.param(429, "soon", 0, id="text"),
        pytest.param(429, "-5", 0, id="negative"),
        pytest.param(500, "900", 0, id="fault of the provider"),
        pytest.param(403, "900", 0, id="forbidden"),
        pytest.param(200, "900", 0, id="success"),
    ],
)
def test_rejected_key_is_set_aside_for_the_stated_time(
    rotation: KeyRotation, clock: Clock, status: int, retry_after: str | None, free_after_s: int
) -> None:
    respond(rotation, "b", status, retry_after)

    if free_after_s:
        assert "b" not in choose(rotation)
        clock.now += free_after_s - 0.1
        assert "b" not in choose(rotation)
        clock.now += 0.2
    assert "b" in choose(rotation)


def test_retry_after_may_be_a_date(rotation: KeyRotation) -> None:
    respond(rotation, "a", 429, format_datetime(datetime.now(UTC) + timedelta(minutes=5), usegmt=True))

    assert choose(rotation, 4) == "bcbc"


def test_of_keys_that_are_all_set_aside_the_one_that_is_free_soonest_is_used(rotation: KeyRotation) -> None:
    respond(rotation, "a", 429, "100")
    respond(rotation, "b", 429, "30")
    respond(rotation, "c", 401)

    assert choose(rotation, 3) == "bbb"


def test_only_key_is_used_whatever_the_provider_says(rotation: KeyRotation) -> None:
    respond(rotation, "a", 401)

    assert rotation.choose(ACCOUNT, KEYS[:1]).name == "a"


def test_sticky_requests_keep_their_key_while_it_is_usable(rotation: KeyRotation, clock: Clock) -> None:
    by_project = {str(number): choose(rotation, 3, sticky=str(number)) for number in range(50)}
    assert {len(set(chosen)) for chosen in by_project.values()} == {1}
    assert {chosen[0] for chosen in by_project.values()} == {"a", "b", "c"}

    respond(rotation, "a", 401)
    moved = {name: choose(rotation, 1, sticky=name) for name in by_project}

    assert all(moved[name] == chosen[0] for name, chosen in by_project.items() if chosen[0] != "a")
    assert "a" not in moved.values()
    clock.now += 61
    assert {name: choose(rotation, 3, sticky=name) for name in by_project} == by_project


def test_reload_tries_rejected_keys_again_and_keeps_limits_and_turns(rotation: KeyRotation, clock: Clock) -> None:
    choose(rotation, 1)
    respond(rotation, "a", 401)
    respond(rotation, "b", 429, "100")

    reloaded = KeyRotation(clock)
    reloaded.inherit(rotation)

    assert choose(reloaded, 4) == "caca"


def test_key_is_reported_once_while_it_is_set_aside(rotation: KeyRotation, caplog: pytest.LogCaptureFixture) -> None:
    counter = metrics.KEYS_SET_ASIDE.labels("openai", "a", "429")
    before = counter._value.get()

    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            respond(rotation, "a", 429, "60")

    assert counter._value.get() == before + 1
    (record,) = caplog.records
    shown = vars(record)
    assert record.getMessage() == "provider key set aside"
    assert (shown["provider"], shown["provider_key"], shown["own_key"]) == ("openai", "a", False)
    assert (shown["status"], shown["seconds"]) == (429, 60)
    assert "sk-a" not in str(shown)


def test_listener_hears_once_of_a_key_that_is_set_aside_also_after_a_reload(rotation: KeyRotation) -> None:
    heard: list[KeySetAside] = []
    rotation.on_set_aside = heard.append
    respond(rotation, "a", 401)
    respond(rotation, "a", 401)

    reloaded = KeyRotation()
    reloaded.inherit(rotation)
    respond(reloaded, "b", 429, "30")

    assert [(aside.key.name, aside.status, aside.seconds) for aside in heard] == [("a", 401, 60), ("b", 429, 30)]
