"""Tables as values: numbers with intervals, to CSV and HTML and not a digit lost."""

from __future__ import annotations

import csv
import io
import math

import pytest

from nigradat.evaluation import published
from nigradat.evaluation.table import Cell, Column, Row, Table
from nigradat.evaluation.tables import _COHORT_ROWS, published_accuracy_table, published_uncertainty_table
from nigradat.io.manifest import Participant
from nigradat.metrics import Estimate


def table(*cells: Cell, label: str = "") -> Table:
    columns = tuple(Column(f"c{i}", "group" if i else "") for i in range(len(cells)))
    return Table("name", "Title & more", "Method", columns, (Row("<b>net</b>", cells),), ("A note.",), label)


@pytest.mark.parametrize(
    ("cell", "text", "interval"),
    [
        (Cell(0.72345, 0.6, 0.81), "0.723", "(0.600, 0.810)"),
        (Cell(-0.5, -1.0, 0.25, digits=1, signed=True), "\N{MINUS SIGN}0.5", "(\N{MINUS SIGN}1.0, +0.2)"),
        (Cell(-0.0001), "0.000", ""),
        (Cell(None), "n/a", ""),
        (Cell(math.nan), "n/a", ""),
        (Cell(math.inf), "unbounded", ""),
        (Cell("text"), "text", ""),
    ],
)
def test_cells_as_shown(cell: Cell, text: str, interval: str) -> None:
    assert (cell.text, cell.interval) == (text, interval)


def test_cells_of_estimates() -> None:
    def estimate(value: float, method: str) -> Estimate:
        return Estimate(value, 0.1, 0.9, 0.95, method, 10, 100)  # type: ignore[arg-type]

    assert Cell.of(None) == Cell()
    assert Cell.of(estimate(math.nan, "undefined")) == Cell()
    assert Cell.of(estimate(0.5, "undefined")).interval == ""
    assert Cell.of(estimate(0.5, "percentile")).mark == "p"
    assert Cell.of(estimate(0.5, "bca")) == Cell(0.5, 0.1, 0.9)


def test_csv_keeps_every_digit_and_says_what_the_data_are() -> None:
    text = table(Cell(1 / 3, 0.1, 2 / 3), Cell(), Cell("a, b"), label="digital phantom, not patients").to_csv()
    (row,) = csv.DictReader(io.StringIO(text))
    assert row == {
        "Method": "<b>net</b>",
        "kind": "model",
        "c0": repr(1 / 3),
        "c0 low": "0.1",
        "c0 high": repr(2 / 3),
        "group c1": "n/a",
        "group c2": "a, b",
        "data": "digital phantom, not patients",
    }


def test_html_escapes_and_labels() -> None:
    html = table(Cell(0.5, 0.4, 0.6), Cell("<i>"), label="a < b").to_html()
    assert "&lt;b&gt;net&lt;/b&gt;" in html
    assert "Title &amp; more" in html
    assert "&lt;i&gt;" in html
    assert '<span class="label">a &lt; b</span>' in html
    assert "(0.400, 0.600)" in html


def test_a_row_that_does_not_fit_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="2 cells for 1 columns"):
        Table("name", "Title", "Method", (Column("c"),), (Row("net", (Cell(1.0), Cell(2.0))),))


def test_published_averages_are_those_of_their_sides() -> None:
    # a check of the transcription: the printed average is the mean of the printed sides, to their last digit
    off = []
    for row in published.ACCURACY:
        for name in ("rmse", "mae", "r"):
            right, left, average = getattr(row, name)
            if abs(average - (right + left) / 2) > 1.01e-4:
                off.append((row.method, name, round(average - (right + left) / 2, 4)))
    assert off == [("MobileNetV3", "rmse", -0.0005)]  # the source's own slip
    for uncertain in published.UNCERTAINTY:
        right, left, average = uncertain.sharpness_at_cp
        assert average == pytest.approx((right + left) / 2, abs=1.01e-3)
        for i in range(2):
            r, s, a = (point[i] for point in uncertain.optimal)
            assert a == pytest.approx((r + s) / 2, abs=1.01e-3)


def test_published_tables_say_whose_they_are() -> None:
    for made in (published_accuracy_table(), published_uncertainty_table()):
        assert "other data, 55 patients" in made.caption
        assert "10977" in made.notes[0]
        assert len(made.columns) in (6, 9)


def test_the_cohort_in_numbers() -> None:
    people = [
        Participant("a", "ses-1", 1.0, 3.0, age=50, sex="F", scanner="X", mri_spect_days=0.5),
        Participant("a", "ses-2", 2.0, 2.0, age=52, sex="F", scanner="X", mri_spect_days=-1.0),
        Participant("b", sbr_right=3.0, sbr_left=1.0, age=60, sex="M", scanner="Y", mri_spect_days=91.5),
    ]
    found = {name: describe(people) for name, describe, _ in _COHORT_ROWS}
    assert found["Patients"] == "2"
    assert found["Visits"] == "3"
    assert found["Age (years), mean \N{PLUS-MINUS SIGN} SD"] == "54.0 \N{PLUS-MINUS SIGN} 5.3"
    assert found["Sex"] == "2 F, 1 M"
    assert found["MRI scanner"] == "X (2), Y (1)"
    assert found["MRI to SPECT"] == "31 \N{PLUS-MINUS SIGN} 52 d; median 24 h"
    assert found["SBR right, range"] == "1.00 \N{EN DASH} 3.00"
    assert found["Correlation right, left"] == "-1.000".replace("-", "\N{MINUS SIGN}")
    assert found["Asymmetry index"] == "66.7 \N{PLUS-MINUS SIGN} 57.7 %"
    assert found["Tracer"] == "n/a"
