"""Requests the access token of the session 50 times at once, when the file START exists; prints those it got."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path

from tornado_proxy.local.folders import make_state_folder
from tornado_proxy.local.session.store import SessionStore
from tornado_proxy.local.session.token_source import SessionTokens


async def main() -> None:
    tokens = SessionTokens(SessionStore(make_state_folder()))
    got = await asyncio.gather(*(tokens.get() for _ in range(50)))
    sys.stdout.write(json.dumps([token.reveal() for token in got]))


sys.stdout.write("ready\n")
sys.stdout.flush()
while not Path(os.environ["START"]).exists():
    time.sleep(0.001)
asyncio.run(main())
