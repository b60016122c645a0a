"""Draws the pictures of docs/images/: `python -m tests.local.dashboard.pictures`."""

from __future__ import annotations

import asyncio
import os
import re
import time

from tests.harness import ROOT
from tests.local.dashboard.samples import busy_update
from tests.local.dashboard.shown import shown_dashboard

IMAGES = ROOT / "docs" / "images"

#: Name of the picture -> width, height, theme.
PICTURES = {
    "dashboard-80x24.svg": (80, 24, "textual-dark"),
    "dashboard-80x24-light.svg": (80, 24, "textual-light"),
    "dashboard-140x40.svg": (140, 40, "textual-dark"),
}


async def draw(name: str) -> str:
    """Return a picture as SVG."""
    width, height, theme = PICTURES[name]
    async with shown_dashboard(width, height) as shown:
        shown.app.theme = theme
        await shown.send(busy_update())
        drawn = shown.app.export_screenshot(title="tornado-proxy local", simplify=True)
    # Fonts from another host; the viewer's own monospace font does.
    return re.sub(r"\s*@font-face \{.*?\}", "", drawn, flags=re.DOTALL)


def main() -> None:
    os.environ["TZ"] = "UTC"
    time.tzset()
    IMAGES.mkdir(exist_ok=True)
    for name in PICTURES:
        (IMAGES / name).write_text(asyncio.run(draw(name)), "utf-8")


if __name__ == "__main__":
    main()
