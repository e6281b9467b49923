"""How far a map can be believed, as numbers, each beside chance and beside a network with randomised weights.

* Mass: the share of the map's absolute mass inside nigra and nigrosome-1, dilated by 2 mm.
* Pointing game: whether the strongest cell's centre lies within 4 mm of the nigra (Zhang 2018).
* Deletion and insertion (Petsiuk 2018): voxels in the order of the map's absolute value are blurred away, or brought
  back into the blurred image, and the change of the SBR is followed.

A high share of mass says that the map lies where the disease is; it does not say that the model is right. A map that
scores no better with trained than with random weights shows the image, not the model (Adebayo 2018).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.integrate import trapezoid

from nigradat.anatomy import PATCH_SHAPE, PATCH_SPACING_MM, Side, mirror
from nigradat.errors import ConfigError
from nigradat.explain.hirescam import LayerMaps, attributions
from nigradat.models.symmetric import build
from nigradat.models.weights import LoadedModel
from nigradat.phantom.anatomy import N1_BIT, SN_BIT, standard_shapes
from nigradat.uncertainty.mc_dropout import predict_sbr

Array = npt.NDArray[np.float64]
Patches = npt.NDArray[np.float32]
Progress = Callable[[int, int], None]

DILATION_MM: Final = 2.0
POINTING_MM: Final = 4.0
FRACTIONS: Final = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
BLUR_MM: Final = 4.0
_BLOCK: Final = 16
_STREAM: Final = 0x66  # of random weights: never those that a training began with


@dataclass(frozen=True, eq=False)
class Placement:
    """Where a map's mass lies. ``(n, 2)`` each, right first; NaN for a side without an answer.

    Attributes:
        mass: share of the absolute mass inside nigra and nigrosome-1, dilated.
        pointing: 1 where the strongest cell lies near the nigra, else 0.
    """

    mass: Array
    pointing: Array


@dataclass(frozen=True, eq=False)
class Curves:
    """Absolute change of the SBR while voxels go or come, ``(n, 2, len(FRACTIONS))``.

    Attributes:
        deletion: against the whole image; it rises fast where the map names the voxels that count.
        insertion: against the whole image; it falls fast there.
    """

    deletion: Array
    insertion: Array

    def area(self, which: str) -> Array:
        """Area under a curve in units of the mean change of a whole blur, ``(n, 2)``.

        Deletion: larger is better; insertion: smaller is better. Chance is what a random order gives.
        """
        curve: Array = getattr(self, which)
        whole = self.deletion[..., -1].mean(axis=0)
        area: Array = trapezoid(curve, FRACTIONS, axis=-1) / whole
        return area


@dataclass(frozen=True, eq=False)
class Faithfulness:
    """Of one layer's maps over some pairs.

    Attributes:
        layer: where the maps were taken.
        trained, randomised, chance: where the mass lies: of this model, of one with random weights, and of a map that
            has the same mass in each cell.
        trained_curves, randomised_curves, chance_curves: of this model when voxels are ordered by its own map, by that
            of the model with random weights, and by chance (cells of the same size); None where they were not asked
            for.
        residual: largest ``|prediction - baseline - sum of the map|``, in SBR.
        own_masks: the nigrae are those of the patients; otherwise those of the average phantom.
    """

    layer: str
    trained: Placement
    randomised: Placement
    chance: Placement
    trained_curves: Curves | None
    randomised_curves: Curves | None
    chance_curves: Curves | None
    residual: float
    own_masks: bool


def _random_seed(seed: int) -> int:
    return int(np.random.SeedSequence([seed, _STREAM]).generate_state(1)[0])


def faithfulness(
    loaded: LoadedModel,
    patches: Patches,
    masks: npt.NDArray[np.uint8] | None = None,
    *,
    layer: str = "last",
    curves: bool = True,
    seed: int = 0,
    progress: Progress | None = None,
) -> Faithfulness:
    """Measure the HiResCAM (or gradient) maps of one layer.

    Args:
        loaded: model.
        patches: native, ``(n, 2, 50, 50, 20)``, right first; not changed.
        masks: the same shape, bits of :mod:`nigradat.phantom.anatomy`; default the average phantom's shapes.
        layer: as for :func:`~nigradat.explain.hirescam.hirescam`; ``voxels`` or ``tokens`` for gradient maps.
        curves: also follow deletion and insertion (some 50 predictions a pair).
        seed: of the random weights and of the random order.
        progress: called with (curves done, curves in all) of the slower part, three a pair.

    Raises:
        ConfigError: a layer that the model does not have, or masks of another shape.

    Example:
        >>> found = faithfulness(nigradat.load("run"), cohort.patches[:50])                     # doctest: +SKIP
        >>> found.trained.mass.mean(), found.chance.mass.mean()                                 # doctest: +SKIP
    """
    if masks is not None and masks.shape != patches.shape:
        raise ConfigError(f"masks of shape {masks.shape}", f"that of the patches, {patches.shape}")
    (maps,) = attributions(loaded, patches, [layer]).values()
    other = LoadedModel(build(loaded.spec, seed=_random_seed(seed)).eval(), loaded.card, loaded.folder)
    (random_maps,) = attributions(other, patches, [layer]).values()
    regions = _regions(len(patches), masks)
    found: list[Curves | None] = [None, None, None]
    if curves:
        rng = np.random.default_rng([seed, 7])
        shuffled = rng.permuted(maps.values.reshape(*maps.values.shape[:2], -1), axis=2).reshape(maps.values.shape)
        orders = [maps.values, random_maps.values, shuffled]
        found = [
            _curves(loaded, patches, maps, order, None if progress is None else _shifted(progress, i, len(patches)))
            for i, order in enumerate(orders)
        ]
    flat = np.where(np.isnan(maps.values), np.nan, 1.0)
    return Faithfulness(
        layer=maps.layer,
        trained=_placement(maps, maps.values, regions),
        randomised=_placement(random_maps, random_maps.values, regions),
        chance=_placement(maps, flat, regions, everywhere=True),
        trained_curves=found[0],
        randomised_curves=found[1],
        chance_curves=found[2],
        residual=float(np.nanmax(np.abs(maps.residual))),
        own_masks=masks is not None,
    )


@dataclass(frozen=True, eq=False)
class _Region:
    """Of one patch in canonical view: the dilated nigra, and the distance of each voxel from the nigra in mm."""

    inside: npt.NDArray[np.bool_]
    distance_mm: Array


def _regions(n: int, masks: npt.NDArray[np.uint8] | None) -> list[tuple[_Region, _Region]]:
    if masks is None:
        shapes = standard_shapes()
        average = _region((shapes[SN_BIT] > 0.5) | (shapes[N1_BIT] > 0.5), shapes[SN_BIT] > 0.5)
        return [(average, average)] * n
    out = []
    for pair in masks:
        canonical = (np.asarray(mirror(pair[Side.RIGHT.index]), np.uint8), pair[Side.LEFT.index])
        right, left = (_region((m & (SN_BIT | N1_BIT)) > 0, (m & SN_BIT) > 0) for m in canonical)
        out.append((right, left))
    return out


def _region(nigra: npt.NDArray[np.bool_], sn: npt.NDArray[np.bool_]) -> _Region:
    from scipy import ndimage

    if not sn.any():
        raise ConfigError("a mask without any nigra", "voxels of the nigra on every side")
    around, distance = (ndimage.distance_transform_edt(~m, sampling=PATCH_SPACING_MM) for m in (nigra, sn))
    return _Region(around <= DILATION_MM, distance)


def _placement(
    maps: LayerMaps, values: Array, regions: list[tuple[_Region, _Region]], everywhere: bool = False
) -> Placement:
    """``everywhere``: the mean over all cells in place of the strongest one, which is what chance points to."""
    n = len(values)
    mass, pointing = np.full((n, 2), np.nan), np.full((n, 2), np.nan)
    for side in Side:
        grid = maps.grids[side.index]
        centres = [f + s * np.arange(cells) for f, s, cells in zip(grid.first, grid.step, grid.shape, strict=True)]
        nearest = [np.clip(np.round(c), 0, size - 1).astype(int) for c, size in zip(centres, PATCH_SHAPE, strict=True)]
        for row in range(n):
            strength = np.abs(values[row, side.index])
            if not np.isfinite(strength).all():
                continue
            region = regions[row][side.index]
            painted = grid.shared_out(strength)
            total = painted.sum()
            mass[row, side.index] = painted[region.inside].sum() / total if total > 0 else np.nan
            near = region.distance_mm[np.ix_(*nearest)] <= POINTING_MM
            strongest = np.unravel_index(int(strength.argmax()), strength.shape)
            pointing[row, side.index] = near.mean() if everywhere else float(near[strongest])
    return Placement(mass, pointing)


def _curves(loaded: LoadedModel, patches: Patches, maps: LayerMaps, values: Array, progress: Progress | None) -> Curves:
    """Voxels in the order of ``values``, which lie on the cells of ``maps``."""
    n = len(patches)
    out = np.full((2, n, 2, len(FRACTIONS)), np.nan)
    for start in range(0, n, _BLOCK):
        rows = slice(start, min(start + _BLOCK, n))
        native = np.asarray(patches[rows], dtype=np.float32)
        blurred = _blurred(native)
        rank = _ranks(maps, values[rows])
        whole = predict_sbr(loaded.model, native)
        for f, fraction in enumerate(FRACTIONS):
            gone = rank < fraction * rank[0, 0].size
            out[0, rows, :, f] = np.abs(predict_sbr(loaded.model, np.where(gone, blurred, native)) - whole)
            out[1, rows, :, f] = np.abs(predict_sbr(loaded.model, np.where(gone, native, blurred)) - whole)
        if progress is not None:
            progress(rows.stop, n)
    return Curves(out[0], out[1])


def _ranks(maps: LayerMaps, values: Array) -> npt.NDArray[np.int_]:
    """Place of each voxel in the order of the painted map, strongest first, native view, ``(m, 2, 50, 50, 20)``."""
    ranks = np.zeros((*values.shape[:2], *PATCH_SHAPE), dtype=np.int_)
    for side in Side:
        painted = maps.grids[side.index].shared_out(np.abs(values[:, side.index]))
        order = np.argsort(-painted.reshape(len(values), -1), axis=1, kind="stable")
        rank = np.empty_like(order)
        np.put_along_axis(rank, order, np.arange(order.shape[1])[None], axis=1)
        canonical = rank.reshape(-1, *PATCH_SHAPE)
        ranks[:, side.index] = mirror(canonical) if side is Side.RIGHT else canonical
    return ranks


def _blurred(patches: Patches) -> Patches:
    from scipy import ndimage

    sigma = [0.0, 0.0, *(BLUR_MM / size for size in PATCH_SPACING_MM)]
    out: Patches = ndimage.gaussian_filter(patches, sigma, mode="nearest").astype(np.float32)
    return out


def _shifted(progress: Progress, turn: int, n: int) -> Progress:
    return lambda done, _: progress(turn * n + done, 3 * n)
