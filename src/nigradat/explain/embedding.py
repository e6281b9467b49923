"""What a tower makes of a cohort: its features on a plane, and whether sides that lie together have the same SBR.

A plane (PCA, t-SNE) is for looking; what is measured is measured in the whole feature space, by Euclidean distance.
Each side's nearest neighbours are sought among the SAME side of OTHER patients. So every method is asked the same
question with as many candidates, whether it has one network for both sides or one for each (whose features cannot be
compared with each other's), and no patient is his own neighbour.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from nigradat.anatomy import PATCH_SHAPE, Side
from nigradat.errors import CohortError, ConfigError, MissingExtraError
from nigradat.evaluation.weighted import moment_errors, patient_weights
from nigradat.explain.average import SUBSETS, TEST, chosen_rows
from nigradat.explain.hirescam import at_rest
from nigradat.io.manifest import Participant
from nigradat.io.pack import PackedCohort, load_cohort
from nigradat.metrics.cases import PerSide
from nigradat.metrics.resampling import Estimate, bca_many
from nigradat.models.weights import LoadedModel, load_model
from nigradat.training.data import canonical_tensor
from nigradat.training.fit import SPLIT_NAME
from nigradat.training.split import PARTS, Split

Array = npt.NDArray[np.float64]
Features = npt.NDArray[np.float32]
Rows = npt.NDArray[np.intp]
Model = LoadedModel | str | os.PathLike[str]
Progress = Callable[[int, int], None]

ALL: Final = "all"
LIMIT: Final = 1000
CHUNK: Final = 8  # pairs through the tower at once
SCORES: Final = ("agreement", "pearson_r", "mae", "own_pearson_r", "own_mae")
_BEFORE_TSNE: Final = 50  # principal components that t-SNE starts from, as its authors do
_BLOCK: Final = 512  # sides whose distances to all others are in memory at once


@dataclass(frozen=True, eq=False)
class Neighbours:
    """What the nearest other patients say about each side. All ``(n, 2)``, right first, SBR; NaN without an answer.

    Attributes:
        k: how many.
        predicted: mean label of the neighbours.
        difference: mean absolute difference of their labels from the side's own.
        by_chance: the same mean over all other patients: what is expected of neighbours drawn blindly.
    """

    k: int
    predicted: Array
    difference: Array
    by_chance: Array


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """One model's features of a cohort.

    Attributes:
        name: for files, unlike that of any other model in the same comparison.
        title: for people.
        joint: both sides lie in one space; else each side has a network, and a plane, of its own.
        tsne, pca: ``(n, 2, 2)``: visit, side (right first), axis; NaN for a side without an answer.
        explained: ``(2, 2)``: share of each side's variance that each PCA axis holds; equal rows where ``joint``.
        predicted: ``(n, 2)`` SBR, the model's own answer.
        neighbours: in the whole feature space.
        scores: by :data:`SCORES`: ``agreement`` (see :func:`neighbour_scores`), R and MAE of the neighbours' mean, R
            and MAE of the model's own answer; None for a side without an answer, and then for the average.
    """

    name: str
    title: str
    joint: bool
    tsne: Array
    pca: Array
    explained: Array
    predicted: Array
    neighbours: Neighbours
    scores: Mapping[str, PerSide[Estimate | None]]


@dataclass(frozen=True, eq=False)
class FeatureMaps:
    """Features of the same visits by several models.

    Attributes:
        models: in the order asked for.
        participants: the visits.
        parts: part of the split that each visit belongs to, ``n/a`` where the models have none in common.
        sbr: labels, ``(n, 2)``, right first.
        chance_mae: of the mean of all other patients in the place of neighbours, SBR: right, left and average.
        subset: what was asked for; ``all`` of a cohort that trained none of the models.
        available: visits in it, of which evenly spaced ones were taken.
        is_phantom: the patches are simulated.
        phantom_trained: one of the models was trained on the digital phantom.
        perplexity, seed: of the t-SNE; the seed also of the bootstrap.
    """

    models: tuple[FeatureMap, ...]
    participants: tuple[Participant, ...]
    parts: tuple[str, ...]
    sbr: Array
    chance_mae: PerSide[float]
    subset: str
    available: int
    is_phantom: bool
    phantom_trained: bool
    perplexity: float
    seed: int

    @property
    def label(self) -> str:
        """What must stand on every table and figure; empty for patients alone."""
        if self.is_phantom:
            return "digital phantom, not patients"
        return "model trained on a digital phantom" if self.phantom_trained else ""


def map_features(
    cohort: PackedCohort | str | os.PathLike[str],
    models: Sequence[Model],
    *,
    subset: str = TEST,
    limit: int = LIMIT,
    neighbours: int = 10,
    perplexity: float = 30.0,
    seed: int = 0,
    progress: Progress | None = None,
) -> FeatureMaps:
    """Features, planes and neighbours of one cohort by one or several models.

    Patches are read a few at a time, so the cohort may be larger than the memory.

    Args:
        cohort: labelled; of the models' own cohort a part is taken, any other is taken whole.
        models: model folders, or loaded.
        subset: ``test``, ``train``, ``stop``, ``calibration``, ``validation``, or ``all`` for the whole cohort.
        limit: visits at most; of more, evenly spaced ones.
        neighbours: how many; 10 are near enough to be alike and enough to average over.
        perplexity: of the t-SNE, roughly the number of neighbours that it tries to keep together.
        seed: of t-SNE and bootstrap.
        progress: called with (visits done, visits in all), over all models.

    Raises:
        CohortError: labels missing, too few patients, or models whose parts are not the same visits.
        ConfigError: no model, an unknown subset, or numbers that do not fit the cohort.
        MissingExtraError: scikit-learn is not installed.
        WeightsError: no finished model in a folder.

    Example:
        >>> found = map_features("cohort", ["run"])                                             # doctest: +SKIP
        >>> found.models[0].scores["agreement"].average                                         # doctest: +SKIP
    """
    if not models:
        raise ConfigError("no model", "at least one model folder")
    data = cohort if isinstance(cohort, PackedCohort) else load_cohort(cohort)
    loaded = [model if isinstance(model, LoadedModel) else load_model(model) for model in models]
    everyone, part = _rows_of_all(loaded, data, subset)
    rows = everyone[np.unique(np.linspace(0, len(everyone) - 1, min(limit, len(everyone))).round().astype(int))]
    sbr, patients = data.sbr[rows], [data.patient_ids[row] for row in rows]
    _check(data, sbr, patients, neighbours, perplexity)
    names, titles = _names(loaded)
    found = []
    for i, model in enumerate(loaded):

        def count(done: int, before: int = i * len(rows)) -> None:
            if progress is not None:
                progress(before + done, len(loaded) * len(rows))

        features = tower_features(model, _counted(data, rows, count))
        found.append(_map(model, names[i], titles[i], features, sbr, patients, neighbours, perplexity, seed))
    right, left = np.abs(_mean_of_others(sbr, patients) - sbr).mean(axis=0)
    return FeatureMaps(
        models=tuple(found),
        participants=tuple(data.participants[row] for row in rows),
        parts=_parts(loaded, data, rows),
        sbr=sbr,
        chance_mae=PerSide(float(right), float(left), float(right + left) / 2),
        subset=part,
        available=len(everyone),
        is_phantom=data.is_phantom,
        phantom_trained=any(model.is_phantom_trained for model in loaded),
        perplexity=perplexity,
        seed=seed,
    )


# -- Features and planes ------------------------------------------------------------------------------------------


def tower_features(loaded: LoadedModel, patches: Iterable[npt.NDArray[np.float32]], *, chunk: int = CHUNK) -> Features:
    """What the last layer before the head puts out, without dropout.

    Args:
        loaded: model; left as it was.
        patches: native pairs ``(2, 50, 50, 20)``, right first: an array ``(n, 2, 50, 50, 20)``, or one pair after the
            other from anywhere.
        chunk: pairs at once.

    Returns:
        ``(n, 2, F)``, right first, of the patches in canonical view (the right one mirrored); NaN for a side that the
        model does not answer for.

    Raises:
        ConfigError: pairs of another shape, or none.
    """
    stream, out = iter(patches), []
    dtype = next(loaded.model.parameters()).dtype
    with at_rest(loaded.model) as device, torch.inference_mode():
        while block := list(islice(stream, chunk)):
            if block[0].shape != (2, *PATCH_SHAPE):
                raise ConfigError(f"a pair of shape {block[0].shape}", f"{(2, *PATCH_SHAPE)}, right first")
            x = canonical_tensor(np.stack(block)).to(device, dtype)
            out.append(loaded.model.features(x).float().cpu().numpy())
    if not out:
        raise ConfigError("no pairs", "at least one")
    features: Features = np.concatenate(out)
    return features


def pca(points: npt.ArrayLike, components: int = 2) -> tuple[Array, Array]:
    """Principal components by singular value decomposition.

    Args:
        points: ``(m, F)``.
        components: how many; no more than there are come back.

    Returns:
        Coordinates ``(m, components)`` and the share of the variance that each holds. The sign of an axis is such that
        the point farthest out lies on the positive side.
    """
    centred = np.asarray(points, dtype=np.float64)
    centred = centred - centred.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    coordinates = u[:, :components] * s[:components]
    farthest = np.take_along_axis(coordinates, np.abs(coordinates).argmax(axis=0)[None], axis=0)
    total = float(np.square(s).sum())
    explained = np.square(s[:components]) / (total or 1.0)
    return coordinates * np.where(farthest < 0, -1.0, 1.0), explained


def tsne(points: npt.ArrayLike, *, perplexity: float = 30.0, seed: int = 0) -> Array:
    """t-SNE on a plane, from the first 50 principal components.

    Source: van der Maaten and Hinton, J Mach Learn Res 2008, 9, 2579; scikit-learn's implementation (Barnes-Hut),
    started from the first two principal components.

    Args:
        points: ``(m, F)``.
        perplexity: below m.
        seed: same seed, same plane on one machine.

    Returns:
        ``(m, 2)``. Who lies next to whom means something; distances between groups and their sizes do not.

    Raises:
        ConfigError: a perplexity that is not above 0 and below the number of points.
        MissingExtraError: scikit-learn is not installed.
    """
    reduced, _ = pca(points, _BEFORE_TSNE)
    if not 0 < perplexity < len(reduced):
        raise ConfigError(f"a perplexity of {perplexity:g} for {len(reduced)} sides", "above 0 and below that number")
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "explain") from error
    plane: Array = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(reduced)
    return np.asarray(plane, dtype=np.float64)


# -- Neighbours ---------------------------------------------------------------------------------------------------


def find_neighbours(features: npt.ArrayLike, sbr: npt.ArrayLike, patients: Sequence[str], k: int = 10) -> Neighbours:
    """The ``k`` nearest of the same side of other patients, and their labels.

    Args:
        features: ``(n, 2, F)``, right first; NaN for a side without an answer.
        sbr: labels, ``(n, 2)``.
        patients: whose visit each row is; a patient's other visits are no neighbours.
        k: how many.

    Raises:
        ConfigError: ``k`` below 1, or more than there are visits of other patients.
    """
    x, y = np.asarray(features), np.asarray(sbr, dtype=np.float64)
    _, who = np.unique(np.asarray(patients), return_inverse=True)
    fewest = len(y) - int(np.bincount(who).max())
    if not 1 <= k <= fewest:
        raise ConfigError(f"{k} neighbours among {len(y)} visits", f"1 to {fewest}, the visits of other patients")
    predicted, difference, by_chance = (np.full(y.shape, np.nan) for _ in range(3))
    for side in Side:
        points, labels = x[:, side.index].astype(np.float64), y[:, side.index]
        if not np.isfinite(points).all():
            continue
        points = points - points.mean(axis=0)  # squares of smaller numbers lose less
        squares = np.square(points).sum(axis=1)
        for start in range(0, len(points), _BLOCK):
            block = slice(start, start + _BLOCK)
            own = who[block, None] == who
            distance = squares[block, None] + squares - 2 * points[block] @ points.T
            nearest = np.argsort(np.where(own, np.inf, distance), axis=1, kind="stable")[:, :k]
            apart = np.abs(labels[block, None] - labels)
            predicted[block, side.index] = labels[nearest].mean(axis=1)
            difference[block, side.index] = np.take_along_axis(apart, nearest, axis=1).mean(axis=1)
            by_chance[block, side.index] = apart.mean(axis=1, where=~own)
    return Neighbours(k, predicted, difference, by_chance)


def neighbour_scores(
    found: Neighbours, sbr: npt.ArrayLike, predicted: npt.ArrayLike, patients: Sequence[str], *, seed: int = 0
) -> dict[str, PerSide[Estimate | None]]:
    """How well neighbours agree in SBR, with BCa intervals over patients.

    ``agreement`` is ``1 - mean |y_i - y_j| over neighbours / mean |y_i - y_j| over all other patients``. It is 1 where
    neighbours have the same label, and its expectation is exactly 0 where neighbours have nothing to do with it: the
    denominator is that expectation, so no permutation is needed. Below 0 neighbours differ more than by chance.

    In the bootstrap the patients who are asked are drawn anew, the neighbours whom they name stay: a patient drawn
    twice would otherwise be his own nearest neighbour.

    Args:
        found: neighbours.
        sbr: labels, ``(n, 2)``.
        predicted: ``(n, 2)`` SBR, the model's own answer, scored beside them.
        patients: whose visit each row is.
        seed: of the bootstrap.

    Returns:
        :data:`SCORES` of right, left and their mean.

    Raises:
        CohortError: fewer than two patients.
    """
    y, own = np.asarray(sbr, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    names, who = np.unique(np.asarray(patients), return_inverse=True)
    sides = [side for side in Side if np.isfinite(found.predicted[:, side.index]).all()]
    errors = {
        side: [moment_errors(y[:, side.index], p[:, side.index]) for p in (found.predicted, own)] for side in sides
    }

    def statistics(index: Rows) -> dict[str, Array]:
        weights = patient_weights(index, who)
        out: dict[str, Array] = {}
        for side in sides:
            near, chance = (v[:, side.index] @ weights for v in (found.difference, found.by_chance))
            of_neighbours, of_model = (score(weights) for score in errors[side])
            with np.errstate(divide="ignore", invalid="ignore"):
                out[f"agreement/{side.value}"] = 1 - near / chance
            for name in ("pearson_r", "mae"):
                out[f"{name}/{side.value}"] = of_neighbours[name]
                out[f"own_{name}/{side.value}"] = of_model[name]
        if len(sides) == 2:
            out |= {f"{name}/average": (out[f"{name}/right"] + out[f"{name}/left"]) / 2 for name in SCORES}
        return out

    done = bca_many(statistics, len(names), seed=seed)
    return {name: PerSide(*(done.get(f"{name}/{part}") for part in ("right", "left", "average"))) for name in SCORES}


# -- Parts --------------------------------------------------------------------------------------------------------


def _rows_of_all(loaded: Sequence[LoadedModel], data: PackedCohort, subset: str) -> tuple[Rows, str]:
    """The rows that every model calls by that name."""
    if subset == ALL:
        return np.arange(len(data)), ALL
    if subset not in SUBSETS:
        raise ConfigError(f"the subset '{subset}'", ", ".join((*SUBSETS, ALL)))
    chosen = [chosen_rows(model, data, subset) for model in loaded]
    rows, part = chosen[0]
    for model, (others, _) in zip(loaded, chosen, strict=True):
        if not np.array_equal(rows, others):
            raise CohortError(
                f"the part '{subset}' of {model.folder} is not that of {loaded[0].folder}",
                "models that were trained on the same split of this cohort",
                "Compare them on the whole cohort (--subset all), or on one that trained none of them",
            )
    return rows, part


def _check(data: PackedCohort, sbr: Array, patients: Sequence[str], neighbours: int, perplexity: float) -> None:
    """Refuse what would fail only after the towers have run."""
    missing = int(np.count_nonzero(~np.isfinite(sbr).all(axis=1)))
    if missing:
        raise CohortError(
            f"{missing} of {len(sbr)} visits of {data.folder} have no SBR label", "both SBR values for every visit"
        )
    if len(set(patients)) < 3:
        raise CohortError(f"{len(set(patients))} patients", "at least 3 to look for neighbours")
    fewest = len(patients) - max(patients.count(patient) for patient in set(patients))
    if not 1 <= neighbours <= fewest:
        raise ConfigError(f"--neighbours {neighbours}", f"1 to {fewest}, the visits of other patients")
    if not 0 < perplexity < len(sbr):
        raise ConfigError(f"--perplexity {perplexity:g} with {len(sbr)} visits", "above 0 and below that number")


def _names(loaded: Sequence[LoadedModel]) -> tuple[list[str], list[str]]:
    """File names and titles, with a number behind those that are not the only ones."""
    names = [str(model.card.get("name") or model.folder.name) for model in loaded]
    titles = [str(model.card.get("title") or model.folder.name) for model in loaded]
    several = [names.count(name) > 1 for name in names]
    for i, model in enumerate(loaded):
        if several[i]:
            names[i], titles[i] = f"{names[i]}-{i + 1}", f"{titles[i]} ({i + 1}: {model.folder.name})"
    return names, titles


def _counted(data: PackedCohort, rows: Rows, count: Callable[[int], None]) -> Iterator[npt.NDArray[np.float32]]:
    for done, row in enumerate(rows, start=1):
        yield data.read(int(row))
        count(done)


def _map(
    model: LoadedModel,
    name: str,
    title: str,
    features: Features,
    sbr: Array,
    patients: Sequence[str],
    k: int,
    perplexity: float,
    seed: int,
) -> FeatureMap:
    dtype = next(model.model.parameters()).dtype
    with at_rest(model.model) as device, torch.inference_mode():
        heads = model.model.heads(torch.from_numpy(features).to(device, dtype))
        predicted = heads.double().cpu().numpy() * model.spec.sbr_max
    joint = model.spec.sharing == "shared"
    by_tsne, by_pca = (np.full((len(features), 2, 2), np.nan) for _ in range(2))
    explained = np.full((2, 2), np.nan)
    answered = model.model.sides
    for sides in (answered,) if joint else tuple((side,) for side in answered):
        of = [side.index for side in sides]
        points = features[:, of].reshape(len(features) * len(of), -1)
        by_tsne[:, of] = tsne(points, perplexity=perplexity, seed=seed).reshape(-1, len(of), 2)
        components, explained[of] = _plane(points)
        by_pca[:, of] = components.reshape(-1, len(of), 2)
    found = find_neighbours(features, sbr, patients, k)
    scores = neighbour_scores(found, sbr, predicted, patients, seed=seed)
    return FeatureMap(name, title, joint, by_tsne, by_pca, explained, predicted, found, scores)


def _plane(points: Features) -> tuple[Array, Array]:
    """Two principal components; the second is 0 where the features are a single number."""
    coordinates, explained = pca(points, 2)
    missing = 2 - coordinates.shape[1]
    return np.pad(coordinates, ((0, 0), (0, missing))), np.pad(explained, (0, missing))


def _mean_of_others(sbr: Array, patients: Sequence[str]) -> Array:
    """``(n, 2)``: mean label of the same side of all other patients."""
    _, who = np.unique(np.asarray(patients), return_inverse=True)
    sums, counts = np.zeros((int(who.max()) + 1, 2)), np.bincount(who)
    np.add.at(sums, who, sbr)
    others: Array = (sbr.sum(axis=0) - sums[who]) / (len(sbr) - counts[who])[:, None]
    return others


def _parts(loaded: Sequence[LoadedModel], data: PackedCohort, rows: Rows) -> tuple[str, ...]:
    """The part of each visit, where the models share a split of this cohort."""
    training = [model.card.get("training", {}) for model in loaded]
    own = all(t.get("cohort_sha256") == data.sha256 for t in training)
    if not own or len({t.get("split_sha256") for t in training}) > 1:
        return ("n/a",) * len(rows)
    split = Split.load(loaded[0].folder / SPLIT_NAME)
    part_of = {patient: part for part in PARTS for patient in getattr(split, part)}
    return tuple(part_of[data.patient_ids[row]] for row in rows)
