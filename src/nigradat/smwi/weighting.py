"""The weight of a susceptibility, and the image that it makes of a magnitude."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from nigradat.errors import ConfigError, ImageError
from nigradat.smwi.recipe import Combination
from nigradat.volume import Float32


def susceptibility_weight(
    chi_ppm: npt.ArrayLike, chi_th_ppm: float = 1.0, m: float = 4.0, *, diamagnetic: bool = False
) -> Float32:
    """``clip(1 - chi/chi_th, 0, 1)^m``: 1 for diamagnetic tissue, falling to 0 at the threshold (Gho et al. 2014).

    Args:
        chi_ppm: susceptibility, any shape. Where it is no number the weight is 0.
        chi_th_ppm: where the weight reaches 0; above 0.
        m: power; above 0.
        diamagnetic: the twin, ``clip(1 + chi/chi_th, 0, 1)^m``, which darkens calcium and myelin instead.

    Raises:
        ConfigError: a threshold or a power that is not above 0.

    Example:
        >>> susceptibility_weight([-0.1, 0.0, 0.05], 0.2).tolist()
        [1.0, 1.0, 0.31640625]
    """
    for name, value in (("a threshold", chi_th_ppm), ("a power", m)):
        if not (math.isfinite(value) and value > 0):
            raise ConfigError(f"{name} of {value:g}", "a number above 0")
    chi = np.asarray(chi_ppm, dtype=np.float32)
    with np.errstate(invalid="ignore"):
        ramp = np.clip(1 + (chi if diamagnetic else -chi) / np.float32(chi_th_ppm), 0, 1)
    weight: Float32 = np.where(np.isfinite(chi), ramp, np.float32(0)) ** np.float32(m)
    return weight


def combine_echoes(magnitude: Float32, combination: Combination = "rms") -> Float32:
    """One image from the echoes ``(E, X, Y, Z)``: root mean square, or mean."""
    if magnitude.ndim != 4:
        raise ImageError(f"magnitude of shape {magnitude.shape}", "(echoes, X, Y, Z)")
    if combination == "mean":
        mean: Float32 = magnitude.mean(axis=0)
        return mean
    total = np.zeros(magnitude.shape[1:], dtype=np.float32)
    for echo in magnitude:
        total += echo**2
    rms: Float32 = np.sqrt(total / np.float32(len(magnitude)))
    return rms


def smwi(
    magnitude: Float32,
    chi_ppm: Float32,
    *,
    chi_th_ppm: float = 1.0,
    m: float = 4.0,
    combination: Combination = "rms",
    diamagnetic: bool = False,
) -> Float32:
    """Susceptibility map-weighted image, ``(X, Y, Z)``, in the unit of the magnitude.

    One weight for all echoes (Nam et al. 2017), so it may be applied after they are combined.

    Args:
        magnitude: ``(E, X, Y, Z)``.
        chi_ppm: ``(X, Y, Z)``.
        chi_th_ppm, m, diamagnetic: see :func:`susceptibility_weight`.
        combination: see :func:`combine_echoes`.

    Raises:
        ImageError: shapes that do not belong together.
    """
    if magnitude.shape[1:] != chi_ppm.shape:
        raise ImageError(f"a susceptibility map of shape {chi_ppm.shape}", f"that of the images, {magnitude.shape[1:]}")
    return combine_echoes(magnitude, combination) * susceptibility_weight(
        chi_ppm, chi_th_ppm, m, diamagnetic=diamagnetic
    )
