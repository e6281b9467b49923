"""A table as a value: cells with their intervals, to CSV for machines and to HTML for people."""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from nigradat.metrics import Estimate

MINUS = "\N{MINUS SIGN}"
ABSENT = "n/a"


@dataclass(frozen=True)
class Cell:
    """A number with an optional interval, or a text.

    Attributes:
        value: a number, a text, or None for what does not exist ("n/a").
        low, high: ends of the interval, both or neither.
        digits: after the decimal point when shown; CSV has all of them.
        signed: show a plus sign.
        mark: a superscript that a note explains.
    """

    value: float | str | None = None
    low: float | None = None
    high: float | None = None
    digits: int = 3
    signed: bool = False
    mark: str = ""

    @classmethod
    def of(cls, estimate: Estimate | None, digits: int = 3, signed: bool = False) -> Cell:
        """The cell of an estimate; "n/a" for none and for an undefined value."""
        if estimate is None or not math.isfinite(estimate.value):
            return cls()
        if estimate.method == "undefined":
            return cls(estimate.value, digits=digits, signed=signed)
        mark = "p" if estimate.method == "percentile" else ""
        return cls(estimate.value, estimate.low, estimate.high, digits, signed, mark)

    @property
    def text(self) -> str:
        """The value as shown."""
        return self._shown(self.value)

    @property
    def interval(self) -> str:
        """The interval as shown, empty without one."""
        if self.low is None or self.high is None:
            return ""
        return f"({self._shown(self.low)}, {self._shown(self.high)})"

    def _shown(self, value: float | str | None) -> str:
        if isinstance(value, str):
            return value
        if value is None or math.isnan(value):
            return ABSENT
        if math.isinf(value):
            return "unbounded"
        shown = f"{value:{'+' if self.signed else ''}.{self.digits}f}"
        if not float(shown):
            shown = shown.lstrip("+-")  # a rounded zero has no sign
        return shown.replace("-", MINUS)


@dataclass(frozen=True)
class Column:
    """A column's heading; columns of one group stand under a common one."""

    name: str
    group: str = ""

    @property
    def full_name(self) -> str:
        """Group and name in one."""
        return f"{self.group} {self.name}".strip()


@dataclass(frozen=True)
class Row:
    """A row: its label, one cell a column, and what it is (model, baseline, oracle, published)."""

    label: str
    cells: tuple[Cell, ...]
    kind: str = "model"


@dataclass(frozen=True)
class Table:
    """A table with its notes.

    Attributes:
        name: for a file.
        title: without full stop.
        heading: of the first column.
        columns, rows: the rows have one cell for each column.
        notes: sentences below the table.
        label: what the data are, for example "digital phantom, not patients"; empty for patients.
    """

    name: str
    title: str
    heading: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    label: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row.cells) != len(self.columns):
                raise ValueError(f"row '{row.label}' has {len(row.cells)} cells for {len(self.columns)} columns")

    @property
    def caption(self) -> str:
        """Title and what the data are."""
        return f"{self.title} ({self.label})" if self.label else self.title

    def to_csv(self) -> str:
        """One line a row; value, low and high in columns of their own, in full precision, "n/a" for what is missing.

        The last column says what the data are.
        """
        with_interval = [any(row.cells[i].low is not None for row in self.rows) for i in range(len(self.columns))]
        header = [self.heading, "kind"]
        for column, wide in zip(self.columns, with_interval, strict=True):
            header += [column.full_name, *([f"{column.full_name} low", f"{column.full_name} high"] if wide else [])]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*header, "data"])
        for row in self.rows:
            line = [row.label, row.kind]
            for cell, wide in zip(row.cells, with_interval, strict=True):
                line += [_plain(v) for v in ((cell.value, cell.low, cell.high) if wide else (cell.value,))]
            writer.writerow([*line, self.label or "patients"])
        return text.getvalue()

    def to_html(self) -> str:
        """A ``<table>`` with its caption, and its notes as a list below it."""
        body = "\n".join(_html_row(row) for row in self.rows)
        notes = "".join(f"<li>{escape(note)}</li>" for note in self.notes)
        listed = f'\n<ul class="notes">{notes}</ul>' if notes else ""
        label = f' <span class="label">{escape(self.label)}</span>' if self.label else ""
        return (
            f'<div class="table" id="table-{escape(self.name)}">\n<table>\n'
            f"<caption>{escape(self.title)}{label}</caption>\n"
            f"<thead>\n{_html_head(self.heading, self.columns)}\n</thead>\n"
            f"<tbody>\n{body}\n</tbody>\n</table>{listed}\n</div>"
        )


def _plain(value: float | str | None) -> str:
    if value is None:
        return ABSENT
    return value if isinstance(value, str) else ABSENT if math.isnan(value) else repr(float(value))


def _html_head(heading: str, columns: Sequence[Column]) -> str:
    if not any(c.group for c in columns):
        plain = "".join(f'<th scope="col">{escape(c.name)}</th>' for c in columns)
        return f'<tr><th scope="col">{escape(heading)}</th>{plain}</tr>'
    top = [f'<th scope="col" rowspan="2">{escape(heading)}</th>']
    below: list[str] = []
    for group, members in itertools.groupby(columns, key=lambda c: c.group):
        names = [escape(c.name) for c in members]
        if group:
            top.append(f'<th scope="colgroup" class="group" colspan="{len(names)}">{escape(group)}</th>')
            below += [f'<th scope="col"{" class=first" if i == 0 else ""}>{name}</th>' for i, name in enumerate(names)]
        else:
            top += [f'<th scope="col" rowspan="2">{name}</th>' for name in names]
    return f"<tr>{''.join(top)}</tr>\n<tr>{''.join(below)}</tr>"


def _html_row(row: Row) -> str:
    cells = "".join(_html_cell(cell) for cell in row.cells)
    return f'<tr class="{escape(row.kind)}"><th scope="row">{escape(row.label)}</th>{cells}</tr>'


def _html_cell(cell: Cell) -> str:
    mark = f"<sup>{escape(cell.mark)}</sup>" if cell.mark else ""
    interval = f'<span class="interval">{escape(cell.interval)}</span>' if cell.interval else ""
    kind = ' class="text"' if isinstance(cell.value, str) else ' class="absent"' if cell.value is None else ""
    return f"<td{kind}>{escape(cell.text)}{mark}{interval}</td>"
