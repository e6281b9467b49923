"""What a scan holds, found out from its files: series of images, each with its part, echo, unit and place.

Nothing in these values names a patient. Of the words in a header none is carried over: an attribute travels as a number
within a plausible range, or as one of a few words of our own (:data:`TRAVELLING_ATTRIBUTES`).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from nigradat.anatomy import axis_codes
from nigradat.errors import NigradatError
from nigradat.volume import Source, spacing_mm

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

Part = Literal[
    "magnitude",
    "phase",
    "real",
    "imaginary",
    "image",  # one kind only, and the header does not say which
    "susceptibility-weighted",
    "field map",
    "filtered phase",
    "phase difference",
    "projection",
    "other",
]
Unit = Literal["", "rad", "mrad", "deg", "Hz", "4096"]  # "4096": -4096..4096 stand for -pi..pi
SHOWABLE: Final = ("magnitude", "image", "susceptibility-weighted")  # what is worth looking at as an image
BODY_PARTS: Final = ("HEAD", "BRAIN", "HEADNECK")  # where a midbrain is


@dataclass(frozen=True)
class Span:
    """A number that may travel, if it lies between two bounds."""

    low: float
    high: float
    unit: str


# Every attribute that travels into outputs: a number between bounds, or one of a few words. Anything else in a header,
# a sidecar or a file name stays behind.
TRAVELLING_ATTRIBUTES: Final[Mapping[str, Span | tuple[str, ...]]] = {
    "Modality": ("MR", "NM", "PT", "CT"),
    "Manufacturer": ("Siemens", "GE", "Philips", "Canon", "United Imaging", "Hitachi", "Bruker"),
    "BodyPartExamined": (
        *BODY_PARTS,
        *("NECK", "CHEST", "ABDOMEN", "PELVIS", "SPINE", "CSPINE", "TSPINE", "LSPINE", "HEART", "BREAST", "LIVER"),
        *("PROSTATE", "SHOULDER", "ELBOW", "WRIST", "HAND", "HIP", "KNEE", "LEG", "ANKLE", "FOOT", "ARM"),
        *("EXTREMITY", "WHOLEBODY"),
    ),
    "MRAcquisitionType": ("2D", "3D"),
    "MagneticFieldStrength": Span(0.01, 25, "T"),
    "RepetitionTime": Span(0.1, 60_000, "ms"),
    "EchoTime": Span(0.01, 1000, "ms"),
    "FlipAngle": Span(0.1, 180, "degrees"),
    "PixelBandwidth": Span(1, 20_000, "Hz a pixel"),
    "SliceThickness": Span(0.01, 100, "mm"),
    "SeriesNumber": Span(0, 99_999, "count"),
}
_RANGE_BYTES: Final = 2**29  # of voxels that are held to find their range
_MAKERS: Final = {
    "SIEMENS": "Siemens",
    "GE MEDICAL": "GE",
    "GE HEALTHCARE": "GE",
    "PHILIPS": "Philips",
    "CANON": "Canon",
    "TOSHIBA": "Canon",
    "UIH": "United Imaging",
    "UNITED IMAGING": "United Imaging",
    "HITACHI": "Hitachi",
    "BRUKER": "Bruker",
}


@dataclass(frozen=True)
class ScanImage:
    """One volume of a series.

    Attributes:
        part: what it shows.
        echo_time_ms: None where it is not stated.
        repetition: 1 for the first, or only, time that it was taken.
        unit: of its values after the file's own scaling, as far as the header says; empty where it does not.
        value_range: smallest and largest value, once the voxels have been read.
    """

    part: Part
    echo_time_ms: float | None = None
    repetition: int = 1
    unit: Unit = ""
    value_range: tuple[float, float] | None = None

    def __str__(self) -> str:
        echo = "" if self.echo_time_ms is None else f" at {self.echo_time_ms:g} ms"
        return f"{self.part}{echo}" + (f", repetition {self.repetition}" if self.repetition > 1 else "")


@dataclass(frozen=True, eq=False)
class ScanSeries:
    """Images on one grid that were scanned together.

    Attributes:
        label: by which it is chosen: its place, from 1, in what :func:`~nigradat.io.gre.read_scan` lists.
        kind: ``dicom-classic``, ``dicom-enhanced``, ``nifti`` or ``bids``.
        images: ordered by part, echo time and repetition.
        shape: ``(X, Y, Z)`` of each image; None where the grid is at fault.
        affine: ``(4, 4)`` from voxel index to RAS+ mm; None where the grid is at fault.
        attributes: the few that travel, see :data:`TRAVELLING_ATTRIBUTES`.
        token: stands for the files' names and the series' number: a piece of a SHA-256.
        notes: what was found out or taken on trust, in words.
        problems: why it cannot be used, as the errors that a reader raises.
        hazards: why it can be shown as an image but not be taken as phase, likewise.
        read: ``read([0, 2])`` gives these images as ``(2, X, Y, Z)`` float32, with the file's own scaling applied.
    """

    label: str
    kind: str
    images: tuple[ScanImage, ...]
    shape: tuple[int, int, int] | None = None
    affine: Float64 | None = None
    attributes: Mapping[str, str | float] = field(default_factory=dict)
    token: str = ""
    notes: tuple[str, ...] = ()
    problems: tuple[NigradatError, ...] = ()
    hazards: tuple[NigradatError, ...] = ()
    read: Callable[[Sequence[int]], Float32] | None = field(default=None, repr=False)

    def places(self, part: Part, repetition: int = 1) -> tuple[int, ...]:
        """Where in :attr:`images` a part's echoes are."""
        return tuple(i for i, image in enumerate(self.images) if image.part == part and image.repetition == repetition)

    def echo_times_ms(self, part: Part) -> tuple[float | None, ...]:
        """Of the first repetition of a part, in the order of :attr:`images`."""
        return tuple(self.images[i].echo_time_ms for i in self.places(part))

    @property
    def holds(self) -> str:
        """Its images in words, as in ``magnitude at 5.19 and 7.65 ms``."""
        return listed(self.images)

    @property
    def repetitions(self) -> int:
        """How often the images were taken."""
        return max((image.repetition for image in self.images), default=1)

    def source(self, *steps: str) -> Source:
        """Where its images came from; ``steps`` in words."""
        return Source((self.token,), self.kind, self.attributes, (*self.notes, *steps))

    def with_ranges(self) -> ScanSeries:
        """The same, after reading every voxel: a damaged file becomes a problem, each image gets its range."""
        if self.problems or self.read is None or self.shape is None:
            return self
        at_once = max(1, _RANGE_BYTES // (4 * math.prod(self.shape)))
        ranges: list[tuple[float, float]] = []
        try:
            for start in range(0, len(self.images), at_once):
                values = self.read(range(start, min(start + at_once, len(self.images))))
                ranges += [(float(volume.min()), float(volume.max())) for volume in values]
        except NigradatError as error:
            return replace(self, problems=(error,))
        seen = (replace(image, value_range=r) for image, r in zip(self.images, ranges, strict=True))
        return replace(self, images=tuple(seen))

    def to_json(self) -> dict[str, Any]:
        """Plain values for output."""
        return {
            "series": self.label,
            "kind": self.kind,
            "source": self.token,
            "shape": self.shape,
            "voxel_mm": None if self.affine is None else [round(float(s), 6) for s in spacing_mm(self.affine)],
            "axes": None if self.affine is None else "".join(axis_codes(self.affine)),
            "affine": self.affine,
            "images": [
                {
                    "part": image.part,
                    "echo_time_ms": image.echo_time_ms,
                    "repetition": image.repetition,
                    "unit": image.unit or None,
                    "range": image.value_range,
                }
                for image in self.images
            ],
            "attributes": dict(self.attributes),
            "notes": list(self.notes),
            "problems": [str(error) for error in self.problems],
            "not_as_phase": [str(error) for error in self.hazards],
        }


def listed(images: Sequence[ScanImage]) -> str:
    """Parts with their echo times, in words."""
    out = []
    for part in dict.fromkeys(image.part for image in images):
        mine = [image for image in images if image.part == part]
        times = list(dict.fromkeys(f"{i.echo_time_ms:g}" for i in mine if i.echo_time_ms is not None))
        repeated = max(image.repetition for image in mine)
        count = f" ({len(mine)})" if len(mine) > repeated else ""
        out.append(
            part + (f" at {_and(times)} ms" if times else count) + (f", {repeated} times" if repeated > 1 else "")
        )
    return "; ".join(out)


def _and(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def travelling(found: Mapping[str, object]) -> dict[str, str | float]:
    """Of a header's attributes those that may travel, cleaned: see :data:`TRAVELLING_ATTRIBUTES`."""
    out: dict[str, str | float] = {}
    for name, allowed in TRAVELLING_ATTRIBUTES.items():
        value = found.get(name)
        if isinstance(allowed, Span):
            number = as_number(value)
            if number is not None and allowed.low <= number <= allowed.high:
                out[name] = number
        elif name == "Manufacturer":
            maker = maker_of(value)
            if maker:
                out[name] = maker
        elif (word := str(value).strip().upper()) in allowed:
            out[name] = word
    return out


def maker_of(value: object) -> str:
    """Our word for a scanner's maker, empty where it is none that we know."""
    text = str(value or "").strip().upper()
    return "GE" if text == "GE" else next((ours for theirs, ours in _MAKERS.items() if text.startswith(theirs)), "")


def as_number(value: object) -> float | None:
    """A finite number, or None for whatever is none."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):  # the last for a whole number of more than 308 digits
        return None
    return number if math.isfinite(number) else None


def token_of(*names: str) -> str:
    """A short stand-in for names that must not travel: the first 12 hexadecimal digits of their SHA-256."""
    return "sha256:" + hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:12]


# -- What an image shows ------------------------------------------------------------------------------------------


def part_of(image_type: Iterable[object], *, component: str = "", texts: Iterable[str] = (), unit: Unit = "") -> Part:
    """What an image shows, from the words of its header.

    Args:
        image_type: DICOM's Image Type or Frame Type, all values.
        component: DICOM's Complex Image Component, which a field map may call REAL.
        texts: sequence name and descriptions; they are searched for a few words and kept nowhere.
        unit: of the values, where it is stated.
    """
    words = {str(word).strip().upper().replace("_", " ") for word in image_type}
    text = " ".join(texts).lower()
    if unit == "Hz" or words & {"FIELD MAP", "FIELDMAP", "B0 MAP", "B0"}:
        return "field map"
    if words & {"MIP", "MNIP", "MINIP", "MIN IP", "PROJECTION IMAGE"}:
        return "projection"
    if words & {"P", "PHASE", "PHASE MAP"} or component.upper() == "PHASE":
        # Siemens' SWI product ("swi3d") and GE's SWAN ("Filt_Pha") give a high-pass filtered phase
        if "swi3d" in text or "swi2d" in text or "filt" in text or "hpf" in text:
            return "filtered phase"
        # Siemens' field-mapping sequence ("fm2d2r") gives the difference of two echoes under the name of the second
        if "*fm2d" in text or "*fm3d" in text or words & {"PHASE DIFFERENCE", "PHASEDIFF"}:
            return "phase difference"
        return "phase"
    if "SWI" in words:
        return "susceptibility-weighted"
    if words & {"V", "VELOCITY", "VELOCITY MAP", "ADC", "FA", "TRACEW", "T1 MAP", "T2 MAP", "T2 STAR MAP", "R2 MAP"}:
        return "other"
    if words & {"M", "MAGNITUDE", "M FFE", "M SE"} or component.upper() == "MAGNITUDE":
        return "magnitude"
    if words & {"R", "REAL"} or component.upper() == "REAL":
        return "real"
    if words & {"I", "IMAGINARY"} or component.upper() == "IMAGINARY":
        return "imaginary"
    return "image"


def unit_of(text: object) -> Unit:
    """A unit's spelling in DICOM (UCUM codes, Rescale Type) or BIDS (``Units``) as ours; empty for all others."""
    spelled = str(text or "").strip().lower()
    known: dict[str, Unit] = {
        "rad": "rad",
        "radian": "rad",
        "radians": "rad",
        "mrad": "mrad",
        "milliradian": "mrad",
        "milliradians": "mrad",
        "deg": "deg",
        "degrees": "deg",
        "hz": "Hz",
        "hertz": "Hz",
    }
    return known.get(spelled, "")
