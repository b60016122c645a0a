from __future__ import annotations

import json

import pytest

from tornado_proxy.domain.errors import (
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
        (NotFound("nothing"), "not_found_error", "not_found"),
        (ModelNotPriced("no price", param="model"), "invalid_request_error", "model_not_priced"),
        (Overloaded("full"), "overloaded_error", "too_many_streams"),
    ],
)
def test_an_error_has_the_four_members_that_the_sdk_reads(error: RequestError, kind: str, code: str) -> None:
    assert json.loads(error_body(error, "req_1")) == {
        "error": {"message": error.message, "type": kind, "param": error.param, "code": code}
    }
