"""Parameters of the usage API: parsing, and the usage that a caller may read."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tornado_proxy.api.usage_query import PARAMETERS, UsageRequest, read_usage_request
from tornado_proxy.domain.errors import BadRequest, NotAllowed
from tornado_proxy.domain.identity import Caller, Member, Project
from tornado_proxy.ledger.reports.intervals import Interval
from tornado_proxy.ledger.reports.records_query import UsageFilter

PROJECT = Project("p1", "first", members=(Member("boss@example.com", admin=True), Member("dev@example.com")))
ADA = Caller("p1", participant="ada")
BOSS = Caller("p1", user="boss@example.com", issuer="https://id.example.com", admin=True)


def read(caller: Caller = ADA, accept: str = "", **given: str) -> UsageRequest:
    return read_usage_request({name: [value] for name, value in given.items()}, accept, caller, PROJECT)


@pytest.mark.parametrize(
    ("caller", "whole_project"),
    [
        (ADA, False),
        (BOSS, True),
        (Caller("p1", user="dev@example.com"), False),
        # A user of another issuer can have any subject; only authentication decides who is an admin.
        (Caller("p1", user="boss@example.com", issuer="https://other.example.com"), False),
        (Caller("p1", user="stranger@example.com"), False),
        (Caller("p1", user="operator", admin=True), True),
        # A participant who calls itself by an admin's address is still a participant.
        (Caller("p1", participant="boss@example.com"), False),
    ],
)
def test_admins_see_the_whole_project(caller: Caller, whole_project: bool) -> None:
    which = read(caller).query.which
    own = UsageFilter(project_id="p1", participant=caller.participant, user=caller.user, issuer=caller.issuer)
    assert which == (UsageFilter(project_id="p1") if whole_project else own)


@pytest.mark.parametrize("name", ["participant", "user", "issuer"])
def test_only_admins_read_the_usage_of_others(name: str) -> None:
    with pytest.raises(NotAllowed, match="your own usage only"):
        read(ADA, **{name: "bob"})
    assert getattr(read(BOSS, **{name: "bob"}).query.which, name) == "bob"


def test_caller_without_a_name_is_rejected() -> None:
    with pytest.raises(NotAllowed, match="neither a participant nor a user"):
        read(Caller("p1"))


def test_caller_may_name_itself() -> None:
    assert read(participant="ada").query.which.participant == "ada"


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
def test_time_without_an_offset_is_utc(text: str, utc: str) -> None:
    assert read(start=text).query.which.since == utc


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"start": "yesterday"}, "start must be a date or a time"),
        ({"end": "0001-01-01T00:00:00+10:00"}, "end must be a date or a time"),
        ({"start": "2026-11-02", "end": "2026-11-01"}, "start must be before end"),
        ({"interval": "fortnight"}, "hour, day, week, month"),
        ({"interval": "day", "group_by": "month"}, "group by one interval, not by day and month"),
        ({"group_by": "colour"}, "cannot group by colour"),
        ({"basis": "guessed"}, "reported, inferred"),
        ({"annotations": "env=prod"}, "JSON object of strings"),
        ({"annotations": '{"env": 1}'}, "JSON object of strings"),
        ({"limit": "0"}, "from 1 to 10000"),
        ({"limit": "10001"}, "from 1 to 10000"),
        ({"limit": "1e3"}, "from 1 to 10000"),
        ({"cursor": "nonsense!"}, "next_cursor of the previous page"),
        ({"format": "xml"}, "json or csv"),
        ({"retries": "yes"}, 'retries must be "only"'),
        ({"particpant": "ada"}, "did you mean participant"),
        ({"room": ""}, "is empty, longer than 32768 characters or no text"),
        ({"room": "a\0b"}, "is empty, longer than 32768 characters or no text"),
    ],
)
def test_malformed_parameter_is_rejected_with_the_rule(given: dict[str, str], message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        read(BOSS, **given)


def test_repeated_parameter_is_rejected() -> None:
    with pytest.raises(BadRequest, match="is repeated"):
        read_usage_request({"room": ["a", "b"]}, "", ADA, PROJECT)


@pytest.mark.parametrize("given", [{"interval": "day"}, {"group_by": "day"}, {"interval": "day", "group_by": "day"}])
def test_day_works_as_interval_and_as_group(given: dict[str, str]) -> None:
    assert read(**given).query.interval is Interval.DAY


def test_groups_keep_their_order_and_members_of_every_row_are_ignored() -> None:
    assert read(group_by="room, model,participant,room").query.group_by == ("room", "participant")


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
def test_format_parameter_wins_over_the_accept_header(given: dict[str, str], accept: str, csv: bool) -> None:
    assert read(ADA, accept, **given).csv is csv


@given(
    st.dictionaries(st.sampled_from(sorted(PARAMETERS)), st.text() | st.sampled_from(["day", "1", "2026-11-01", "{}"]))
)
@settings(deadline=None)
def test_no_query_causes_an_internal_error(parameters: dict[str, str]) -> None:
    with contextlib.suppress(BadRequest, NotAllowed):
        request = read(**parameters)
        assert request.query.which.project_id == "p1"
        assert request.query.which.participant == "ada"


@given(st.lists(st.text(max_size=100), max_size=9).map(tuple))
@settings(deadline=None)
def test_cursor_round_trips_any_key(key: tuple[str, ...]) -> None:
    assert read(cursor=read().cursor(key)).after == key


def test_cursor_is_valid_only_with_its_own_parameters() -> None:
    key = ("2026-11-01T00:00:00.000Z", "röm", "openai", "gpt-5.4", "input_tokens")
    cursor = read(interval="day", group_by="room").cursor(key)

    assert read(interval="day", group_by="room", cursor=cursor, limit="5").after == key
    with pytest.raises(BadRequest, match="belongs to other parameters"):
        read(interval="day", cursor=cursor)
