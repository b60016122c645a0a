"""Text goes to the clipboard of the desktop if there is one, else to that of the terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from tornado_proxy.local.dashboard.clipboard import copy_text

TERMINAL = "sent to the clipboard of the terminal (OSC 52)"


@pytest.mark.parametrize(
    ("status", "variables", "how"),
    [
        pytest.param(0, {"WAYLAND_DISPLAY": "wayland-0"}, "copied by wl-copy", id="desktop"),
        pytest.param(0, {"DISPLAY": ":0"}, TERMINAL, id="no program for this desktop"),
        pytest.param(1, {"WAYLAND_DISPLAY": "wayland-0"}, TERMINAL, id="program that fails"),
        pytest.param(0, {"WAYLAND_DISPLAY": "wayland-0", "SSH_CONNECTION": "1 2 3 4"}, TERMINAL, id="ssh"),
        pytest.param(0, {}, TERMINAL, id="no desktop"),
    ],
)
def test_copy(status: int, variables: dict[str, str], how: str, tmp_path: Path) -> None:
    program, copied = tmp_path / "wl-copy", tmp_path / "copied"
    program.write_text(f"#!/bin/sh\n/bin/cat > {copied}\nexit {status}\n")
    program.chmod(0o755)
    by_terminal: list[str] = []

    assert copy_text("export A=b\n", by_terminal.append, {"PATH": str(tmp_path), **variables}) == how

    if how == TERMINAL:
        assert by_terminal == ["export A=b\n"]
    else:
        assert (copied.read_text(), by_terminal) == ("export A=b\n", [])
