"""The page of a study: complete, honest on the first line, answered by the verdicts, whole or as it was."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from nigradat.errors import OutputError
from nigradat.evaluation.comparison import Comparison, compare
from nigradat.evaluation.predictions import FitRecord
from nigradat.evaluation.study_tables import study_tables
from nigradat.metrics.binary import BinaryAgreement
from nigradat.report import study_page
from nigradat.report.methods_text import gather_facts
from nigradat.report.study_page import claims, headline, limitations, write_comparison
from nigradat.study.folder import Reading, StudyFolder, write_readings
from small_studies import FAILURE, Time, write_fits

pytest.importorskip("matplotlib")
VOID = {"meta", "br", "link", "img", "hr", "input"}
Study = tuple[Path, tuple[FitRecord, ...], dict[str, Any], Comparison]


class Page(HTMLParser):
    """Text, ids, and what would be fetched; every tag must close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.links += [v for name, v in attrs if name in ("src", "href", "xlink:href", "srcset", "data") and v]
        assert tag not in ("script", "iframe", "object", "link")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and not {"title", "style"} & set(self.open):
            self.texts.append(data.strip())


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("study")
    records, plan = write_fits(folder)
    comparison = compare(records, level=0.9, threshold=2.56, scale=6.84, resamples=100)
    write_comparison(folder, comparison, records, plan, [Time("Sym. VGG+")])
    return folder, records, plan, comparison


@pytest.fixture(scope="module")
def text(study: Study) -> str:
    return (study[0] / "report.html").read_text(encoding="utf-8")


def snapshot(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_page_is_one_file_whose_first_line_says_what_was_trained_on_what(study: Study, text: str) -> None:
    page = Page(text)
    assert [link for link in page.links if not link.startswith("#")] == []
    assert {link[1:] for link in page.links} <= set(page.ids)
    assert len(set(page.ids)) == len(page.ids)
    assert not re.search(r"url\((?!#)", text)
    assert page.texts[0] == headline(study[3], gather_facts(study[1], study[2]))
    assert re.fullmatch(
        r"VGG-16, VGG-small, VGG-small \(left only\), Sym\. VGG and Sym\. VGG\+ \(2\.\.4\), each trained on 70 "
        r"patients of a digital phantom \(preset easy, seed 7\) \(19 fits on 2 splits\), tested on \d+ other "
        r"patients of it\. Phantom results: they say nothing about patients\.",
        page.texts[0],
    )


def test_every_method_and_every_failed_fit_is_on_it(study: Study, text: str) -> None:
    shown = " ".join(Page(text).texts)
    for record in study[1]:
        assert record.title in shown
    assert shown.count(FAILURE) >= 2  # among the findings and in the table of fits
    assert escape("<a finite error>") in text


def test_every_table_of_the_folder_is_on_it(study: Study, text: str) -> None:
    made = study_tables(study[3], study[1], [Time("Sym. VGG+")])
    assert {table.name for table in made} == {p.stem for p in (study[0] / "tables").glob("*.csv")}
    for table in made:
        assert escape(table.title) in text, table.name


def test_every_caption_says_phantom(study: Study, text: str) -> None:
    captions = re.findall(r"<(?:fig)?caption>.*?</(?:fig)?caption>", text, flags=re.DOTALL)
    assert len(captions) > 20
    for caption in captions:
        assert "digital phantom, not patients" in caption or "published, other data" in caption, caption
    for path in (study[0] / "figures").glob("*.svg"):
        assert "digital phantom, not patients" in path.read_text(encoding="utf-8"), path


def test_claims_are_answered_by_the_verdicts(study: Study, text: str) -> None:
    comparison = study[3]
    contrast = comparison.contrast("sym-vgg-plus vs vgg-small")
    assert contrast is not None
    for answer, better, shown in (
        ("lower", True, "Shown"),
        ("unclear", False, "Not shown"),
        ("higher", False, "The opposite was found"),
    ):
        told = replace(contrast, answer=answer, better=better, verdict="Not shown: a made-up verdict.")  # type: ignore[arg-type]
        others = tuple(told if c is contrast else c for c in comparison.contrasts)
        found = claims(replace(comparison, contrasts=others))[0]
        assert (found.answer, found.text) == (shown, "Sym. VGG+ vs VGG-small: a made-up verdict.")
    assert [claim.answer for claim in claims(replace(comparison, contrasts=()))] == ["Not tested"] * 2
    shown_there = " ".join(Page(text).texts)
    for claim in claims(comparison):
        assert f"{claim.question}. {claim.answer} on this phantom. {claim.text}" in shown_there


def test_everything_lies_in_the_folder_as_its_marker_says(study: Study) -> None:
    ours = {name for name in snapshot(study[0]) if not name.startswith("fits/")}
    assert {*json.loads((study[0] / "report.json").read_text())["files"], "report.json"} == ours
    assert {
        "methods.md",
        "report.html",
        "checklists/tripod-ai.md",
        "checklists/claim.md",
        "tables/accuracy.csv",
        "tables/accuracy.tex",
        "figures/methods.svg",
        "figures/contrasts.svg",
        "figures/convergence.svg",
        "figures/sharpness-cp.svg",
        "figures/bland-altman-sym-vgg-plus.svg",
        "figures/scatter-vgg-small.svg",
    } <= ours


def test_a_second_call_writes_all_again_and_removes_what_is_old_and_ours(study: Study, tmp_path: Path) -> None:
    folder, records, plan, comparison = study
    before = snapshot(folder)
    outside = tmp_path / "thesis.txt"
    for path in (outside, folder / "tables" / "mine.csv"):
        path.write_text("years of work")
    marker = json.loads((folder / "report.json").read_text())
    marker["files"] += [str(outside), "../" * 20 + str(outside)[1:]]
    (folder / "report.json").write_text(json.dumps(marker))
    write_comparison(folder, comparison, records, plan)  # without times
    after = snapshot(folder)
    assert {"tables/time.csv", "tables/time.tex"} == before.keys() - after.keys()
    assert after.keys() - before.keys() == {"tables/mine.csv"}
    assert outside.read_text() == "years of work"
    changed = {name for name in before.keys() & after.keys() if before[name] != after[name]}
    assert changed == {"report.json", "report.html"}
    (folder / "tables" / "mine.csv").unlink()


def test_a_disk_that_fails_leaves_no_half_file(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, records, plan, comparison = study
    before = snapshot(folder)

    def full(path: Path, content: str) -> None:
        raise OutputError("the disk did not take it")

    monkeypatch.setattr(study_page, "write_text", full)
    monkeypatch.setattr(study_page, "_drawings", lambda *_: ())
    with pytest.raises(OutputError, match="disk"):
        write_comparison(folder, comparison, records, plan)
    assert snapshot(folder) == before


def test_patients_without_threshold_oracle_or_curves_have_a_page(tmp_path: Path) -> None:
    records, plan = write_fits(tmp_path, splits=1, seeds=1, kind="patients", methods={"vgg-left": 0.6})
    page = write_comparison(
        tmp_path, compare(records, level=0.8, scale=6.84, resamples=100), records, plan | {"level": 0.8}
    )
    shown = Page(page.read_text(encoding="utf-8"))
    assert (
        shown.texts[0]
        == "VGG-small (left only) (2..4), trained on 70 patients (1 fit on 1 split), tested on 30 other patients."
    )
    assert "phantom" not in shown.texts[0].lower()
    assert not (tmp_path / "tables" / "binary.csv").exists()
    assert not (tmp_path / "tables" / "skill.csv").exists()


def test_readings_are_on_the_page_and_among_the_tables(tmp_path: Path) -> None:
    records, plan = write_fits(tmp_path, splits=1, seeds=1, kind="patients", methods={"vgg-left": 0.6})
    counts = BinaryAgreement(13, 1, 4, 2)
    for split in ("split-1", "another-1"):  # the latter is none of this study
        row = Reading(split, "observer", "Observer's reading", "diagnosis PD", "left", counts, 3, 7, 0)
        write_readings(StudyFolder(tmp_path), split, [row])
    page = write_comparison(
        tmp_path, compare(records, level=0.8, scale=6.84, resamples=100), records, plan | {"level": 0.8}
    )
    shown = Page(page.read_text(encoding="utf-8"))
    assert "table-readings" in shown.ids
    assert "diagnosis PD" in shown.texts
    assert (tmp_path / "tables" / "readings.tex").is_file()
    heading, line = (row.split(",") for row in (tmp_path / "tables" / "readings.csv").read_text().splitlines())
    cells = dict(zip(heading, line, strict=True))
    assert (cells["n"], cells["Agreement acc"], cells["Left out unread"]) == ("20.0", "0.85", "7.0")


def test_limitations_fit_the_study(study: Study) -> None:
    _, records, plan, _ = study
    phantom = " ".join(limitations(gather_facts(records, plan)))
    assert "circular" in phantom
    assert "Fits that failed: 1." in phantom
    assert "2 seeds a split, 2 splits" in phantom
    own = " ".join(limitations(gather_facts(records, plan | {"cohort": {"kind": "patients", "patients": 100}})))
    assert "One cohort" in own
    assert "circular" not in own
