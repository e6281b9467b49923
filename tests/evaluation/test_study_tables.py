"""The tables of a study hold the comparison's numbers and nothing else; their LaTeX is well formed."""

from __future__ import annotations

import csv
import io
import re

import numpy as np
import pytest

from nigradat.errors import ConfigError
from nigradat.evaluation import figures
from nigradat.evaluation.comparison import Comparison, compare
from nigradat.evaluation.latex import latex_escaped, to_latex
from nigradat.evaluation.predictions import FitRecord
from nigradat.evaluation.study_tables import study_tables
from nigradat.evaluation.study_tables.agreement import reading_table
from nigradat.evaluation.study_tables.fits import LATE_SHARE, is_late
from nigradat.evaluation.table import Cell, Column, Row, Table
from nigradat.metrics import Estimate
from nigradat.metrics.binary import BinaryAgreement
from nigradat.study.folder import Reading
from small_studies import FAILURE, Time, write_fits

LABEL = "digital phantom, not patients"


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> tuple[FitRecord, ...]:
    return write_fits(tmp_path_factory.mktemp("study"))[0]


@pytest.fixture(scope="module")
def comparison(records: tuple[FitRecord, ...]) -> Comparison:
    return compare(records, level=0.9, threshold=2.56, scale=6.84, resamples=100)


@pytest.fixture(scope="module")
def tables(comparison: Comparison, records: tuple[FitRecord, ...]) -> dict[str, Table]:
    made = study_tables(comparison, records, [Time("Sym. VGG+")], LABEL)
    assert len({table.name for table in made}) == len(made)
    return {table.name: table for table in made}


def lines(table: Table) -> dict[str, dict[str, str]]:
    return {row[table.heading]: row for row in csv.DictReader(io.StringIO(table.to_csv()))}


def same(line: dict[str, str], column: str, estimate: Estimate) -> None:
    if estimate.method == "undefined":
        assert line[column] == repr(estimate.value)
    else:
        found = tuple(line[name] for name in (column, f"{column} low", f"{column} high"))
        assert found == tuple(repr(v) for v in (estimate.value, estimate.low, estimate.high))


def test_accuracy_is_the_comparisons(tables: dict[str, Table], comparison: Comparison) -> None:
    accuracy, pooled, more = (lines(tables[name]) for name in ("accuracy", "accuracy-pooled", "accuracy-more"))
    assert list(accuracy) == [m.title for m in comparison.methods]
    for m in comparison.methods:
        for column, key in (("RMSE (SBR)", "rmse"), ("MAE (SBR)", "mae"), ("R", "pearson_r")):
            scores = m.scores[key]
            for side, estimate in (("R", scores.right), ("L", scores.left), ("avg", scores.average)):
                if estimate is None:
                    assert accuracy[m.title][f"{column} {side}"] == "n/a"
                else:
                    same(accuracy[m.title], f"{column} {side}", estimate)
            for name, estimate in (("all sides", scores.pooled), ("patient", scores.patient)):
                if estimate is not None:
                    same(pooled[m.title], f"{column} {name}", estimate)
        average = m.scores["bias"].average
        if average is not None:
            same(more[m.title], "Bias (SBR) avg", average)


def test_a_side_without_answer_and_a_failed_fit_are_said(tables: dict[str, Table]) -> None:
    left = lines(tables["accuracy"])["VGG-small (left only)"]
    assert (left["R R"], left["R avg"]) == ("n/a", "n/a")
    assert float(left["R L"]) > 0
    assert any("VGG-16: 1 of 4 fits failed" in note for note in tables["accuracy"].notes)
    outcomes = [row["Outcome"] for row in csv.DictReader(io.StringIO(tables["fits"].to_csv()))]
    assert outcomes.count("ended") == len(outcomes) - 1
    assert f"failed: {FAILURE}" in outcomes


def test_contrasts_and_verdicts_are_the_comparisons(tables: dict[str, Table], comparison: Comparison) -> None:
    differences, tests = lines(tables["contrasts"]), lines(tables["contrast-tests"])
    assert len(differences) == len(comparison.contrasts) >= 5
    for contrast in comparison.contrasts:
        title = " vs ".join(contrast.titles)
        if (mae := contrast.differences.get("mae")) is not None and mae.headline is not None:
            same(differences[title], "Difference, average of both sides MAE (SBR)", mae.headline)
        assert tests[title]["Verdict"] == contrast.verdict
        if contrast.permutation is not None:
            assert float(tests[title]["Permutation over patients p"]) == contrast.permutation.p
            assert float(tests[title]["Permutation over patients p (Holm)"]) == contrast.p_holm
            assert float(tests[title]["Detectable (SBR)"]) == contrast.detectable
        if contrast.replicates is not None:
            assert float(tests[title]["Over splits difference low"]) == contrast.replicates.low
    claim = comparison.contrast("sym-vgg-plus vs vgg-small")
    assert claim is not None
    relative = claim.relative_mae.headline
    assert relative is not None
    shown = float(differences["Sym. VGG+ vs VGG-small"]["MAE, relative (%)"])
    assert shown == pytest.approx(100 * relative.value)


def test_uncertainty_and_low_uptake_are_the_comparisons(tables: dict[str, Table], comparison: Comparison) -> None:
    curve, covered = lines(tables["uncertainty"]), lines(tables["intervals"])
    proposed = comparison["sym-vgg-plus"]
    for mode, title in (("mc", "MC + Sym. VGG+"), ("s1", "Symmetric MC + Sym. VGG+")):
        average = proposed.spreads[mode].sharpness_at_cp.average
        assert average is not None
        same(curve[title], "Sharpness @ CP 0.9 avg", average)
        coverage = proposed.intervals[mode].coverage.right
        assert coverage is not None
        assert float(covered[title]["Coverage R"]) == coverage.value
        assert float(covered[title]["Coverage R low"]) == coverage.low
    others = lines(tables["uncertainty-modes"])
    assert "Symmetric MC (s6) + Sym. VGG+" in others
    assert not set(others) & set(curve)
    binary, previous = lines(tables["binary"]), lines(tables["previous"])
    assert proposed.binary is not None
    accuracy = proposed.binary.accuracy.left
    assert accuracy is not None
    assert float(binary["Sym. VGG+"]["Accuracy L"]) == accuracy.value
    assert f"({accuracy.value:.3f}, " in previous["Sym. VGG+"]["Agreement (acc, sens, spec) L"]
    assert previous["VGG-small (left only)"]["Agreement (acc, sens, spec) R"] == "n/a"


def test_skill_ablation_variation_time_and_splits(tables: dict[str, Table], comparison: Comparison) -> None:
    skill = comparison.skill["sym-vgg-plus"].r_ratio.average
    assert skill is not None
    same(lines(tables["skill"])["Sym. VGG+"], "R / R of the oracle avg", skill)
    assert [row.label for row in tables["ablation"].rows] == ["VGG-small", "Sym. VGG", "Sym. VGG+"]
    variation = lines(tables["variation"])["Sym. VGG+"]
    assert float(variation["MAE (SBR) seeds"]) == comparison["sym-vgg-plus"].variation["mae"].sd_seeds
    time = lines(tables["time"])["Sym. VGG+"]
    assert (time["Training an epoch (s)"], time["One patient, both sides 100 samples (ms)"]) == ("1.25", "n/a")
    assert {line["Hardware"] for line in lines(tables["time"]).values()} == {"a made-up machine"}
    assert {k: v["SHA-256"] for k, v in lines(tables["splits"]).items()} == dict(comparison.splits)


def reading(split: str, counts: tuple[int, int, int, int], unsure: int = 0, unread: int = 0) -> Reading:
    table = BinaryAgreement(*counts)
    return Reading(split, "observer", "Observer's reading", "SBR below 2.56", "right", table, unsure, unread, 0)


def test_readings_of_splits_that_share_no_patients_are_summed() -> None:
    for kind in ("fold", "draw"):
        found = [reading(f"{kind}-1", (20, 2, 4, 3), 1, 5), reading(f"{kind}-2", (17, 3, 4, 2), 2, 0)]
        (line,) = lines(reading_table(found)).values()
        assert (line["Splits"], line["n"], line["Left out unsure"], line["Left out unread"]) == (
            "2.0",
            "55.0",
            "3.0",
            "5.0",
        )
        shares = {"acc": 45 / 55, "sens": 37 / 42, "spec": 8 / 13}
        assert {name: float(line[f"Agreement {name}"]) for name in shares} == pytest.approx(shares)
        # Wilson's interval solves (p - share)^2 = z^2 p (1 - p) / n
        for end in (float(line["Agreement sens low"]), float(line["Agreement sens high"])):
            assert (end - 37 / 42) ** 2 == pytest.approx(1.959964**2 * end * (1 - end) / 42, rel=1e-5)


def test_readings_of_splits_that_share_patients_are_averaged_without_intervals() -> None:
    found = [
        reading("split-1", (3, 1, 0, 1), unsure=1),
        reading("split-2", (2, 0, 0, 2)),
        reading("split-3", (0, 0, 0, 0)),
    ]
    table = reading_table(found)
    (line,) = lines(table).values()
    assert not any("low" in name for name in line)
    assert float(line["Agreement acc"]) == pytest.approx((3 / 5 + 2 / 4) / 2)
    assert float(line["Agreement sens"]) == pytest.approx((3 / 4 + 2 / 4) / 2)
    assert float(line["Agreement spec"]) == 0  # of the one split that has negatives
    assert float(line["n"]) == pytest.approx(9 / 3)
    assert float(line["Left out unsure"]) == pytest.approx(1 / 3)
    assert any("share test patients: all numbers are means" in note for note in table.notes)
    alone = reading_table(found[:1])
    assert any("Wilson" in note for note in alone.notes)
    assert alone.rows[0].cells[4].low is not None


def test_without_readings_there_is_no_table_of_them(tables: dict[str, Table]) -> None:
    assert "readings" not in tables
    assert not reading_table(()).rows


def test_every_table_says_what_its_data_are(tables: dict[str, Table]) -> None:
    for name, table in tables.items():
        elsewhere = {"published-agreement": "other data"}.get(name, "55 patients")
        assert (elsewhere in table.label) if name.startswith("published") else (table.label == LABEL), name


def test_late_means_the_last_tenth_of_the_epochs(records: tuple[FitRecord, ...], tables: dict[str, Table]) -> None:
    trained = [r for r in records if r.best_epoch is not None]
    late = sum(r.best_epoch > LATE_SHARE * r.epochs for r in trained)  # type: ignore[operator]
    assert sum(map(is_late, records)) == late > 0
    assert any(f"{late} of {len(trained)} trained fits" in note for note in tables["fits"].notes)


def test_latex_is_balanced_escaped_and_as_wide_as_it_says(tables: dict[str, Table]) -> None:
    for table in tables.values():
        text = to_latex(table)
        assert text.isascii(), [c for c in text if not c.isascii()]
        assert text.count(r"\begin{") == text.count(r"\end{") == 2
        plain = re.sub(r"\\.", "", text)
        assert plain.count("{") == plain.count("}")
        body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
        for line in body.splitlines():
            if line.endswith(r"\\"):
                cells = re.split(r"(?<!\\)&", line)
                spanned = sum(int(n) - 1 for n in re.findall(r"\\multicolumn\{(\d+)\}", line))
                assert len(cells) + spanned == 1 + len(table.columns), line
        assert not re.search(r"(?<!\\)[%#_]", re.sub(r"^% needs.*$|\\label\{.*\}", "", text, flags=re.MULTILINE))


def test_latex_escapes_whatever_a_cell_holds() -> None:
    nasty = "50 % of a_b & c#d {e} $f ~g^h \\i <j>"
    table = Table("t", nasty, "h", (Column("c"),), (Row(nasty, (Cell(nasty),)),), (nasty,), nasty)
    text = to_latex(table)
    assert text.count(latex_escaped(nasty)) == 5  # title, label, row, cell, note
    assert latex_escaped("a_b & 5 %") == r"a\_b \& 5 \%"


def test_the_forest_draws_each_estimate_with_its_interval() -> None:
    def estimate(value: float) -> Estimate:
        return Estimate(value, value - 0.1, value + 0.2, 0.95, "bca", 10, 100)

    panels = {"R": {"first": estimate(0.5), "second": estimate(0.6)}, "MAE": {"second": estimate(0.9)}}
    for stacked in (False, True):
        figure = figures.forest_figure(panels, lines={"R": {"oracle": 0.7}}, stacked=stacked, label=LABEL)
        r, mae = figure.axes
        drawn = {tuple(np.round(line.get_xdata(), 6)) for line in r.lines}
        assert {(0.5,), (0.4, 0.7), (0.6,), (0.5, 0.8), (0.7, 0.7)} <= drawn
        assert [t.get_text() for t in r.get_yticklabels()] == ["first", "second"]
        assert len(mae.get_yticks()) == (1 if stacked else 2)
        assert LABEL in figures.figure_svg(figure)
    with pytest.raises(ConfigError, match="no estimate"):
        figures.forest_figure({"R": {}})


def test_convergence_has_a_line_for_each_fit_and_a_dot_at_the_kept_epoch() -> None:
    epoch = np.arange(1.0, 6.0)
    fit = figures.Convergence(epoch, 1 / epoch, np.array([2.0, np.nan, 1.0, 0.8, 0.9]), 4)
    figure = figures.convergence_figure({"A": [fit, fit], "B": [fit]})
    first, second = figure.axes
    assert [len(axes.lines) for axes in (first, second)] == [6, 3]
    dots = [line for line in first.lines if line.get_marker() == "o"]
    assert [(float(d.get_xdata()[0]), float(d.get_ydata()[0])) for d in dots] == [(4.0, 0.8)] * 2
    with pytest.raises(ConfigError, match="no training"):
        figures.convergence_figure({})
