"""The report on the files and calls of a request."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.harness import ROOT, TIMEOUT_S


def test_report_counts_calls_and_lists_files_sorted_by_path() -> None:
    process = subprocess.run(
        [sys.executable, "-m", "bench.request_path"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=TIMEOUT_S,
        check=False,
    )

    assert process.returncode == 0, process.stderr
    totals, _, table = process.stdout.partition("\n\n")
    files, loop_files, calls, package_calls = (int(text.replace(",", "")) for text in re.findall(r"[\d,]*\d", totals))
    rows = [line.split() for line in table.splitlines()[1:]]
    paths = [path for _, path in rows]
    assert paths == sorted(paths)
    assert files == len(paths)
    assert 0 < loop_files < files
    assert sum(int(count) for count, _ in rows) == package_calls < calls
    assert {"gateway/http/relay.py", "ledger/rows.py", "observability/logs.py"} <= set(paths)
    assert not any(path.startswith("simulator/") for path in paths)
