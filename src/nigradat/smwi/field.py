"""From the phases of several echoes to one field map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from nigradat.errors import ImageError
from nigradat.smwi.fourier import FourierGrid
from nigradat.smwi.unwrapping import unwrap
from nigradat.volume import Float32, MultiEchoGre

GAMMA_MHZ_PER_T: Final = 42.577478518  # of the proton in water, CODATA 2018
MIN_ECHOES: Final = 2
_OFFSET_SD_MM = 5.0  # the phase of coils and pulse changes over centimetres
_SAME_SPACING = 0.02


@dataclass(frozen=True, eq=False)
class FieldMap:
    """What the phases say about the field.

    Attributes:
        field_ppm: ``(X, Y, Z)``, shift of the field relative to the main one; 0 outside the mask. A constant may be
            added to it: the scanner's own frequency is not known to 2 pi.
        weight: ``(X, Y, Z)``, one over the standard deviation of ``field_ppm``, relative to its median in the mask;
            0 outside.
        residual_rad: ``(X, Y, Z)``, root mean square of what a constant frequency leaves of the phases.
    """

    field_ppm: Float32
    weight: Float32
    residual_rad: Float32


def radians_per_ppm(field_strength_t: float, echo_time_ms: float) -> float:
    """Phase that a field shift of one ppm gives at an echo time."""
    return 2 * np.pi * GAMMA_MHZ_PER_T * field_strength_t * echo_time_ms * 1e-3


def fit_field(gre: MultiEchoGre, mask: npt.NDArray[np.bool_]) -> FieldMap:
    """Fit one frequency to the phases of all echoes.

    1. The phase between neighbouring echoes of the shortest distance carries no coil phase. It is unwrapped in space
       (:func:`~nigradat.smwi.unwrapping.unwrap`) and gives a first, noisy field.
    2. What remains of the first echo is the phase at echo time 0, smoothed over the mask (as MCPC-3D-S does, Eckstein
       et al. 2018).
    3. Echo after echo joins a straight line through that phase, weighted by magnitude squared (its phase has a variance
       of one over that); the line so far says how often each next phase was wrapped.

    Args:
        gre: with the phases of two echoes or more, all read in one direction (no bipolar correction is made).
        mask: ``(X, Y, Z)``, where there is signal.

    Raises:
        ImageError: no phase, a single echo, or a mask that does not fit.
    """
    check_phases(gre)
    if mask.shape != gre.magnitude.shape[1:]:
        raise ImageError(f"a mask of shape {mask.shape}", f"that of the images, {gre.magnitude.shape[1:]}")
    times = gre.echo_times_ms
    product, step_ms = _between_echoes(gre)
    first = unwrap(np.angle(product), mask, np.sqrt(np.abs(product))) / np.float32(step_ms)
    del product
    offset = _phase_at_time_zero(gre, first, mask)
    change, total = np.zeros_like(first), np.zeros_like(first)
    square, energy = np.zeros_like(first), np.zeros_like(first)
    slope = np.zeros_like(first)
    for i, time in enumerate(times):
        expected = np.exp(-1j * (np.float32(time) * (first + slope)))
        rest = _echo(gre, i) * expected.astype(np.complex64) * offset
        # a phase that the whole echo shares is the scanner's
        rest *= np.exp(-1j * np.angle(rest[mask].sum(dtype=np.complex128))).astype(np.complex64)
        distance = np.angle(rest) + np.float32(time) * slope
        power = gre.magnitude[i] ** 2
        change += power * np.float32(time) * distance
        total += power * np.float32(time**2)
        square += power * distance**2
        energy += power
        slope = np.divide(change, total, out=np.zeros_like(first), where=total > 0)
    residual = np.sqrt(np.maximum(_ratio(square - change * slope, energy), 0))
    field = (first + slope) / np.float32(radians_per_ppm(gre.field_strength_t, 1.0))
    weight = np.sqrt(total)
    weight /= np.median(weight[mask])
    return FieldMap(*(np.where(mask, image, np.float32(0)) for image in (field, weight, residual)))


def check_phases(gre: MultiEchoGre) -> None:
    """Refuse a series that no field map can be made of. Raises :class:`~nigradat.errors.ImageError`."""
    if gre.phase is None:
        raise ImageError(
            "magnitude images without their phase",
            "magnitude and phase of each echo",
            "Export the phase as well, or give a susceptibility map made elsewhere (--chi)",
        )
    if len(gre.echo_times_ms) < MIN_ECHOES:
        raise ImageError(
            "a single echo",
            "two echoes or more, without which the phase of the coils is taken for a field",
            "Give the other echoes, or a susceptibility map made elsewhere (--chi)",
        )


def phase_coherence(gre: MultiEchoGre) -> Float32:
    """How alike the phases around a voxel are, 0..1, ``(X, Y, Z)``.

    Length of the sum of the phasors of 3 x 3 x 3 voxels over the sum of their lengths, taken from the phase between
    neighbouring echoes. It is near 0 in noise, and where the field changes so quickly from voxel to voxel that its
    phase cannot be unwrapped.
    """
    from scipy import ndimage

    product, _ = _between_echoes(gre)
    real, imaginary, length = (
        ndimage.uniform_filter(np.ascontiguousarray(part), 3, mode="nearest")
        for part in (product.real, product.imag, np.abs(product))
    )
    return _ratio(np.hypot(real, imaginary), length)


def _echo(gre: MultiEchoGre, i: int) -> npt.NDArray[np.complex64]:
    assert gre.phase is not None
    out = np.empty(gre.phase.shape[1:], dtype=np.complex64)
    np.multiply(gre.magnitude[i], np.cos(gre.phase[i]), out=out.real)
    np.multiply(gre.magnitude[i], np.sin(gre.phase[i]), out=out.imag)
    return out


def _between_echoes(gre: MultiEchoGre) -> tuple[npt.NDArray[np.complex64], float]:
    """Phasor of what builds up between neighbouring echoes of the shortest distance, and that distance in ms."""
    steps = np.diff(gre.echo_times_ms)
    step = float(steps.min())
    product = np.zeros(gre.magnitude.shape[1:], dtype=np.complex64)
    for i in np.flatnonzero(steps <= step * (1 + _SAME_SPACING)).tolist():
        product += _echo(gre, i + 1) * np.conj(_echo(gre, i))
    return product, step


def _phase_at_time_zero(
    gre: MultiEchoGre, field_rad_per_ms: Float32, mask: npt.NDArray[np.bool_]
) -> npt.NDArray[np.complex64]:
    """Unit phasor that undoes the smooth phase at echo time 0."""
    time = np.float32(gre.echo_times_ms[0])
    rest = _echo(gre, 0) * np.exp(-1j * (time * field_rad_per_ms)).astype(np.complex64) * mask
    grid = FourierGrid.around(mask.shape, gre.spacing_mm, 3 * _OFFSET_SD_MM)
    blur = grid.gaussian(_OFFSET_SD_MM)
    real, imaginary = (grid.inverse(grid.forward(np.ascontiguousarray(part)) * blur) for part in (rest.real, rest.imag))
    return np.exp(-1j * np.arctan2(imaginary, real)).astype(np.complex64)


def _ratio(above: Float32, below: Float32) -> Float32:
    out: Float32 = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
    return out
