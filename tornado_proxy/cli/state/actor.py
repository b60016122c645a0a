"""Who runs a command that changes the state."""

from __future__ import annotations

import os
import pwd


def find_actor() -> str:
    """Return the operating system's user.  Not from the environment, which the user can set."""
    try:
        return f"cli:{pwd.getpwuid(os.getuid()).pw_name}"
    except KeyError:  # a user id without a name, as in a container
        return f"cli:uid {os.getuid()}"
