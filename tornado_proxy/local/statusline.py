"""Prints one line for the status line of Claude Code or tmux: spent today, left in the budget, spent in this session.

It runs every few hundred milliseconds, so it imports little, reads the ledger with two queries, and never waits for the
network: budgets are fetched by a child process after the line was printed, and shown at the next call.
"""

from __future__ import annotations

import base64
import json
import os
import sqlite3
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path

from tornado_proxy.local.folders import LEDGER_FILE, find_state_folder, make_state_folder, replace_private_file

#: The options, each with a value.
OPTIONS = ("--ledger", "--session", "--api", "--token-env", "--project")

#: Seconds after which budgets are fetched again, and for which a fetch may take.
_REFRESH_S = 30.0
_FETCH_TIMEOUT_S = 5.0

#: Age of the requests among which those of a session are searched: the ledger has no index of sessions.
_SESSION_TIME = timedelta(days=7)

_CACHE_FILE = "statusline.json"

#: Bytes of standard input and of a response that are read.
_MAX_BYTES = 1024 * 1024


def run(arguments: Sequence[str]) -> int:
    """Print the line and return the exit status: 0, also without a ledger, or 2 for a wrong option."""
    options = dict(zip(arguments[::2], arguments[1::2], strict=False))
    unknown = [name for name in options if name not in OPTIONS]
    if unknown or len(arguments) % 2:
        sys.stderr.write(f"wrong option {(unknown or [arguments[-1]])[0]}; options are {', '.join(OPTIONS)}\n")
        return 2
    session = options.get("--session") or read_session(sys.stdin)
    parts = read_spent(find_ledger(options.get("--ledger")), session, datetime.now(UTC))
    budgets = find_budgets_url(options)
    if budgets is not None:
        left = read_left(budgets)
        parts[1:1] = [] if left is None else [f"{format_usd(left)} left"]
    sys.stdout.write(" · ".join(parts) + "\n")
    sys.stdout.flush()
    if budgets is not None:
        refresh(budgets, os.environ.get(options.get("--token-env", ""), ""))
    return 0


def read_session(stdin: object) -> str | None:
    """Return the session id of the JSON that Claude Code writes to standard input; None without it, as in tmux."""
    try:
        if stdin is None or stdin.isatty():  # type: ignore[attr-defined]  # a text stream
            return None
        content = json.loads(stdin.read(_MAX_BYTES))  # type: ignore[attr-defined]  # a text stream
    except (OSError, ValueError):
        return None
    session = content.get("session_id") if isinstance(content, dict) else None
    return session if isinstance(session, str) else None


def find_ledger(url: str | None) -> Path:
    """Return the path of an SQLite ledger: that of a URL, else that of the local proxies."""
    return find_state_folder() / LEDGER_FILE if url is None else Path(url.removeprefix("sqlite:///"))


def read_spent(path: Path, session: str | None, now: datetime) -> list[str]:
    """Return the parts of the line that the ledger tells: today, which is a day in UTC, and the session."""
    midnight = now.strftime("%Y-%m-%dT00:00:00.000Z")
    try:
        with sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=0.02) as db:
            today = _sum(db, "started_at >= ?", (midnight,))
            parts = [f"{format_usd(today)} today"]
            if session is not None:
                since = (now - _SESSION_TIME).strftime("%Y-%m-%dT%H:%M:%S.000Z")
                spent = _sum(db, "agent_session = ? AND started_at >= ?", (session, since))
                parts.append(f"{format_usd(spent)} session")
    except sqlite3.Error:
        return ["no ledger"]
    return parts


def _sum(db: sqlite3.Connection, condition: str, values: tuple[str, ...]) -> Decimal:
    rows = db.execute(f"SELECT total FROM bills WHERE {condition}", values)  # noqa: S608  # conditions of ours
    return sum((Decimal(total) for (total,) in rows), Decimal(0))


def format_usd(amount: Decimal) -> str:
    """Return an amount for a glance: cents, or four decimals below a dime."""
    decimals = 2 if abs(amount) >= Decimal("0.1") or not amount else 4
    return f"{'-' if amount < 0 else ''}${abs(amount):,.{decimals}f}"


def find_budgets_url(options: Mapping[str, str]) -> str | None:
    """Return the URL of the caller's budgets, None without a server, a token or a project."""
    api, token = options.get("--api"), os.environ.get(options.get("--token-env", ""), "")
    project = options.get("--project") or _read_project(token)
    if not api or not token or not project:
        return None
    return f"{api.rstrip('/')}/accounts/projects/{project}/llm-proxy/budgets"


def _read_project(token: str) -> str | None:
    """Return the project of a participant token, which its claim `sub` names; the server verifies the token."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return str(claims["sub"])
    except (IndexError, KeyError, TypeError, ValueError):
        return None


def read_left(url: str) -> Decimal | None:
    """Return the least that is left of the caller's budgets, as it was fetched last; None if it is not known."""
    try:
        cached = json.loads((find_state_folder() / _CACHE_FILE).read_text())
        return Decimal(cached["left"]) if cached["url"] == url and cached["left"] is not None else None
    except (OSError, ValueError, KeyError, TypeError, InvalidOperation):
        return None


def refresh(url: str, token: str) -> None:
    """Fetch the budgets in a child process, if that was not begun in the last seconds."""
    path = find_state_folder() / _CACHE_FILE
    try:
        if time.time() - path.stat().st_mtime < _REFRESH_S:
            return
        path.touch()  # the next calls do not fetch as well
    except OSError:
        pass
    if not hasattr(os, "fork") or os.fork() != 0:
        return
    # The child: the caller waits for the end of its standard streams.
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    try:
        fetch_left(url, token)
    finally:
        os._exit(0)


def fetch_left(url: str, token: str) -> None:
    """Fetch the budgets and store the least that is left; a failure keeps the old figure."""
    # Slow to import, and needed here only.
    import urllib.request

    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})  # noqa: S310  # of the user
    with urllib.request.urlopen(request, timeout=_FETCH_TIMEOUT_S) as response:  # noqa: S310  # of the user
        budgets = json.loads(response.read(_MAX_BYTES))["budgets"]
    left = [Decimal(row["limit"]) - Decimal(row["settled"]) - Decimal(row["reserved"]) for row in budgets]
    content = {"url": url, "left": f"{min(left):f}" if left else None}
    replace_private_file(make_state_folder() / _CACHE_FILE, json.dumps(content))
