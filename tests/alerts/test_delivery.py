"""One message to a receiver that accepts it, refuses it, redirects, is slow or is not there."""

from __future__ import annotations

import asyncio

import pytest

from tests.alerts.receiver import SECRET, Receiver, running_receiver
from tornado_proxy.alerts import delivery
from tornado_proxy.alerts.delivery import DeliveryError, deliver
from tornado_proxy.config.sections.alerts import Webhook
from tornado_proxy.domain.identity import Secret


def send(receiver: Receiver) -> int:
    return asyncio.run(deliver(receiver.webhook(), "msg_1", '{"type":"alert.test","data":{"name":"Ä"}}'))


def reject(receiver: Receiver) -> DeliveryError:
    with pytest.raises(DeliveryError) as rejected:
        send(receiver)
    return rejected.value


def test_receiver_verifies_the_message_and_its_id() -> None:
    with running_receiver() as receiver:
        assert send(receiver) == 204

    assert receiver.messages == [("msg_1", {"type": "alert.test", "data": {"name": "Ä"}})]


@pytest.mark.parametrize(
    ("status", "reason", "final"),
    [(500, "status 500", False), (429, "status 429", False), (400, "status 400", False), (410, "status 410", True)],
)
def test_other_status_is_no_success_and_410_ends_the_attempts(status: int, reason: str, final: bool) -> None:
    with running_receiver(statuses=[status]) as receiver:
        error = reject(receiver)

    assert (str(error), error.final) == (reason, final)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirect_is_never_followed(status: int) -> None:
    with running_receiver() as other, running_receiver(statuses=[status], headers={"Location": other.url}) as receiver:
        error = reject(receiver)

    assert str(error) == f"status {status}: redirects are not followed; configure the URL to which it leads"
    assert (len(receiver.messages), other.messages) == (1, [])


def test_slow_receiver_is_given_up_after_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "TIMEOUT_S", 0.2)
    with running_receiver(delay_s=1) as receiver:
        assert str(reject(receiver)) == "no response within 0.2 s"


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "https://127.0.0.1:1/", "http://no-such-host.invalid/"])
def test_receiver_that_cannot_be_reached_is_an_error_without_the_url(url: str) -> None:
    with pytest.raises(DeliveryError, match=r"^no response: "):
        asyncio.run(deliver(Webhook("ops", Secret(url), Secret(SECRET)), "msg_1", "{}"))
