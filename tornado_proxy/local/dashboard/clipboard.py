"""Copies text to the clipboard of the person: by a program of the desktop, or over the terminal."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping

#: Programs that copy their standard input, and the variable without which they do not work.
_PROGRAMS = (
    ("WAYLAND_DISPLAY", ("wl-copy",)),
    ("DISPLAY", ("xclip", "-selection", "clipboard")),
    ("DISPLAY", ("xsel", "--clipboard", "--input")),
)

_LIMIT_S = 2.0


def copy_text(text: str, copy_by_terminal: Callable[[str], None], environment: Mapping[str, str]) -> str:
    """Copy `text`; return how, for people.

    Over ssh, and without a program of the desktop, the terminal is asked (OSC 52), which does not tell whether it has
    obeyed.
    """
    command = None if _is_remote(environment) else _find_program(environment)
    if command is not None and _run(command, text, environment):
        return f"copied by {command[0]}"
    copy_by_terminal(text)
    return "sent to the clipboard of the terminal (OSC 52)"


def _is_remote(environment: Mapping[str, str]) -> bool:
    return "SSH_CONNECTION" in environment or "SSH_TTY" in environment


def _find_program(environment: Mapping[str, str]) -> tuple[str, ...] | None:
    if sys.platform == "darwin":
        return ("pbcopy",)
    for variable, command in _PROGRAMS:
        if environment.get(variable) and shutil.which(command[0], path=environment.get("PATH")):
            return command
    return None


def _run(command: tuple[str, ...], text: str, environment: Mapping[str, str]) -> bool:
    try:
        # xclip keeps running to serve the clipboard, so its output must not be a pipe that is read to the end.
        done = subprocess.run(  # noqa: S603  # a program of the table above
            command,
            input=text.encode(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_LIMIT_S,
            check=False,
            env=environment,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
