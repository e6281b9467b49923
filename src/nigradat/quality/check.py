"""A pair held against what is usual: flags that say what was measured, what is usual, and what to look at."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from nigradat.anatomy import Side
from nigradat.io.inputs import Source, pairs_of
from nigradat.io.nifti import AffineChoice
from nigradat.models.weights import LoadedModel, load_model
from nigradat.pair import Flag, NigralPair
from nigradat.quality.measures import MEASURES, Measure
from nigradat.quality.reference import Quality, require_quality, scores_of

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PairQuality:
    """How usual one pair is.

    Attributes:
        participant_id, session_id: whose it is.
        values: ``(2, M)``, right first, in the order of :data:`nigradat.quality.measures.MEASURES`; NaN for the
            features of a side without an answer.
        deviations: ``(2, M)``, SDs to the suspicious side of the usual.
        score: the largest deviation.
        p_value: share of ordinary pairs whose score is as large or larger, conformal: never below ``1 / (n + 1)``.
        flags: one for each unusual measure and side, the most unusual first; empty for an ordinary pair.
    """

    participant_id: str
    session_id: str
    values: Array
    deviations: Array
    score: float
    p_value: float
    flags: tuple[Flag, ...]


def check_pairs(
    loaded: LoadedModel,
    quality: Quality,
    pairs: Sequence[NigralPair],
    features: npt.NDArray[np.float32] | None = None,
) -> list[PairQuality]:
    """Measure pairs and flag what is unusual.

    Args:
        loaded: the model whose features are looked at.
        quality: its reference (:func:`nigradat.quality.reference.load_quality`).
        pairs: not changed.
        features: ``(n, 2, F)``, what the tower makes of them, where that is known already.
    """
    if not pairs:
        return []
    values = quality.measure(loaded, np.stack([pair.patches for pair in pairs]), features)
    deviations = quality.deviations(values)
    scores = scores_of(deviations)
    return [
        PairQuality(
            pair.participant_id,
            pair.session_id,
            values[i],
            deviations[i],
            float(scores[i]),
            float(p),
            tuple(_flags(quality, values[i], deviations[i])),
        )
        for i, (pair, p) in enumerate(zip(pairs, quality.p_values(scores), strict=True))
    ]


def check_in_batches(
    loaded: LoadedModel, quality: Quality, pairs: Iterable[NigralPair], size: int = 16
) -> Iterator[PairQuality]:
    """:func:`check_pairs` of many pairs, ``size`` of them in memory at a time."""
    source = iter(pairs)
    while batch := list(islice(source, size)):
        yield from check_pairs(loaded, quality, batch)


def check(
    inputs: Source | Sequence[Source],
    model: LoadedModel | str | os.PathLike[str],
    *,
    right: str | os.PathLike[str] | None = None,
    left: str | os.PathLike[str] | None = None,
    affine: AffineChoice = "auto",
) -> list[PairQuality]:
    """Say what is unusual about pairs or files.

    Args:
        inputs: a :class:`~nigradat.pair.NigralPair`, a path (``.mat``, manifest, packed cohort, folder of patches), or
            several of these.
        model: loaded, or its folder; it must have a quality reference (:func:`nigradat.fit_quality`).
        right, left, affine: see :func:`nigradat.io.inputs.read_inputs`.

    Raises:
        CalibrationError: no quality reference, or one that is damaged or belongs to other weights.
        NigradatError: of the kind that fits, for what cannot be read.

    Example:
        >>> nigradat.check("patient.mat", "run")[0].flags                                       # doctest: +SKIP
    """
    loaded = model if isinstance(model, LoadedModel) else load_model(model)
    quality = require_quality(loaded)
    return list(check_in_batches(loaded, quality, pairs_of(inputs, right=right, left=left, affine=affine)))


def _flags(quality: Quality, values: Array, deviations: Array) -> Iterator[Flag]:
    usual = {side: quality.usual(side) for side in Side}
    found = [
        (float(deviations[side.index, j]), side, j)
        for j, measure in enumerate(MEASURES)
        for side in ((Side.RIGHT,) if measure.of_pair else Side)
        if deviations[side.index, j] > quality.cut
    ]
    for _, side, j in sorted(found, key=lambda item: -item[0]):
        low, high = (float(end[j]) for end in usual[side])
        yield _flag(MEASURES[j], side, float(values[side.index, j]), low, high)


def _flag(measure: Measure, side: Side, value: float, low: float, high: float) -> Flag:
    place = "" if measure.of_pair else f"{side.value}: "
    usual = _range(low, high, measure.unit)
    message = f"{place}{measure.what} is {value:.3g}{measure.unit}, usual is {usual}. {measure.todo}."
    return Flag(f"unusual-{measure.name}", message, None if measure.of_pair else side)


def _range(low: float, high: float, unit: str) -> str:
    if math.isinf(low):
        return f"at most {high:.3g}{unit}"
    if math.isinf(high):
        return f"at least {low:.3g}{unit}"
    return f"{low:.3g} to {high:.3g}{unit}"
