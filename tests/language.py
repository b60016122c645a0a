"""Count how plainly the docstrings, comments and pages are written: `python -m tests.language`.

A report, not a gate.  Figures are per 1,000 words of docstrings and comments in tornado_proxy/, and of the text of
docs/*.md and README.md; comments are counted per 100 lines of code.
"""

from __future__ import annotations

import ast
import io
import re
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
    _phrase("house/room/floor/door/trip/manners", r"\b(?:house|rooms? (?:is|know|on)|floors?|doors?|trips?|manners)\b", "0"),
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
    return words, {one.name: 1000 * len(one.pattern.findall(text)) / max(words, 1) for one in PHRASES}


def main() -> None:
    """Print the figures."""
    sources = sorted((ROOT / "tornado_proxy").rglob("*.py"))
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    code_words, code = count([text for path in sources for text in docstrings_and_comments(path)])
    page_words, page = count([prose(path) for path in pages])
    print(f"{'per 1,000 words':<40}{'code':>8}{'docs':>8}  target")
    for one in PHRASES:
        print(f"{one.name:<40}{code[one.name]:>8.1f}{page[one.name]:>8.1f}  {one.target}")
    lines = sum(bool(line.strip()) for path in sources for line in path.read_text("utf-8").splitlines())
    commented = sum(1 for path in sources for _ in comments(path.read_text("utf-8")))
    print(f"{'comments per 100 lines of code':<40}{100 * commented / lines:>8.1f}{'':>8}  >= 4")
    print(f"{'words':<40}{code_words:>8}{page_words:>8}")


if __name__ == "__main__":
    main()
