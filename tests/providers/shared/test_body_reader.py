from __future__ import annotations

import pytest

from tests.providers.reading import read, read_three_ways
from tornado_proxy.domain.usage import Basis, UsageReport
from tornado_proxy.providers.shared import body_reader
from tornado_proxy.providers.shared.body_reader import BodyReader


def report_raw(body: bytes) -> UsageReport:
    """Return a report that shows the body."""
    return UsageReport(basis=Basis.REPORTED, raw=body.decode())


def test_report_is_made_from_the_whole_body_however_it_is_cut() -> None:
    assert read_three_ways(lambda: BodyReader(report_raw), b'{"id": "a"}') == report_raw(b'{"id": "a"}')


def test_incomplete_body_is_reported_as_far_as_it_arrived() -> None:
    assert read(BodyReader(report_raw), [b'{"id', b'": '], complete=False).raw == '{"id": '


def test_body_above_the_limit_is_reported_as_far_as_it_was_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_reader, "MAX_BODY_BYTES", 5)

    assert read(BodyReader(report_raw), [b"abc", b"defg", b"hi"]).raw == "abcde"


def test_empty_body_is_reported_too() -> None:
    assert read(BodyReader(report_raw), []).raw == ""
