"""Which connections that wait for a request are closed, and when."""

from __future__ import annotations

from tornado_proxy.http_server.idle_connections import IdleConnections


class FakeConnection:
    """A connection that waits for a request head."""

    def __init__(self, *, new: bool = False, head_begun: bool = False) -> None:
        self.new = new
        self.head_begun = head_begun

    def close(self) -> None:
        """Do nothing: the connections here are only listed."""


def test_connection_idle_between_requests_is_closed_before_a_new_one() -> None:
    idle_connections = IdleConnections()
    new, kept = FakeConnection(new=True), FakeConnection()
    idle_connections.add(new, 0.0)
    idle_connections.add(kept, 100.0)

    assert idle_connections.find_oldest(110.0) is kept
    idle_connections.discard(kept)
    assert idle_connections.find_oldest(110.0) is new


def test_connection_that_has_just_opened_is_not_closed_for_another() -> None:
    idle_connections = IdleConnections()
    idle_connections.add(FakeConnection(new=True), 100.0)

    assert idle_connections.find_oldest(104.9) is None
    assert idle_connections.find_oldest(105.0) is not None


def test_head_has_sixty_seconds_from_its_first_byte() -> None:
    idle_connections = IdleConnections()
    kept = FakeConnection()
    idle_connections.add(kept, 0.0)
    assert idle_connections.list_expired(3000.0) == []

    kept.head_begun = True
    assert idle_connections.list_expired(3010.0) == []
    assert idle_connections.list_expired(3070.0) == []
    assert idle_connections.list_expired(3070.1) == [kept]
