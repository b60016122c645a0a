"""Writes environment variables in the syntax of shells."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Mapping


def _bash(variables: Mapping[str, str], removed: Iterable[str]) -> list[str]:
    return [
        *(f"export {name}={shlex.quote(value)}" for name, value in variables.items()),
        *(f"unset {name}" for name in removed),
    ]


def _fish(variables: Mapping[str, str], removed: Iterable[str]) -> list[str]:
    # Inside single quotes fish reads \\ and \' alone (fish documentation, "Quotes").
    quoted = {name: value.replace("\\", "\\\\").replace("'", "\\'") for name, value in variables.items()}
    return [
        *(f"set -gx {name} '{value}'" for name, value in quoted.items()),
        *(f"set -e {name}" for name in removed),
    ]


def _powershell(variables: Mapping[str, str], removed: Iterable[str]) -> list[str]:
    quoted = {name: value.replace("'", "''") for name, value in variables.items()}
    return [
        *(f"$env:{name} = '{value}'" for name, value in quoted.items()),
        *(f"Remove-Item Env:{name} -ErrorAction SilentlyContinue" for name in removed),
    ]


def _dotenv(variables: Mapping[str, str], removed: Iterable[str]) -> list[str]:
    # A file of variables cannot remove one; an empty value counts as unset for the SDKs.
    return [
        *(f"{name}={json.dumps(value)}" for name, value in variables.items()),
        *(f"{name}=" for name in removed),
    ]


#: Shell -> lines that set variables and remove others.
SHELLS: Mapping[str, Callable[[Mapping[str, str], Iterable[str]], list[str]]] = {
    "bash": _bash,
    "fish": _fish,
    "powershell": _powershell,
    "dotenv": _dotenv,
}
