"""The folder and the page of an evaluation: complete, honest on the first line, whole or absent."""

from __future__ import annotations

import csv
import errno
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from nigradat.errors import CohortError, OutputError
from nigradat.evaluation.evaluate import evaluate
from nigradat.evaluation.result import Evaluation
from nigradat.evaluation.summary import headline
from nigradat.io.pack import PackedCohort
from nigradat.report import page
from nigradat.report.page import check_place, report, write_evaluation
from nigradat.uncertainty.calibration import calibrate
from small_runs import write_cohort, write_run

VOID = {"meta", "br", "link", "img", "hr", "input"}


class Page(HTMLParser):
    """What a test wants to know of a page: its text, ids, attributes that fetch something, and whether tags close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.texts: list[str] = []
        self.fetched: list[str] = []
        self.images_without_text = 0
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.fetched += [v for name, v in attrs if name in ("src", "href", "xlink:href") and v and v[0] != "#"]
        if given.get("role") == "img" and not given.get("aria-label"):
            self.images_without_text += 1
        assert tag not in ("script", "iframe", "object")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        inside = {"title", "style"} & set(self.open)
        if data.strip() and not inside:
            self.texts.append(data.strip())


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> PackedCohort:
    return write_cohort(tmp_path_factory.mktemp("cohort") / "home", 60, kind="phantom")


@pytest.fixture(scope="module")
def evaluated(cohort: PackedCohort, tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    folder, _ = write_run(tmp_path_factory.mktemp("run") / "run", cohort)
    calibrate(folder, cohort, level=0.7)
    return evaluate(folder, cohort, level=0.7, resamples=100)


@pytest.fixture(scope="module")
def other(cohort: PackedCohort, tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    folder, _ = write_run(tmp_path_factory.mktemp("run") / "small", cohort, method="vgg-small", seed=5)
    return evaluate(folder, cohort, level=0.7, resamples=100)


@pytest.fixture(scope="module")
def written(evaluated: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_evaluation(evaluated, tmp_path_factory.mktemp("out") / "evaluation")


def test_the_page_opens_offline_and_its_first_line_says_what_was_trained_on_what(
    written: Path, evaluated: Evaluation
) -> None:
    shown = Page((written / "report.html").read_text(encoding="utf-8"))
    assert shown.fetched == []
    assert shown.images_without_text == 0
    assert len(set(shown.ids)) == len(shown.ids)
    assert shown.texts[0] == headline([evaluated])
    n = evaluated.subjects.n_patients
    assert re.fullmatch(
        rf"Sym\. VGG\+ \(2\.\.4, [\d,]+ parameters\), trained on \d+ patients of a digital phantom, "
        rf"tested on {n} other patients of it\. Phantom results: they say nothing about patients\.",
        shown.texts[0],
    )


def test_every_table_and_figure_of_a_phantom_says_so(written: Path) -> None:
    text = (written / "report.html").read_text(encoding="utf-8")
    captions = re.findall(r"<(?:fig)?caption>.*?</(?:fig)?caption>", text, flags=re.DOTALL)
    assert len(captions) >= 12
    for caption in captions:
        assert "digital phantom, not patients" in caption or "published, other data, 55 patients" in caption, caption
    for path in (written / "tables").glob("*.csv"):
        with path.open(encoding="utf-8", newline="") as stream:
            labels = {row["data"] for row in csv.DictReader(stream)}
        assert len(labels) == 1
        assert "phantom" in labels.pop() or path.name.startswith("published"), path
    for path in (written / "figures").glob("*.svg"):
        assert "digital phantom, not patients" in path.read_text(encoding="utf-8"), path


def test_the_predictions_give_the_numbers_again(written: Path, evaluated: Evaluation) -> None:
    with (written / "predictions.tsv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    numbers = json.loads((written / "metrics.json").read_text())["evaluations"]["sym-vgg-plus"]["numbers"]
    assert [r["participant_id"] for r in rows] == [p.participant_id for p in evaluated.subjects.participants]
    for side in ("right", "left"):
        column = {name: np.array([float(r[f"{name}_{side}"]) for r in rows]) for name in ("sbr", "predicted", "ridge")}
        error = column["predicted"] - column["sbr"]
        assert numbers[f"sym-vgg-plus/rmse/{side}"]["value"] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-4)
        r = np.corrcoef(column["sbr"], column["ridge"])[0, 1]
        assert numbers[f"ridge/pearson_r/{side}"]["value"] == pytest.approx(r, rel=1e-4)
        low, high = (np.array([float(r[f"{name}_{side}"]) for r in rows]) for name in ("lower", "upper"))
        covered = np.mean((low <= column["sbr"]) & (column["sbr"] <= high))
        assert numbers[f"sym-vgg-plus/interval/coverage/{side}"]["value"] == pytest.approx(covered)


def test_the_tables_are_there_and_hold_the_same_numbers(written: Path, evaluated: Evaluation) -> None:
    with (written / "tables" / "accuracy.csv").open(encoding="utf-8", newline="") as stream:
        first = next(csv.DictReader(stream))
    rmse = evaluated.model.scores["rmse"].average
    assert rmse is not None
    assert (first["RMSE (SBR) avg"], first["RMSE (SBR) avg low"]) == (repr(rmse.value), repr(rmse.low))
    made = json.loads((written / "metrics.json").read_text())["files"]
    there = {p.relative_to(written).as_posix() for p in written.rglob("*") if p.is_file()}
    assert {*made, "metrics.json"} == there
    assert {"tables/cohort.csv", "tables/intervals.csv", "tables/uncertainty.csv", "report.html"} < there
    for figure in ("scatter", "bland-altman", "sharpness-cp", "training"):
        assert {f"figures/{figure}-sym-vgg-plus.svg", f"figures/{figure}-sym-vgg-plus.png"} < there


def test_an_older_evaluation_of_the_same_model_is_replaced_byte_by_byte_alike(
    written: Path, evaluated: Evaluation
) -> None:
    before = {p: p.read_bytes() for p in written.rglob("*") if p.is_file()}
    write_evaluation(evaluated, written)
    assert {p: p.read_bytes() for p in written.rglob("*") if p.is_file()} == before
    assert [p.name for p in written.parent.iterdir()] == [written.name]


def test_what_is_not_ours_is_left_alone(written: Path, other: Evaluation, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="is no evaluation"):
        check_place(tmp_path)
    with pytest.raises(OutputError, match="another model"):
        write_evaluation(other, written)
    note = written / "tables" / "note.txt"
    note.write_text("mine")
    with pytest.raises(OutputError, match=r"tables/note\.txt"):
        check_place(written)
    note.unlink()
    check_place(written)
    check_place(tmp_path / "new")
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_full_disk_leaves_the_older_evaluation(
    written: Path, evaluated: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {p: p.read_bytes() for p in written.rglob("*") if p.is_file()}
    original = page._write

    def full(path: Path, content: str | bytes) -> None:
        if path.name == "report.html":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        original(path, content)

    monkeypatch.setattr(page, "_write", full)
    with pytest.raises(OutputError, match="disk did not take"):
        write_evaluation(evaluated, written)
    assert {p: p.read_bytes() for p in written.rglob("*") if p.is_file()} == before
    assert [p.name for p in written.parent.iterdir()] == [written.name]


def test_several_methods_stand_in_one_table(evaluated: Evaluation, other: Evaluation, tmp_path: Path) -> None:
    path = report([other, evaluated], tmp_path / "study", "Quick study <all methods>")
    text = path.read_text(encoding="utf-8")
    shown = Page(text)
    assert "Quick study &lt;all methods&gt;" in text
    assert shown.texts[0].startswith("VGG-small (2..4,")
    assert " and Sym. VGG+ (2..4," in shown.texts[0]
    with (path.parent / "tables" / "accuracy.csv").open(encoding="utf-8", newline="") as stream:
        assert [row["Method"] for row in csv.DictReader(stream)] == [
            "VGG-small",
            "Sym. VGG+",
            "Ridge, 6 hand-made features",
        ]
    with (path.parent / "tables" / "differences.csv").open(encoding="utf-8", newline="") as stream:
        assert "Sym. VGG+ less VGG-small" in [row["Difference"] for row in csv.DictReader(stream)]
    assert (path.parent / "predictions-vgg-small.tsv").is_file()


def test_evaluations_of_different_patients_do_not_share_a_page(
    evaluated: Evaluation, cohort: PackedCohort, tmp_path: Path
) -> None:
    stop = evaluate(evaluated.run, cohort, subset="calibration", level=0.7, resamples=100)
    with pytest.raises(CohortError, match="other patients"):
        report([evaluated, stop], tmp_path / "study", "Both")
    assert not (tmp_path / "study").exists()


def test_patients_that_were_seen_are_shouted_about(evaluated: Evaluation, cohort: PackedCohort, tmp_path: Path) -> None:
    seen = evaluate(evaluated.run, cohort, subset="stop", level=0.7, resamples=100)
    text = (write_evaluation(seen, tmp_path / "stop") / "report.html").read_text(encoding="utf-8")
    assert "STOPPED the training" in Page(text).texts[0]
    assert text.count("STOPPED the training") > 5  # the headline, the warning and the tables


def test_a_model_of_one_side_without_dropout_has_a_page(cohort: PackedCohort, tmp_path: Path) -> None:
    folder, _ = write_run(tmp_path / "left", cohort, sharing="left", head_dropout=0.0)
    out = write_evaluation(evaluate(folder, cohort, resamples=100), tmp_path / "out")
    text = (out / "report.html").read_text(encoding="utf-8")
    Page(text)
    assert "n/a" in text
    assert not (out / "tables" / "intervals.csv").exists()
    assert "no dropout" in text
