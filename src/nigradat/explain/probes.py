"""What a model does when the image is changed on purpose: a painted nigrosome-1, and a centre that is off.

Both work on any model and any pair, the authors' published net and pair included. They describe the model. That its
answer rises with the brightness of nigrosome-1 is wished for; how it answers to a wrong centre should be feared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from nigradat.anatomy import PATCH_SHAPE, PATCH_SPACING_MM, Side, mirror
from nigradat.errors import ConfigError
from nigradat.models.weights import LoadedModel
from nigradat.phantom.anatomy import N1_BIT, standard_shapes
from nigradat.uncertainty.mc_dropout import predict_sbr

Array = npt.NDArray[np.float64]
Patches = npt.NDArray[np.float32]

LEVELS: Final = (0.4, 0.6, 0.8, 1.0, 1.2)
SHIFTS_MM: Final = (-4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0)
DIRECTIONS: Final = ("anterior", "lateral", "inferior")
_CONTROL_MM: Final = (-8.0, 0.0, 0.0)  # the tegmentum behind the nigra
_BLOCK: Final = 32


@dataclass(frozen=True, eq=False)
class DoseResponse:
    """Predictions after painting nigrosome-1 evenly, and after painting the same shape elsewhere.

    Attributes:
        levels: ``(L,)``, what was painted, in units of the patch's mean.
        plain: ``(n, 2)`` SBR of the images as they are, right first; NaN for a side without an answer.
        painted: ``(n, L, 2)`` SBR with nigrosome-1 painted.
        control: ``(n, L, 2)`` SBR with the same shape painted 8 mm further back, where no nigra lies.
    """

    levels: Array
    plain: Array
    painted: Array
    control: Array

    def slope(self, control: bool = False) -> Array:
        """SBR per unit of painted intensity, ``(n, 2)``: least squares over the levels."""
        x = self.levels - self.levels.mean()
        y = self.control if control else self.painted
        slope: Array = np.einsum("l,nls->ns", x, y) / np.square(x).sum()
        return slope


@dataclass(frozen=True, eq=False)
class CentringResponse:
    """Predictions after moving the patch's centre off nigrosome-1.

    Attributes:
        shifts_mm: ``(S,)``; positive: the centre lies further anterior, lateral (away from the midline) or inferior.
        plain: ``(n, 2)`` SBR of the images as they are.
        shifted: ``(n, 3, S, 2)`` SBR along :data:`DIRECTIONS`.
    """

    shifts_mm: Array
    plain: Array
    shifted: Array

    def change(self) -> Array:
        """Predicted minus unshifted SBR, ``(n, 3, S, 2)``."""
        return self.shifted - self.plain[:, None, None, :]


def dose_response(loaded: LoadedModel, patches: Patches, levels: Sequence[float] = LEVELS) -> DoseResponse:
    """Paint nigrosome-1 of both sides and predict.

    The shape is the average healthy nigrosome-1 of the digital phantom, at the patch's centre with its soft edge.

    Args:
        loaded: model.
        patches: native, ``(n, 2, 50, 50, 20)``, right first; not changed.
        levels: intensities in units of the patch's mean; at least two different ones.

    Raises:
        ConfigError: fewer than two levels, or one that is not positive.

    Example:
        >>> pair = nigradat.NigralPair.from_arrays(right, left)                                 # doctest: +SKIP
        >>> dose_response(nigradat.load("run"), pair.patches[None]).slope()                     # doctest: +SKIP
    """
    dose = np.array(levels, dtype=np.float64)
    if dose.ndim != 1 or len(np.unique(dose)) < 2 or not (np.isfinite(dose) & (dose > 0)).all():
        raise ConfigError(f"painted levels {list(levels)}", "at least two different ones above 0")
    shape = standard_shapes()[N1_BIT].astype(np.float32)
    voxels = [round(mm / size) for mm, size in zip(_CONTROL_MM, PATCH_SPACING_MM, strict=True)]
    elsewhere = np.roll(shape, voxels, axis=(0, 1, 2))

    def paint(weight: Patches, level: float) -> Callable[[Patches], Patches]:
        return lambda x: x + weight * (np.float32(level) * x.mean(axis=(2, 3, 4), keepdims=True) - x)

    changes = [paint(weight, level) for weight in (shape, elsewhere) for level in dose]
    plain, changed = _predict(loaded, patches, changes)
    return DoseResponse(dose, plain, changed[:, : len(dose)], changed[:, len(dose) :])


def centring_response(
    loaded: LoadedModel, patches: Patches, shifts_mm: Sequence[float] = SHIFTS_MM
) -> CentringResponse:
    """Move the centre of both patches along each axis and predict.

    What leaves the patch on one side comes in on the other: a patch has no surroundings to take from. The wrapped
    layer is at most 4 of 25 mm (20 mm through the slices) wide by default.

    Args:
        loaded: model.
        patches: native, ``(n, 2, 50, 50, 20)``, right first; not changed.
        shifts_mm: whole millimetres, so that no shift interpolates.

    Raises:
        ConfigError: a shift that is no whole number of millimetres, or beyond 9 mm.
    """
    shifts = np.array(shifts_mm, dtype=np.float64)
    if shifts.ndim != 1 or not len(shifts) or not (shifts == np.round(shifts)).all() or np.abs(shifts).max() > 9:
        raise ConfigError(f"shifts of {', '.join(map(str, shifts_mm))} mm", "whole millimetres, at most 9")

    def move(axis: int, shift_mm: float) -> Callable[[Patches], Patches]:
        voxels = round(shift_mm / PATCH_SPACING_MM[axis])
        return lambda x: np.roll(x, -voxels, axis=2 + axis)

    plain, changed = _predict(loaded, patches, [move(axis, shift) for axis in range(3) for shift in shifts])
    return CentringResponse(shifts, plain, changed.reshape(len(plain), 3, len(shifts), 2))


def _predict(
    loaded: LoadedModel, patches: Patches, changes: Sequence[Callable[[Patches], Patches]]
) -> tuple[Array, Array]:
    """SBR of the patches as they are ``(n, 2)``, and after each change of the canonical view ``(n, changes, 2)``."""
    if patches.ndim != 5 or patches.shape[1:] != (2, *PATCH_SHAPE):
        raise ConfigError(f"patches of shape {patches.shape}", f"(n, 2, {', '.join(map(str, PATCH_SHAPE))})")
    plain, changed = [], []
    for start in range(0, len(patches), _BLOCK):
        native = np.asarray(patches[start : start + _BLOCK], dtype=np.float32)
        plain.append(predict_sbr(loaded.model, native))
        canonical = _flip_right(native)
        made = [predict_sbr(loaded.model, _flip_right(change(canonical).astype(np.float32))) for change in changes]
        changed.append(np.stack(made, axis=1))
    return np.concatenate(plain), np.concatenate(changed)


def _flip_right(patches: Patches) -> Patches:
    """From native to canonical view and back."""
    out = patches.copy()
    out[:, Side.RIGHT.index] = mirror(patches[:, Side.RIGHT.index])
    return out
