"""The bound of lookups, and the escape of texts."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tornado_proxy.dashboard.site import MAX_LOOKUPS, Lookups, escape_text
from tornado_proxy.domain.errors import Overloaded


def test_lookups_that_wait_are_bounded() -> None:
    lookups = Lookups()
    with ExitStack() as waiting:
        for _ in range(MAX_LOOKUPS):
            waiting.enter_context(lookups.count())
        with pytest.raises(Overloaded), lookups.count():
            pass
    with lookups.count():
        pass


def test_text_becomes_no_markup_and_reorders_nothing() -> None:
    assert escape_text('<a href="\'">&\u202e\x1b') == "&lt;a href=&quot;&#x27;&quot;&gt;&amp;\\u202e\\u001b"
