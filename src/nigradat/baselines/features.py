"""The trivial bar: six hand-made features of a patch and ridge regression. A net that does not beat it is not trained.

The features read what a radiologist looks at: is there a bright nigrosome-1 in the dark substantia nigra, how dark
is the nigra beside the red nucleus (iron that age brings darkens both), how much of the patch is dark. The boxes and
the six were chosen by hand, in millimetres around the nigrosome-1 site, on a development cohort of the phantom.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nigradat.anatomy import PATCH_CENTRE, PATCH_SHAPE, PATCH_SPACING_MM
from nigradat.errors import CohortError, ImageError, WeightsError

Array = npt.NDArray[np.float64]
Box = tuple[slice, slice, slice]

FEATURE_NAMES: Final = (
    "n1_site_mean",  # a lost nigrosome-1 leaves the site as dark as the nigra around it
    "n1_site_p25",
    "nigra_dark_mean",  # the darkest quarter of the nigral region
    "red_nucleus_median",  # iron that is no sign of the disease
    "dark_volume_mm3",  # nigra and red nucleus together
    "patch_p10",
)
DARK: Final = 0.62  # of the patch's mean: below it lie nigra, red nucleus and veins
_VOXEL_MM3: Final = float(np.prod(PATCH_SPACING_MM))
ALPHAS: Final = tuple(float(a) for a in np.logspace(-3, 5, 33))


def _box(centre_mm: tuple[float, float, float], size_mm: tuple[float, float, float]) -> Box:
    """Voxels of a box placed relative to the nigrosome-1 site: anterior, lateral, inferior (canonical view)."""
    ends = [
        (round(middle + 0.5 + (centre - size / 2) / spacing), round(middle + 0.5 + (centre + size / 2) / spacing))
        for middle, centre, size, spacing in zip(PATCH_CENTRE, centre_mm, size_mm, PATCH_SPACING_MM, strict=True)
    ]
    first, second, third = (slice(low, high) for low, high in ends)
    return first, second, third


def ellipsoid(
    centre_mm: tuple[float, float, float], semi_mm: tuple[float, float, float], axes: npt.ArrayLike
) -> npt.NDArray[np.bool_]:
    """Voxels ``(50, 50, 20)`` whose centres lie in an ellipsoid placed relative to the nigrosome-1 site.

    Args:
        centre_mm: anterior, lateral, inferior of the site, in the canonical view.
        semi_mm: half lengths along ``axes``.
        axes: three perpendicular unit vectors in rows, ``(3, 3)``.
    """
    voxels = np.moveaxis(np.indices(PATCH_SHAPE), 0, -1)
    position = (voxels - np.array(PATCH_CENTRE)) * np.array(PATCH_SPACING_MM)
    own = (position - np.array(centre_mm)) @ np.asarray(axes, dtype=np.float64).T / np.array(semi_mm)
    return np.asarray((own**2).sum(axis=-1) <= 1.0)


_N1_CORE: Final = _box((0.0, 0.0, 0.0), (3.0, 3.0, 2.0))
_N1_SITE: Final = _box((0.0, 0.0, 0.0), (5.0, 5.0, 4.0))
_NIGRA: Final = _box((3.0, 1.0, -2.0), (10.0, 8.0, 8.0))
RED_NUCLEUS_BOX: Final = _box((0.5, -5.0, -4.0), (5.0, 5.0, 4.0))


def hand_made_features(canonical: npt.NDArray[np.floating]) -> Array:
    """Six features of each patch, see :data:`FEATURE_NAMES`; each patch is first divided by its own mean.

    Args:
        canonical: shape ``(..., 50, 50, 20)``, right patches mirrored (:func:`nigradat.anatomy.to_canonical`);
            read patch by patch, so that a memory-mapped cohort stays on disk.

    Returns:
        Shape ``(..., 6)``: intensities in units of the patch's mean, the dark volume in mm3.

    Raises:
        ImageError: another patch shape, or a patch whose mean is not a positive number.
    """
    return each_patch(canonical, _features_of, len(FEATURE_NAMES))


def each_patch(
    patches: npt.NDArray[np.floating], features_of: Callable[[npt.NDArray[np.float32]], Sequence[float]], count: int
) -> Array:
    """``count`` features of each patch, ``(..., count)``, of patches ``(..., 50, 50, 20)`` that are read one by one.

    Raises:
        ImageError: another patch shape, or what ``features_of`` finds.
    """
    if patches.shape[-3:] != PATCH_SHAPE:
        raise ImageError(f"patches of shape {patches.shape}", f"(..., {', '.join(map(str, PATCH_SHAPE))})")
    leading = patches.shape[:-3]
    out = np.empty((*leading, count))
    for position in np.ndindex(leading):
        out[position] = features_of(np.asarray(patches[position], dtype=np.float32))
    return out


def own_mean(patch: npt.NDArray[np.float32]) -> float:
    """The mean that intensities are divided by.

    Raises:
        ImageError: it is not a positive number.
    """
    mean = float(patch.mean(dtype=np.float64))
    if not (np.isfinite(mean) and mean > 0):
        raise ImageError(f"a patch with mean {mean}", "positive finite intensities")
    return mean


def _features_of(patch: npt.NDArray[np.float32]) -> list[float]:
    mean = own_mean(patch)
    nigra = np.sort(patch[_NIGRA], axis=None)
    intensities = (
        patch[_N1_CORE].mean(dtype=np.float64),
        np.percentile(patch[_N1_SITE], 25),
        nigra[: nigra.size // 4].mean(dtype=np.float64),
        np.median(patch[RED_NUCLEUS_BOX]),
        np.percentile(patch, 10),
    )
    *regions, p10 = (float(value) / mean for value in intensities)
    return [*regions, np.count_nonzero(patch < DARK * mean) * _VOXEL_MM3, p10]


@dataclass(frozen=True)
class RidgeBaseline:
    """Ridge regression of SBR on features; both sides of all training patients are samples of one regression.

    Attributes:
        names: the features, in order.
        mean, sd: of each feature among the training samples; a feature that never varies has ``sd`` 1.
        coefficients: SBR per standard deviation of a feature.
        intercept: SBR at the mean features.
        alpha: the penalty, in units of training samples.
        loo_rmse: leave-one-patient-out RMSE (SBR) among the training patients at that penalty.
        n_patients: training patients.
    """

    names: tuple[str, ...]
    mean: tuple[float, ...]
    sd: tuple[float, ...]
    coefficients: tuple[float, ...]
    intercept: float
    alpha: float
    loo_rmse: float
    n_patients: int

    @classmethod
    def fit(
        cls,
        features: npt.ArrayLike,
        sbr: npt.ArrayLike,
        names: tuple[str, ...] = FEATURE_NAMES,
        alphas: tuple[float, ...] = ALPHAS,
    ) -> RidgeBaseline:
        """Fit on training patients only; the penalty is the one with the least leave-one-PATIENT-out error.

        Leaving out one side alone would let its twin answer for it. The error is exact and costs no refit: with the
        hat matrix ``H``, the two residuals ``r`` of a patient become ``(I - H_pp)^-1 r`` when he is left out
        (features keep the standardisation of all training patients).

        Args:
            features: shape ``(n, 2, p)``, or ``(n, p)`` for one side a patient.
            sbr: shape ``(n, 2)`` or ``(n,)``.
            names: of the ``p`` features.
            alphas: penalties to choose from; ``(0.0,)`` is ordinary least squares.

        Raises:
            CohortError: shapes that do not fit, values that are not finite, fewer than three patients.
        """
        x, y = np.asarray(features, dtype=np.float64), np.asarray(sbr, dtype=np.float64)
        if x.ndim not in (2, 3) or x.shape[:-1] != y.shape or x.shape[-1] != len(names):
            raise CohortError(
                f"features of shape {x.shape} for labels of shape {y.shape} and {len(names)} names",
                "(n, 2, p) and (n, 2), or (n, p) and (n,)",
            )
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise CohortError(
                "features or labels that are no number", "finite values only", "Drop those patients first"
            )
        if len(x) < 3:
            raise CohortError(f"{len(x)} training patients", "at least 3")
        n, per_patient = len(x), y[0].size
        flat_y = y.reshape(-1)
        flat_x = x.reshape(flat_y.size, -1)
        varies = np.ptp(flat_x, axis=0) > 0
        mean, sd = flat_x.mean(axis=0), np.where(varies, flat_x.std(axis=0), 1.0)
        u, s, vt = np.linalg.svd(np.where(varies, (flat_x - mean) / sd, 0.0), full_matrices=False)
        # directions in which nothing varies carry no weight, which matters where no penalty sees to it
        kept = s > max(flat_x.shape) * np.finfo(float).eps * s[0]
        u, s, vt = u[:, kept], s[kept], vt[kept]
        centred = flat_y - flat_y.mean()
        by_patient = u.reshape(n, per_patient, s.size)

        def left_out_mse(alpha: float) -> float:
            shrink = s**2 / (s**2 + alpha)
            hat = np.einsum("nip,p,njp->nij", by_patient, shrink, by_patient) + 1.0 / flat_y.size
            residual = (centred - u @ (shrink * (u.T @ centred))).reshape(n, per_patient, 1)
            return float(np.mean(np.linalg.solve(np.eye(per_patient) - hat, residual) ** 2))

        errors = [left_out_mse(alpha) for alpha in alphas]
        best = int(np.argmin(errors))
        coefficients = vt.T @ (s / (s**2 + alphas[best]) * (u.T @ centred))
        return cls(
            names=tuple(names),
            mean=tuple(mean.tolist()),
            sd=tuple(sd.tolist()),
            coefficients=tuple(coefficients.tolist()),
            intercept=float(flat_y.mean()),
            alpha=alphas[best],
            loo_rmse=float(np.sqrt(errors[best])),
            n_patients=n,
        )

    def predict(self, features: npt.ArrayLike) -> Array:
        """SBR, shape ``(...)``, of features ``(..., p)``; a plain linear answer, not clipped to possible SBR.

        Raises:
            CohortError: another number of features.
        """
        x = np.asarray(features, dtype=np.float64)
        if x.ndim == 0 or x.shape[-1] != len(self.names):
            raise CohortError(f"features of shape {x.shape}", f"{len(self.names)} of them on the last axis")
        standard = (x - np.array(self.mean)) / np.array(self.sd)
        return np.asarray(self.intercept + standard @ np.array(self.coefficients))

    def to_json(self) -> str:
        """The whole regression as text; floats survive bit for bit."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> RidgeBaseline:
        """Read back what :meth:`to_json` wrote.

        Raises:
            WeightsError: no JSON, a key that is missing or unknown, or numbers that do not fit together.
        """
        try:
            raw: Any = json.loads(text)
            known = {field.name for field in fields(cls)}
            if not isinstance(raw, dict) or set(raw) != known:
                raise ValueError(f"keys {sorted(raw) if isinstance(raw, dict) else type(raw).__name__}")
            model = cls(
                names=tuple(str(name) for name in raw["names"]),
                mean=tuple(float(v) for v in raw["mean"]),
                sd=tuple(float(v) for v in raw["sd"]),
                coefficients=tuple(float(v) for v in raw["coefficients"]),
                intercept=float(raw["intercept"]),
                alpha=float(raw["alpha"]),
                loo_rmse=float(raw["loo_rmse"]),
                n_patients=int(raw["n_patients"]),
            )
            vectors = np.array([model.mean, model.sd, model.coefficients])  # ragged ones are a ValueError
            if vectors.shape[1] != len(model.names) or not (np.isfinite(vectors).all() and min(model.sd) > 0):
                raise ValueError("numbers that are not finite, or not one for each name")
            if not np.isfinite([model.intercept, model.alpha, model.loo_rmse]).all():
                raise ValueError("numbers that are not finite")
            return model
        except (ValueError, TypeError) as error:
            raise WeightsError(
                f"a ridge baseline that cannot be read ({error})", "the JSON that RidgeBaseline.to_json wrote"
            ) from error
