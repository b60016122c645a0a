"""Count how plainly docstrings, comments and pages are written: `python -m tests.language [PATH]...`.

A report, not a gate.  Figures are per 1,000 words of docstrings and comments, and of the prose of Markdown pages;
comments are counted per 100 lines of code.  Without a PATH: tornado_proxy/, docs/ and README.md.
"""

# ruff: noqa: T201  # a report prints

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Phrase:
    """A phrase, and the figure it should have per 1,000 words."""

    name: str
    pattern: re.Pattern[str]
    target: str


def _phrase(name: str, pattern: str, target: str) -> Phrase:
    return Phrase(name, re.compile(pattern, re.IGNORECASE), target)


PHRASES = (
    _phrase("return(s)", r"\breturns?\b", ">= 3"),
    _phrase("what is/comes/the ...", r"\bwhat (?:is|are|was|were|comes?|came|the|a|an|has|have|it|they)\b", "<= 0.5"),
    _phrase("where there is/it/none", r"\bwhere (?:there|it|they|one|none|nothing|that|this)\b", "<= 0.3"),
    _phrase("stand(s)", r"\bst(?:ands?|anding|ood)\b", "<= 0.2"),
    _phrase("nobody/somebody", r"\b(?:nobody|somebody|whoever)\b", "<= 0.2"),
    _phrase(
        "house/room/floor/door/trip/manners", r"\b(?:house|rooms? (?:is|know|on)|floors?|doors?|trips?|manners)\b", "0"
    ),
)


def docstrings_and_comments(path: Path) -> Iterator[str]:
    """Yield every docstring and comment of a Python file; type-checker and linter comments are left out."""
    source = path.read_text("utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring:
                yield docstring
    yield from comments(source)


def comments(source: str) -> Iterator[str]:
    """Yield the comments of Python source that say something to a reader."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            text = re.sub(r"^#:?\s*(?:noqa|type:)[^#]*#?", "", token.string).lstrip("#: ")
            if text:
                yield text


def prose(path: Path) -> str:
    """Return the text of a Markdown page without code blocks and code spans."""
    text = re.sub(r"^```.*?^```", "", path.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`]*`", "", text)


def count(texts: list[str]) -> tuple[int, dict[str, float]]:
    """Return the number of words, and how often each phrase comes per 1,000 of them."""
    text = "\n".join(texts)
    words = len(re.findall(r"[A-Za-z][A-Za-z'-]*", text))
    return words, {phrase.name: 1000 * len(phrase.pattern.findall(text)) / max(words, 1) for phrase in PHRASES}


def report(paths: list[Path]) -> None:
    """Print the figures of the Python files and Markdown pages in `paths`."""
    files = [file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    sources = [file for file in files if file.suffix == ".py"]
    pages = [file for file in files if file.suffix == ".md"]
    code_words, code = count([text for path in sources for text in docstrings_and_comments(path)])
    page_words, page = count([prose(path) for path in pages])
    print(f"{'per 1,000 words':<40}{'code':>8}{'pages':>8}  target")
    for phrase in PHRASES:
        print(f"{phrase.name:<40}{code[phrase.name]:>8.1f}{page[phrase.name]:>8.1f}  {phrase.target}")
    lines = sum(bool(line.strip()) for path in sources for line in path.read_text("utf-8").splitlines())
    commented = sum(1 for path in sources for _ in comments(path.read_text("utf-8")))
    print(f"{'comments per 100 lines of code':<40}{100 * commented / max(lines, 1):>8.1f}{'':>8}  >= 4")
    print(f"{'words':<40}{code_words:>8}{page_words:>8}")


if __name__ == "__main__":
    report([Path(argument) for argument in sys.argv[1:]] or [ROOT / "tornado_proxy", ROOT / "docs", ROOT / "README.md"])
