"""No option does nothing: each one changes what reaches the function behind its verb, or what is printed.

The functions behind the verbs are replaced by ones that only note what they were called with, so a case costs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import typer

# what is first imported while its parts are replaced would keep the stand-ins
import nigradat.bids.app
import nigradat.evaluation.evaluate
import nigradat.evaluation.quality_tables
import nigradat.explain.embedding_report
import nigradat.explain.faithfulness_report
import nigradat.explain.figures
import nigradat.explain.probe_report
import nigradat.explain.shap
import nigradat.report.sbr_sheet
import nigradat.report.spreads_page
import nigradat.report.study_page
import nigradat.spect.labels
import nigradat.study.sweep
import nigradat.study.timing
import nigradat.uncertainty.cross_validation  # noqa: F401
from nigradat.anatomy import Side
from nigradat.bids.visit import VisitRecord
from nigradat.cli.app import app
from nigradat.evaluation.table import Cell, Column, Row, Table
from nigradat.explain.attribution import Attribution
from nigradat.io.inputs import PatchSample
from nigradat.io.nifti import write_volume
from nigradat.io.series import ScanImage, ScanSeries
from nigradat.locate.locate import Located
from nigradat.models.weights import load_model, read_card
from nigradat.pair import Flag, NigralPair, PatientPrediction, SidePrediction
from nigradat.quality.check import PairQuality
from nigradat.quality.measures import MEASURES
from nigradat.smwi.chain import smwi_as_given
from nigradat.spect.registration import Alignment as Aligned
from nigradat.spect.sbr import PartSbr, SbrMeasurement, SbrRecipe
from nigradat.training.split import Split, make_split
from nigradat.uncertainty.calibration import Calibration
from nigradat.volume import MultiEchoGre, Volume


def options_of(verb: str) -> list[str]:
    command: Any = typer.main.get_command(app)
    return [next(o for o in p.opts if o.startswith("--")) for p in command.commands[verb].params if p.opts[0][0] == "-"]


# For each option what is added to the plain call. Where the plain call has it already: (instead of, what).
# CAPITALS are replaced by paths, see `places`.
TRAIN = {
    "--recipe": "paper",
    "--config": "TOML",
    "--model": "vgg-small",
    "--widths": "2,3,4,5",
    "--epochs": "7",
    "--patience": "3",
    "--batch-size": "5",
    "--learning-rate": "0.5",
    "--symmetry-weight": "0.7",
    "--symmetry-eps": "0.01",
    "--dropout": "blocks",
    "--dropout-rate": "0.33",
    "--sbr-max": "9",
    "--seed": "11",
    "--split": "SPLIT",
    "--init": "RUN",
    "--device": "cpu",
    "--devices": "2",
    "--threads": "3",
    "--tensorboard": None,
    "--json": None,
}


@dataclass(frozen=True)
class Beside:
    """The value of an option that means something beside another one only."""

    others: tuple[str, ...]
    value: str


CASES: dict[str, tuple[list[str], dict[str, Any]]] = {
    "simulate": (
        ["OUT"],
        {"--patients": "5", "--preset": "hard", "--seed": "9", "--workers": "1", "--json": None},
    ),
    "cohort": (
        ["m.tsv", "OUT"],
        {
            "--affine": "sform",
            "--allow-mixed": None,
            "--sbr-method": "southampton",
            "--sbr-reference": "brain",
            "--striatal-volume-ml": Beside(("--sbr-method", "southampton"), "9"),
            "--json": None,
        },
    ),
    "sbr": (
        ["scan.nii", "--age", "60", "--normals", "n.tsv", "--out", "OUT"],
        {
            "--method": "southampton",
            "--reference": "brain",
            "--striatal-volume-ml": Beside(("--method", "southampton"), "9"),
            "--hottest-ml": Beside(("--method", "hottest"), "4"),
            "--recovery": "0.5",
            "--atlas": "labels.nii",
            "--tracer": "123I-FP-CIT",
            "--age": ("60", "70"),
            "--normals": ("n.tsv", "o.tsv"),
            "--affine": "sform",
            "--out": ("OUT", "elsewhere"),
            "--json": None,
        },
    ),
    "train": (["COHORT", "OUT"], TRAIN),
    "calibrate": (
        ["RUN", "COHORT"],
        {
            "--symmetric-mode": "s6",
            "--samples": "50",
            "--fold": "RUN",
            "--level": "0.8",
            "--seed": "4",
            "--json": None,
        },
    ),
    "evaluate": (
        ["RUN", "COHORT"],
        {
            "--out": "OUT",
            "--trained-on": "COHORT",
            "--subset": "stop",
            "--level": "0.8",
            "--rule": "nominal-cp",
            "--resamples": "300",
            "--allow-other-scale": None,
            "--allow-other-recipe": None,
            "--seed": "4",
            "--json": None,
        },
    ),
    "intervals": (
        ["RUN", "COHORT", "OUT"],
        {
            "--calibrate-on": "COHORT",
            "--trained-on": "COHORT",
            "--ensemble": "RUN2",
            "--beside": "RUN2",
            "--level": "0.8",
            "--samples": "50",
            "--resamples": "300",
            "--allow-other-scale": None,
            "--seed": "4",
            "--json": None,
        },
    ),
    "predict": (
        ["x.mat", "--model", "RUN", "--right", "r.nii", "--left", "l.nii"],
        {
            "--model": ("RUN", "RUN2"),
            "--right": ("r.nii", "other.nii"),
            "--left": ("l.nii", "other.nii"),
            "--affine": "qform",
            "--level": "0.8",
            "--rule": "nominal-cp",
            "--allow-other-recipe": None,
            "--abstain": "0.2",
            "--json": None,
        },
    ),
    "check": (
        ["x.mat", "--model", "RUN", "--right", "r.nii", "--left", "l.nii"],
        {
            "--model": ("RUN", "RUN2"),
            "--right": ("r.nii", "other.nii"),
            "--left": ("l.nii", "other.nii"),
            "--affine": "qform",
            "--json": None,
        },
    ),
    "fit-quality": (["RUN", "COHORT"], {"--alarm": "0.1", "--json": None}),
    "stress-test": (
        ["RUN", "OUT"],
        {"--patients": "20", "--preset": "easy", "--resamples": "300", "--seed": "9", "--json": None},
    ),
    "study": (
        ["COHORT", "OUT"],
        {
            "--scale": "small",
            "--methods": "sym-vgg,vgg-small",
            "--design": "repeated",
            "--splits": "3",
            "--seeds": "2",
            "--fresh": "50",
            "--level": "0.8",
            "--threshold": "1.9",
            "--disease": "MSA",
            "--sbr-max": "9",
            "--epochs": "3",
            "--engine": "ray",
            "--address": "auto",
            "--workers": "2",
            "--device": "cpu",
            "--retry-failed": None,
            "--seed": "5",
            "--json": None,
        },
    ),
    "sweep": (
        ["COHORT", "OUT", "--vary", "samples=10,20"],
        {
            "--vary": "head_dropout=0.1,0.2",
            "--method": "sym-vgg",
            "--scale": "small",
            "--grid": None,
            "--samples": "50",
            "--seeds": "2",
            "--sbr-max": "9",
            "--epochs": "3",
            "--test": None,
            "--engine": "ray",
            "--address": "auto",
            "--workers": "2",
            "--device": "cpu",
            "--retry-failed": None,
            "--seed": "5",
            "--json": None,
        },
    ),
    "import-published": (["net", "OUT"], {"--side": "right", "--json": None}),
    "locate": (
        ["scan", "OUT"],
        {
            "--t1w": "t1w.nii",
            "--centres": "centres.tsv",
            "--atlas": "IMAGE",
            "--no-refine": None,
            "--series": "3",
            "--part": "magnitude",
            "--echo-time": "20",
            "--any-body-part": None,
            "--affine": "sform",
            "--json": None,
        },
    ),
    "inspect": (["scan"], {"--affine": "sform", "--json": None}),
    "smwi": (
        ["scan", "OUT"],
        {
            "--threshold-ppm": "0.2",
            "--power": "2",
            "--combine": "mean",
            "--inversion": "tkd",
            "--reference": "csf",
            "--mask": "IMAGE",
            "--chi": "IMAGE",
            "--diamagnetic": None,
            "--series": "3",
            "--phase-sign": "reversed",
            "--echo-times": "14",
            "--field-strength": "7",
            "--trust-phase": None,
            "--any-body-part": None,
            "--affine": "sform",
            "--json": None,
        },
    ),
    "show": (["sym-vgg"], {"--widths": "2,2,2,2", "--json": None}),
    "dose-response": (
        ["COHORT", "OUT", "--model", "RUN"],
        {"--model": ("RUN", "RUN2"), "--levels": "0.5,1", "--limit": "3", "--seed": "5", "--json": None},
    ),
    "bids": (
        ["RAW", "OUT", "participant"],
        {
            "--participant-label": "02",
            "--sbr-method": "hottest",
            "--tracer": "11C-PE2I",
            "--threshold-ppm": "0.8",
            "--power": "3",
            "--combine": "mean",
            "--inversion": "tkd",
            "--reference": "csf",
            "--workers": "2",
            "--allow-mixed": None,
            "--json": None,
        },
    ),
    "explain": (
        ["RUN", "x.mat", "OUT", "--visit", "sub-000"],
        {
            "--method": "gradient",
            "--layer": "third",
            "--side": "left",
            "--visit": ("sub-000", "sub-001"),
            "--background": Beside(("--method", "deepshap", "--background", "COHORT"), "other"),
            "--background-visits": Beside(("--method", "deepshap", "--background", "COHORT"), "3"),
            "--draws": Beside(("--method", "expected-gradients", "--background", "COHORT"), "7"),
            "--affine": "qform",
            "--seed": Beside(("--method", "expected-gradients", "--background", "COHORT"), "5"),
            "--json": None,
        },
    ),
    "average-maps": (
        ["RUN", "COHORT", "OUT"],
        {"--layer": "third", "--subset": "stop", "--limit": "3", "--json": None},
    ),
    "faithfulness": (
        ["COHORT", "OUT", "--model", "RUN"],
        {
            "--model": ("RUN", "RUN2"),
            "--layer": "third",
            "--curves": "--no-curves",
            "--limit": "3",
            "--seed": "5",
            "--json": None,
        },
    ),
    "features": (
        ["COHORT", "OUT", "--model", "RUN"],
        {
            "--model": "RUN2",
            "--subset": "all",
            "--limit": "30",
            "--neighbours": "5",
            "--perplexity": "7",
            "--seed": "5",
            "--json": None,
        },
    ),
    "mis-centring": (
        ["COHORT", "OUT", "--model", "RUN"],
        {"--model": ("RUN", "RUN2"), "--shifts": "-1,0,1", "--limit": "3", "--seed": "5", "--json": None},
    ),
}
# Options that another plain call than the verb's first one takes.
OTHER_CALLS = {("bids", "--allow-mixed"): ["RAW", "OUT", "group"]}
SHORT = {
    "simulate": {"-n": "--patients"},
    "calibrate": {"-T": "--samples"},
    "intervals": {"-T": "--samples"},
    "predict": {"-m": "--model"},
    "check": {"-m": "--model"},
    "stress-test": {"-n": "--patients"},
    "sweep": {"-T": "--samples"},
}


def plain(value: object) -> object:
    """What can be compared: no callbacks, and a folder for what was loaded from one."""
    if hasattr(value, "folder"):
        return str(value.folder)
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return "a callback" if callable(value) and not isinstance(value, type) else repr(value)


@dataclass(frozen=True)
class Evaluated:
    """Stands for an evaluation."""

    notes: tuple[str, ...] = ()

    def summary(self) -> str:
        return "summary"

    def to_json(self) -> dict[str, Any]:
        return {"headline": "summary"}


@pytest.fixture
def places(tmp_path: Path, small_cohort, small_run) -> dict[str, str]:
    toml = tmp_path / "recipe.toml"
    toml.write_text("epochs = 4\n[augmentation]\nnoise = 0.5\n", encoding="utf-8")
    write_volume(tmp_path / "image.nii", np.ones((2, 2, 2), np.float32), np.eye(4))
    make_split(small_cohort, 99).save(tmp_path / "split.json")
    second = tmp_path / "run2"
    second.mkdir()
    for name in ("card.json", "model.safetensors"):
        (second / name).write_bytes((small_run / name).read_bytes())
    return {
        "COHORT": str(small_cohort.folder),
        "RAW": str(tmp_path / "raw"),
        "RUN": str(small_run),
        "RUN2": str(second),
        "OUT": str(tmp_path / "out"),
        "TOML": str(toml),
        "IMAGE": str(tmp_path / "image.nii"),
        "SPLIT": str(tmp_path / "split.json"),
    }


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, small_cohort, small_run) -> Iterator[list[object]]:
    """What reached the functions behind the verbs since the list was last cleared."""
    seen: list[object] = []

    def note(name: str, answer: Callable[..., object]) -> None:
        def stand_in(*args: object, **kwargs: object) -> object:
            seen.append([name, plain(args), plain(kwargs)])
            return answer(*args, **kwargs)

        monkeypatch.setattr(f"nigradat.{name}", stand_in)

    image = Volume(np.ones((2, 2, 2)), np.eye(4))
    gre = MultiEchoGre(np.ones((1, 2, 2, 2)), None, np.array([14.0]), 3.0, np.eye(4))
    scores = np.sort(np.random.default_rng(0).uniform(1, 9, (2, 40)), axis=1)
    side = SidePrediction(2.0, 0.1, (1.0, 3.0), 0.95)
    card = read_card(small_run) | {"licence": "none"}
    loaded = load_model(small_run)
    note("io.gre.read_scan", lambda *_, **__: (ScanSeries("1", "nifti", (ScanImage("image"),)),))
    note("io.gre.read_gre", lambda *_, **__: gre)
    note("io.gre.read_image", lambda *_, **__: image)
    located = Located(np.ones(3), np.zeros(3), 0.9, flags=(), method="method")
    note("locate.atlas.read_atlas", lambda *_, **__: None)
    note("locate.centres.read_centres", lambda *_: {})
    note("locate.locate.given", lambda *_: located)
    note("locate.locate.locate_nigrosomes", lambda *_, **__: located)
    note("locate.locate.write_located", lambda out, *_, **__: Path(out))
    note("smwi.chain.make_smwi", lambda *_, **__: smwi_as_given(image))
    note("smwi.chain.smwi_from_chi", lambda *_: smwi_as_given(image))
    note("smwi.output.write_smwi", lambda _, out, **__: Path(out))
    note("phantom.cohort.simulate", lambda out, **_: out)
    note("io.pack.load_cohort", lambda *_: small_cohort)
    note("io.pack.pack_cohort", lambda *_, **__: small_cohort)
    note("training.fit.train", lambda *_, **__: None)
    note("models.weights.read_card", lambda *_: card)
    note("uncertainty.calibration.calibrate", lambda *_, **__: Calibration("s1", 100, 0, scores, scores, 40, "", ""))
    crossed = SimpleNamespace(patients=40, promise=lambda level: f"{level}")
    note("uncertainty.cross_validation.calibrate_folds", lambda *_, **__: crossed)
    note("evaluation.evaluate.evaluate", lambda *_, **__: Evaluated())
    note("report.page.write_evaluation", lambda _, out, **__: Path(out))
    note("evaluation.spreads.compare_spreads", lambda *_, **__: Evaluated())
    note("report.spreads_page.write_spreads", lambda _, out: Path(out) / "report.html")
    note("models.weights.load_model", lambda *_: loaded)
    note("uncertainty.predict.predict", lambda *_, **__: [PatientPrediction("sub", side, side)])
    plan = {"level": 0.9, "threshold": None, "cohort": {"kind": "phantom"}}
    flags = (Flag("unusual-noise", "noisy", Side.LEFT),)
    usual = SimpleNamespace(
        alarm=0.05, cut=3.0, kind="phantom", reference_patients=30, patients=20, promise="promise", weights_sha256=""
    )
    values = np.ones((2, len(MEASURES)))
    note("quality.reference.require_quality", lambda *_: usual)
    note("quality.reference.fit_quality", lambda *_, **__: usual)
    note("quality.check.check", lambda *_, **__: [PairQuality("sub", "n/a", values, values, 4.0, 0.05, flags)])
    note("quality.suite.run_suite", lambda *_, **__: SimpleNamespace(patients=20))
    note("study.plan.run_study", lambda _, out, **__: (Path(out), ()))
    note("study.folder.read_plan", lambda *_: plan)
    note("study.timing.measure", lambda *_, **__: ())
    note("evaluation.comparison.compare", lambda *_, **__: SimpleNamespace(methods=(), n_patients=0))
    note("report.study_page.write_comparison", lambda out, *_: Path(out) / "report.html")
    note("study.sweep.run_sweep", lambda _, out, *__, **___: (Path(out), ()))
    table = Table("t", "T", "h", (Column("c"),), (Row("r", (Cell(1.0),)),))
    note("evaluation.quality_tables.write_suite", lambda *_, **__: (table,))
    note("io.inputs.read_patches", lambda *_: PatchSample(np.ones((1, 2, 50, 50, 20), np.float32), True))
    for probe, short in (("dose_response", "dose"), ("centring_response", "centring")):
        note(f"explain.probes.{probe}", lambda *_: None)
        note(f"explain.probe_report.{short}_table", lambda *_: table)
        note(f"explain.probe_report.{short}_figure", lambda *_: None)
    visits = [
        replace(NigralPair.from_arrays(*np.random.default_rng(i).uniform(1, 2, (2, 50, 50, 20))), participant_id=name)
        for i, name in enumerate(("sub-000", "sub-001"))
    ]
    explained = [Attribution("hirescam", Side.LEFT, np.ones((1, 1, 1)), np.eye(4), 2.0, 1.0)]
    note("io.inputs.read_inputs", lambda *_, **__: iter(visits))
    note("explain.hirescam.hirescam", lambda *_: explained)
    note("explain.hirescam.gradient_maps", lambda *_: explained)
    note("explain.shap.shap_attributions", lambda *_, **__: explained)
    note("explain.figures.write_attributions", lambda *_: {"maps": []})
    averaged = SimpleNamespace(maps=(), visits=3, subset="test", is_phantom=True)
    note("explain.average.average_maps", lambda *_, **__: averaged)
    note("explain.figures.write_average_maps", lambda *_: {"layers": []})
    note("phantom.oracle.read_masks", lambda *_: None)
    note("explain.faithfulness.faithfulness", lambda *_, **__: None)
    note("explain.faithfulness_report.faithfulness_table", lambda *_: table)
    note("explain.faithfulness_report.faithfulness_figure", lambda *_: None)
    record = VisitRecord("sub-01", flags=("a remark",))
    outcome = SimpleNamespace(records=(record,), fresh=1, failed=())
    note("bids.app.run_participants", lambda *_, **__: outcome)
    note("bids.app.run_group", lambda *_, **__: small_cohort)
    note("explain.probe_report.write_probe", lambda *_: None)
    note("explain.embedding.map_features", lambda *_, **__: None)
    note("explain.embedding_report.neighbour_table", lambda *_: table)
    note("explain.embedding_report.summary", lambda *_: {"visits": 3})
    note("explain.embedding_report.write_features", lambda *_: None)
    note("models.published.import_published", lambda _, out, *__: out)
    note("spect.labels.labeller", lambda *_: None)
    measured = SbrMeasurement(
        SbrRecipe(), (PartSbr("striatum", 2.0, 1.0, (10.0, 10.0)),), 30.0, "own", Aligned(np.eye(4))
    )
    note("io.nuclear.read_spect", lambda *_, **__: image)
    note("spect.volumes_of_interest.read_atlas", lambda *_: None)
    note("spect.normals.read_normals", lambda *_: Path("healthy"))
    note("spect.normals.z_scores", lambda *_: {"striatum": (0.0, -1.0)})
    note("spect.sbr.measure_sbr", lambda *_, **__: measured)
    note("report.sbr_sheet.write_sbr", lambda out, *_, **__: Path(out))
    return iter([seen])


def test_every_option_has_a_case():
    command: Any = typer.main.get_command(app)
    assert set(CASES) == set(command.commands)
    for verb, (_, options) in CASES.items():
        assert list(options) == options_of(verb), verb


@pytest.mark.parametrize(("verb", "option"), [(v, o) for v, (_, options) in CASES.items() for o in options])
def test_the_option_has_an_effect(verb, option, call, calls, places):
    base, options = CASES[verb]
    base = OTHER_CALLS.get((verb, option), base)
    value = options[option]
    if isinstance(value, Beside):
        base, value = [*base, *value.others], value.value
    if isinstance(value, tuple):
        changed = [value[1] if word == value[0] else word for word in base]
    else:
        changed = [*base, option, *([] if value is None else [value])]
    (seen,) = calls
    effects = []
    for words in (base, changed):
        seen.clear()
        answer = call(verb, *(places.get(word, word) for word in words)).done()
        effects.append((list(seen), answer.out))
    if option == "--json":
        assert json.loads(effects[1][1])
        with pytest.raises(ValueError, match=r"Expecting value|Extra data"):
            json.loads(effects[0][1])
        assert effects[0][0] == effects[1][0]
    else:
        assert effects[0][0] != effects[1][0] or verb == "show"
        assert effects[0] != effects[1]


@pytest.mark.parametrize(("verb", "short", "long"), [(v, s, o) for v, pairs in SHORT.items() for s, o in pairs.items()])
def test_short_forms_are_the_long_ones(verb, short, long):
    command: Any = typer.main.get_command(app)
    assert any({short, long} <= set(p.opts) for p in command.commands[verb].params)


def resolved(call, calls, places, *arguments) -> str:
    """What reached ``train``, as text."""
    (seen,) = calls
    call("train", places["COHORT"], places["OUT"], *arguments).done()
    return str(next(entry for entry in seen if entry[0] == "training.fit.train"))


def test_an_option_wins_over_the_file_and_the_file_over_the_recipe(call, calls, places):
    text = resolved(call, calls, places, "--recipe", "paper", "--config", places["TOML"], "--epochs", "6")
    assert "epochs=6" in text
    assert "noise=0.5" in text
    assert "optimiser='adam'" in text


def test_a_split_file_is_the_one_that_is_used(call, calls, places):
    assert repr(Split.load(places["SPLIT"])) in resolved(call, calls, places, "--split", places["SPLIT"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "COHORT", "OUT", "--device", "tpu"], ["--device tpu", "auto, cpu, gpu"]),
        (["train", "COHORT", "OUT", "--widths", "8,16"], ["--widths 8,16", "four whole numbers"]),
        (["train", "COHORT", "OUT", "--widths", "8,16,32,x"], ["four whole numbers"]),
        (["train", "COHORT", "OUT", "--widths", "0,1,1,1"], ["above 0"]),
        (["train", "COHORT", "OUT", "--dropout", "all"], ["--dropout all", "head, blocks"]),
        (["train", "COHORT", "OUT", "--dropout", "none", "--dropout-rate", "0.1"], ["one or the other"]),
        (["train", "COHORT", "OUT", "--learning-rate", "-1"], ["learning_rate", "greater than 0"]),
        (["train", "COHORT", "OUT", "--sbr-max", "0"], ["sbr_max"]),
        (["train", "COHORT", "OUT", "--recipe", "papr"], ["no recipe is called 'papr'", "default, paper"]),
        (["train", "COHORT", "OUT", "--model", "sym-vgg+"], ["Did you mean 'sym-vgg'"]),
        (["train", "COHORT", "OUT", "--split", "TOML"], ["no split file"]),
        (["cohort", "m.tsv", "OUT", "--affine", "both"], ["--affine both", "auto, sform, qform"]),
        (["predict", "x.mat", "--model", "RUN", "--affine", "both"], ["--affine both"]),
        (["predict", "x.mat", "--model", "RUN", "--abstain", "always"], ["--abstain always", "none, flagged"]),
        (["predict", "x.mat", "--model", "RUN", "--abstain", "1.5"], ["--abstain 1.5", "between 0 and 1"]),
        (["check", "x.mat", "--model", "RUN", "--affine", "both"], ["--affine both"]),
        (["inspect", "scan", "--affine", "both"], ["--affine both"]),
        (["smwi", "scan", "OUT", "--inversion", "l2"], ["--inversion l2", "tv, tkd"]),
        (["smwi", "scan", "OUT", "--combine", "max"], ["--combine max", "rms, mean"]),
        (["smwi", "scan", "OUT", "--reference", "wm"], ["--reference wm", "mask, csf, none"]),
        (["smwi", "scan", "OUT", "--echo-times", "4;8"], ["--echo-times 4;8", "commas"]),
        (["locate", "scan", "OUT", "--part", "best"], ["--part best", "magnitude"]),
        (["smwi", "scan", "OUT", "--power", "0"], ["m 0", "above 0"]),
        (["smwi", "scan", "OUT", "--threshold-ppm", "-1"], ["chi_th_ppm -1", "above 0"]),
        (["smwi", "scan", "OUT", "--chi", "c.nii", "--mask", "m.nii"], ["--mask together with --chi"]),
        (["predict", "x.mat", "--model", "RUN", "--rule", "guess"], ["'guess'", "conformal, mondrian, joint, cv+"]),
        (["calibrate", "RUN", "COHORT", "--symmetric-mode", "s9"], ["'s9'", "mc, s1"]),
        (["study", "COHORT", "OUT", "--device", "tpu"], ["--device tpu"]),
        (["study", "COHORT", "OUT", "--engine", "slurm"], ["--engine slurm", "processes, ray"]),
        (["sweep", "COHORT", "OUT", "--vary", "samples=2,3", "--engine", "slurm"], ["--engine slurm"]),
        (["import-published", "net"], ["1 folder", "then OUT"]),
        (["import-published", "net", "OUT", "--side", "up"], ["--side up", "right, left"]),
        (["import-published", "a", "b", "OUT", "--side", "left"], ["--side left with two folders"]),
        (["cohort", "m.tsv", "OUT", "--sbr-method", "mean"], ["--sbr-method mean", "voi-mean, hottest, southampton"]),
        (["sbr", "scan.nii", "--method", "mean"], ["--method mean", "voi-mean, hottest, southampton"]),
        (["sbr", "scan.nii", "--reference", "pons"], ["--reference pons", "occipital, brain"]),
        (["sbr", "scan.nii", "--striatal-volume-ml", "9"], ["the method voi-mean", "southampton only"]),
        (["sbr", "scan.nii", "--age", "60"], ["--age without --normals"]),
        (["show", "RUN", "--widths", "1,1,1,1"], ["its card says how wide"]),
        (["show", "resnet"], ["no model is called 'resnet'"]),
    ],
)
def test_a_wrong_value_is_refused_before_any_work(arguments, words, call, calls, places):
    if arguments[0] == "show" and arguments[1] == "RUN":
        assert Path(places["RUN"]).is_dir()
    (seen,) = calls
    call(*(places.get(a, a) for a in arguments)).refused(*words)
    assert [entry for entry in seen if entry[0] not in ("models.weights.load_model",)] == []
