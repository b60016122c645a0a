"""The report on the CPU time of an exchange."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.harness import ROOT, TIMEOUT_S


def test_report_states_a_median_between_the_least_and_the_most() -> None:
    process = subprocess.run(
        [sys.executable, "-m", "bench.exchange", "--exchanges", "200", "--connections", "4", "--rounds", "3"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=TIMEOUT_S,
        check=False,
    )

    assert process.returncode == 0, process.stderr
    median, least, most = (float(text) for text in re.findall(r"\d+\.\d", process.stdout))
    assert 0 < least <= median <= most
