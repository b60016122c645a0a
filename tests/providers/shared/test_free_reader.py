from __future__ import annotations

import pytest

from tests.providers.reading import read
from tornado_proxy.domain.usage import Basis, UsageReport
from tornado_proxy.providers.shared.free_reader import FreeReader


@pytest.mark.parametrize("body", [b"", b'{"id": "resp_1", "usage": {"input_tokens": 5}}'])
@pytest.mark.parametrize("complete", [True, False])
def test_no_response_costs_anything_or_creates_an_object(body: bytes, *, complete: bool) -> None:
    reader = FreeReader()

    assert read(reader, [body], complete=complete) == UsageReport(basis=Basis.FREE)
    assert reader.object_id is None
