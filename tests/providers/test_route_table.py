from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tornado_proxy.domain.errors import BadRequest, CallerError, MethodNotAllowed, NotFound
from tornado_proxy.providers.anthropic.provider import ANTHROPIC
from tornado_proxy.providers.openai.provider import OPENAI
from tornado_proxy.providers.owned_objects import OwnedObject
from tornado_proxy.providers.route_table import RouteTable

TABLE = RouteTable((OPENAI, ANTHROPIC))


@pytest.mark.parametrize(
    ("method", "target", "provider", "path", "upstream"),
    [
        ("POST", "/v1/chat/completions", "openai", "/v1/chat/completions", "/v1/chat/completions"),
        ("POST", "/openai/v1/chat/completions", "openai", "/v1/chat/completions", "/v1/chat/completions"),
        ("POST", "/openai/v1/responses", "openai", "/v1/responses", "/v1/responses"),
        ("POST", "/v1/responses/compact", "openai", "/v1/responses/compact", "/v1/responses/compact"),
        ("POST", "/v1/responses/input_tokens", "openai", "/v1/responses/input_tokens", "/v1/responses/input_tokens"),
        ("GET", "/v1/responses/resp_1?stream=true", "openai", "/v1/responses/{id}", "/v1/responses/resp_1?stream=true"),
        ("DELETE", "/v1/responses/resp_1", "openai", "/v1/responses/{id}", "/v1/responses/resp_1"),
        ("POST", "/v1/responses/r/cancel", "openai", "/v1/responses/{id}/cancel", "/v1/responses/r/cancel"),
        (
            "GET",
            "/v1/responses/r/input_items",
            "openai",
            "/v1/responses/{id}/input_items",
            "/v1/responses/r/input_items",
        ),
        ("POST", "/v1/embeddings", "openai", "/v1/embeddings", "/v1/embeddings"),
        ("GET", "/v1/models", "openai", "/v1/models", "/v1/models"),
        ("GET", "/v1/models/ft:gpt-4o:org::x1", "openai", "/v1/models/{id}", "/v1/models/ft:gpt-4o:org::x1"),
        ("POST", "/anthropic/v1/messages?beta=true", "anthropic", "/v1/messages", "/v1/messages?beta=true"),
        ("GET", "/anthropic/v1/models", "anthropic", "/v1/models", "/v1/models"),
    ],
)
def test_target_finds_its_endpoint_and_is_sent_on_without_the_prefix(method, target, provider, path, upstream):
    match = TABLE.match(method, target)

    assert (match.provider.name, match.endpoint.path, match.upstream_target) == (provider, path, upstream)
    assert match.endpoint.method == method


def test_match_has_the_id_of_the_path():
    assert TABLE.match("POST", "/v1/responses/resp_1/cancel").path_id == "resp_1"
    assert TABLE.match("POST", "/v1/responses/compact").path_id is None


def test_requests_for_stored_responses_are_free_and_need_ownership():
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/input_items")):
        endpoint = TABLE.match_http(method, f"/v1/responses/resp_1{path}").endpoint
        assert not endpoint.charged
        assert endpoint.objects == OwnedObject()


def test_query_is_sent_on_byte_for_byte():
    query = "a=%2F..%2f&b=%00&&c=//..\\&d='\"<>"

    assert TABLE.match("GET", f"/v1/models?{query}").upstream_target == f"/v1/models?{query}"
    assert TABLE.match("GET", "/v1/models?").upstream_target == "/v1/models?"


@pytest.mark.parametrize(
    "target",
    [
        "/v1/models/a%2fb",
        "/v1/models/a%2Fb",
        "/v1/models/a%5cb",
        "/v1/models/..",
        "/v1/models/.",
        "/v1/../v1/models",
        "/v1/%2e%2e/models",
        "/v1/.%2E/models",
        "/v1/models/..;",
        "/v1/..;/models",
        "//v1/models",
        "/v1//models",
        "/v1/models/",
        "/openai//v1/models",
        "/v1\\models",
        "/v1/models/a\\b",
        "/v1/models/a%00",
        "/v1/models/a%0d%0a",
        "/v1/models/a\x00",
        "/v1/models/a\nb",
        "/v1/models\n",
        "/v1/models/a b",
        "/v1/models#x",
        "/v1/models?a#x",
        "/v1/models?a b",
        "/v1/models?\x7f",
        "/v1/models?\u00e4",
        "/v1/models/\u00e4",
        "/v1/models/%e4",
        "/v1/m%6fdels",
        "http://host/v1/models",
        "v1/models",
        "*",
        "",
    ],
)
def test_target_that_parsers_could_read_differently_is_rejected(target):
    with pytest.raises(BadRequest) as caught:
        TABLE.match("GET", target)

    assert caught.value.code == "invalid_path"


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/v1",
        "/v1/messages",
        "/v1/nothing",
        "/openai",
        "/openai/v1",
        "/openai/openai/v1/models",
        "/anthropic/openai/v1/models",
        "/OpenAI/v1/models",
        "/v1/Models",
        "/v1/responses/a/b",
        "/v1/responses/a/b/cancel",
        "/anthropic/v1/chat/completions",
    ],
)
def test_unknown_path_is_not_found(target):
    with pytest.raises(NotFound):
        TABLE.match("POST", target)


@pytest.mark.parametrize(
    ("method", "target", "allowed"),
    [
        ("GET", "/v1/chat/completions", ("POST",)),
        ("HEAD", "/v1/chat/completions", ("POST",)),
        ("DELETE", "/v1/models/x", ("GET", "HEAD")),
        ("PUT", "/v1/responses/resp_1", ("DELETE", "GET", "HEAD")),
        ("post", "/v1/embeddings", ("POST",)),
    ],
)
def test_other_method_is_rejected_with_the_allowed_ones(method, target, allowed):
    with pytest.raises(MethodNotAllowed) as caught:
        TABLE.match(method, target)

    assert caught.value.allowed == allowed


@pytest.mark.parametrize("target", ["/v1/models", "/anthropic/v1/models/claude-haiku-4-5", "/openai/v1/responses/r_1"])
def test_head_is_matched_as_get(target: str) -> None:
    assert TABLE.match("HEAD", target) == TABLE.match("GET", target)
    assert TABLE.match("HEAD", target).endpoint.method == "GET"


@pytest.mark.parametrize(
    ("target", "advice"),
    [
        ("/v1/models/", "remove the trailing slash from the path"),
        ("/anthropic/v1/messages/?beta=true", "remove the trailing slash from the path"),
        ("/v1//models", "remove the double slash from the path; a base URL must not end in a slash"),
        ("//v1/models/", "remove the double slash from the path; a base URL must not end in a slash"),
    ],
)
def test_slash_too_many_is_rejected_with_advice(target: str, advice: str) -> None:
    with pytest.raises(BadRequest, match=f"^{re.escape(advice)}$") as caught:
        TABLE.match("GET", target)

    assert caught.value.code == "invalid_path"


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("/anthropic/v1/nothing", "anthropic"),
        ("/anthropic/..//x", "anthropic"),
        ("/openai/v1/nothing", "openai"),
        ("/v1/messages", "openai"),
        ("/anthropicx/v1", "openai"),
        ("", "openai"),
        ("*", "openai"),
    ],
)
def test_error_format_is_that_of_the_prefix_else_of_the_first_provider(target, name):
    assert TABLE.find_provider(target).name == name


@given(st.text(max_size=60), st.sampled_from(["", "/", "/v1/", "/v1/models/", "/anthropic/v1/"]))
def test_random_targets_are_matched_or_rejected(target, prefix):
    TABLE.find_provider(prefix + target)
    try:
        match = TABLE.match("GET", prefix + target)
    except CallerError:
        return
    path = match.upstream_target.partition("?")[0]
    assert path.isascii()
    assert "//" not in path
    assert "%" not in path
    assert ".." not in path.split("/")


def test_provider_and_endpoint_are_found_by_name():
    assert TABLE.get_provider("anthropic") is ANTHROPIC

    endpoint = TABLE.find_http_endpoint("openai", "POST", "/v1/responses")
    assert endpoint is not None
    assert endpoint.deferred_usage is not None
    assert TABLE.find_http_endpoint("openai", "GET", "/v1/embeddings") is None
    assert TABLE.find_http_endpoint("openai", "POST", "/v1/nothing") is None


@pytest.mark.parametrize(
    ("target", "hint"),
    [
        ("/openai/chat/completions", "did you mean /openai/v1/chat/completions? Then the base URL lacks /v1"),
        ("/chat/completions", "did you mean /v1/chat/completions? Then the base URL lacks /v1"),
        ("/anthropic/v1/v1/messages", "the base URL ends in /v1, and the client adds another"),
        ("/v1/messages", "did you mean /anthropic/v1/messages? Anthropic's API is served under /anthropic"),
        ("/messages", "did you mean /anthropic/v1/messages? Anthropic's API is served under /anthropic"),
        ("/anthropic/v1/responses", "did you mean /openai/v1/responses? OpenAI's API is served under /openai"),
        ("/anthropic/responses", "did you mean /openai/v1/responses? OpenAI's API is served under /openai"),
        ("/v1/fine_tuning/jobs", "GET / lists the base URLs"),
    ],
)
def test_unknown_path_is_rejected_with_advice(target: str, hint: str) -> None:
    with pytest.raises(NotFound, match=f"is not served here; {re.escape(hint)}$"):
        TABLE.match("POST", target)


@pytest.mark.parametrize("prefix", ["/openai/v1", "/anthropic/v1/messages", "", "/v1/models"])
def test_long_segment_of_a_path_is_not_repeated_because_it_can_be_a_token(prefix: str) -> None:
    key = "a-key-of-any-form-0123456789"

    with pytest.raises(CallerError) as raised:
        TABLE.match("PUT", f"{prefix}/{key}")

    assert key not in raised.value.message
    assert f"{prefix}/..." in raised.value.message


@pytest.mark.parametrize(
    ("method", "target", "upstream"),
    [
        ("POST", "/anthropic/messages", "/v1/messages"),
        ("POST", "/anthropic/messages?beta=true", "/v1/messages?beta=true"),
        ("GET", "/anthropic/models", "/v1/models"),
        ("GET", "/anthropic/models/claude-haiku-4-5", "/v1/models/claude-haiku-4-5"),
        ("GET", "/anthropic/messages/batches/b1/results", "/v1/messages/batches/b1/results"),
    ],
)
def test_anthropic_paths_are_served_without_v1(method: str, target: str, upstream: str) -> None:
    match = TABLE.match(method, target)

    assert (match.provider, match.upstream_target) == (ANTHROPIC, upstream)


@pytest.mark.parametrize(
    ("target", "template"),
    [
        ("/v1/responses/resp_1?a=b", "/v1/responses/{id}"),
        ("/openai/v1/chat/completions", "/openai/v1/chat/completions"),
        ("/anthropic/messages", "/anthropic/v1/messages"),
        ("/v1/my-secret", "unknown"),
        ("/v1/responses/a%2fb/x", "unknown"),
        ("", "unknown"),
    ],
)
def test_path_of_a_log_line_holds_no_text_of_the_client(target: str, template: str) -> None:
    assert TABLE.find_template(target) == template
