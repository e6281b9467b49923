"""A pair in, both sides' SBR out, with an interval where one was calibrated and none where it was not."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from nigradat.anatomy import Side
from nigradat.errors import CalibrationError, ImageError
from nigradat.io.inputs import Source, pairs_of
from nigradat.io.nifti import AffineChoice
from nigradat.metrics.cases import check_level
from nigradat.models.weights import WEIGHTS_NAME, LoadedModel, load_model
from nigradat.pair import Flag, NigralPair, PatientPrediction, SidePrediction
from nigradat.quality.abstain import NONE, answered, check_policy, resolve_policy, withhold
from nigradat.quality.check import check_pairs
from nigradat.quality.reference import load_quality
from nigradat.uncertainty.calibration import Rule, load_calibration
from nigradat.uncertainty.cross_validation import CV_PLUS_NAME, CrossCalibration, load_cross_calibration
from nigradat.uncertainty.mc_dropout import CHUNK, draw_predictions, has_spread, predict_sbr
from nigradat.uncertainty.symmetric_mc import DEFAULT_MODE, symmetric_spread


def predict_pairs(
    loaded: LoadedModel,
    pairs: Sequence[NigralPair],
    *,
    level: float = 0.95,
    rule: Rule = "conformal",
    samples: int = 100,
    seed: int = 0,
    chunk: int = CHUNK,
    allow_other_recipe: bool = False,
    abstain: str = NONE,
) -> list[PatientPrediction]:
    """Predict a batch of pairs.

    The point prediction is the network's own, without dropout. The interval is centred on the Monte-Carlo mean. A model
    with a log-normal head has a spread, and so an interval, also without dropout.

    Args:
        loaded: model folder as loaded.
        pairs: not changed.
        level, rule: of the interval; see :mod:`nigradat.uncertainty.calibration`.
        samples, seed: Monte-Carlo draws for the spread of a model that was not calibrated; a calibrated
            model uses those it was calibrated with.
        chunk: pairs at once.
        allow_other_recipe: flag images of another SMWI recipe than the training's instead of refusing them.
        abstain: from which pairs the answer is withheld; see :func:`nigradat.quality.abstain.resolve_policy`. A model
            with a quality reference flags unusual pairs under any policy.

    Raises:
        ImageError: an image of another SMWI recipe.
        CalibrationError: the level cannot be promised with the patients that calibrated the model, or the policy
            cannot be kept with those of its quality reference.
        ConfigError: a level outside 0..1, or an unknown policy.
    """
    check_level(level)
    check_policy(abstain)
    if not pairs:
        return []
    quality = load_quality(loaded)
    abstention = resolve_policy(abstain, loaded, quality)
    if not allow_other_recipe:
        _refuse_other_recipe(loaded, pairs)
    patches = np.stack([pair.patches for pair in pairs])
    calibration = load_calibration(loaded)
    drawn = None
    if has_spread(loaded.model):
        count, draw_from = (samples, seed) if calibration is None else (calibration.samples, calibration.seed)
        drawn = draw_predictions(
            loaded.model, patches, samples=count, seed=draw_from, chunk=chunk, keep_features=quality is not None
        )
    sbr = predict_sbr(loaded.model, patches, chunk) if drawn is None else drawn.point
    sd = low = high = np.full_like(sbr, np.nan)
    if drawn is not None and calibration is not None:
        spread = calibration.spread(drawn, loaded.spec.sbr_max)
        sd = spread.spread
        if rule != "cv+":
            low, high = spread.interval(calibration.multiplier(level, rule, spread.centre))
    elif drawn is not None:
        mode = DEFAULT_MODE if len(loaded.model.sides) == 2 else "mc"
        sd = symmetric_spread(drawn.samples, mode, loaded.spec.sbr_max, noise_sd=drawn.noise_sd).spread
    if rule == "cv+":
        if (cross := load_cross_calibration(loaded)) is None:
            raise CalibrationError(
                f"{loaded.folder} has no CV+ calibration", CV_PLUS_NAME, "Run 'nigradat calibrate' with --fold"
            )
        low, high = cross.interval(patches, level)
    flags = model_flags(loaded, has_calibration=calibration is not None or rule == "cv+")

    def side_of(i: int, side: Side) -> SidePrediction | None:
        j = side.index
        if np.isnan(sbr[i, j]):
            return None
        known = not np.isnan(low[i, j])
        return SidePrediction(
            sbr=float(sbr[i, j]),
            sd=None if np.isnan(sd[i, j]) else float(sd[i, j]),
            # an SBR below 0 cannot be; nothing is cut at the upper end of the scale
            interval=(max(0.0, float(low[i, j])), max(0.0, float(high[i, j]))) if known else None,
            level=level if known else None,
        )

    predictions = [
        PatientPrediction(
            pair.participant_id,
            side_of(i, Side.RIGHT),
            side_of(i, Side.LEFT),
            pair.session_id,
            (*flags, *pair_flags(loaded, pair, sbr[i])),
        )
        for i, pair in enumerate(pairs)
    ]
    if quality is None:
        return predictions
    checked = check_pairs(loaded, quality, pairs, features=None if drawn is None else drawn.features)
    flagged = [replace(p, flags=(*p.flags, *c.flags)) for p, c in zip(predictions, checked, strict=True)]
    if abstention is None:
        return flagged
    return [withhold(p, c, abstention) for p, c in zip(flagged, checked, strict=True)]


def _refuse_other_recipe(loaded: LoadedModel, pairs: Sequence[NigralPair]) -> None:
    for pair in pairs:
        if odd := loaded.differs_in(pair.smwi_recipe):
            raise ImageError(
                f"the SMWI of {pair.participant_id} was made by another recipe than the model's: {'; '.join(odd)}",
                "the recipe of the images that trained the model",
                "Make the SMWI again by that recipe, or say --allow-other-recipe (allow_other_recipe=True)",
            )


def model_flags(loaded: LoadedModel, *, has_calibration: bool) -> tuple[Flag, ...]:
    """What must be known about the model before its numbers are read."""
    flags = []
    if loaded.is_phantom_trained:
        flags.append(
            Flag("phantom-trained", "The model was trained on a phantom: its numbers say nothing about a patient.")
        )
    for side in Side:
        if loaded.model.net(side) is None:
            flags.append(Flag("no-answer", f"The model does not answer for the {side.value} side.", side))
    if not has_spread(loaded.model):
        flags.append(Flag("no-interval", "The model has no dropout, so it has no spread and no interval."))
    elif not has_calibration:
        flags.append(
            Flag("no-interval", "Not calibrated: sd is a raw spread, not an interval. Run 'nigradat calibrate'.")
        )
    return tuple(flags)


def pair_flags(loaded: LoadedModel, pair: NigralPair, sbr: np.ndarray) -> tuple[Flag, ...]:
    """What must be known about this pair and its result."""
    flags = []
    if pair.affine_is_nominal:
        flags.append(
            Flag(
                "nominal-affine",
                "The input has no affine: that its first patch is the right side is taken on trust.",
                severity="info",
            )
        )
    if odd := loaded.differs_in(pair.smwi_recipe):
        flags.append(Flag("other-recipe", f"Another SMWI recipe than the model's: {'; '.join(odd)} here."))
    elif loaded.smwi_recipe and not pair.smwi_recipe:
        flags.append(
            Flag(
                "unknown-recipe",
                "The image does not say how its SMWI was made; that it is as in the training is taken on trust.",
                severity="info",
            )
        )
    top = loaded.card.get("sbr_scale", {}).get("max") or loaded.spec.sbr_max
    for side in Side:
        value = sbr[side.index]
        if np.isfinite(value) and not 0 <= value <= float(top):
            message = f"{side.value}: {value:.2f} lies outside the training labels' range."
            flags.append(Flag("outside-training-range", message, side))
    return tuple(flags)


def predict(
    inputs: Source | Sequence[Source],
    model: LoadedModel | str | os.PathLike[str],
    *,
    right: str | os.PathLike[str] | None = None,
    left: str | os.PathLike[str] | None = None,
    affine: AffineChoice = "auto",
    level: float = 0.95,
    rule: Rule = "conformal",
    samples: int = 100,
    seed: int = 0,
    allow_other_recipe: bool = False,
    abstain: str = NONE,
) -> list[PatientPrediction]:
    """Predict both sides' SBR for pairs or files.

    Args:
        inputs: a :class:`~nigradat.pair.NigralPair`, a path (``.mat``, manifest, packed cohort, folder of patches), or
            several of these.
        model: model folder, or one loaded with :func:`nigradat.load`.
        right, left, affine: see :func:`nigradat.io.inputs.read_inputs`.
        level, rule, samples, seed, allow_other_recipe, abstain: see :func:`predict_pairs`.

    Raises:
        NigradatError: of the kind that fits; see :mod:`nigradat.errors`.

    Example:
        >>> import numpy as np, nigradat
        >>> rng = np.random.default_rng(0)
        >>> pair = nigradat.NigralPair.from_arrays(rng.uniform(1, 2, (50, 50, 20)), rng.uniform(1, 2, (50, 50, 20)))
        >>> nigradat.predict(pair, "study/sym-vgg-plus")[0].right.interval                      # doctest: +SKIP
    """
    loaded = model if isinstance(model, LoadedModel) else load_model(model)
    pairs = pairs_of(inputs, right=right, left=left, affine=affine)
    out: list[PatientPrediction] = []
    while batch := list(islice(pairs, 64)):
        out += predict_pairs(
            loaded,
            batch,
            level=level,
            rule=rule,
            samples=samples,
            seed=seed,
            allow_other_recipe=allow_other_recipe,
            abstain=abstain,
        )
    return out


def interval_to_json(loaded: LoadedModel, level: float = 0.95, rule: Rule = "conformal") -> dict[str, Any] | None:
    """What the model's intervals rest on and what they promise; None where it has none by that rule."""
    calibration = load_cross_calibration(loaded) if rule == "cv+" else load_calibration(loaded)
    if calibration is None:
        return None
    by_rule = (
        calibration.promise(level) if isinstance(calibration, CrossCalibration) else calibration.promise(level, rule)
    )
    return {
        "rule": rule,
        "level": level,
        "mode": calibration.mode,
        "calibration_patients": calibration.patients,
        "promise": by_rule,
    }


def predictions_to_json(
    loaded: LoadedModel, predictions: Sequence[PatientPrediction], level: float = 0.95, rule: Rule = "conformal"
) -> dict[str, Any]:
    """The machine-readable form of what ``level`` and ``rule`` gave; a side is null without an answer.

    Returns:
        ``{"model": ..., "interval": ..., "yield": ..., "patients": [...]}``
    """

    def side_json(side: SidePrediction | None) -> dict[str, Any] | None:
        if side is None:
            return None
        return {
            "sbr": side.sbr,
            "interval": None if side.interval is None else list(side.interval),
            "level": side.level,
            "sd": side.sd,
        }

    return {
        "model": {
            "name": loaded.card.get("name"),
            "title": loaded.title,
            "sha256": loaded.card["sha256"][WEIGHTS_NAME],
            "trained_on": loaded.card.get("training", {}).get("kind"),
            "sbr_scale": loaded.card.get("sbr_scale"),
            "smwi_recipe": loaded.smwi_recipe,
            "licence": loaded.card.get("licence"),
            "intended_use": loaded.card.get("intended_use"),
        },
        "interval": interval_to_json(loaded, level, rule),
        "yield": {"visits": len(predictions), "answered": answered(predictions)},
        "patients": [
            {
                "id": p.participant_id,
                "session": p.session_id,
                "right": side_json(p.right),
                "left": side_json(p.left),
                "flags": [
                    {
                        "code": f.code,
                        "side": None if f.side is None else f.side.value,
                        "message": f.message,
                        "severity": f.severity,
                    }
                    for f in p.flags
                ],
            }
            for p in predictions
        ],
    }
