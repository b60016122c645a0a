from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.local.machine import Machine
from tests.oauth.real_issuer import RealIssuer, running_real_issuer


@pytest.fixture(scope="package")
def issuer() -> Iterator[RealIssuer]:
    with running_real_issuer() as running:
        yield running


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)
