"""One side's SBR, taken apart over the image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nigradat.anatomy import PATCH_SHAPE, Side, mirror_grid

Array = npt.NDArray[np.float64]
Three = tuple[float, float, float]


@dataclass(frozen=True)
class CellGrid:
    """Where the cells of a map lie on a patch: boxes side by side, each as long as the way to the next.

    They need not cover the whole patch, and may stand out of it: a cell is never stretched or moved.

    Attributes:
        shape: number of cells along the three patch axes.
        first: patch index of the centre of cell 0, 0, 0 (whole at the middle of a voxel).
        step: patch voxels from one cell to the next.
    """

    shape: tuple[int, int, int]
    first: Three
    step: Three

    @classmethod
    def of(cls, shape: tuple[int, int, int], affine: npt.ArrayLike, patch_affine: npt.ArrayLike) -> CellGrid:
        """The grid of a map whose ``affine`` is that of cells parallel to the patch's axes."""
        to_patch = np.linalg.solve(np.asarray(patch_affine, dtype=np.float64), np.asarray(affine, dtype=np.float64))
        return cls(shape, _three(to_patch[:3, 3]), _three(np.diag(to_patch)[:3]))

    def affine(self, patch_affine: npt.ArrayLike) -> Array:
        """``(4, 4)`` from cell index to RAS+ mm."""
        from_cell = np.diag([*self.step, 1.0])
        from_cell[:3, 3] = self.first
        out: Array = np.asarray(patch_affine, dtype=np.float64) @ from_cell
        return out

    def mirrored(self) -> CellGrid:
        """The grid of values that went through :func:`nigradat.anatomy.mirror`."""
        return CellGrid(self.shape, _three(mirror_grid(self.first, self.step, self.shape)), self.step)

    def shared_out(self, values: npt.NDArray[np.floating]) -> Array:
        """Cell values painted onto the patch, their sum kept: each voxel takes its share of its cell.

        Args:
            values: ``(..., *shape)``.

        Returns:
            ``(..., 50, 50, 20)``; 0 where no cell lies. A cell that stands out of the patch gives all to what of it
            lies inside.
        """
        return self._painted(values, [cover / cover.sum(axis=1, keepdims=True) for cover in self._covers()])

    def shown(self, values: npt.NDArray[np.floating]) -> Array:
        """Cell values painted onto the patch as they are: each voxel shows its cell's value. For looking at."""
        return self._painted(values, self._covers())

    def _covers(self) -> list[Array]:
        """Along each axis, which part of each voxel each cell covers: ``(cells, voxels)``, from 0 to 1."""
        out = []
        for cells, first, step, voxels in zip(self.shape, self.first, self.step, PATCH_SHAPE, strict=True):
            centre = (first + step * np.arange(cells))[:, None]
            voxel = np.arange(voxels)
            low, high = np.maximum(centre - step / 2, voxel - 0.5), np.minimum(centre + step / 2, voxel + 0.5)
            out.append(np.clip(high - low, 0.0, 1.0))
        return out

    def _painted(self, values: npt.NDArray[np.floating], along: list[Array]) -> Array:
        painted = np.asarray(values, dtype=np.float64)
        for weights in along:  # the first axis of the three goes each time, and comes back as the last
            painted = np.tensordot(painted, weights, axes=(painted.ndim - 3, 0))
        return painted


@dataclass(frozen=True, eq=False)
class Attribution:
    """A signed map in SBR that, with the baseline, adds up to the prediction as far as the residual says.

    Attributes:
        method: ``hirescam``, ``gradient``, ``deepshap`` or ``expected-gradients``.
        side: whose SBR was taken apart.
        values: ``(i, j, k)`` on the map's own grid, in SBR: native view (never mirrored), never rescaled.
        affine: ``(4, 4)`` from index in ``values`` to RAS+ mm: each cell at its true position and size.
        prediction: the model's SBR without dropout.
        baseline: what the prediction would be without the map's parts: the bias for HiResCAM, the mean over the
            background patients for SHAP.
        layer: where a map of features was taken, or None for one on the voxels.
    """

    method: str
    side: Side
    values: Array
    affine: Array
    prediction: float
    baseline: float
    layer: str | None = None

    @property
    def residual(self) -> float:
        """``prediction - baseline - values.sum()``: 0 where the method is complete."""
        return float(self.prediction - self.baseline - np.sum(self.values))

    def grid(self, patch_affine: npt.ArrayLike) -> CellGrid:
        """Where the map's cells lie on the patch of this side that it explains."""
        i, j, k = self.values.shape
        return CellGrid.of((i, j, k), self.affine, patch_affine)

    def on_voxels(self, patch_affine: npt.ArrayLike) -> Array:
        """The map in SBR per voxel of the patch, ``(50, 50, 20)``, native view; its sum is that of ``values``."""
        return self.grid(patch_affine).shared_out(self.values)


def _three(values: npt.ArrayLike) -> Three:
    a, b, c = np.asarray(values, dtype=np.float64).tolist()
    return a, b, c
