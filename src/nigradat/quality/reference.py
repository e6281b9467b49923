"""What is usual: the measures of reference patients, and of others how unusual the most unusual one may be.

Two groups of patients, none of whom the other holds. The *reference* patients (of the run's own cohort those that
trained and stopped it) give the mean patch, the network's space of features, and of each measure its middle and its
spread on either end; each of them is measured against the others, never against himself. The *held-out* patients (the
calibration part) say how far the most unusual measure of an ordinary pair lies off: their scores are the scale for a
new pair's. That is conformal prediction with a maximum for a score, so the rate of false alarms of ALL flags together
is bounded, not that of each (Vovk 2005; Westfall and Young 1993 for the maximum).

Nothing here needs labels.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nigradat.anatomy import PATCH_SHAPE, Side, to_canonical
from nigradat.errors import CalibrationError, ConfigError
from nigradat.io.files import new_file, sha256_of, write_json
from nigradat.io.pack import PackedCohort, load_cohort, verify
from nigradat.metrics.cases import check_level
from nigradat.models.weights import WEIGHTS_NAME, LoadedModel, load_model
from nigradat.quality.features import FeatureSpace, tower_features
from nigradat.quality.measures import IMAGE_MEASURES, MEASURES, NAMES, Template, image_measures, normalised
from nigradat.training.fit import SPLIT_NAME
from nigradat.training.split import Split
from nigradat.uncertainty.calibration import check_unseen

QUALITY_NAME, TENSORS_NAME = "quality.json", "quality.safetensors"
ALARM: Final = 0.05
FEWEST_REFERENCE: Final = 8
MOST_PATIENTS: Final = 500  # of either group; more would cost time and change nothing
_FOLDS: Final = 5
_TAIL: Final = 99.0  # percentile at which the spread of a measure is read off
_TAIL_SD: Final = 2.326
_BLOCK: Final = 32  # visits in memory at once
_STREAM: Final = 0x71
_FORMAT: Final = 1

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int_]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Quality:
    """What new pairs are measured with and held against.

    Attributes:
        template: mean patch of the reference patients.
        spaces: of features, by the name of the net (``both``, or ``right`` and ``left``).
        middle: ``(2, M)``, median of each measure, right first; NaN for the features of a side without an answer.
        below, above: ``(2, M)``, SD-like spread on either end (99 % of the patients lie below 2.326 of them).
        scores: ``(n,)``, those of the held-out patients, ascending; see :func:`scores_of`.
        alarm: share of ordinary pairs that may be called unusual.
        reference_patients: how many gave middle and spread.
        cohort_sha256, weights_sha256: what this belongs to.
        kind: of the cohort, ``phantom`` or ``patients``.
    """

    template: Template
    spaces: dict[str, FeatureSpace]
    middle: Array
    below: Array
    above: Array
    scores: Array
    alarm: float
    reference_patients: int
    cohort_sha256: str
    weights_sha256: str
    kind: str

    @property
    def patients(self) -> int:
        """Held-out patients: what the rate of false alarms rests on."""
        return len(self.scores)

    @property
    def cut(self) -> float:
        """A pair whose score is larger is unusual."""
        return self.cut_at(self.alarm)

    def cut_at(self, alarm: float) -> float:
        """The score above which at most a share ``alarm`` of ordinary pairs lies.

        Raises:
            CalibrationError: too few held-out patients; the number needed is named.
            ConfigError: a share outside 0..1.
        """
        check_level(alarm)
        above = int(alarm * (self.patients + 1) + 1e-9)  # the rounding of k / (n + 1) times n + 1
        if above < 1:
            raise CalibrationError(
                f"{self.patients} held-out patients for a rate of {alarm:g}",
                f"at least {int(np.ceil(1 / alarm - 1e-9)) - 1} patients, or a rate of {1 / (self.patients + 1):.3g}",
                "Fit the quality reference on more patients (nigradat fit-quality RUN COHORT)",
            )
        return float(self.scores[self.patients - above])

    def p_values(self, scores: Array) -> Array:
        """Conformal p-values ``(m,)``: P(p <= a) <= a for an ordinary pair, whatever the distributions are."""
        at_least = self.patients - np.searchsorted(self.scores, scores, side="left")
        return np.asarray((1.0 + at_least) / (self.patients + 1.0), dtype=np.float64)

    def measure(
        self,
        loaded: LoadedModel,
        patches: npt.NDArray[np.float32],
        features: npt.NDArray[np.float32] | None = None,
    ) -> Array:
        """All measures of native patches ``(n, 2, 50, 50, 20)``: ``(n, 2, M)``, in the order of ``MEASURES``.

        The tower's features ``(n, 2, F)`` are computed where they are not given.
        """
        of_image = np.stack([image_measures(pair, self.template) for pair in to_canonical(patches)])
        made = tower_features(loaded.model, patches) if features is None else features
        return np.concatenate([of_image, feature_distances(self.spaces, made)], axis=2)

    def deviations(self, values: Array) -> Array:
        """How many SDs measures ``(..., 2, M)`` lie on the suspicious side of the usual; negative on the other side.

        For a measure of which both ends are suspicious it is the distance from the middle.
        """
        return deviations_from(values, self.middle, self.below, self.above)

    def usual(self, side: Side) -> tuple[Array, Array]:
        """Lowest and highest value ``(M,)`` that is not called unusual; infinite where an end is not suspicious."""
        i, tails = side.index, np.array([measure.tail for measure in MEASURES])
        low = np.where(tails == "high", -np.inf, self.middle[i] - self.cut * self.below[i])
        high = np.where(tails == "low", np.inf, self.middle[i] + self.cut * self.above[i])
        return low, high

    @property
    def promise(self) -> str:
        """What the flags promise, in words."""
        return (
            f"at most {100 * self.alarm:.3g} % of new pairs like those of the {self.patients} held-out patients are "
            "called unusual, on average over such references, all measures together; not a promise that what is "
            "wrong is found, nor for other scanners"
        )


def scores_of(deviations: Array) -> Array:
    """The most unusual measure of either side, ``(n,)``, of deviations ``(n, 2, M)``; what is not a number is infinite.

    The features of a side without an answer are NaN in every pair and count for nothing.
    """
    filled = np.where(np.isnan(deviations), -np.inf, deviations)
    out: Array = filled.max(axis=(1, 2))
    return out


def deviations_from(values: Array, middle: Array, below: Array, above: Array) -> Array:
    """See :meth:`Quality.deviations`."""
    off = values - middle
    up, down = off / above, -off / below
    tails = np.array([measure.tail for measure in MEASURES])
    out: Array = np.where(tails == "both", np.maximum(up, down), np.where(tails == "high", up, down))
    # a value that is no number, where there should be one, is as unusual as can be
    return np.where(np.isnan(values) & np.isfinite(middle), np.inf, out)


def feature_distances(spaces: dict[str, FeatureSpace], features: npt.NDArray[np.floating]) -> Array:
    """Distances ``(n, 2, 2)`` of features ``(n, 2, F)``; NaN for a side without a net."""
    out = np.full((len(features), 2, 2), np.nan)
    for side in Side:
        space = spaces.get("both") or spaces.get(side.value)
        if space is not None:
            out[:, side.index] = space.distances(features[:, side.index])
    return out


def fit_spaces(loaded: LoadedModel, features: npt.NDArray[np.floating]) -> dict[str, FeatureSpace]:
    """A space of features for each net of the model, from features ``(n, 2, F)``."""
    if "both" in loaded.model.nets:
        return {"both": FeatureSpace.fit(features.reshape(-1, features.shape[-1]))}
    return {side.value: FeatureSpace.fit(features[:, side.index]) for side in loaded.model.sides}


def fit_quality(
    model: LoadedModel | str | os.PathLike[str],
    cohort: PackedCohort | str | os.PathLike[str],
    *,
    alarm: float = ALARM,
    progress: Progress | None = None,
) -> Quality:
    """Learn what is usual, and write ``quality.json`` and ``quality.safetensors`` into the model's folder.

    Args:
        model: loaded, or its folder.
        cohort: the run's own cohort (training and stopping part are the reference, the calibration part is held out),
            or another one, of which half is the reference and half is held out; labels are not needed. The first visit
            of each patient counts, and at most 500 patients of either group.
        alarm: share of ordinary pairs that may be called unusual. With fewer than ``1 / alarm - 1`` held-out patients
            it is ``1 / (n + 1)`` instead, the smallest that they can promise.
        progress: called with (visits measured, visits in all).

    Raises:
        CalibrationError: too few patients, or held-out patients that trained or stopped the model.
        ConfigError: a rate outside 0..1.

    Example:
        >>> nigradat.fit_quality("run", "cohort").promise                                       # doctest: +SKIP
    """
    check_level(alarm)
    loaded = model if isinstance(model, LoadedModel) else load_model(model)
    data = cohort if isinstance(cohort, PackedCohort) else load_cohort(cohort)
    reference, held_out = _groups(loaded, data)
    verify(data)
    done, total = 0, len(reference) + len(held_out)

    def advance(visits: int) -> None:
        nonlocal done
        done += visits
        if progress is not None:
            progress(done, total)

    template, spaces, values = _learn(loaded, data, reference, advance)
    middle, below, above = _usual(values, shared="both" in spaces)
    measured = Quality(
        template,
        spaces,
        middle,
        below,
        above,
        np.empty(0),
        alarm,
        len(reference),
        data.sha256,
        loaded.card["sha256"][WEIGHTS_NAME],
        str(data.provenance["kind"]),
    )
    scores = []
    for patches in _blocks(data, held_out):
        scores.append(scores_of(measured.deviations(measured.measure(loaded, patches))))
        advance(len(patches))
    ascending = np.sort(np.concatenate(scores))
    quality = replace(measured, scores=ascending, alarm=max(alarm, 1.0 / (len(ascending) + 1)))
    save_quality(loaded.folder, quality)
    return quality


def _learn(
    loaded: LoadedModel, data: PackedCohort, rows: Rows, advance: Callable[[int], None]
) -> tuple[Template, dict[str, FeatureSpace], Array]:
    """Mean patch and features of the reference patients, and their measures ``(n, 2, M)``.

    In five folds: a patient is measured with what those of the other folds gave.
    """
    features = np.concatenate([tower_features(loaded.model, patches) for patches in _blocks(data, rows)])
    fold = np.random.default_rng([len(rows), _STREAM]).permutation(len(rows)) % _FOLDS
    sums = np.zeros((_FOLDS, *PATCH_SHAPE))
    for row, k in zip(rows, fold, strict=True):
        sums[k] += normalised(to_canonical(data.read(int(row)))).sum(axis=0)
    values = np.empty((len(rows), 2, len(MEASURES)))
    for k in range(_FOLDS):
        inside = np.flatnonzero(fold == k)
        others = Template.of(sums.sum(axis=0) - sums[k], 2 * (len(rows) - len(inside)))
        for i, row in zip(inside, rows[inside], strict=True):
            values[i, :, : len(IMAGE_MEASURES)] = image_measures(to_canonical(data.read(int(row))), others)
            advance(1)
        spaces = fit_spaces(loaded, features[fold != k])
        values[inside, :, len(IMAGE_MEASURES) :] = feature_distances(spaces, features[inside])
    return Template.of(sums.sum(axis=0), 2 * len(rows)), fit_spaces(loaded, features), values


def _groups(loaded: LoadedModel, data: PackedCohort) -> tuple[Rows, Rows]:
    """Rows of the reference and of the held-out patients, first visits only."""
    first = {patient: row for row, patient in reversed(list(enumerate(data.patient_ids)))}
    if loaded.card.get("training", {}).get("cohort_sha256") == data.sha256:
        split = Split.load(loaded.folder / SPLIT_NAME)
        split.check(data)
        groups = [[first[p] for p in (*split.train, *split.stop)], [first[p] for p in split.calibration]]
    else:
        mixed = np.random.default_rng(_STREAM).permutation(sorted(first.values()))
        groups = [list(half) for half in np.array_split(mixed, 2)]
    reference, held_out = (_thinned(np.array(sorted(group), dtype=int)) for group in groups)
    if len(reference) < FEWEST_REFERENCE or len(held_out) < 1:
        raise CalibrationError(
            f"{len(reference)} reference and {len(held_out)} held-out patients to learn from what a usual pair is",
            f"at least {FEWEST_REFERENCE} and 1 (19 for a rate of false alarms of 5 %)",
            "Use a larger cohort",
        )
    check_unseen(loaded, data, held_out, "the quality reference")
    return reference, held_out


def _thinned(rows: Rows) -> Rows:
    """At most ``MOST_PATIENTS`` of them, evenly spaced."""
    if len(rows) <= MOST_PATIENTS:
        return rows
    kept: Rows = rows[np.linspace(0, len(rows) - 1, MOST_PATIENTS).round().astype(int)]
    return kept


def _blocks(data: PackedCohort, rows: Rows) -> Iterator[npt.NDArray[np.float32]]:
    for start in range(0, len(rows), _BLOCK):
        yield np.stack([data.read(int(row)) for row in rows[start : start + _BLOCK]])


def _usual(values: Array, *, shared: bool) -> tuple[Array, Array, Array]:
    """Median and spread on either end, ``(2, M)`` each, of measures ``(n, 2, M)``.

    Image measures are pooled over the sides, which the canonical view makes alike; features are where one net makes
    those of both.
    """
    pooled = np.broadcast_to(values.reshape(-1, values.shape[2])[:, None], (values.shape[0] * 2, 2, values.shape[2]))
    own = np.repeat(values, 2, axis=0)
    by_side = ~shared & (np.arange(values.shape[2]) >= len(IMAGE_MEASURES))
    used = np.where(by_side, own, pooled)
    middle = np.median(used, axis=0)
    low, high = np.percentile(used, (100 - _TAIL, _TAIL), axis=0)
    floor = 1e-9 + 1e-6 * np.abs(middle)  # of a measure that never varies
    return middle, np.maximum((middle - low) / _TAIL_SD, floor), np.maximum((high - middle) / _TAIL_SD, floor)


# -- On disk ------------------------------------------------------------------------------------------------------


def save_quality(folder: Path, quality: Quality) -> None:
    """Write the tensors, then the JSON that vouches for them."""
    from safetensors.numpy import save_file

    tensors = {"template": quality.template.mean}
    for name, space in quality.spaces.items():
        tensors |= {f"{name}.mean": space.mean, f"{name}.axes": space.axes, f"{name}.bank": space.bank}
    with new_file(folder / TENSORS_NAME) as hidden:
        save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, hidden)
    write_json(
        folder / QUALITY_NAME,
        {
            "format": _FORMAT,
            "measures": list(NAMES),
            "middle": quality.middle,
            "below": quality.below,
            "above": quality.above,
            "scores": quality.scores,
            "alarm": quality.alarm,
            "cut": quality.cut,
            "promise": quality.promise,
            "reference_patients": quality.reference_patients,
            "patients": quality.patients,
            "kind": quality.kind,
            "rest_sd": {name: space.rest_sd for name, space in quality.spaces.items()},
            "cohort_sha256": quality.cohort_sha256,
            "weights_sha256": quality.weights_sha256,
            "tensors_sha256": sha256_of(folder / TENSORS_NAME),
        },
    )


def missing_quality(loaded: LoadedModel) -> CalibrationError:
    """The error of a model that has no reference where one is needed."""
    return CalibrationError(
        f"{loaded.folder} has no {QUALITY_NAME}, so nothing says which pairs are usual",
        "a model with a quality reference",
        "Fit it: nigradat fit-quality RUN COHORT",
    )


def require_quality(loaded: LoadedModel) -> Quality:
    """The reference of a model.

    Raises:
        CalibrationError: there is none, or as :func:`load_quality`.
    """
    quality = load_quality(loaded)
    if quality is None:
        raise missing_quality(loaded)
    return quality


def load_quality(loaded: LoadedModel) -> Quality | None:
    """The quality reference of a model, or None where there is none.

    Raises:
        CalibrationError: damaged, or made for other weights.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = loaded.folder / QUALITY_NAME
    if not path.is_file():
        return None
    again = "Fit it again: nigradat fit-quality RUN COHORT"
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] != _FORMAT or data["measures"] != list(NAMES):
            raise ValueError("another format or other measures")
        if sha256_of(loaded.folder / TENSORS_NAME) != data["tensors_sha256"]:
            raise ValueError(f"{TENSORS_NAME} is not the file that belongs to it")
        tensors = load_file(loaded.folder / TENSORS_NAME)
        spaces = {
            name: FeatureSpace(tensors[f"{name}.mean"], tensors[f"{name}.axes"], float(sd), tensors[f"{name}.bank"])
            for name, sd in data["rest_sd"].items()
        }
        middle, below, above = (np.array(data[key], dtype=np.float64) for key in ("middle", "below", "above"))
        scores = np.array([np.inf if score is None else score for score in data["scores"]], dtype=np.float64)
        if not middle.shape == below.shape == above.shape == (2, len(NAMES)) or scores.ndim != 1 or not scores.size:
            raise ValueError("arrays of other shapes")
        quality = Quality(
            Template(tensors["template"]),
            spaces,
            middle,
            below,
            above,
            np.sort(scores),
            float(data["alarm"]),
            int(data["reference_patients"]),
            str(data["cohort_sha256"]),
            str(data["weights_sha256"]),
            str(data["kind"]),
        )
        quality.cut_at(quality.alarm)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ConfigError, SafetensorError) as error:
        raise CalibrationError(f"{path} is damaged ({error})", "the file that nigradat wrote", again) from error
    if quality.weights_sha256 != loaded.card["sha256"][WEIGHTS_NAME]:
        raise CalibrationError(f"{path} was made for other weights", "a quality reference of this model", again)
    return quality
