"""Links and sessions of the dashboard, on both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tests.state.conftest import MakeStore
from tornado_proxy.domain.errors import NotAuthenticated
from tornado_proxy.domain.identity import OAuthUser, Secret
from tornado_proxy.state import dashboard_sessions as sessions
from tornado_proxy.state.dashboard_session_table import MAX_SESSIONS, OperatorIdentity, ProjectIdentity, UserIdentity
from tornado_proxy.state.store import StateStore

NOW = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)
OPERATOR = OperatorIdentity()
ADA = ProjectIdentity("project-a", participant="ada")


def test_link_starts_one_session_for_every_process(make_store: MakeStore) -> None:
    store, other = make_store(), make_store()
    link = sessions.make_link(store, "cli:root", ADA, NOW)

    assert sessions.find_link(other, link, NOW) == ADA
    session = sessions.use_link(other, link, NOW)

    assert session.identity == ADA
    assert sessions.find_session(store, session.secret, NOW) == ADA
    assert sessions.find_link(store, link, NOW) is None
    with pytest.raises(NotAuthenticated, match="was used or is older than 60 seconds"):
        sessions.use_link(store, link, NOW)
    assert [(change.actor, change.action) for change in store.list_changes(0)] == [
        ("cli:root", "dashboard link made"),
        ("dashboard", "dashboard session started"),
    ]


def test_link_is_no_session_and_a_session_no_link(store: StateStore) -> None:
    link = sessions.make_link(store, "cli:root", OPERATOR, NOW)
    assert sessions.find_session(store, link, NOW) is None
    session = sessions.use_link(store, link, NOW)
    assert sessions.find_link(store, session.secret, NOW) is None


def test_link_ends_after_a_minute_and_a_session_after_12_hours(store: StateStore) -> None:
    used, late = (sessions.make_link(store, "cli:root", OPERATOR, NOW) for _ in range(2))

    with pytest.raises(NotAuthenticated):
        sessions.use_link(store, late, NOW + timedelta(seconds=60))
    session = sessions.use_link(store, used, NOW + timedelta(seconds=59)).secret
    started = NOW + timedelta(seconds=59)

    assert sessions.find_session(store, session, started + timedelta(hours=11, minutes=59)) == OPERATOR
    assert sessions.find_session(store, session, started + timedelta(hours=12)) is None


def test_session_of_a_user_keeps_the_claims_that_make_it_a_member(store: StateStore) -> None:
    user = OAuthUser("https://id.example.com", "u1", "cli", "ada@example.com", frozenset({"b", "a"}))

    session = sessions.start_session(store, UserIdentity.of(user), NOW)

    found = sessions.find_session(store, session.secret, NOW)
    assert isinstance(found, UserIdentity)
    assert found.oauth_user == user


def test_ended_sessions_show_nothing(store: StateStore) -> None:
    first, second = (sessions.start_session(store, OPERATOR, NOW).secret for _ in range(2))
    link = sessions.make_link(store, "cli:root", OPERATOR, NOW)

    sessions.end_session(store, first)
    assert [sessions.find_session(store, session, NOW) for session in (first, second)] == [None, OPERATOR]

    sessions.end_all_sessions(store, "cli:root")
    assert sessions.find_session(store, second, NOW) is None
    assert sessions.find_link(store, link, NOW) is None


def test_oldest_session_of_an_identity_ends_when_it_has_too_many(store: StateStore) -> None:
    other = sessions.start_session(store, ADA, NOW).secret
    started = [
        sessions.start_session(store, OPERATOR, NOW + timedelta(seconds=number)).secret
        for number in range(MAX_SESSIONS + 1)
    ]

    assert sessions.find_session(store, started[0], NOW) is None
    assert sessions.find_session(store, started[1], NOW) == OPERATOR
    assert sessions.find_session(store, other, NOW) == ADA


@pytest.mark.parametrize("secret", ["", "x", "x" * 100_000, "\ud800", "' OR 1=1 --"])
def test_text_that_is_no_secret_proves_nothing(store: StateStore, secret: str) -> None:
    assert sessions.find_session(store, Secret(secret), NOW) is None
