"""A table whose columns fill its width exactly, so that no column is cut at 80 columns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.widgets import DataTable
from textual.widgets.data_table import CursorType

from tornado_proxy.local.dashboard.cells import fit

#: Cells between two columns.
_GAP = 1

#: Cells of the scroll bar, which are kept free.
_SCROLL_BAR = 1


@dataclass(frozen=True, slots=True)
class Column:
    """A column: `width` cells, 0 for the rest of the table's width.

    It is shown if the table has at least `from_width` cells.
    """

    title: str
    width: int = 0
    right: bool = False
    from_width: int = 0


#: A row: its key, and the text of each column, whether the column is shown or not.
Row = tuple[str, tuple[str, ...]]


class FittedTable(DataTable[Text]):
    """A table of texts without a cursor."""

    _cursor: ClassVar[CursorType] = "none"

    def __init__(self, columns: Iterable[Column], *, id: str) -> None:
        super().__init__(id=id, cell_padding=0, cursor_type=self._cursor)
        self._specified = tuple(columns)
        self._shown: tuple[tuple[Column, int, int], ...] = ()
        self._rows: tuple[Row, ...] = ()
        #: The keys of the rows that the table has now.
        self._keys: tuple[str, ...] = ()
        #: The text of the first column's title, which can change.
        self._first_title = self._specified[0].title

    @property
    def selected_key(self) -> str | None:
        """The key of the row at the cursor."""
        return self._keys[self.cursor_row] if 0 <= self.cursor_row < len(self._keys) else None

    def show(self, rows: Iterable[Row], first_title: str | None = None) -> None:
        """Show `rows`, and a title of the first column if it differs from the specified one."""
        rows, title = tuple(rows), first_title or self._specified[0].title
        if rows == self._rows and title == self._first_title:
            return
        self._rows = rows
        if title != self._first_title:
            self._first_title = title
            self._add_columns()
        self._fill()

    def on_resize(self) -> None:
        """Fit the columns to the new width."""
        self._add_columns()
        self._fill()

    def _add_columns(self) -> None:
        """Make the columns anew: (column, its number, its width)."""
        available = self.size.width - _SCROLL_BAR
        shown = [(column, number) for number, column in enumerate(self._specified) if available >= column.from_width]
        rest = max(0, available - sum(column.width + _GAP for column, _ in shown) + _GAP)
        self._shown = tuple((column, number, column.width or rest) for column, number in shown)
        self.clear(columns=True)
        self._keys = ()
        for position, (column, number, width) in enumerate(self._shown, 1):
            title = column.title if number else self._first_title
            gap = _GAP if position < len(self._shown) else 0
            self.add_column(Text(fit(title, width, right=column.right)), width=width + gap)

    def _fill(self) -> None:
        if not self._shown:
            return
        selected, position, scrolled = self.selected_key, self.cursor_row, self.scroll_y
        self.clear()
        for key, texts in self._rows:
            self.add_row(*self._make_cells(texts), key=key)
        self._keys = tuple(key for key, _ in self._rows)
        if selected is not None and position > 0 and selected in self._keys:
            row = self._keys.index(selected)
            self.move_cursor(row=row, scroll=False)
            self.scroll_to(y=scrolled + row - position, animate=False)

    def _make_cells(self, texts: tuple[str, ...]) -> Iterable[Text]:
        for column, number, width in self._shown:
            yield Text(fit(texts[number], width, right=column.right), no_wrap=True)


class SelectableTable(FittedTable):
    """A table whose cursor stays at its row when rows are added above it."""

    _cursor: ClassVar[CursorType] = "row"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "select_cursor", "Details")]
