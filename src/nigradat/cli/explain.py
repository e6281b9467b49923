"""``nigradat explain``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nigradat.cli.console import (
    Affine,
    Json,
    Seed,
    Source,
    check_affine_choice,
    check_choice,
    print_json,
    print_table,
    require_extra,
)

if TYPE_CHECKING:
    import numpy as np

    from nigradat.explain.attribution import Attribution
    from nigradat.io.nifti import AffineChoice
    from nigradat.models.weights import LoadedModel
    from nigradat.pair import NigralPair

NAME = "explain"
METHODS = ("hirescam", "gradient", "deepshap", "expected-gradients")
BACKGROUND_VISITS, DRAWS = 50, 200
UNEXPLAINED_SBR = 1e-3


def run(
    model: Annotated[Path, typer.Argument(help="Folder of a trained or imported model.")],
    source: Source,
    out: Annotated[Path, typer.Argument(help="New folder for the maps.")],
    method: Annotated[
        str,
        typer.Option(
            "--method", help="hirescam (cells of a layer), gradient, deepshap or expected-gradients (voxels)."
        ),
    ] = "hirescam",
    layer: Annotated[
        list[str] | None,
        typer.Option("--layer", help="For hirescam, once for each layer: last, third, or a name; default both blocks."),
    ] = None,
    side: Annotated[
        str, typer.Option("--side", help="Whose SBR: right, left or both. Right is the patient's.")
    ] = "both",
    visit: Annotated[
        str | None, typer.Option("--visit", help="Which visit, where the input holds several: ID or ID_SESSION.")
    ] = None,
    background: Annotated[
        Path | None,
        typer.Option(
            "--background",
            help="For the SHAP methods: the run's own cohort, whose training patients are compared with.",
        ),
    ] = None,
    background_visits: Annotated[
        int | None,
        typer.Option(
            "--background-visits", min=1, help=f"How many of them, evenly spaced; default {BACKGROUND_VISITS}."
        ),
    ] = None,
    draws: Annotated[
        int | None,
        typer.Option("--draws", min=1, help=f"Gradients averaged by expected-gradients; default {DRAWS}."),
    ] = None,
    affine: Affine = "auto",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Show which parts of one patient's patches carry the prediction: maps in SBR, as NIfTI and pictures.

    Example: nigradat explain run patient.mat why
    """
    from nigradat.anatomy import Side
    from nigradat.errors import ConfigError
    from nigradat.explain.figures import write_attributions
    from nigradat.explain.hirescam import layer_in_words
    from nigradat.explain.probe_report import data_label
    from nigradat.io.files import refuse_used_folder
    from nigradat.models.weights import load_model

    check_choice("--method", method, METHODS)
    sides = [s for s in Side if check_choice("--side", side, ("both", "right", "left")) in ("both", s.value)]
    _refuse_idle(method, layer, background, background_visits, draws)
    orientation = check_affine_choice(affine)
    require_extra("report", "matplotlib")
    refuse_used_folder(out)
    loaded = load_model(model)
    answered = [s for s in sides if s in loaded.model.sides]
    if not answered:
        raise ConfigError(
            f"--side {side} of a model without an answer for it", " or ".join(s.value for s in loaded.model.sides)
        )
    pair, is_phantom = _one_pair(source, visit, orientation)
    if method in ("hirescam", "gradient"):
        maps = _by_gradients(loaded, pair, method, layer, answered)
    else:
        others = _background(loaded, background, background_visits or BACKGROUND_VISITS)
        maps = _by_shap(loaded, pair, method, others, seed, draws or DRAWS)
        maps = [m for m in maps if m.side in answered]
    label = data_label(loaded, is_phantom)
    data = write_attributions(out, maps, pair, loaded, label)
    if as_json:
        print_json({"folder": out, **data})
        return
    print_table(
        f"SBR of {pair.participant_id} by {loaded.title}, taken apart by {method}",
        ["side", "where", "prediction", "baseline", "map", "residual"],
        [
            [m.side.value, layer_in_words(loaded.spec.tower, m.layer)]
            + [f"{round(v, 4) + 0.0:.4f}" for v in (m.prediction, m.baseline, float(m.values.sum()), m.residual)]
            for m in maps
        ],
    )
    if any(abs(m.residual) > UNEXPLAINED_SBR for m in maps):
        print("residual: prediction - baseline - map, which this method leaves without a place in the image.")
    for words in loaded.differs_in(pair.smwi_recipe):
        print(f"WARNING: made by another SMWI recipe than the training's: {words}")
    if label:
        print(f"NOTE: {label}.")
    print(f"Maps: {out}. A map describes the model, not the disease. Research only, not for diagnosis.")


def _refuse_idle(method: str, layer: Any, background: Any, background_visits: Any, draws: Any) -> None:
    """Refuse options that the method has no use for, and SHAP without a background."""
    from nigradat.errors import ConfigError

    is_shap = method in ("deepshap", "expected-gradients")
    for option, value, useful in (
        ("--layer", layer, method == "hirescam"),
        ("--background", background, is_shap),
        ("--background-visits", background_visits, is_shap),
        ("--draws", draws, method == "expected-gradients"),
    ):
        if value and not useful:
            raise ConfigError(f"{option} with --method {method}", f"no {option}: this method has no use for it")
    if is_shap and background is None:
        raise ConfigError(f"--method {method} without --background", "the cohort that the model was trained on")


def _one_pair(source: Path, visit: str | None, affine: AffineChoice) -> tuple[NigralPair, bool]:
    """The one visit that is asked for, and whether it is known to be of a phantom."""
    from itertools import islice

    from nigradat.errors import ConfigError, ImageError
    from nigradat.io.inputs import read_inputs
    from nigradat.io.pack import load_cohort

    todo = "Say which with --visit"
    if (source / "cohort.json").is_file():
        cohort = load_cohort(source)
        names = cohort.visit_ids
        if visit is None and len(names) == 1:
            return cohort.pair(0), cohort.is_phantom
        if visit not in names:
            found = f"no visit '{visit}'" if visit else f"{len(names)} visits"
            raise ConfigError(f"{found} in {source}", f"one of them, for example {names[0]}", todo)
        return cohort.pair(names.index(visit)), cohort.is_phantom
    wanted = (pair for pair in read_inputs([source], affine=affine) if visit in (None, _name(pair)))
    pairs = list(islice(wanted, 2))
    if not pairs:
        raise ImageError(f"no visit{f' {visit!r}' if visit else ''} in {source}", "a pair of patches")
    if len(pairs) > 1:
        raise ConfigError(f"several visits in {source}", f"one of them, for example {_name(pairs[0])}", todo)
    return pairs[0], False


def _name(pair: NigralPair) -> str:
    return pair.participant_id if pair.session_id == "n/a" else f"{pair.participant_id}_{pair.session_id}"


def _by_gradients(
    loaded: LoadedModel, pair: NigralPair, method: str, layers: list[str] | None, sides: list[Any]
) -> list[Attribution]:
    from nigradat.explain.hirescam import gradient_maps, hirescam

    return hirescam(loaded, pair, layers, sides) if method == "hirescam" else gradient_maps(loaded, pair, sides)


def _background(loaded: LoadedModel, folder: Path | None, visits: int) -> np.ndarray:
    """Patches of training patients, evenly spaced over the cohort."""
    import numpy as np

    from nigradat.explain.average import chosen_rows
    from nigradat.io.pack import load_cohort

    assert folder is not None
    cohort = load_cohort(folder)
    rows, _ = chosen_rows(loaded, cohort, "train")
    spaced = np.unique(np.linspace(0, len(rows) - 1, min(visits, len(rows))).round().astype(int))
    return np.stack([cohort.read(int(row)) for row in rows[spaced]])


def _by_shap(
    loaded: LoadedModel, pair: NigralPair, method: str, background: np.ndarray, seed: int, draws: int
) -> list[Attribution]:
    from nigradat.explain.shap import shap_attributions

    chosen: Any = method
    return shap_attributions(loaded, pair, background, method=chosen, seed=seed, draws=draws)
