"""The digital striatum: a head whose true SBR is known, as a SPECT camera would see it.

Everything here is simulated: ellipsoids for striata and brain, uniform elsewhere, a Gaussian blur for the camera, and
Poisson noise as if counts were independent between voxels (a reconstruction correlates them). It tests the arithmetic
of a measurement and says nothing about patients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from nigradat.anatomy import Side
from nigradat.errors import ConfigError
from nigradat.spect.template import blurred, uptake
from nigradat.spect.volumes_of_interest import Part, cover, own_atlas
from nigradat.volume import Source, Volume

Float64 = npt.NDArray[np.float64]

DISJOINT_PARTS: Final[tuple[Part, ...]] = ("caudate", "anterior putamen", "posterior putamen")
PHANTOM_NOTE: Final = "digital striatum phantom, not a patient"


@dataclass(frozen=True)
class SideUptake:
    """True SBR of the parts of one striatum."""

    caudate: float
    anterior_putamen: float
    posterior_putamen: float

    @classmethod
    def even(cls, sbr: float) -> SideUptake:
        """The same throughout."""
        return cls(sbr, sbr, sbr)

    def of(self, part: Part) -> float:
        """Of one of the three parts."""
        return float(getattr(self, part.replace(" ", "_")))


@dataclass(frozen=True, eq=False)
class StriatalHead:
    """A head before the noise, with its truth.

    Attributes:
        expected: mean counts in each voxel.
        scan_from_mni: ``(4, 4)``, from RAS+ mm of MNI to RAS+ mm of the scan.
        sbr: true mean SBR of each striatum, by volume, right first, ``(2,)``.
        striatal_volume_ml: of each striatum in this head, right first, ``(2,)``.
    """

    expected: Volume
    scan_from_mni: Float64
    sbr: Float64
    striatal_volume_ml: Float64

    def draw(self, seed: int) -> Volume:
        """One scan of it: Poisson counts. Same seed, same scan."""
        counts = np.random.default_rng(seed).poisson(self.expected.data)
        return Volume(
            counts.astype(np.float32), self.expected.affine, self.expected.source.then(f"Poisson, seed {seed}")
        )


def striatal_head(
    right: SideUptake,
    left: SideUptake,
    *,
    scan_from_mni: npt.ArrayLike | None = None,
    shape: Sequence[int] = (72, 80, 68),
    voxel_mm: float = 3.0,
    fwhm_mm: float = 10.0,
    counts: float = 2e6,
) -> StriatalHead:
    """A head with known uptake in a known pose.

    Args:
        right, left: true SBR of the parts of each striatum.
        scan_from_mni: pose and size, an affine map without reflection; default the MNI head itself.
        shape: of the scan, along right, anterior, superior; centred on the head.
        voxel_mm: edge of its cubic voxels.
        fwhm_mm: the camera's resolution; 0 for none.
        counts: in the whole scan.

    Raises:
        ConfigError: a reflection, or an uptake below 0.
    """
    pose: Float64 = np.eye(4) if scan_from_mni is None else check_affine_map(scan_from_mni)
    affine: Float64 = np.diag([voxel_mm] * 3 + [1.0])
    middle = pose[:3, :3] @ _HEAD_CENTRE_MM + pose[:3, 3]
    affine[:3, 3] = middle - voxel_mm * (np.array(shape) - 1) / 2
    index_to_mni: Float64 = np.linalg.inv(pose) @ affine
    truth: Mapping[tuple[Part, Side], float] = {
        (part, side): (right if side is Side.RIGHT else left).of(part) for part in DISJOINT_PARTS for side in Side
    }
    if min(truth.values()) < 0:
        raise ConfigError(f"an uptake of {min(truth.values()):g}", "an SBR of 0 or more")
    image = uptake(shape, index_to_mni, truth)
    if fwhm_mm > 0:
        image = blurred(image, fwhm_mm, affine)
    parts = own_atlas().parts
    volumes = {key: cover(parts[key], affine, shape, pose).volume_ml for key in truth}
    totals = np.array([sum(volumes[part, side] for part in DISJOINT_PARTS) for side in Side])
    means = [sum(volumes[part, side] * truth[part, side] for part in DISJOINT_PARTS) for side in Side] / totals
    source = Source(kind="made", attributes={"phantom": PHANTOM_NOTE}, steps=("digital striatum",))
    expected = Volume((image * (counts / image.sum())).astype(np.float32), affine, source)
    return StriatalHead(expected, pose, means, totals)


def random_pose(seed: int, *, turn_deg: float = 10.0, shift_mm: float = 15.0, stretch: float = 0.08) -> Float64:
    """A head's pose and size: turned about all three axes, moved, and stretched along each, all uniform within bounds.

    Args:
        seed: same seed, same pose.
        turn_deg, shift_mm: largest turn and shift.
        stretch: largest relative change of each diameter.

    Returns:
        ``(4, 4)``, MNI to scan, RAS+ mm.
    """
    from scipy.spatial.transform import Rotation

    rng = np.random.default_rng(seed)
    turn = Rotation.from_euler("xyz", rng.uniform(-turn_deg, turn_deg, 3), degrees=True).as_matrix()
    pose = np.eye(4)
    pose[:3, :3] = turn @ np.diag(1 + rng.uniform(-stretch, stretch, 3))
    pose[:3, 3] = rng.uniform(-shift_mm, shift_mm, 3)
    return pose


def check_affine_map(matrix: npt.ArrayLike) -> Float64:
    """An affine map between spaces, ``(4, 4)``, that keeps right and left apart.

    Raises:
        ConfigError: not 4 x 4, or a reflection.
    """
    a = np.asarray(matrix, dtype=np.float64)
    if a.shape != (4, 4) or not np.isfinite(a).all() or not np.linalg.det(a[:3, :3]) > 0:
        raise ConfigError("a map that is no 4 x 4 matrix or exchanges right and left", "an affine without reflection")
    return a


_HEAD_CENTRE_MM: Final = np.array([0.0, -18.0, 6.0])
