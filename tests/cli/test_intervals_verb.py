"""``nigradat intervals``: a whole folder, or a refusal and nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nigradat.training.split import Split
from small_runs import write_cohort, write_run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A cohort, three of whose tested patients have two visits, a run, and one to stand beside."""
    folder = tmp_path_factory.mktemp("made")
    cohort = write_cohort(folder / "cohort", 30, twice=3)
    ids = tuple(sorted(set(cohort.patient_ids), reverse=True))
    split = Split(ids[:4], ids[4:8], ids[8:20], ids[20:], seed=0, scheme="by hand")
    run, _ = write_run(folder / "run", cohort, split=split)
    beside, _ = write_run(folder / "beside", cohort, split=split, seed=3, method="vgg-small")
    return {"cohort": cohort.folder, "run": run, "beside": beside}


OPTIONS = ("--level", "0.8", "-T", "4", "--resamples", "200")


def test_the_command_writes_a_whole_folder(call, made: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "intervals"
    words = ["intervals", made["run"], made["cohort"], out, *OPTIONS, "--json"]
    answer = call(*words, "--beside", made["beside"]).done()
    written = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert answer.json["numbers"] == written["numbers"]
    assert set(written["validity"]["s1"]["coverage"]) == {"right", "left"}
    names = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    assert {"report.html", "metrics.json", "spreads.tsv", "tables/validity.csv", "figures/rejection.png"} <= names
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "MC + VGG-small" in page
    assert "<script" not in page
    header, *lines = (out / "spreads.tsv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 13  # ten patients, three of them twice
    assert header.split("\t")[2:4] == ["sbr_right", "sbr_left"]
    call(*words).refused("already holds")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--level", "0.95"), ["12 calibration patients", "at least 19"]),
        (("--calibrate-on", "nowhere"), ["nowhere"]),
        (("--beside", "nowhere"), ["nowhere"]),
    ],
)
def test_what_cannot_be_done_leaves_nothing(call, made: dict[str, Path], tmp_path: Path, options, words) -> None:
    out = tmp_path / "intervals"
    answer = call("intervals", made["run"], made["cohort"], out, *OPTIONS, *options)
    answer.refused(*words)
    assert list(tmp_path.iterdir()) == []
