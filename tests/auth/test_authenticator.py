from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.auth.tokens import KEY, NOW, NOW_S, PROJECT_ID, PROJECTS, SECRET, claims, granting, sign
from tests.oauth import tokens as oauth_tokens
from tornado_proxy.auth.authenticator import Authenticator
from tornado_proxy.auth.oauth.claims import VerifiedUser
from tornado_proxy.auth.oauth.key_set import VerificationKey
from tornado_proxy.auth.token_cache import MAX_CACHED_TOKENS
from tornado_proxy.auth.validity import Validity
from tornado_proxy.domain.config.oauth import IntrospectionEndpoint, KeySource, OAuthIssuer
from tornado_proxy.domain.errors import NotAllowed, NotAuthenticated
from tornado_proxy.domain.identity import ApiKey, Caller, Member, OAuthUser, Project, Secret


@pytest.fixture
def authenticator() -> Authenticator:
    return Authenticator(PROJECTS)


def test_cached_token_gives_the_same_caller(authenticator: Authenticator) -> None:
    token = sign(claims())

    first = authenticator.authenticate(token, NOW)

    assert authenticator.authenticate(token, NOW) is first
    assert authenticator.cached_tokens == 1


class Issuer:
    """An issuer with one key."""

    issuer = OAuthIssuer(KeySource("https://id.example.com"), "llm-proxy", frozenset({"cli"}))

    def find_key(self, key_id: str, algorithm: str) -> VerificationKey:
        return VerificationKey("RS256", oauth_tokens.rsa_key().private.public_key())

    def introspect(self, token: str, now: datetime) -> VerifiedUser:
        raise NotImplementedError


def test_access_token_gives_the_same_caller_in_each_project() -> None:
    projects = [replace(project, members=(Member("user-7", frozenset({"can_use_llm_proxy"})),)) for project in PROJECTS]
    authenticator, now = Authenticator(projects, [Issuer()]), datetime.now(UTC)

    def authenticate(token: str, project_id: str, at: datetime = now) -> Caller:
        caller = authenticator.authenticate(token, at, stated_projects=[project_id])
        assert isinstance(caller, Caller)
        return caller

    claims = oauth_tokens.claims_of(Issuer.issuer.name, exp=now.timestamp() + 60)
    token = oauth_tokens.sign(oauth_tokens.rsa_key(), claims)
    callers = {project.id: authenticate(token, project.id) for project in PROJECTS}
    for project_id, caller in callers.items():
        assert caller.project_id == project_id
        assert authenticate(token, project_id) is caller
    with pytest.raises(NotAllowed):
        authenticate(token, "9b1d9f2e-6d3c-4b6e-8f6e-1c1f1d1e1a12")
    with pytest.raises(NotAuthenticated):
        authenticate(token, PROJECT_ID, now + timedelta(minutes=2))


class IntrospectingIssuer(Issuer):
    """An issuer that tells the user of an opaque token."""

    issuer = replace(
        Issuer.issuer,
        introspection=IntrospectionEndpoint("https://id.example.com/introspect", "llm-proxy", Secret("s")),
    )

    def __init__(self) -> None:
        self.groups = frozenset({"developers"})
        self.answers: dict[tuple[str, frozenset[str]], VerifiedUser] = {}

    def introspect(self, token: str, now: datetime) -> VerifiedUser:
        user = OAuthUser(self.issuer.name, "user-7", "cli", groups=self.groups)
        return self.answers.setdefault((token, self.groups), VerifiedUser(user, Validity(None, None)))


def test_user_of_an_opaque_token_is_the_same_caller_while_its_issuer_says_the_same() -> None:
    member = Member(permissions=frozenset({"can_use_llm_proxy"}), group="developers")
    issuer = IntrospectingIssuer()
    authenticator = Authenticator([replace(PROJECTS[0], members=(member,))], [issuer])

    def authenticate(token: str) -> Caller:
        caller = authenticator.authenticate(token, NOW, stated_projects=[PROJECT_ID])
        assert isinstance(caller, Caller)
        return caller

    caller = authenticate("opaque")
    assert authenticate("opaque") is caller
    issuer.groups = frozenset({"developers", "staff"})
    changed = authenticate("opaque")
    assert changed.oauth_user is not None
    assert changed.oauth_user.groups == issuer.groups
    issuer.groups = frozenset({"staff"})
    with pytest.raises(NotAllowed):
        authenticate("opaque")

    issuer.groups = frozenset({"developers", "staff"})
    for number in range(MAX_CACHED_TOKENS):
        authenticate("opaque")  # in use, so it stays
        authenticate(f"opaque-{number}")
    assert authenticate("opaque") is changed
    assert len(authenticator._members) == MAX_CACHED_TOKENS


def test_cached_token_is_rejected_from_its_exp_on(authenticator: Authenticator) -> None:
    token = sign(claims(exp=NOW_S + 10))
    authenticator.authenticate(token, NOW)
    authenticator.authenticate(token, NOW + timedelta(seconds=9.999))

    for second in (10, 11, 10**6):
        with pytest.raises(NotAuthenticated, match="token expired at 2026-11-23T12:00:10Z"):
            authenticator.authenticate(token, NOW + timedelta(seconds=second))

    assert authenticator.cached_tokens == 0


def test_cached_token_is_rejected_before_its_nbf_if_the_clock_is_set_back(authenticator: Authenticator) -> None:
    token = sign(claims(nbf=NOW_S))
    authenticator.authenticate(token, NOW)

    with pytest.raises(NotAuthenticated, match="not valid yet"):
        authenticator.authenticate(token, NOW - timedelta(minutes=1))


def test_tokens_with_equal_prefixes_are_distinguished(authenticator: Authenticator) -> None:
    tokens = {name: sign(claims(name=name)) for name in ("ada", "bob", "eve")}
    assert len({token[:36] for token in tokens.values()}) == 1

    for _ in range(2):
        for name, token in tokens.items():
            assert authenticator.authenticate(token, NOW).participant == name


def test_cached_token_does_not_admit_another_signature_over_its_claims(authenticator: Authenticator) -> None:
    token = sign(claims())
    authenticator.authenticate(token, NOW)
    forged = token.rsplit(".", 1)[0] + "." + sign(claims(), secret="x" * 40).rsplit(".", 1)[1]

    with pytest.raises(NotAuthenticated):
        authenticator.authenticate(forged, NOW)


def test_failures_are_not_cached(authenticator: Authenticator) -> None:
    early = sign(claims(nbf=NOW_S + 60))
    for token, error in ((early, NotAuthenticated), (sign(granting({})), NotAllowed), ("junk", NotAuthenticated)):
        with pytest.raises(error):
            authenticator.authenticate(token, NOW)

    assert authenticator.cached_tokens == 0
    assert authenticator.authenticate(early, NOW + timedelta(minutes=1)).participant == "ada"


def test_cache_is_bounded_and_drops_the_least_recently_used_token(authenticator: Authenticator) -> None:
    tokens = [sign(claims(name=f"p{number}")) for number in range(MAX_CACHED_TOKENS)]
    callers = [authenticator.authenticate(token, NOW) for token in tokens]
    assert authenticator.authenticate(tokens[0], NOW) is callers[0]

    authenticator.authenticate(sign(claims(name="another")), NOW)

    assert authenticator.cached_tokens == MAX_CACHED_TOKENS
    assert authenticator.authenticate(tokens[0], NOW) is callers[0]
    assert authenticator.authenticate(tokens[1], NOW) is not callers[1]


def test_reload_without_a_key_ends_its_tokens_at_once(authenticator: Authenticator) -> None:
    token = sign(claims())
    authenticator.authenticate(token, NOW)

    reloaded = Authenticator([Project(PROJECT_ID, "first")])

    with pytest.raises(NotAuthenticated, match="removed"):
        reloaded.authenticate(token, NOW)


def test_reload_with_a_new_secret_ends_tokens_of_the_old_one_at_once(authenticator: Authenticator) -> None:
    token = sign(claims())
    authenticator.authenticate(token, NOW)
    rotated = ApiKey(KEY.id, PROJECT_ID, Secret("new-" + SECRET))

    reloaded = Authenticator([Project(PROJECT_ID, "first", api_keys=(rotated,))])

    with pytest.raises(NotAuthenticated, match="invalid token signature"):
        reloaded.authenticate(token, NOW)
    assert reloaded.authenticate(sign(claims(), secret="new-" + SECRET), NOW).participant == "ada"


def test_token_that_cannot_be_encoded_is_rejected(authenticator: Authenticator) -> None:
    for token in ("\u00e9", "\ud800", "\x00"):
        with pytest.raises(NotAuthenticated):
            authenticator.authenticate(token, NOW)


ACCEPTED = ("authorization", "x-api-key")


@pytest.mark.parametrize("header", ["authorization", "x-api-key"])
def test_verified_token_is_recognized_in_either_header(authenticator: Authenticator, header: str) -> None:
    token = sign(claims())
    lines = {"host": ["llm"], header: [f"Bearer {token}" if header == "authorization" else token]}
    unknown = authenticator.recognize(lines, ACCEPTED, NOW)

    caller = authenticator.authenticate(token, NOW)

    assert unknown is None
    assert authenticator.recognize(lines, ACCEPTED, NOW) == (token, caller)


@pytest.mark.parametrize(
    ("lines", "seconds"),
    [
        pytest.param({}, 0, id="no credential"),
        pytest.param({"authorization": ["Bearer {}", "Bearer {}"]}, 0, id="repeated header"),
        pytest.param({"authorization": ["Bearer {}"], "x-api-key": ["{}"]}, 0, id="two headers"),
        pytest.param({"authorization": ["Bearer {}"], "x-api-key": [""]}, 0, id="an empty second header"),
        pytest.param({"authorization": ["{}"]}, 0, id="no scheme"),
        pytest.param({"authorization": ["Basic {}"]}, 0, id="another scheme"),
        pytest.param({"authorization": ["Bearer Bearer {}"]}, 0, id="two schemes"),
        pytest.param({"x-api-key": ["Bearer {}"]}, 0, id="a scheme where none belongs"),
        pytest.param({"api-key": ["{}"]}, 0, id="a header that carries no token"),
        pytest.param({"authorization": ["Bearer {}\u00e9"]}, 0, id="no ASCII"),
        pytest.param({"authorization": ["Bearer {}"], "meshagent-project-id": ["other"]}, 0, id="a stated project"),
        pytest.param({"authorization": ["Bearer {}"], "sec-websocket-protocol": ["realtime"]}, 0, id="a subprotocol"),
        pytest.param({"authorization": ["Bearer {}"]}, 10, id="expired"),
        pytest.param({"authorization": ["Bearer {}"]}, -1, id="not valid yet"),
    ],
)
def test_any_other_request_is_left_to_the_complete_check(
    authenticator: Authenticator, lines: dict[str, list[str]], seconds: int
) -> None:
    token = sign(claims(nbf=NOW_S, exp=NOW_S + 10))
    authenticator.authenticate(token, NOW)
    sent = {name: [value.format(token) for value in values] for name, values in lines.items()}

    assert authenticator.recognize(sent, ACCEPTED, NOW + timedelta(seconds=seconds)) is None
