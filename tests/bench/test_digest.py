"""The digest of a profile counts the event loop's thread alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.digest import FRAMEWORK, count_by_file, count_by_package

LOOP = "<module> (tornado_proxy/__main__.py:6);serve (tornado_proxy/cli/serve.py:45);run (asyncio/runners.py:118)"
PROFILE = f"""\
{LOOP};serve (tornado_proxy/gateway/http/handler.py:9);run (tornado_proxy/ledger/rows.py:1);dumps (json/encoder.py:1) 3
{LOOP};post (tornado_proxy/gateway/http/handler.py:9);feed (tornado_proxy/metering/request_meter.py:70) 2
{LOOP};write (tornado/iostream.py:9) 1
Thread.run (threading.py:982);Writer.run (tornado_proxy/ledger/rows.py:111) 40
"""


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    path = tmp_path / "stacks.txt"
    path.write_text(PROFILE)
    return path


def test_samples_count_for_the_innermost_package_or_for_the_framework(profile: Path) -> None:
    assert count_by_package(profile) == {"tornado_proxy/ledger": 3, "tornado_proxy/metering": 2, FRAMEWORK: 1}


def test_samples_count_for_the_file_that_was_running(profile: Path) -> None:
    assert count_by_file(profile) == {
        "json/encoder.py": 3,
        "tornado_proxy/metering/request_meter.py": 2,
        "tornado/iostream.py": 1,
    }
