"""The values that travel through the house: small, frozen, checked when they are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from nigradat.anatomy import (
    PATCH_CODES,
    PATCH_SHAPE,
    Side,
    axis_codes,
    check_sides,
    extract_patch,
    nominal_affine,
    patch_centre_mm,
)
from nigradat.errors import CohortError, ImageError, OrientationError


def _frozen(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    out = np.array(array)
    out.setflags(write=False)
    return out


def check_patch(patch: npt.NDArray[np.generic], name: str) -> None:
    """Refuse a patch that is no measurement: wrong shape, not finite, constant, or without a positive mean.

    Raises:
        ImageError: with the patch's name and what is wrong.
    """
    if patch.shape != PATCH_SHAPE:
        raise ImageError(f"{name}: shape {patch.shape}", f"{PATCH_SHAPE}")
    bad = int(np.size(patch) - np.count_nonzero(np.isfinite(patch)))
    if bad:
        raise ImageError(f"{name}: {bad} of {patch.size} voxels are no number", "finite intensities")
    if float(patch.min()) == float(patch.max()):
        raise ImageError(f"{name}: every voxel is {float(patch.min()):g}", "an image", "Check the crop or the export")
    if not float(patch.mean()) > 0:
        raise ImageError(
            f"{name}: mean intensity {float(patch.mean()):.4g}",
            "a positive mean (each patch is divided by its own mean)",
            "Use the SMWI itself, not a standardised or phase image",
        )


@dataclass(frozen=True, eq=False)
class NigralPair:
    """Two nigral patches of one visit, right first, in native view (not mirrored), not normalised.

    Attributes:
        patches: ``(2, 50, 50, 20)`` float32 on the A-L-I grid; a read-only copy of what was given.
        affines: ``(2, 4, 4)``, patch index to RAS+ mm.
        participant_id, session_id: as in the manifest; ``n/a`` where unknown.
        affine_is_nominal: the positions are made up (published ``.mat`` layout).
        smwi_recipe: how the SMWI was made, as far as its sidecar says (:class:`~nigradat.smwi.recipe.SmwiRecipe`).

    Raises:
        ImageError: a patch that is no measurement (see :func:`check_patch`).
        OrientationError: an unusable affine, or one whose axes are not those of the patch grid.
        LateralityError: the right patch does not lie to the right of the left one.
    """

    patches: npt.NDArray[np.float32]
    affines: npt.NDArray[np.float64]
    participant_id: str = "n/a"
    session_id: str = "n/a"
    affine_is_nominal: bool = False
    smwi_recipe: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        patches = np.asarray(self.patches, dtype=np.float32)
        if patches.shape != (2, *PATCH_SHAPE):
            raise ImageError(f"a pair of shape {patches.shape}", f"{(2, *PATCH_SHAPE)}, right first")
        for side in Side:
            check_patch(patches[side.index], f"{side.value} patch of {self.participant_id}")
        affines = np.asarray(self.affines, dtype=np.float64)
        if affines.shape != (2, 4, 4):
            raise OrientationError(f"affines of shape {affines.shape}", "(2, 4, 4), right first")
        for side in Side:
            if (codes := axis_codes(affines[side.index])) != PATCH_CODES:
                raise OrientationError(
                    f"the {side.value} patch of {self.participant_id} has the axis codes {', '.join(codes)}",
                    ", ".join(PATCH_CODES),
                    "Bring it to the patch grid with nigradat.anatomy.patch_from_file_grid",
                )
        check_sides(*(patch_centre_mm(a) for a in affines))
        object.__setattr__(self, "patches", _frozen(patches))
        object.__setattr__(self, "affines", _frozen(affines))

    def patch(self, side: Side) -> npt.NDArray[np.float32]:
        """One side's patch, ``(50, 50, 20)``, read-only."""
        patch: npt.NDArray[np.float32] = self.patches[side.index]
        return patch

    @classmethod
    def from_arrays(cls, right: npt.ArrayLike, left: npt.ArrayLike, participant_id: str = "n/a") -> NigralPair:
        """A pair from two bare arrays that are already on the A-L-I grid; their affines are nominal."""
        return cls(
            patches=np.stack([np.asarray(right, dtype=np.float32), np.asarray(left, dtype=np.float32)]),
            affines=np.stack([nominal_affine(side) for side in Side]),
            participant_id=participant_id,
            affine_is_nominal=True,
        )


def extract_pair(
    volume: npt.NDArray[np.generic],
    affine: npt.ArrayLike,
    right_mm: npt.ArrayLike,
    left_mm: npt.ArrayLike,
    participant_id: str = "n/a",
) -> NigralPair:
    """The patch pair around two nigrosome-1 centres of one SMWI volume.

    Args:
        volume: three axes, stored in any of the 48 orders.
        affine: ``(4, 4)`` to RAS+ mm.
        right_mm, left_mm: nigrosome-1 centroids, RAS+ mm.
        participant_id: carried along.

    Raises:
        LateralityError, FieldOfViewError, OrientationError, ImageError: see :mod:`nigradat.anatomy`.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> volume = rng.uniform(1, 2, (120, 120, 40))          # stored R, A, S at 0.5 x 0.5 x 1 mm
        >>> affine = np.diag([0.5, 0.5, 1.0, 1.0])
        >>> pair = extract_pair(volume, affine, right_mm=(35, 30, 20), left_mm=(20, 30, 20))
        >>> pair.patches.shape
        (2, 50, 50, 20)
    """
    check_sides(right_mm, left_mm)
    cut = [extract_patch(volume, affine, centre) for centre in (right_mm, left_mm)]
    return NigralPair(
        patches=np.stack([patch for patch, _ in cut]),
        affines=np.stack([a for _, a in cut]),
        participant_id=participant_id,
    )


@dataclass(frozen=True)
class SbrPair:
    """Striatal binding ratio of both sides, a plain ratio (unit 1).

    Raises:
        CohortError: a value that is no number or negative.
    """

    right: float
    left: float

    def __post_init__(self) -> None:
        for side, value in ((Side.RIGHT, self.right), (Side.LEFT, self.left)):
            if not np.isfinite(value) or value < 0:
                raise CohortError(f"{side.value} SBR of {value}", "a number >= 0")

    def __getitem__(self, side: Side) -> float:
        return self.right if side is Side.RIGHT else self.left

    @property
    def asymmetry_index(self) -> float:
        """``|right - left| / mean``, 0 where both are 0."""
        mean = (self.right + self.left) / 2
        return abs(self.right - self.left) / mean if mean > 0 else 0.0

    def exchanged(self) -> SbrPair:
        """The labels of the mirrored patient."""
        return SbrPair(self.left, self.right)


@dataclass(frozen=True)
class SidePrediction:
    """What a model says about one side, in SBR.

    Attributes:
        sbr: point prediction.
        sd: raw spread over dropout samples (not an interval), None without dropout.
        interval: calibrated ``(low, high)`` or None where nothing was calibrated.
        level: nominal level of ``interval``, for example 0.95.
    """

    sbr: float
    sd: float | None = None
    interval: tuple[float, float] | None = None
    level: float | None = None


@dataclass(frozen=True)
class Flag:
    """A remark about an input or a prediction. ``side`` is None where it concerns both."""

    code: str
    message: str
    side: Side | None = None
    severity: Literal["info", "warning"] = "warning"


@dataclass(frozen=True)
class PatientPrediction:
    """Predictions for one visit. A side is None where the model does not answer for it."""

    participant_id: str
    right: SidePrediction | None
    left: SidePrediction | None
    session_id: str = "n/a"
    flags: tuple[Flag, ...] = field(default=())

    def __getitem__(self, side: Side) -> SidePrediction | None:
        return self.right if side is Side.RIGHT else self.left
