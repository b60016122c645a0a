"""The pictures of docs/images/ show the dashboard as it is."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.local.dashboard.pictures import IMAGES, PICTURES, draw


@pytest.mark.parametrize("name", PICTURES)
def test_picture_is_current(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()

    drawn = asyncio.run(draw(name))

    assert drawn == (IMAGES / name).read_text("utf-8"), "run python -m tests.local.dashboard.pictures"
    assert "@font-face" not in drawn, "a page must not fetch fonts from another host"
