"""What comes off a scanner: one volume, or the echoes of a gradient-echo series, each with its place in the world."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from nigradat.anatomy import check_affine
from nigradat.errors import ImageError

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Source:
    """Where an image came from; nothing in it names a patient.

    Attributes:
        files: a token (SHA-256 prefix) for each file or series that was read: names and UIDs often carry a patient's.
        kind: ``dicom-classic``, ``dicom-enhanced``, ``nifti``, ``bids`` or ``made`` (by a step of this package).
        attributes: the few technical attributes that travel (manufacturer, field strength, echo times, ...).
        steps: what was done to the voxels since, in order, in words.
    """

    files: tuple[str, ...] = ()
    kind: str = "made"
    attributes: Mapping[str, str | float] = field(default_factory=dict)
    steps: tuple[str, ...] = ()

    def then(self, step: str) -> Source:
        """The source of what ``step`` makes out of this."""
        return Source(self.files, self.kind, self.attributes, (*self.steps, step))


@dataclass(frozen=True, eq=False)
class Volume:
    """One three-dimensional image.

    Attributes:
        data: ``(X, Y, Z)``, float32, in storage order; read-only.
        affine: ``(4, 4)`` from voxel index to RAS+ mm; read-only.
        source: where it came from.

    Raises:
        ImageError: not three axes.
        OrientationError: an unusable affine.
    """

    data: Float32
    affine: Float64
    source: Source = Source()

    def __post_init__(self) -> None:
        data = np.asarray(self.data, dtype=np.float32)
        if data.ndim != 3 or 0 in data.shape:
            raise ImageError(f"an image of shape {data.shape}", "a 3D volume")
        object.__setattr__(self, "data", _frozen(data))
        object.__setattr__(self, "affine", _frozen(check_affine(self.affine)))

    @property
    def spacing_mm(self) -> Float64:
        """Voxel size along the three stored axes, ``(3,)``."""
        return spacing_mm(self.affine)


@dataclass(frozen=True, eq=False)
class MultiEchoGre:
    """The echoes of one gradient-echo series.

    Attributes:
        magnitude: ``(E, X, Y, Z)``, float32, any linear unit, echoes by rising echo time.
        phase: ``(E, X, Y, Z)``, float32, radians within -pi..pi, or None where there is none. It grows with time where
            the field is stronger than the scanner's own (right-handed convention: paramagnetic sources give a positive
            phase along the axis of the main field); ``source.steps`` says where a reader turned the sign.
        echo_times_ms: ``(E,)``, rising.
        field_strength_t: of the main field.
        affine: ``(4, 4)`` from voxel index to RAS+ mm.
        b0_direction: unit vector of the main field in RAS+, ``(3,)``; along the bore, so ``(0, 0, 1)`` unless the
            scanner says otherwise.
        source: where it came from.

    Raises:
        ImageError: shapes that do not belong together, phase outside -pi..pi, echo times that do not rise.
        OrientationError: an unusable affine.
    """

    magnitude: Float32
    phase: Float32 | None
    echo_times_ms: Float64
    field_strength_t: float
    affine: Float64
    b0_direction: Float64 = field(default_factory=lambda: np.array([0.0, 0.0, 1.0]))
    source: Source = Source()

    def __post_init__(self) -> None:
        magnitude = np.asarray(self.magnitude, dtype=np.float32)
        times = np.asarray(self.echo_times_ms, dtype=np.float64)
        if magnitude.ndim != 4 or 0 in magnitude.shape:
            raise ImageError(f"magnitude of shape {magnitude.shape}", "(echoes, X, Y, Z)")
        if times.shape != magnitude.shape[:1]:
            raise ImageError(f"{times.size} echo times for {len(magnitude)} echoes", "one for each")
        if not (np.isfinite(times).all() and (times > 0).all() and (np.diff(times) > 0).all()):
            raise ImageError(f"echo times of {', '.join(f'{t:g}' for t in times)} ms", "positive and rising ones")
        if not 0 < self.field_strength_t < 25:
            raise ImageError(f"a main field of {self.field_strength_t:g} T", "one between 0 and 25 T")
        if self.phase is not None:
            phase = np.asarray(self.phase, dtype=np.float32)
            if phase.shape != magnitude.shape:
                raise ImageError(f"phase of shape {phase.shape}", f"that of the magnitude, {magnitude.shape}")
            largest = float(np.abs(phase).max())
            if not largest <= np.pi + 1e-3:
                raise ImageError(f"phase up to {largest:g}", "radians within -pi..pi")
            object.__setattr__(self, "phase", _frozen(phase))
        direction = np.asarray(self.b0_direction, dtype=np.float64)
        if direction.shape != (3,) or not np.isclose(np.linalg.norm(direction), 1, atol=1e-6):
            raise ImageError(f"a field direction of {direction.tolist()}", "a unit vector in RAS+")
        object.__setattr__(self, "magnitude", _frozen(magnitude))
        object.__setattr__(self, "echo_times_ms", _frozen(times))
        object.__setattr__(self, "affine", _frozen(check_affine(self.affine)))
        object.__setattr__(self, "b0_direction", _frozen(direction))

    @property
    def spacing_mm(self) -> Float64:
        """Voxel size along the three stored axes, ``(3,)``."""
        return spacing_mm(self.affine)


def spacing_mm(affine: npt.ArrayLike) -> Float64:
    """Voxel size along the three axes of an affine, ``(3,)``."""
    size: Float64 = np.linalg.norm(np.asarray(affine, dtype=np.float64)[:3, :3], axis=0)
    return size


def _frozen(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    view = array.view()
    view.flags.writeable = False
    return view
