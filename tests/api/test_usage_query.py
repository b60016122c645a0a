"""What a caller may ask the usage API, and how its words are read."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tornado_proxy.api.usage_query import KNOWN, UsageRequest, read_usage_request, sees_all
from tornado_proxy.domain.errors import BadRequest, NotAllowed
from tornado_proxy.domain.identity import Caller, Member, Project
from tornado_proxy.ledger.reports.intervals import Interval
from tornado_proxy.ledger.reports.records_query import UsageFilter

PROJECT = Project("p1", "first", members=(Member("boss@example.com", admin=True), Member("dev@example.com")))
ADA = Caller("p1", participant="ada")
BOSS = Caller("p1", user="boss@example.com")


def read(caller: Caller = ADA, accept: str = "", **given: str) -> UsageRequest:
    return read_usage_request({name: [value] for name, value in given.items()}, accept, caller, PROJECT)


@pytest.mark.parametrize(
    ("caller", "all_of_it"),
    [
        (ADA, False),
        (BOSS, True),
        (Caller("p1", user="dev@example.com"), False),
        (Caller("p1", user="stranger@example.com"), False),
        (Caller("p1", user="operator", admin=True), True),
        # A participant who calls itself by an admin's address is still a participant.
        (Caller("p1", participant="boss@example.com"), False),
    ],
)
def test_admins_see_the_whole_project(caller: Caller, all_of_it: bool) -> None:
    assert sees_all(caller, PROJECT) is all_of_it
    which = read(caller).question.which
    own = UsageFilter(project_id="p1", participant=caller.participant, user=caller.user)
    assert which == (UsageFilter(project_id="p1") if all_of_it else own)


@pytest.mark.parametrize("name", ["participant", "user"])
def test_others_are_seen_by_admins_alone(name: str) -> None:
    with pytest.raises(NotAllowed, match="your own usage only"):
        read(ADA, **{name: "bob"})
    assert getattr(read(BOSS, **{name: "bob"}).question.which, name) == "bob"


def test_a_caller_without_a_name_sees_nothing() -> None:
    with pytest.raises(NotAllowed, match="neither a participant nor a user"):
        read(Caller("p1"))


def test_asking_for_oneself_by_name_is_fine() -> None:
    assert read(participant="ada").question.which.participant == "ada"


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2026-11-01", "2026-11-01T00:00:00.000Z"),
        ("2026-11-01T10:00:00Z", "2026-11-01T10:00:00.000Z"),
        ("2026-11-01T10:00:00.5", "2026-11-01T10:00:00.500Z"),
        ("2026-11-01T10:00:00+02:00", "2026-11-01T08:00:00.000Z"),
        # A plus that was not percent-encoded is a space when it arrives.
        ("2026-11-01T10:00:00 02:00", "2026-11-01T08:00:00.000Z"),
    ],
)
def test_times_are_taken_with_and_without_an_offset(text: str, utc: str) -> None:
    assert read(start=text).question.which.since == utc


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"start": "yesterday"}, "start is a date or a time"),
        ({"end": "0001-01-01T00:00:00+10:00"}, "end is a date or a time"),
        ({"start": "2026-11-02", "end": "2026-11-01"}, "start must be before end"),
        ({"interval": "fortnight"}, "hour, day, week, month"),
        ({"interval": "day", "group_by": "month"}, "one interval at a time"),
        ({"group_by": "colour"}, "cannot group by colour"),
        ({"basis": "guessed"}, "reported, inferred"),
        ({"annotations": "env=prod"}, "JSON object of text"),
        ({"annotations": '{"env": 1}'}, "JSON object of text"),
        ({"limit": "0"}, "from 1 to 10000"),
        ({"limit": "10001"}, "from 1 to 10000"),
        ({"limit": "1e3"}, "from 1 to 10000"),
        ({"cursor": "nonsense!"}, "next_cursor of the page before"),
        ({"format": "xml"}, "json or csv"),
        ({"particpant": "ada"}, "did you mean participant"),
        ({"room": ""}, "is empty, too long or no text"),
        ({"room": "a\0b"}, "is empty, too long or no text"),
    ],
)
def test_what_cannot_be_understood_is_refused_with_what_to_do(given: dict[str, str], message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        read(BOSS, **given)


def test_a_parameter_stands_once() -> None:
    with pytest.raises(BadRequest, match="more than once"):
        read_usage_request({"room": ["a", "b"]}, "", ADA, PROJECT)


@pytest.mark.parametrize("given", [{"interval": "day"}, {"group_by": "day"}, {"interval": "day", "group_by": "day"}])
def test_a_day_is_an_interval_and_a_group(given: dict[str, str]) -> None:
    assert read(**given).question.interval is Interval.DAY


def test_groups_keep_their_order_and_what_every_row_has_changes_nothing() -> None:
    assert read(group_by="room, model,participant,room").question.group_by == ("room", "participant")


@pytest.mark.parametrize(
    ("given", "accept", "csv"),
    [
        ({}, "", False),
        ({}, "*/*", False),
        ({}, "text/csv", True),
        ({}, "text/csv;q=0.9, application/json;q=0.5", True),
        ({}, "application/json, text/csv", False),
        ({"format": "csv"}, "application/json", True),
        ({"format": "json"}, "text/csv", False),
    ],
)
def test_the_shape_is_the_one_named_else_the_one_accepted(given: dict[str, str], accept: str, csv: bool) -> None:
    assert read(ADA, accept, **given).csv is csv


@given(st.dictionaries(st.sampled_from(sorted(KNOWN)), st.text() | st.sampled_from(["day", "1", "2026-11-01", "{}"])))
@settings(deadline=None)
def test_no_query_is_an_error_of_ours(given_words: dict[str, str]) -> None:
    with contextlib.suppress(BadRequest, NotAllowed):
        request = read(**given_words)
        assert request.question.which.project_id == "p1"
        assert request.question.which.participant == "ada"


@given(st.lists(st.text(max_size=100), max_size=9).map(tuple))
@settings(deadline=None)
def test_any_key_comes_back_through_a_cursor(key: tuple[str, ...]) -> None:
    assert read(cursor=read().cursor(key)).after == key


def test_a_cursor_comes_back_as_the_key_and_goes_with_its_question_alone() -> None:
    key = ("2026-11-01T00:00:00.000Z", "röm", "openai", "gpt-5.4", "input_tokens")
    cursor = read(interval="day", group_by="room").cursor(key)

    assert read(interval="day", group_by="room", cursor=cursor, limit="5").after == key
    with pytest.raises(BadRequest, match="goes with the parameters"):
        read(interval="day", cursor=cursor)
