"""Summarize a profile: the share of each package and file in the event loop's thread, from the stacks of `--profile`.

python -m bench.digest FOLDER/json-32.txt
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

#: The outermost file of the event loop's thread.  The other threads mostly wait, which a sampler counts as work.
_ENTRY_FILE = "tornado_proxy/__main__.py"

_FILE = re.compile(r"\((.*?)(?::\d+)?\)$")
_OURS = "tornado_proxy/"

#: Files that only start the loop: a stack without another file of the package is work of Tornado or the loop.
_STARTUP_FILES = (_ENTRY_FILE, "tornado_proxy/cli/", "tornado_proxy/app.py")

FRAMEWORK = "tornado and the loop"


def read_stacks(path: Path) -> Iterator[tuple[list[str], int]]:
    """Yield each stack of the event loop's thread: its files, outermost first, and its number of samples."""
    for line in path.read_text().splitlines():
        frames, _, count = line.rpartition(" ")
        if _ENTRY_FILE in frames:
            yield [_file(frame) for frame in frames.split(";")], int(count)


def count_by_package(path: Path) -> Counter[str]:
    """Return the samples of each package, with the libraries that it calls; the rest counts for FRAMEWORK."""
    packages: Counter[str] = Counter()
    for files, count in read_stacks(path):
        ours = (file for file in reversed(files) if file.startswith(_OURS) and not file.startswith(_STARTUP_FILES))
        packages[_find_package(next(ours, FRAMEWORK))] += count
    return packages


def count_by_file(path: Path) -> Counter[str]:
    """Return the samples of each file that was running, of the server or of a library."""
    samples: Counter[str] = Counter()
    for files, count in read_stacks(path):
        samples[files[-1]] += count
    return samples


def _find_package(file: str) -> str:
    return "/".join(file.split("/")[:2]) if file.count("/") > 1 else file


def _file(frame: str) -> str:
    found = _FILE.search(frame)
    return found[1] if found else frame


def main() -> None:
    """Print the packages and the files with the largest shares."""
    for title, counts in (("package", count_by_package(Path(sys.argv[1]))), ("file", count_by_file(Path(sys.argv[1])))):
        total = sum(counts.values())
        print(f"{'%':>6}  {title}")
        for name, count in counts.most_common(25):
            print(f"{100 * count / total:6.1f}  {name}")


if __name__ == "__main__":
    main()
