"""A fault in a configuration file, as a value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One fault in an operator's file.

    Attributes:
        file: The path of the file, as the operator named it.
        line: The line, counted from 1; 0 if the fault concerns the whole file.
        key: The key in dotted form, such as `listen.port`; "" if the fault concerns no key.
        rule: The rule that the value breaks; it follows the key in a sentence.
    """

    file: str
    line: int
    key: str
    rule: str

    def __str__(self) -> str:
        # file:line is the form that editors and terminals turn into a link.
        location = f"{self.file}:{self.line}" if self.line else self.file
        return f"{location}: {self.key}: {self.rule}" if self.key else f"{location}: {self.rule}"
