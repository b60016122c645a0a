"""What a profile says: the share of each file of the server's own thread, from the stacks of `--profile`.

python -m bench.digest FOLDER/json-32.txt
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

#: The bottom of the thread that runs the event loop; the other threads mostly wait, which a sampler takes for work.
_MAIN = "tornado_proxy/__main__.py"

_FILE = re.compile(r"\((.*?)(?::\d+)?\)$")


def stacks(path: Path) -> Iterator[tuple[list[str], int]]:
    """Each stack of the event loop's thread, outermost frame first, and its number of samples."""
    for line in path.read_text().splitlines():
        frames, _, count = line.rpartition(" ")
        if _MAIN in frames:
            yield frames.split(";"), int(count)


def by_file(path: Path) -> tuple[Counter[str], Counter[str]]:
    """Samples by the file of the innermost frame, and by each file that is anywhere in a stack."""
    own: Counter[str] = Counter()
    with_callees: Counter[str] = Counter()
    for frames, count in stacks(path):
        files = [_file(frame) for frame in frames]
        own[files[-1]] += count
        with_callees.update(dict.fromkeys(files, count))
    return own, with_callees


def _file(frame: str) -> str:
    found = _FILE.search(frame)
    return found[1] if found else frame


def main() -> None:
    """Print the files with the largest shares."""
    own, with_callees = by_file(Path(sys.argv[1]))
    total = sum(own.values())
    print(f"{'own %':>7} {'with callees %':>15}  file")
    for file, count in own.most_common(40):
        print(f"{100 * count / total:7.1f} {100 * with_callees[file] / total:15.1f}  {file}")


if __name__ == "__main__":
    main()
