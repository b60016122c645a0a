"""The running local proxies of this user: a file for each one in the state folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tornado_proxy.domain.identity import Secret
from tornado_proxy.local.access import INSECURE
from tornado_proxy.local.folders import replace_private_file

_FOLDER = "run"


@dataclass(frozen=True, slots=True)
class RunningProxy:
    """A local proxy: its URL for clients, its project, and its bearer, None if it needs none."""

    url: str
    project_id: str
    bearer: Secret | None

    @property
    def credential(self) -> Secret:
        """The credential that clients send."""
        return INSECURE if self.bearer is None else self.bearer


@contextmanager
def announced(folder: Path, proxy: RunningProxy) -> Iterator[None]:
    """Announce a proxy while it runs, so that `env` and `launch` find it."""
    path = folder / _FOLDER / f"{os.getpid()}.json"
    path.parent.mkdir(mode=0o700, exist_ok=True)
    credential = {"insecure": True} if proxy.bearer is None else {"bearer": proxy.bearer.reveal()}
    content = {"url": proxy.url, "project": proxy.project_id, **credential, "pid": os.getpid()}
    replace_private_file(path, json.dumps(content) + "\n")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def find_newest(folder: Path) -> RunningProxy | None:
    """Return the proxy that was started last and runs; delete the files of those that were killed."""
    found: list[tuple[int, RunningProxy]] = []
    for path in (folder / _FOLDER).glob("*.json"):
        try:
            content = json.loads(path.read_text())
            if not _is_alive(int(content["pid"])):
                path.unlink(missing_ok=True)
                continue
            bearer = None if content.get("insecure") else Secret(content["bearer"])
            proxy = RunningProxy(content["url"], content["project"], bearer)
            found.append((path.stat().st_mtime_ns, proxy))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # of another version, or just deleted
    return max(found, key=lambda entry: entry[0])[1] if found else None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # of another user
    return True
