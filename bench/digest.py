"""What a profile says: where the server's own thread was, from the stacks of `--profile`.

python -m bench.digest FOLDER/json-32.txt
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

#: The bottom of the thread that runs the event loop; the other threads mostly wait, which a sampler takes for work.
_BOTTOM = "tornado_proxy/__main__.py"

_FILE = re.compile(r"\((.*?)(?::\d+)?\)$")
_OURS = "tornado_proxy/"

#: Files of ours that only start the loop: what has no other file of ours above it is the frame's own work.
_STARTERS = (_BOTTOM, "tornado_proxy/cli/", "tornado_proxy/app.py")

FRAME = "tornado and the loop"


def stacks(path: Path) -> Iterator[tuple[list[str], int]]:
    """The files of each stack of the event loop's thread, outermost first, and its number of samples."""
    for line in path.read_text().splitlines():
        frames, _, count = line.rpartition(" ")
        if _BOTTOM in frames:
            yield [_file(frame) for frame in frames.split(";")], int(count)


def by_room(path: Path) -> Counter[str]:
    """Samples by the innermost room of ours, with the libraries that it calls; the rest is the frame's."""
    rooms: Counter[str] = Counter()
    for files, count in stacks(path):
        ours = (file for file in reversed(files) if file.startswith(_OURS) and not file.startswith(_STARTERS))
        rooms[_room(next(ours, FRAME))] += count
    return rooms


def by_file(path: Path) -> Counter[str]:
    """Samples by the file that was running, of ours or of a library."""
    running: Counter[str] = Counter()
    for files, count in stacks(path):
        running[files[-1]] += count
    return running


def _room(file: str) -> str:
    return "/".join(file.split("/")[:2]) if file.count("/") > 1 else file


def _file(frame: str) -> str:
    found = _FILE.search(frame)
    return found[1] if found else frame


def main() -> None:
    """Print the rooms, and the files with the largest shares."""
    for title, counts in (("room", by_room(Path(sys.argv[1]))), ("file", by_file(Path(sys.argv[1])))):
        total = sum(counts.values())
        print(f"{'%':>6}  {title}")
        for name, count in counts.most_common(25):
            print(f"{100 * count / total:6.1f}  {name}")


if __name__ == "__main__":
    main()
