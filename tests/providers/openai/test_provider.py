from __future__ import annotations

from tornado_proxy.domain.identity import Secret
from tornado_proxy.providers.openai.provider import OPENAI


def test_the_key_is_sent_as_a_bearer_token_and_stays_a_secret() -> None:
    headers = OPENAI.key_headers(Secret("sk-made-up"))

    assert headers["Authorization"].reveal() == "Bearer sk-made-up"
    assert "made-up" not in repr(headers)


def test_headers_that_choose_or_name_the_account_are_not_forwarded() -> None:
    assert OPENAI.withheld_headers == {"openai-organization", "openai-project"}
    assert OPENAI.account_headers == {"openai-organization", "openai-project"}
    assert OPENAI.credential_headers == ("authorization",)
    assert OPENAI.passed_headers == {"accept", "content-type", "user-agent", "idempotency-key", "x-client-request-id"}
    assert OPENAI.passed_prefixes == ("openai-", "x-stainless-")


def test_each_method_and_path_has_one_endpoint() -> None:
    routes = [(endpoint.method, endpoint.path) for endpoint in OPENAI.endpoints]

    assert len(routes) == len(set(routes))
    assert OPENAI.name == "openai"
