from __future__ import annotations

import pytest

from tornado_proxy.auth.oauth.membership import choose_project, keep_matching_claims, make_caller
from tornado_proxy.domain.errors import BadRequest, NotAllowed
from tornado_proxy.domain.identity import Caller, Member, OAuthUser, Project

A, B = "https://a.example.com", "https://b.example.com"
USE = frozenset({"can_use_llm_proxy"})
USER = OAuthUser(A, "user-7", "cli", "dev@example.com", frozenset({"engineering"}))


def call(user: OAuthUser, *members: Member, project_id: str = "p1") -> Caller:
    return make_caller(user, project_id, {"p1": Project("p1", "first", members=members)}, None)


@pytest.mark.parametrize(
    "member",
    [
        pytest.param(Member("user-7", USE), id="subject"),
        pytest.param(Member("user-7", USE, issuer=A), id="subject and issuer"),
        pytest.param(Member("dev@example.com", USE), id="e-mail address"),
        pytest.param(Member("Dev@Example.COM", USE), id="e-mail address in another case"),
        pytest.param(Member(group="engineering", permissions=USE), id="group"),
        pytest.param(Member("user-7", admin=True), id="admin without a permission"),
    ],
)
def test_member_is_a_caller(member: Member) -> None:
    caller = call(USER, Member("somebody", USE), member)

    assert (caller.project_id, caller.user, caller.issuer) == ("p1", "user-7", A)
    assert (caller.credential_id, caller.admin, caller.participant) == ("cli", member.admin, None)


@pytest.mark.parametrize(
    ("user", "member"),
    [
        pytest.param(USER, Member("user-8", USE), id="another subject"),
        pytest.param(USER, Member("USER-7", USE), id="subject in another case"),
        pytest.param(USER, Member("user-7", USE, issuer=B), id="subject of another issuer"),
        pytest.param(USER, Member("dev@example.com", USE, issuer=B), id="address at another issuer"),
        pytest.param(USER, Member(group="engineering", permissions=USE, issuer=B), id="group of another issuer"),
        pytest.param(USER, Member("engineering", USE), id="group as a user"),
        pytest.param(USER, Member(group="user-7", permissions=USE), id="subject as a group"),
        pytest.param(USER, Member(group="dev@example.com", permissions=USE), id="address as a group"),
        pytest.param(USER, Member("user-7"), id="no permission"),
        pytest.param(USER, Member("user-7", frozenset({"other"})), id="another permission"),
        pytest.param(OAuthUser(A, "user-8", "cli"), Member("dev@example.com", USE), id="address not verified"),
        pytest.param(
            OAuthUser(A, "user-8", "cli", "d\u0435v@example.com"), Member("dev@example.com", USE), id="Cyrillic e"
        ),
        pytest.param(OAuthUser(A, "user-8", "cli", "dev"), Member("dev", USE), id="address without an @"),
    ],
)
def test_other_user_gets_the_error_of_an_unknown_project(user: OAuthUser, member: Member) -> None:
    with pytest.raises(NotAllowed) as no_member:
        call(user, member)
    with pytest.raises(NotAllowed) as no_project:
        call(user, member, project_id="p2")

    assert (no_member.value.message, no_member.value.code) == (no_project.value.message, no_project.value.code)


def test_subject_that_is_an_address_matches_exactly() -> None:
    assert call(OAuthUser(A, "dev@example.com", "cli"), Member("dev@example.com", USE)).user == "dev@example.com"
    with pytest.raises(NotAllowed):
        call(OAuthUser(A, "Dev@example.com", "cli"), Member("dev@example.com", USE))


def test_permissions_of_all_matching_entries_count() -> None:
    assert call(USER, Member("user-7"), Member(group="engineering", permissions=USE)).admin is False
    assert call(USER, Member("user-7", USE), Member(group="engineering", admin=True)).admin is True


@pytest.mark.parametrize("stated", [(), ("p1", "p1"), ("p1", "p2"), ("p1,p1",)])
def test_exactly_one_project_must_be_stated(stated: tuple[str, ...]) -> None:
    with pytest.raises(BadRequest) as raised:
        choose_project(stated)

    assert raised.value.code == "project_required"


def test_only_claims_that_make_a_member_are_kept() -> None:
    user = OAuthUser(A, "user-7", "cli", "dev@example.com", frozenset({"engineering", "sales"}))
    by_group = Project("p1", "first", members=(Member(group="engineering", permissions=USE),))
    by_email = Project("p1", "first", members=(Member("dev@example.com", USE),))

    assert keep_matching_claims(user, by_group) == OAuthUser(A, "user-7", "cli", None, frozenset({"engineering"}))
    assert keep_matching_claims(user, by_email) == OAuthUser(A, "user-7", "cli", "dev@example.com")
