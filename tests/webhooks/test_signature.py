"""Messages are signed as the specification's own library verifies them."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

from tornado_proxy.domain.identity import Secret
from tornado_proxy.webhooks.signature import check_secret, sign_message

#: The example of the specification.
SECRET = Secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
OTHER = Secret("whsec_" + base64.b64encode(bytes(range(32))).decode())


def test_signature_is_that_of_the_specifications_example():
    at = datetime.fromtimestamp(1614265330, UTC)

    headers = sign_message("msg_p5jXN8AQM9LWM0D4loKWxJek", at, b'{"test": 2432232314}', [SECRET])

    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_receiver_verifies_a_message_with_either_of_two_secrets():
    headers = sign_message("msg_1", datetime.now(UTC), '{"name":"Ä"}'.encode(), [SECRET, OTHER])

    for secret in (SECRET, OTHER):
        assert Webhook(secret.reveal()).verify('{"name":"Ä"}'.encode(), dict(headers)) == {"name": "Ä"}


@pytest.mark.parametrize(
    ("body", "at"),
    [
        pytest.param(b"{ }", datetime.now(UTC), id="another body"),
        pytest.param(b"{}", datetime.now(UTC) - timedelta(minutes=6), id="an old message"),
    ],
)
def test_receiver_refuses_another_message(body, at):
    headers = sign_message("msg_1", at, b"{}", [SECRET])

    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET.reveal()).verify(body, dict(headers))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (SECRET.reveal(), ""),
        ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "begins with whsec_"),
        ("whsec_MfKQ9r8GKYqr TwjUPD8ILPZIo2LaLaSw", "is base64"),
        ("whsec_" + base64.b64encode(bytes(23)).decode(), "24 to 64 bytes, this one 23"),
        ("whsec_" + base64.b64encode(bytes(65)).decode(), "24 to 64 bytes, this one 65"),
    ],
)
def test_fault_of_a_secret_does_not_repeat_it(text, fault):
    found = check_secret(Secret(text))

    assert fault in found
    assert bool(found) == bool(fault)
    assert "MfKQ" not in found
