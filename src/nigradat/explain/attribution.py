"""One side's SBR, taken apart over the image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nigradat.anatomy import Side

Array = npt.NDArray[np.float64]


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
