"""What a scanner stores as phase, as radians: which numbers stand for -pi..pi, and which way it counts.

Makers store phase as radians, milliradians, or 12-bit numbers; converters add a slope that may shrink it. The unit is
taken from the header where it says one, else from the values' own range, and refused where that leaves a doubt.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from nigradat.errors import ConfigError, ImageError
from nigradat.io.series import Unit

Float32 = npt.NDArray[np.float32]
PhaseSign = Literal["auto", "as-stored", "reversed"]
PHASE_SIGNS: Final = ("auto", "as-stored", "reversed")

# Half of a full turn in each unit that a header may state.
_HALF_TURN: Final[dict[Unit, float]] = {"rad": math.pi, "mrad": 1000 * math.pi, "deg": 180.0, "4096": 4096.0}
_EXCESS: Final = 1.003  # Philips rounds 1000 pi to 3142, floats of 16 bit pi to 3.1406
_NEAR: Final = 0.97  # an echo with any noise in it reaches so far to both ends of a full turn

# Which way phase grows: +1 where a stronger field gives a larger phase, as MultiEchoGre wants it, -1 where it gives a
# smaller one. GE against Siemens: UKRIN-MAPS/ukat #33; the MEDI toolbox reads GE's real and imaginary images with the
# opposite sign of Siemens' and Philips' phase. For other makers it is not known here.
MAKERS_SIGN: Final = {"Siemens": 1, "Philips": 1, "GE": -1}


@dataclass(frozen=True)
class PhaseScale:
    """``radians = (values - zero) * factor``, and in words why."""

    factor: float
    zero: float
    statement: str


def phase_scale(ranges: Sequence[tuple[float, float]], unit: Unit) -> PhaseScale:
    """How the values of a phase series become radians.

    Args:
        ranges: smallest and largest value of each echo.
        unit: as the header states it; empty where it does not.

    Raises:
        ImageError: values beyond a full turn in the stated unit; no unit, and a range that fits none.
    """
    low, high = min(r[0] for r in ranges), max(r[1] for r in ranges)
    if unit == "Hz":
        raise ImageError("a field map in Hz", "phase", "Give the phase of each echo")
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ImageError("phase with voxels that are no number", "finite values")
    half = _HALF_TURN.get(unit)
    if half is not None and not _is_shrunk(low, high, half):
        name = "numbers of 4096 to a half turn" if unit == "4096" else unit
        if -half * _EXCESS <= low and high <= half * _EXCESS:
            return PhaseScale(math.pi / half, 0.0, f"phase in {name}, as the header says")
        if low >= -0.01 * half and high <= 2 * half * _EXCESS:
            return PhaseScale(math.pi / half, 0.0, f"phase in {name} from 0 to a full turn, as the header says")
        raise ImageError(
            f"phase of {low:g} to {high:g} {name}", "wrapped phase, within a full turn", "Give the phase as scanned"
        )
    return _by_range(ranges, low, high, stated=unit)


def _by_range(ranges: Sequence[tuple[float, float]], low: float, high: float, stated: Unit) -> PhaseScale:
    """No unit, or one that the values belie: the range's ends stand for a full turn, if every echo reaches both."""
    known: tuple[tuple[str, float, float], ...] = (
        ("radians", -math.pi, math.pi),
        ("radians from 0", 0.0, 2 * math.pi),
        ("milliradians", -1000 * math.pi, 1000 * math.pi),
        ("degrees", -180.0, 180.0),
        ("numbers of 4096 to a half turn", -4096.0, 4094.0),
        ("12-bit numbers", 0.0, 4095.0),
        ("signed 12-bit numbers", -2048.0, 2047.0),
    )
    for name, first, last in known:
        over, short = (_EXCESS - 1) * (last - first) / 2, 0.02 * (last - first)
        if -over <= low - first < short and -over <= last - high < short:
            half = 2048.0 if last in (4095.0, 2047.0) else 4096.0 if last == 4094.0 else (last - first) / 2
            zero = half if first == 0 else 0.0
            return PhaseScale(math.pi / half, zero, f"phase in {name}, by its range of {low:g} to {high:g}")
    width = high - low
    if width <= 0:
        raise ImageError(f"phase that is {low:g} everywhere", "phase that varies")
    full = all(r[0] - low < (1 - _NEAR) * width and high - r[1] < (1 - _NEAR) * width for r in ranges)
    if full and abs(low + high) < 0.02 * width:
        doubt = f", though the header says {stated}" if stated else ""
        return PhaseScale(
            2 * math.pi / width, (low + high) / 2, f"phase of {low:g} to {high:g} taken as -pi..pi by its range{doubt}"
        )
    raise ImageError(
        f"phase of {low:g} to {high:g} in no stated unit, and not all echoes fill that range",
        "radians, milliradians, degrees, or a range that stands for -pi..pi",
        "Write it in radians, or state Units: rad in its sidecar",
    )


def _is_shrunk(low: float, high: float, half: float) -> bool:
    return max(abs(low), abs(high)) < 0.05 * half


def to_radians(values: Float32, scale: PhaseScale) -> Float32:
    """Phase within -pi..pi: scaled, and wrapped where it lies outside. A new array, in float32."""
    radians = (values - np.float32(scale.zero)) * np.float32(scale.factor)
    limit = np.float32(np.pi)
    if float(radians.max()) > limit * _EXCESS or float(radians.min()) < -limit * _EXCESS:
        radians = np.remainder(radians + limit, 2 * limit) - limit
    np.clip(radians, -limit, limit, out=radians)
    return np.asarray(radians, np.float32)


def is_reversed(maker: str, sign: PhaseSign) -> tuple[bool, str]:
    """Whether the phase must be turned so that it grows with the field, and in words why.

    Raises:
        ConfigError: no such choice.
    """
    if sign not in PHASE_SIGNS:
        raise ConfigError(f"phase sign {sign!r}", f"one of {', '.join(PHASE_SIGNS)}")
    if sign != "auto":
        return sign == "reversed", f"phase sign {'turned' if sign == 'reversed' else 'left as stored'}, as asked for"
    known = MAKERS_SIGN.get(maker)
    if known is None:
        return False, (
            f"phase sign left as stored: not known for {maker or 'an unnamed maker'}; in the susceptibility map veins "
            "and the red nucleus must be brighter than their surroundings, else say 'reversed'"
        )
    return known < 0, f"phase sign {'turned' if known < 0 else 'left as stored'}, as is usual for {maker}"


def from_complex(real: Float32, imaginary: Float32) -> tuple[Float32, Float32, str]:
    """Magnitude and phase, ``(E, X, Y, Z)`` each, of real and imaginary images.

    GE's reconstruction leaves every other slice with the opposite sign; that is noticed by neighbouring slices that
    point away from each other, and undone.
    """
    signal = real + 1j * imaginary.astype(np.complex64)
    statement = "magnitude and phase computed from real and imaginary images"
    along = np.real(np.sum(signal[..., :-1].conj() * signal[..., 1:], axis=(0, 1, 2)))
    if along.size and float(np.mean(along < 0)) > 0.8:
        signal[..., 1::2] *= -1
        statement += ", every other slice turned by pi"
    return np.abs(signal).astype(np.float32), np.angle(signal).astype(np.float32), statement
