"""What can be measured on a pair of patches without knowing whose they are: intensities, noise, likeness, centring.

Every measure is a number a side, in the canonical view (right patch mirrored), of the patch divided by its own mean.
Where a patch lies is found by sliding the mean patch of the reference patients over it: the normalised correlation at
the best shift says how alike they are, the shift says how far the centre is off, and the same with the mean patch
mirrored says whether medial and lateral are where they should be.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage

from nigradat.anatomy import PATCH_SHAPE, PATCH_SPACING_MM, mirror
from nigradat.baselines.features import RED_NUCLEUS_BOX, own_mean
from nigradat.errors import ImageError

Array = npt.NDArray[np.float64]
Tail = Literal["both", "low", "high"]

SEARCH_VOXELS: Final = (8, 8, 4)  # 4 mm each way
GHOST_LAGS: Final = range(8, 36)  # voxels; nearer, anatomy resembles itself
_CORE: Final = tuple(slice(reach, n - reach) for reach, n in zip(SEARCH_VOXELS, PATCH_SHAPE, strict=True))
_TINY: Final = 1e-12


@dataclass(frozen=True)
class Measure:
    """One thing that is measured.

    Attributes:
        name: in files and, after ``unusual-``, as the code of a flag.
        what: the noun of its message.
        tail: which values are suspicious: far from the usual on both ends, or low or high ones only.
        todo: what a user should look at.
        of_pair: one number for both sides together (it then stands in both places).
        unit: after the number.
    """

    name: str
    what: str
    tail: Tail
    todo: str
    of_pair: bool = False
    unit: str = ""


_RECIPE: Final = "Check that this is an SMWI made with the recipe of the training (not magnitude or phase)"
_SCAN: Final = "Look at the scan: motion, noise, resolution, interpolation"
_MODEL: Final = "The network has not met such a patch: look at image and centre before the number"

IMAGE_MEASURES: Final = (
    Measure("dark-end", "5th percentile of the intensity over its mean", "both", _RECIPE),
    Measure("bright-end", "99th percentile of the intensity over its mean", "both", _RECIPE),
    Measure("contrast", "SD of the intensity over its mean", "both", _RECIPE),
    Measure("red-nucleus", "darkness of the red nucleus (median over the patch's mean)", "both", _RECIPE),
    Measure("noise", "noise within slices over the mean intensity", "both", _SCAN),
    Measure("slice-difference", "roughness from slice to slice over the mean intensity", "both", _SCAN),
    Measure("sharpness", "fine over coarse detail (.4-.6 over .2-.4 cycles/mm)", "both", _SCAN),
    Measure("ghost", "likeness to itself along the phase-encoding axis", "high", "Look for ghosts of motion"),
    Measure("likeness", "correlation with the mean patch at the best shift", "low", "Check orientation and contrast"),
    Measure(
        "handedness",
        "correlation with the mean patch less that with its mirror image",
        "low",
        "Check sides: patches in each other's place (both sides flagged), or one patch mirrored (one side flagged)",
    ),
    Measure(
        "centring",
        "distance from the usual place",
        "high",
        "Check the nigrosome-1 centre; beyond 4 mm along an axis the true distance may be larger",
        unit=" mm",
    ),
    Measure(
        "mirror-correlation",
        "correlation of the right patch, mirrored, with the left",
        "low",
        "Check that both patches belong to one patient and that each is on its side",
        of_pair=True,
    ),
)
FEATURE_MEASURES: Final = (
    Measure("feature-distance", "Mahalanobis distance of the network's features", "high", _MODEL),
    Measure("feature-neighbours", "distance of the network's features to their nearest neighbours", "high", _MODEL),
)
MEASURES: Final = (*IMAGE_MEASURES, *FEATURE_MEASURES)
NAMES: Final = tuple(measure.name for measure in MEASURES)


@dataclass(frozen=True, eq=False)
class Template:
    """The mean patch of some patients, to be slid over another patch.

    Attributes:
        mean: ``(50, 50, 20)``, canonical view, each patch divided by its own mean before averaging.
    """

    mean: npt.NDArray[np.float32]

    @classmethod
    def of(cls, total: Array, patches: int) -> Template:
        """From the sum of ``patches`` normalised canonical patches."""
        return cls((total / patches).astype(np.float32))

    @cached_property
    def _spectra(self) -> tuple[Any, Any, Any, float, int]:
        """Conjugate spectra of the core, of its mirror image and of its box; the core's norm and size."""
        core = np.asarray(self.mean[_CORE], dtype=np.float64)
        core = core - core.mean()
        parts = (core, mirror(core), np.ones_like(core))
        straight, mirrored, box = (np.conj(fft.rfftn(np.asarray(part), PATCH_SHAPE)) for part in parts)
        return straight, mirrored, box, float(np.sqrt(np.sum(core**2))), core.size

    def correlate(self, patch: Array) -> tuple[Array, Array]:
        """Normalised correlation of the template's core with a patch at every shift within the search.

        Returns:
            ``(17, 17, 9)`` with the template as it is and with the template mirrored; no shift lies in the middle.
        """
        straight, mirrored, box, norm, size = self._spectra
        spectrum = fft.rfftn(patch)
        valid = tuple(slice(0, 2 * reach + 1) for reach in SEARCH_VOXELS)

        def slid(kernel: Any, over: Any) -> Array:
            out: Array = fft.irfftn(over * kernel, PATCH_SHAPE)[valid]
            return out

        total, squares = slid(box, spectrum), slid(box, fft.rfftn(patch**2))
        spread = norm * np.sqrt(np.maximum(squares - total**2 / size, _TINY * size))
        alike, alike_mirrored = (np.asarray(slid(kernel, spectrum) / spread) for kernel in (straight, mirrored))
        return alike, alike_mirrored


def image_measures(canonical: npt.NDArray[np.generic], template: Template) -> Array:
    """The image measures of one pair.

    Args:
        canonical: ``(2, 50, 50, 20)``, right first, in canonical view (:func:`nigradat.anatomy.to_canonical`).
        template: mean patch of the reference patients.

    Returns:
        ``(2, 12)`` in the order of :data:`IMAGE_MEASURES`.

    Raises:
        ImageError: another shape, or a patch whose mean is not a positive number.
    """
    if canonical.shape != (2, *PATCH_SHAPE):
        raise ImageError(f"a pair of shape {canonical.shape}", f"{(2, *PATCH_SHAPE)}")
    patches = np.asarray(canonical, dtype=np.float32)
    right, left = (np.asarray(patch, dtype=np.float64) / own_mean(patch) for patch in patches)
    alike = correlation(right, left)
    return np.array([[*_of_side(patch, template), alike] for patch in (right, left)])


def normalised(canonical: npt.NDArray[np.generic]) -> Array:
    """Patches ``(..., 50, 50, 20)``, each divided by its own mean, float64."""
    x = np.asarray(canonical, dtype=np.float64)
    return np.asarray(x / x.mean(axis=(-3, -2, -1), keepdims=True))


def correlation(first: Array, second: Array) -> float:
    """Pearson's correlation over all voxels; 0 where one of them is flat."""
    a, b = first - first.mean(), second - second.mean()
    norm = float(np.sqrt(np.sum(a**2) * np.sum(b**2)))
    return float(np.sum(a * b)) / norm if norm > _TINY else 0.0


def best_shift(map_of_correlation: Array) -> tuple[Array, float]:
    """Where a map of :meth:`Template.correlate` is highest, between voxels by a parabola along each axis.

    Returns:
        Shift in mm along the patch axes (how far the anatomy lies further on), and the correlation there.
    """
    peak = np.array(np.unravel_index(np.argmax(map_of_correlation), map_of_correlation.shape))
    shift = np.empty(3)
    for axis, (spacing, reach) in enumerate(zip(PATCH_SPACING_MM, SEARCH_VOXELS, strict=True)):
        line = map_of_correlation[tuple(slice(None) if a == axis else peak[a] for a in range(3))]
        shift[axis] = (peak[axis] + _vertex(line, int(peak[axis])) - reach) * spacing
    return shift, float(map_of_correlation.max())


def _vertex(line: Array, at: int) -> float:
    """Offset of the parabola's top through a maximum and its two neighbours; 0 at an end."""
    if not 0 < at < len(line) - 1:
        return 0.0
    before, top, after = line[at - 1 : at + 2]
    bend = before - 2 * top + after
    return float((before - after) / (2 * bend)) if bend < 0 else 0.0


def _of_side(patch: Array, template: Template) -> list[float]:
    straight, mirrored = template.correlate(patch)
    shift, likeness = best_shift(straight)
    p5, p99 = np.percentile(patch, (5, 99))
    return [
        float(p5),
        float(p99),
        float(patch.std()),
        float(np.median(patch[RED_NUCLEUS_BOX])),
        _noise(patch),
        _robust_sd(np.diff(patch, 2, axis=2)) / np.sqrt(6.0),
        _sharpness(patch),
        _ghost(patch),
        likeness,
        likeness - float(mirrored.max()),
        float(np.linalg.norm(shift)),
    ]


def _robust_sd(values: Array) -> float:
    return float(np.median(np.abs(values))) / 0.6745


def _noise(patch: Array) -> float:
    """SD of the noise from the mask [1 -2 1] x [1 -2 1], which smooth intensities and straight edges do not reach.

    Source: Immerkaer, Comput Vis Image Underst 1996, 64, 300; the median instead of the mean keeps vessels out. The
    noise of an interpolated image is correlated from voxel to voxel, so this is below its true SD.
    """
    return _robust_sd(np.diff(np.diff(patch, 2, axis=0), 2, axis=1)) / 6.0


def _sharpness(patch: Array) -> float:
    """Log10 of the energy at .4-.6 cycles/mm in plane over that at .2-.4."""
    spectrum = np.abs(fft.rfft2((patch - patch.mean()) * _WINDOW, axes=(0, 1))) ** 2
    coarse, fine = (float(spectrum[band].mean()) for band in _BANDS)
    return float(np.log10((fine + _TINY) / (coarse + _TINY)))


def _bands() -> list[npt.NDArray[np.bool_]]:
    rows, columns = (
        f(n, d) for f, n, d in zip((fft.fftfreq, fft.rfftfreq), PATCH_SHAPE, PATCH_SPACING_MM, strict=False)
    )
    radius = np.hypot(rows[:, None], columns[None, :])
    return [(radius >= low) & (radius < high) for low, high in ((0.2, 0.4), (0.4, 0.6))]


_BANDS: Final = _bands()
_WINDOW: Final = (np.hanning(PATCH_SHAPE[0])[:, None] * np.hanning(PATCH_SHAPE[1]))[:, :, None]


def _ghost(patch: Array) -> float:
    """The largest correlation, of either sign, of fine detail with itself further along the phase-encoding axis.

    Large values are compressed first, so that an edge that happens to lie behind another does not count as a ghost.
    """
    detail = patch - ndimage.gaussian_filter(patch, (3, 3, 0), mode="nearest")
    size = np.abs(detail)
    detail = detail / (size + np.median(size) + _TINY)
    found = 0.0
    for lag in GHOST_LAGS:
        near, far = detail[:-lag], detail[lag:]
        norm = float(np.sqrt(np.sum(near**2) * np.sum(far**2)))
        found = max(found, abs(float(np.sum(near * far))) / (norm + _TINY))
    return found
