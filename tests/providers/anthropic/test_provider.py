"""Tests Anthropic's error format, headers and list of endpoints."""

from __future__ import annotations

import json

import pytest

from tornado_proxy.domain.errors import (
    BadRequest,
    BodyTooLarge,
    ContinuedNotFound,
    Draining,
    LedgerUnavailable,
    MethodNotAllowed,
    ModelNotPriced,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    Overloaded,
    RequestError,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from tornado_proxy.domain.identity import Secret
from tornado_proxy.providers.anthropic.errors import error_body
from tornado_proxy.providers.anthropic.provider import ANTHROPIC
from tornado_proxy.providers.contract import HttpEndpoint
from tornado_proxy.providers.owned_objects import OwnedObject
from tornado_proxy.providers.route_table import RouteTable


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (BadRequest("no"), "invalid_request_error", "bad_request"),
        (ModelNotPriced("no"), "invalid_request_error", "model_not_priced"),
        (NotAuthenticated("no"), "authentication_error", "invalid_api_key"),
        (NotAllowed("no"), "permission_error", "not_allowed"),
        (NotFound("no"), "not_found_error", "not_found"),
        (MethodNotAllowed("no"), "invalid_request_error", "method_not_allowed"),
        (BodyTooLarge("no"), "request_too_large", "request_too_large"),
        (RequestError("no"), "api_error", "internal_error"),
        (UpstreamUnreachable("no"), "api_error", "upstream_unreachable"),
        (LedgerUnavailable("no"), "overloaded_error", "ledger_unavailable"),
        (Overloaded("no"), "overloaded_error", "too_many_streams"),
        (Draining("no"), "overloaded_error", "shutting_down"),
        (UpstreamTimeout("no"), "timeout_error", "upstream_timeout"),
    ],
)
def test_error_has_anthropics_format_and_type_and_our_code(error: RequestError, kind: str, code: str) -> None:
    shown = {"type": kind, "message": "no", "code": code}

    assert json.loads(error_body(error, "req_1")) == {"type": "error", "error": shown, "request_id": "req_1"}


def test_lost_thread_has_the_details_by_which_sdks_send_the_conversation_again() -> None:
    shown = json.loads(error_body(ContinuedNotFound("msg_1"), "req_1"))["error"]

    assert (shown["type"], shown["details"]) == ("not_found_error", {"error_code": "thread_not_found"})


@pytest.mark.parametrize(
    ("status", "kind"),
    [(402, "billing_error"), (429, "rate_limit_error"), (529, "overloaded_error"), (418, "api_error")],
)
def test_other_statuses_have_the_providers_type_too(status: int, kind: str) -> None:
    error = RequestError("no")
    error.status = status

    assert json.loads(error_body(error, "req_1"))["error"]["type"] == kind


def test_provider_key_is_sent_as_x_api_key() -> None:
    headers = ANTHROPIC.key_headers(Secret("sk-ant-secret"))

    assert {name: secret.reveal() for name, secret in headers.items()} == {"x-api-key": "sk-ant-secret"}


def test_headers_that_choose_the_billed_account_are_withheld() -> None:
    assert {"anthropic-workspace-id", "anthropic-user-profile-id"} <= ANTHROPIC.withheld_headers
    assert "anthropic-organization-id" in ANTHROPIC.account_headers


@pytest.mark.parametrize(
    ("method", "path", "free"),
    [
        ("POST", "/v1/messages", False),
        ("POST", "/v1/messages?beta=true", False),
        ("POST", "/v1/messages/count_tokens", True),
        ("POST", "/v1/complete", False),
        ("POST", "/v1/messages/batches", False),
        ("GET", "/v1/messages/batches", True),
        ("GET", "/v1/messages/batches/msgbatch_1", True),
        ("DELETE", "/v1/messages/batches/msgbatch_1", True),
        ("POST", "/v1/messages/batches/msgbatch_1/cancel", True),
        ("GET", "/v1/messages/batches/msgbatch_1/results", True),
        ("GET", "/v1/models", True),
        ("GET", "/v1/models/claude-opus-5", True),
    ],
)
def test_served_paths_are_charged_or_free(method: str, path: str, free: bool) -> None:
    match = RouteTable([ANTHROPIC]).match_http(method, "/anthropic" + path)

    assert match.endpoint.charged is not free
    assert match.upstream_target == path


def test_paths_of_a_batch_need_ownership() -> None:
    endpoints = [endpoint for endpoint in ANTHROPIC.endpoints if endpoint.path.startswith("/v1/messages/batches/")]

    assert len(endpoints) == 4
    assert all(isinstance(endpoint, HttpEndpoint) and endpoint.objects == OwnedObject() for endpoint in endpoints)
