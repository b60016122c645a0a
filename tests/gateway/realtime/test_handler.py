"""The parts of a client's handshake that are sent to the provider."""

from __future__ import annotations

from tornado_proxy.gateway.realtime.handler import offered_subprotocols


def test_subprotocols_are_read_from_all_their_lines_in_their_order() -> None:
    headers = [("Sec-WebSocket-Protocol", "realtime, a"), ("Host", "h"), ("sec-websocket-protocol", " b ,,")]

    assert offered_subprotocols(headers) == ("realtime", "a", "b")
