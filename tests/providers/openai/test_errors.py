from __future__ import annotations

import json

import pytest

from tornado_proxy.domain.errors import (
    ContinuedNotFound,
    ModelNotPriced,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    Overloaded,
    RequestError,
)
from tornado_proxy.providers.openai.errors import error_body


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (NotAuthenticated("no token"), "authentication_error", "invalid_api_key"),
        (NotAllowed("not yours"), "permission_error", "not_allowed"),
        (NotFound("nothing"), "invalid_request_error", "not_found"),
        (ModelNotPriced("no price", param="model"), "invalid_request_error", "model_not_priced"),
        (Overloaded("full"), "overloaded_error", "too_many_streams"),
    ],
)
def test_an_error_has_the_four_members_that_the_sdk_reads(error: RequestError, kind: str, code: str) -> None:
    assert json.loads(error_body(error, "req_1")) == {
        "error": {"message": error.message, "type": kind, "param": error.param, "code": code}
    }


def test_response_that_cannot_be_continued_has_openais_code_and_param() -> None:
    shown = json.loads(error_body(ContinuedNotFound("resp_1"), "req_1"))["error"]

    assert (shown["type"], shown["code"]) == ("invalid_request_error", "previous_response_not_found")
    assert shown["param"] == "previous_response_id"
    assert shown["message"] == "resp_1 was not found, so it cannot be continued; send the whole conversation again"
