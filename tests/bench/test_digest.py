"""A profile's digest counts the event loop's thread alone, by files."""

from __future__ import annotations

from pathlib import Path

from bench.digest import by_file

PROFILE = """\
<module> (tornado_proxy/__main__.py:6);run (asyncio/runners.py:118);send (tornado_proxy/web/relay.py:20) 3
<module> (tornado_proxy/__main__.py:6);run (asyncio/runners.py:118) 1
Thread.run (threading.py:982);Writer.run (tornado_proxy/ledger/writer.py:111) 40
"""


def test_samples_are_counted_by_the_innermost_file_and_by_every_file_above_it(tmp_path: Path) -> None:
    path = tmp_path / "stacks.txt"
    path.write_text(PROFILE)
    own, with_callees = by_file(path)
    assert own == {"tornado_proxy/web/relay.py": 3, "asyncio/runners.py": 1}
    assert with_callees == {"tornado_proxy/__main__.py": 4, "asyncio/runners.py": 4, "tornado_proxy/web/relay.py": 3}
