"""The documentation holds: commands parse, code runs, links lead somewhere, every option has its line."""

from __future__ import annotations

import inspect
import json
import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import typer
from scipy.io import savemat

import nigradat
from nigradat.anatomy import Side
from nigradat.cli.app import app
from nigradat.evaluation.predictions import PREDICTIONS_NAME, FitRecord, Predictions
from nigradat.training.split import Split

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
CLI_PAGE = ROOT / "docs" / "reference" / "cli.md"
PYTHON_PAGE = ROOT / "docs" / "reference" / "python.md"
COMMANDS: Any = typer.main.get_command(app).commands


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def without_blocks(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def named(pages: list[Path], found: Any) -> list[Any]:
    """Test cases with readable names: one for each thing found on each page."""
    return [
        pytest.param(item, id=f"{page.relative_to(ROOT)}-{i}") for page in pages for i, item in enumerate(found(page))
    ]


def command_lines(page: Path) -> Iterator[str]:
    """Whole commands: the lines of shell blocks, and the examples of the command line's reference."""
    for block in blocks(page, "sh"):
        yield from (line for line in block.splitlines() if line.startswith(("nigradat ", "make ")))
    if page == CLI_PAGE:
        yield from (row[-1].strip("`") for rows in tables(page).values() for row in rows)


def tables(page: Path) -> dict[str, list[list[str]]]:
    """Cells of the option tables, by the heading of their section."""
    out: dict[str, list[list[str]]] = {}
    heading = ""
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            heading = line[3:].strip()
        elif heading and line.startswith("| `-"):
            out.setdefault(heading, []).append([cell.strip() for cell in line.strip("| ").split(" | ")])
    return out


# -- Commands -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", named(PAGES, command_lines))
def test_every_command_parses(line):
    words = shlex.split(line, comments=True)
    program, verb, *arguments = words[: words.index(">")] if ">" in words else words
    if program == "make":
        assert f"\n{verb}:" in (ROOT / "Makefile").read_text()
        assert not arguments
    else:
        with COMMANDS[verb].make_context(verb, arguments) as context:  # raises where it does not parse
            assert context.params


def spans(page: Path) -> list[str]:
    """Commands mentioned in running text, which may be no more than a verb."""
    return re.findall(r"`nigradat ([a-z][^`]*)`", without_blocks(page))


@pytest.mark.parametrize("span", named(PAGES, spans))
def test_every_mentioned_verb_and_option_exists(span):
    verb, *words = span.split()
    assert verb in COMMANDS
    known = {option for p in COMMANDS[verb].params for option in p.opts} | {"--help", "-h"}
    assert {word for word in words if word.startswith("-")} <= known


@pytest.mark.parametrize("verb", COMMANDS)
def test_the_reference_has_every_option_of_a_verb_and_no_other(verb):
    rows = tables(CLI_PAGE)[verb]
    documented = [[name.strip(" `") for name in row[0].split(",")] for row in rows]
    options = [p for p in COMMANDS[verb].params if p.opts[0].startswith("-")]
    assert documented == [sorted(p.opts, key=len, reverse=True) for p in options]
    for option, (names, default, text, example) in zip(options, rows, strict=True):
        assert len(text) > 10, names
        assert set(shlex.split(example.strip("`"))) & set(option.opts), example
        assert example.startswith(f"`nigradat {verb} ")
        if isinstance(option.default, int | float) and not isinstance(option.default, bool):
            assert float(default) == option.default, names
        elif isinstance(option.default, str):
            assert default.strip("`") == option.default, names
    assert f"[`{verb}`](#{verb})" in CLI_PAGE.read_text()


# -- Links and paths ----------------------------------------------------------------------------------------------


def links(page: Path) -> list[tuple[Path, str]]:
    found = re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", without_blocks(page))
    return [(page, link) for link in found if not link.startswith(("http:", "https:"))]


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("link", named(PAGES, links))
def test_every_link_leads_somewhere(link):
    page, target = link
    path, _, anchor = target.partition("#")
    there = (page.parent / path).resolve() if path else page
    assert there.exists(), target
    assert there.is_relative_to(ROOT)
    if anchor:
        assert anchor in anchors(there), target


def test_every_page_can_be_reached_from_the_readme():
    reached, waiting = set(), [PAGES[0]]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        linked = ((p.parent / link.partition("#")[0]).resolve() for p, link in links(page))
        waiting += [page for page in linked if page.suffix == ".md" and page.is_file() and page not in reached]
    assert set(PAGES) <= reached


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_page_names_a_place_on_somebodys_machine(page):
    assert not re.search(r"(?<![\w.])/(home|work|tmp|root|Users|mnt)/|[A-Z]:\\", page.read_text(encoding="utf-8"))


def test_the_map_of_the_tree_is_true():
    text = PAGES[0].read_text(encoding="utf-8")
    listed = set(re.findall(r"^      (\w+(?:\.py|/)) ", text, re.MULTILINE))
    package = ROOT / "src" / "nigradat"
    there = {f"{p.name}/" for p in package.iterdir() if (p / "__init__.py").is_file()}
    there |= {p.name for p in package.glob("*.py") if not p.name.startswith("__")}
    assert listed == there


def test_the_extras_that_are_named_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for group in re.findall(r"\.\[([\w,]+)\]|nigradat\[([\w,]+)\]", text):
            assert set("".join(group).split(",")) <= set(extras), page
        assert set(re.findall(r"extras? `(\w+)`", text)) <= set(extras), page


# -- Code ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prepared(make_cohort, tmp_path_factory) -> Path:
    """The files that the documentation's code names: a small ``cohort``, a tiny ``run``, a patient, a scan."""
    folder = tmp_path_factory.mktemp("docs")
    cohort = make_cohort(40)
    shutil.copytree(cohort.folder, folder / "cohort")
    ids = cohort.patient_ids
    split = Split(train=ids[:8], stop=ids[8:12], calibration=ids[12:32], test=ids[32:], seed=0, scheme="docs")
    config = nigradat.make_config(changes={"widths": (2, 2, 2, 2), "epochs": 1})
    nigradat.train(cohort, folder / "run", config, split=split)
    nigradat.fit_quality(folder / "run", folder / "cohort")
    pair = cohort.pair(35)
    savemat(folder / "patient.mat", {f"{side.value}_patch": np.array(pair.patch(side)) for side in Side})
    scan = np.random.default_rng(0).uniform(1, 2, (120, 120, 60)).astype(np.float32)
    affine = np.diag([0.5, 0.5, 1.0, 1.0])
    affine[:3, 3] = -30, -50, -43
    nib.save(nib.Nifti1Image(scan, affine), folder / "sub-01_smwi.nii.gz")
    return folder


@pytest.fixture
def in_place(prepared, monkeypatch) -> None:
    """Run where the files are. What takes minutes, or needs files that nobody may pass on, is checked by signature."""
    monkeypatch.chdir(prepared)

    def stand_in(real: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            return inspect.signature(real).bind(*args, **kwargs).arguments.get("out")

        return call

    for name in ("simulate", "train", "pack_cohort", "import_published", "run_study", "run_sweep", "calibrate_folds"):
        monkeypatch.setattr(nigradat, name, stand_in(getattr(nigradat, name)))


@pytest.mark.parametrize("code", named(PAGES, lambda page: blocks(page, "python")))
def test_the_code_runs(code, in_place, capsys):
    exec(compile(code, "documentation", "exec"), {})


def python_examples(page: Path) -> list[str]:
    return re.findall(r"`(nigradat\.[^`]*\)[^`]*)` \|$", page.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("code", named([PYTHON_PAGE], python_examples))
def test_the_examples_of_the_python_reference_run(code, in_place, capsys, monkeypatch, tmp_path):
    # the README's own code, which runs above, evaluates in earnest
    monkeypatch.setattr(nigradat, "evaluate", lambda run, cohort: SimpleNamespace(summary=str))
    patch = np.random.default_rng(0).uniform(1, 2, (50, 50, 20))
    answers = tmp_path / PREDICTIONS_NAME
    Predictions(("a", "b", "c"), ("n/a",) * 3, patch[:3, :2, 0], patch[3:6, :2, 0]).save(answers)
    record = FitRecord("sym-vgg-plus", "Sym. VGG+", "model", "split-1", 1, tmp_path, "hash", 8, 3)
    known = {"nigradat": nigradat, "right": patch, "left": patch, "records": [record]}
    exec(compile(code, "documentation", "exec"), known)


def test_the_python_reference_names_every_public_name():
    text = PYTHON_PAGE.read_text(encoding="utf-8")
    for name in nigradat.__all__:
        assert name == "__version__" or re.search(rf"`{name}[`(]", text), name


def test_every_flag_of_a_prediction_is_explained():
    sources = [ROOT / "src" / "nigradat" / name for name in ("uncertainty/predict.py", "quality/abstain.py")]
    codes = {code for s in sources for code in re.findall(r'Flag\(\s*"([a-z-]+)"', s.read_text(encoding="utf-8"))}
    page = (ROOT / "docs" / "how-to" / "one-patient.md").read_text(encoding="utf-8")
    assert codes == set(re.findall(r"^\| `([a-z-]+)` \|", page, re.MULTILINE))


@pytest.mark.parametrize("text", named(PAGES, lambda page: blocks(page, "json")))
def test_json_is_json(text):
    assert json.loads(text)
