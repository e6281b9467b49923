"""A table as LaTeX."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from nigradat.evaluation.table import MINUS, Cell, Table

_LATEX: Final = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        MINUS: "$-$",
        "²": r"\textsuperscript{2}",
        "\N{PLUS-MINUS SIGN}": r"$\pm$",
        "\N{EN DASH}": "--",
    }
)
_TEXT_WIDTH: Final = 40  # a longer text gets a column that breaks its lines


def latex_escaped(text: str) -> str:
    """A text in which nothing is a command to LaTeX."""
    return text.translate(_LATEX)


def to_latex(table: Table) -> str:
    """A ``table`` environment in the style of booktabs; intervals stand in brackets behind their value.

    Needs ``\\usepackage{booktabs}``. The caption says what the data are; the notes stand below.
    """
    aligned = "".join(_latex_column(table, i) for i in range(len(table.columns)))
    notes = "".join(f"\\par {latex_escaped(note)}\n" for note in table.notes)
    body = "\n".join(
        f"{latex_escaped(row.label)} & {' & '.join(_latex_cell(cell) for cell in row.cells)} \\\\" for row in table.rows
    )
    return (
        "% needs \\usepackage{booktabs}\n"
        "\\begin{table}\n\\centering\\footnotesize\n"
        f"\\caption{{{latex_escaped(table.caption)}}}\n\\label{{tab:{table.name}}}\n"
        f"\\begin{{tabular}}{{l{aligned}}}\n\\toprule\n{_latex_head(table)}\\midrule\n{body}\n\\bottomrule\n"
        f"\\end{{tabular}}\n{notes}\\end{{table}}\n"
    )


def _latex_column(table: Table, i: int) -> str:
    texts = [row.cells[i].value for row in table.rows if isinstance(row.cells[i].value, str)]
    return "r" if not texts else "p{6cm}" if max(map(len, map(str, texts))) > _TEXT_WIDTH else "l"


def _latex_head(table: Table) -> str:
    names = " & ".join(latex_escaped(c.name) for c in table.columns)
    if not any(c.group for c in table.columns):
        return f"{latex_escaped(table.heading)} & {names} \\\\\n"
    top, rules, at = [], [], 2
    for group, width in _runs([c.group for c in table.columns]):
        top.append(f"\\multicolumn{{{width}}}{{c}}{{{latex_escaped(group)}}}")
        if group:
            rules.append(f"\\cmidrule(lr){{{at}-{at + width - 1}}}")
        at += width
    return f" & {' & '.join(top)} \\\\\n{''.join(rules)}\n{latex_escaped(table.heading)} & {names} \\\\\n"


def _runs(values: Sequence[str]) -> Iterator[tuple[str, int]]:
    start = 0
    for i in range(1, len(values) + 1):
        if i == len(values) or values[i] != values[start]:
            yield values[start], i - start
            start = i


def _latex_cell(cell: Cell) -> str:
    mark = f"\\textsuperscript{{{latex_escaped(cell.mark)}}}" if cell.mark else ""
    interval = f" {latex_escaped(cell.interval)}" if cell.interval else ""
    return f"{latex_escaped(cell.text)}{mark}{interval}"
