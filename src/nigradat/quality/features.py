"""How far a patch lies from the training patients in the space that the network thinks in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from nigradat.errors import CalibrationError
from nigradat.models.symmetric import PairRegressor
from nigradat.training.data import canonical_tensor

Array = npt.NDArray[np.float64]
CHUNK: Final = 8  # pairs through the tower at once
DIRECTIONS: Final = 32  # at most; the rest of the space counts as one variance
NEIGHBOURS: Final = 5
_PER_DIRECTION: Final = 4  # patches for each direction of its own, at least


def tower_features(model: PairRegressor, patches: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """What the tower makes of native patches ``(n, 2, 50, 50, 20)``: ``(n, 2, F)``, before dropout and last layer.

    NaN for a side that the model does not answer for. The model must be in evaluation mode, as loaded.
    """
    device = next(model.parameters()).device
    with torch.inference_mode():
        parts = [
            model.features(canonical_tensor(patches[start : start + CHUNK]).to(device)).cpu().numpy()
            for start in range(0, len(patches), CHUNK)
        ]
    out: npt.NDArray[np.float32] = np.concatenate(parts)
    return out


@dataclass(frozen=True, eq=False)
class FeatureSpace:
    """A normal distribution of features, and the patches that it was made from.

    The covariance is shrunk: the leading directions keep their own variance, all others share one, their mean
    (probabilistic principal components: Tipping and Bishop, J R Stat Soc B 1999, 61, 611).

    Attributes:
        mean: ``(F,)``.
        axes: ``(k, F)``, the leading directions, each divided by its SD: they whiten.
        rest_sd: SD along every other direction.
        bank: ``(m, k)``, the patches that it was made from, whitened.
    """

    mean: npt.NDArray[np.float32]
    axes: npt.NDArray[np.float32]
    rest_sd: float
    bank: npt.NDArray[np.float32]

    @classmethod
    def fit(cls, features: npt.NDArray[np.floating]) -> FeatureSpace:
        """From the features ``(m, F)`` of ``m`` patches.

        Raises:
            CalibrationError: fewer than 6 patches, values that are no number, or patches that are all alike.
        """
        x = np.asarray(features, dtype=np.float64)
        if len(x) <= NEIGHBOURS or not np.isfinite(x).all():
            raise CalibrationError(
                f"features of {len(x)} patches, {int(np.size(x) - np.isfinite(x).sum())} values of them no number",
                f"finite features of at least {NEIGHBOURS + 1} patches",
            )
        mean = x.mean(axis=0)
        _, singular, directions = np.linalg.svd(x - mean, full_matrices=False)
        variance = singular**2 / (len(x) - 1)
        varied = int(np.count_nonzero(singular > 1e-6 * max(singular[0], 1e-12)))
        if singular[0] <= 1e-12 or varied < 2:
            raise CalibrationError("features that are the same for every patch", "patches of different patients")
        k = max(1, min(DIRECTIONS, len(x) // _PER_DIRECTION, varied - 1))
        rest = float(variance[k:].sum()) / max(x.shape[1] - k, 1)
        axes = directions[:k] / np.sqrt(variance[:k, None])
        return cls(
            mean.astype(np.float32),
            axes.astype(np.float32),
            float(np.sqrt(max(rest, 1e-12 * variance[0]))),
            ((x - mean) @ axes.T).astype(np.float32),
        )

    def distances(self, features: npt.NDArray[np.floating]) -> Array:
        """How far features ``(m, F)`` are off, ``(m, 2)``: Mahalanobis, and mean distance to the nearest neighbours.

        Both are 1 on average or near it for patches like those of the fit: the first is divided by the root of the
        number of features, the second is in SDs along the leading directions. NaN features stay NaN.
        """
        x = np.asarray(features, dtype=np.float64) - self.mean
        axes = self.axes.astype(np.float64)
        white = x @ axes.T
        length = 1.0 / np.sum(axes**2, axis=1)  # variances along the axes
        rest = np.maximum(np.sum(x**2, axis=1) - np.sum(white**2 * length, axis=1), 0.0)
        mahalanobis = np.sqrt((np.sum(white**2, axis=1) + rest / self.rest_sd**2) / x.shape[1])
        apart = np.sqrt(np.maximum(_squared_distances(white, self.bank.astype(np.float64)), 0.0))
        nearest = np.partition(apart, NEIGHBOURS - 1, axis=1)[:, :NEIGHBOURS].mean(axis=1)
        return np.stack([mahalanobis, nearest / np.sqrt(len(axes))], axis=1)


def _squared_distances(a: Array, b: Array) -> Array:
    out: Array = np.sum(a**2, axis=1)[:, None] + np.sum(b**2, axis=1) - 2 * a @ b.T
    return out
