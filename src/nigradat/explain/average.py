"""Average maps over a cohort: what a model looks at in patients of low, middle and high uptake.

All sides are laid over each other in the canonical view, in which every one looks like a left one. The thirds are
those of the labels, side by side: a patient's sides may fall into different ones.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

import numpy as np
import numpy.typing as npt

from nigradat.anatomy import PATCH_SPACING_MM, Side, to_canonical
from nigradat.errors import CohortError, ConfigError
from nigradat.explain.attribution import Three
from nigradat.explain.hirescam import attributions
from nigradat.io.pack import PackedCohort, load_cohort
from nigradat.models.weights import LoadedModel, load_model
from nigradat.training.fit import SPLIT_NAME
from nigradat.training.split import PARTS, Split

Array = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]

TEST: Final = "test"
SUBSETS: Final = (*PARTS, "validation")
GROUPS: Final = ("low", "middle", "high")
LIMIT: Final = 2000
_BLOCK: Final = 32  # visits in memory at once
_IMAGE, _PREDICTION = "(image)", "(prediction)"  # no layer is called so


@dataclass(frozen=True)
class Group:
    """A third of the sides by their label.

    Attributes:
        name: ``low``, ``middle`` or ``high``.
        sides: how many.
        lowest, highest, mean: of the labels, SBR.
        predicted: mean prediction, SBR.
    """

    name: str
    sides: int
    lowest: float
    highest: float
    mean: float
    predicted: float


@dataclass(frozen=True, eq=False)
class AverageMap:
    """The mean map of each group at one layer, in the canonical view.

    Attributes:
        layer: its full name.
        on_voxels: ``(3, 50, 50, 20)``, SBR per voxel; each sum is the group's mean sum.
        cells: ``(3, 50, 50, 20)``, each voxel with the value of its cell in SBR: what is drawn.
        cell_mm: size of a cell along the patch axes.
        residual: ``(3,)``, the group's mean of prediction - baseline - sum.
    """

    layer: str
    on_voxels: Array
    cells: Array
    cell_mm: Three
    residual: Array

    @property
    def total(self) -> Array:
        """``(3,)``, SBR: what the map adds to the baseline, on average."""
        total: Array = self.on_voxels.sum(axis=(1, 2, 3))
        return total


@dataclass(frozen=True, eq=False)
class AverageMaps:
    """Average maps of a model over a cohort.

    Attributes:
        groups: by rising label.
        maps: one a layer.
        image: ``(3, 50, 50, 20)``, each group's mean patch (divided by its own mean), canonical view.
        baseline: the last layer's bias as SBR, right and left; NaN for a side without an answer.
        visits: how many were read.
        subset: which part of the cohort they are, ``all`` of a cohort that did not train the model.
        is_phantom: the patches are simulated.
    """

    groups: tuple[Group, Group, Group]
    maps: tuple[AverageMap, ...]
    image: Array
    baseline: tuple[float, float]
    visits: int
    subset: str
    is_phantom: bool


def average_maps(
    run: LoadedModel | str | os.PathLike[str],
    cohort: PackedCohort | str | os.PathLike[str],
    *,
    layers: Sequence[str] | None = None,
    subset: str = TEST,
    limit: int = LIMIT,
    progress: Progress | None = None,
) -> AverageMaps:
    """The mean HiResCAM map of the sides with low, middle and high SBR.

    Patches are read a few at a time, so the cohort may be larger than the memory.

    Args:
        run: model, or its folder.
        cohort: labelled; of the run's own cohort a part is taken, any other is taken whole.
        layers: as for :func:`nigradat.explain.hirescam.attributions`; default the last and the third block.
        subset: ``test``, or ``train``, ``stop``, ``calibration`` or ``validation`` of the run's own cohort.
        limit: visits at most; of more, evenly spaced ones.
        progress: called with (visits done, visits in all).

    Raises:
        CohortError: no labels, or too few different ones to make three groups.
        ConfigError: an unknown layer or subset, or a subset of another cohort.
        WeightsError: no finished model in ``run``.

    Example:
        >>> found = nigradat.average_maps("run", "cohort")                                      # doctest: +SKIP
        >>> [(g.name, g.mean, total) for g, total in zip(found.groups, found.maps[0].total)]    # doctest: +SKIP
    """
    loaded = run if isinstance(run, LoadedModel) else load_model(run)
    data = cohort if isinstance(cohort, PackedCohort) else load_cohort(cohort)
    rows, part = chosen_rows(loaded, data, subset)
    if len(rows) > limit:
        rows = rows[np.linspace(0, len(rows) - 1, limit).round().astype(int)]
    sides = loaded.model.sides
    labels = data.sbr[rows]
    member = _thirds(data, labels, sides)

    sums: dict[tuple[str, Side], Array] = {}
    for start in range(0, len(rows), _BLOCK):
        block = slice(start, start + _BLOCK)
        patches = np.stack([data.read(int(row)) for row in rows[block]])
        seen = to_canonical(patches) / patches.mean(axis=(2, 3, 4), keepdims=True)
        found = attributions(loaded, patches, layers)
        any_layer = next(iter(found.values()))
        summands = {_IMAGE: seen, _PREDICTION: any_layer.prediction} | {name: m.values for name, m in found.items()}
        for (name, values), side in product(summands.items(), sides):
            added = np.tensordot(member[:, block, side.index], values[:, side.index], axes=1)
            sums[name, side] = sums.get((name, side), 0.0) + added
        if progress is not None:
            progress(min(start + _BLOCK, len(rows)), len(rows))

    counts = member.sum(axis=1)  # (group, side)
    per_group = (counts.sum(axis=1))[:, None, None, None]
    predicted = sum(sums[_PREDICTION, side] for side in sides) / counts.sum(axis=1)
    beyond = predicted - np.nansum(counts * any_layer.baseline, axis=1) / counts.sum(axis=1)
    averages = []
    for name, maps in found.items():
        grids = {side: maps.grids[side.index] for side in sides}
        on_voxels = sum(grids[side].shared_out(sums[name, side]) for side in sides) / per_group
        cells = sum(grids[side].shown(sums[name, side]) for side in sides) / per_group
        i, j, k = (step * mm for step, mm in zip(maps.grids[0].step, PATCH_SPACING_MM, strict=True))
        averages.append(AverageMap(name, on_voxels, cells, (i, j, k), beyond - on_voxels.sum(axis=(1, 2, 3))))
    return AverageMaps(
        groups=_groups(labels, member, predicted),
        maps=tuple(averages),
        image=sum(sums[_IMAGE, side] for side in sides) / per_group,
        baseline=(float(any_layer.baseline[0]), float(any_layer.baseline[1])),
        visits=len(rows),
        subset=part,
        is_phantom=data.is_phantom,
    )


def chosen_rows(loaded: LoadedModel, data: PackedCohort, subset: str = TEST) -> tuple[npt.NDArray[np.intp], str]:
    """Rows of a part of the run's own cohort; of any other cohort all. And what to call them: the part, or ``all``.

    Raises:
        ConfigError: an unknown part, or a part of another cohort than the run's own.
        CohortError: the part is empty, or the split is not the one that the model was trained with.
    """
    if subset not in SUBSETS:
        raise ConfigError(f"the subset '{subset}'", ", ".join(SUBSETS))
    training = loaded.card.get("training", {})
    if training.get("cohort_sha256") != data.sha256:
        if subset != TEST:
            raise ConfigError(
                f"the subset '{subset}' of a cohort that did not train this model",
                "a part of the run's own cohort; another cohort is taken whole",
            )
        return np.arange(len(data)), "all"
    split = Split.load(loaded.folder / SPLIT_NAME)
    if split.sha256 != training.get("split_sha256"):
        raise CohortError(
            f"{loaded.folder / SPLIT_NAME} is not the split that the model was trained with",
            "the file that the training wrote",
            "Take a fresh copy of the whole run folder",
        )
    rows = split.rows(data, subset)
    if not len(rows):
        raise CohortError(f"no visits in '{subset}'", "at least one")
    return rows, subset


def _thirds(data: PackedCohort, labels: Array, sides: Sequence[Side]) -> Array:
    """Which side of which visit is in which group: ``(3, n, 2)`` of 0 and 1; 0 for sides that are not answered."""
    asked = [side.index for side in sides]
    missing = int(np.count_nonzero(~np.isfinite(labels[:, asked]).all(axis=1)))
    if missing:
        raise CohortError(f"{missing} of {len(labels)} visits of {data.folder} have no SBR label", "labels to group by")
    low, high = np.quantile(labels[:, asked], [1 / 3, 2 / 3])
    member = np.stack([labels <= low, (labels > low) & (labels <= high), labels > high]).astype(np.float64)
    member[:, :, [side.index for side in Side if side not in sides]] = 0.0
    if not member.any(axis=(1, 2)).all():
        raise CohortError(
            f"{len(np.unique(labels[:, asked]))} different labels in {len(labels)} visits", "three groups by SBR"
        )
    return member


def _groups(labels: Array, member: Array, predicted: Array) -> tuple[Group, Group, Group]:
    low, middle, high = (
        Group(name, int(inside.sum()), float(own.min()), float(own.max()), float(own.mean()), float(mean))
        for name, inside, mean in zip(GROUPS, member.astype(bool), predicted, strict=True)
        for own in (labels[inside],)
    )
    return low, middle, high
