"""The pages are measured over generated requests, and their sums are compared with the records."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from bench.pages import run


def test_every_measured_page_is_shown_and_its_sums_are_those_of_the_records(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = argparse.Namespace(
        requests=2000, postgresql=False, url="", rounds=1, only="participant=rare&group", compare=True
    )

    assert run(options, tmp_path)
    printed = capsys.readouterr().out
    assert "200 /?range=30d&participant=rare&group=model" in printed
    assert "2000 records" in printed
    assert "0 pages are too slow or refused; the sums are the same" in printed
