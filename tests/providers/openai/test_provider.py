from __future__ import annotations

import json

import pytest

from tornado_proxy.domain.errors import ModelNotPriced, NotAllowed, NotAuthenticated, NotFound, Overloaded
from tornado_proxy.domain.identity import Secret
from tornado_proxy.providers.openai.errors import error_body
from tornado_proxy.providers.openai.provider import OPENAI


def test_the_key_goes_as_a_bearer_token_and_stays_a_secret():
    headers = OPENAI.key_headers(Secret("sk-made-up"))

    assert headers["Authorization"].reveal() == "Bearer sk-made-up"
    assert "made-up" not in repr(headers)


def test_what_could_move_the_bill_or_name_the_account_does_not_pass():
    assert OPENAI.withheld_headers == {"openai-organization", "openai-project"}
    assert OPENAI.account_headers == {"openai-organization", "openai-project"}
    assert OPENAI.credential_headers == ("authorization",)
    assert OPENAI.passed_headers == {"accept", "content-type", "user-agent", "idempotency-key", "x-client-request-id"}
    assert OPENAI.passed_prefixes == ("openai-", "x-stainless-")


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (NotAuthenticated("no token"), "authentication_error", "invalid_api_key"),
        (NotAllowed("not yours"), "permission_error", "not_allowed"),
        (NotFound("nothing"), "not_found_error", "not_found"),
        (ModelNotPriced("no price", param="model"), "invalid_request_error", "model_not_priced"),
        (Overloaded("full"), "overloaded_error", "too_many_streams"),
    ],
)
def test_an_error_has_the_four_members_that_the_sdk_reads(error, kind, code):
    assert json.loads(error_body(error, "req_1")) == {
        "error": {"message": error.message, "type": kind, "param": error.param, "code": code}
    }


def test_each_path_and_method_is_served_by_one_row():
    rows = [(endpoint.method, endpoint.path) for endpoint in OPENAI.endpoints]

    assert len(rows) == len(set(rows))
    assert OPENAI.name == "openai"
