"""Digital heads made from a published atlas: labels become susceptibility, R2* and proton density, and those images.

The brain is the T1-weighted template that belongs to CIT168, warped into a head of its own by a random pose, random
sizes and a smooth random deformation; nigra and red nucleus come from CIT168 or from the Allen reference. Around it lie
a dark skull and a bright scalp. Nothing here knows the package's own parametric atlas.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from scipy import ndimage

from nigradat.anatomy import Side
from nigradat.io.nifti import read_volume
from nigradat.locate.atlas import Atlas, nigrosome_sites, read_atlas
from nigradat.volume import Volume

TE_MS = (14.0, 27.0, 40.0)
MIDBRAIN_MM = np.array([0.0, -19.0, -13.0])
# (T1-weighted intensity of the template: proton density, R2* in 1/s): cerebrospinal fluid, grey and white matter
TISSUES = ((0.0, 1.28, 4.0), (70.0, 1.25, 6.0), (130.0, 1.08, 17.0), (200.0, 0.95, 21.0), (255.0, 0.92, 22.0))
NIGRA_PPM, NIGRA_R2STAR, RED_PPM, RED_R2STAR = 0.12, 38.0, 0.12, 40.0
COMPACT_PPM = -0.015


@dataclass(frozen=True, eq=False)
class Head:
    """One head; a point of the atlas's space (MNI152) lies at ``to_head``.

    Attributes:
        atlas: where nigra and red nucleus come from.
        pose: ``(4, 4)``, from the atlas's space to the scanner's, without the deformation.
        bend: the deformation on a coarse grid of the atlas's space, ``(X, Y, Z, 3)`` mm.
    """

    atlas: Atlas
    brain: Volume
    pose: np.ndarray
    bend: np.ndarray
    seed: int

    def to_atlas(self, points: np.ndarray) -> np.ndarray:
        """Points of the scanner, ``(..., 3)``, as points of the atlas."""
        back = np.linalg.inv(self.pose)
        straight = points @ back[:3, :3].T + back[:3, 3]
        return straight + self._bend_at(straight)

    def to_head(self, points: np.ndarray) -> np.ndarray:
        """Points of the atlas as points of the scanner: the inverse, by fixed-point steps."""
        straight = np.array(points, dtype=float)
        for _ in range(60):
            straight = points - self._bend_at(straight)
        return straight @ self.pose[:3, :3].T + self.pose[:3, 3]

    @property
    def centres(self) -> dict[Side, np.ndarray]:
        """Where the two nigrosome-1 really lie, in mm of the scanner."""
        return {side: self.to_head(site) for side, site in nigrosome_sites(self.atlas).items()}

    def _bend_at(self, points: np.ndarray) -> np.ndarray:
        index = ((points.reshape(-1, 3) - _CORNER_MM) / _STEP_MM).T
        moved = [ndimage.map_coordinates(self.bend[..., i], index, order=1, mode="nearest") for i in range(3)]
        return np.stack(moved, -1).reshape(points.shape)


_PAD = 20
_CORNER_MM, _STEP_MM = np.array([-100.0, -140.0, -100.0]), 5.0


def make_head(data: Path, seed: int, source: str = "cit168", bend_mm: float = 3.0, sigma_mm: float = 18.0) -> Head:
    """A head of its own; the deformation reaches ``bend_mm`` (at least) within 30 mm of the midbrain."""
    rng = np.random.default_rng([20264, seed])
    angles = np.deg2rad(rng.uniform(-1, 1, 3) * (14.0, 6.0, 8.0))
    pose = np.eye(4)
    pose[:3, :3] = rotation(angles) @ np.diag(rng.uniform(0.93, 1.07, 3) * rng.uniform(0.96, 1.04))
    pose[:3, 3] = rng.uniform(-1, 1, 3) * (6.0, 15.0, 15.0)
    bend = ndimage.gaussian_filter(rng.normal(size=(41, 41, 41, 3)), (*(sigma_mm / _STEP_MM,) * 3, 0))
    places = np.stack(np.meshgrid(*(_CORNER_MM[i] + _STEP_MM * np.arange(41) for i in range(3)), indexing="ij"), -1)
    near = np.linalg.norm(places - MIDBRAIN_MM, axis=-1) < 30.0
    bend *= bend_mm * rng.uniform(1.0, 1.3) / np.linalg.norm(bend[near], axis=-1).max()
    return Head(_atlas(data, source), _brain(data), pose, bend, seed)


def rotation(angles: np.ndarray) -> np.ndarray:
    """About x, then y, then z; radians."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return z @ y @ x


def slab_grid(head: Head, shape=(300, 340, 64), spacing=(0.6, 0.6, 1.0), tilt_deg=None) -> tuple[tuple, np.ndarray]:
    """An oblique slab as a technologist would plan it: roughly square to the midbrain, roughly centred on it."""
    rng = np.random.default_rng([20265, head.seed])
    tilt = rng.uniform(0, 30) if tilt_deg is None else tilt_deg
    axes = rotation(np.deg2rad([-tilt, rng.uniform(-3, 3), rng.uniform(-3, 3)]))
    affine = np.eye(4)
    affine[:3, :3] = axes * np.array(spacing)
    middle = head.to_head(np.array([0.0, -19.0, -13.0])) + axes @ (rng.uniform(-1, 1, 3) * (4.0, 14.0, 10.0))
    affine[:3, 3] = middle - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return shape, affine


def head_grid(head: Head, shape=(180, 220, 180), spacing=(1.0, 1.0, 1.0)) -> tuple[tuple, np.ndarray]:
    """A whole head in the scanner's axes."""
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = head.pose[:3, 3] + (0, -18, 8) - np.array(spacing) * (np.array(shape) - 1) / 2
    return shape, affine


def maps(head: Head, shape, affine, nigra_ppm=NIGRA_PPM, red_ppm=RED_PPM) -> Mapping[str, np.ndarray]:
    """``t1w`` (any unit), ``m0``, ``r2star_hz`` and ``chi_ppm`` of every voxel; the part of it that lies ``inside`` the
    brain, in the ``nigra`` and in the ``red`` nucleus."""
    names = ("t1w", "m0", "r2star_hz", "chi_ppm", "inside", "nigra", "red")
    out = {name: np.zeros(shape, np.float32) for name in names}
    t1w_map, depth, brain_affine = _template_maps(head.brain)
    i, j = np.meshgrid(*(np.arange(n) for n in shape[:2]), indexing="ij")
    for k in range(shape[2]):  # slice by slice: points and their coordinates would fill the memory
        points = np.stack([i, j, np.full_like(i, k)], -1) @ affine[:3, :3].T + affine[:3, 3]
        at = head.to_atlas(points)
        index = _index(at, brain_affine)
        brain = ndimage.map_coordinates(t1w_map, index, order=1)
        outside = ndimage.map_coordinates(depth, index, order=1, mode="nearest")
        inside = np.clip(1.0 - outside / 1.5, 0, 1)
        knots = np.array(TISSUES).T
        m0, r2 = np.interp(brain, knots[0], knots[1]), np.interp(brain, knots[0], knots[2])
        # fluid, then skull, then scalp
        shell = np.select([outside < 3, outside < 9, outside < 15], [1.2, 0.08, 0.9], 0.0)
        t1_shell = np.select([outside < 3, outside < 9, outside < 15], [35.0, 15.0, 230.0], 0.0)
        out["t1w"][..., k] = inside * brain + (1 - inside) * t1_shell
        m0 = inside * m0 + (1 - inside) * shell
        r2 = inside * r2 + (1 - inside) * 25.0
        nigra, compact, red = (
            _member(m, at, head.atlas.affine) for m in (head.atlas.nigra, head.atlas.compact, head.atlas.red_nucleus)
        )
        chi = nigra * nigra_ppm + compact * COMPACT_PPM + red * red_ppm - 0.005 * inside * (1 - nigra) * (1 - red)
        iron = np.clip(nigra + red, 0, 1)
        out["m0"][..., k] = m0 * (1 - iron) + iron
        out["r2star_hz"][..., k] = r2 * (1 - iron) + iron * np.where(
            nigra > red, NIGRA_R2STAR - 4 * compact, RED_R2STAR
        )
        out["chi_ppm"][..., k] = chi
        out["inside"][..., k], out["nigra"][..., k], out["red"][..., k] = inside, nigra, red
    return out


def t1w(head: Head, shape, affine, snr: float = 25.0) -> Volume:
    """A T1-weighted image with a bias field and noise."""
    rng = np.random.default_rng([20266, head.seed])
    image = maps(head, shape, affine)["t1w"] * _bias(rng, shape)
    return Volume(np.abs(image + rng.normal(0, 150.0 / snr, shape)), affine)


def gre(head: Head, shape, affine, snr: float = 19.0, smwi: bool = True) -> Volume:
    """Root mean square of three echoes, or the SMWI made with the true susceptibility."""
    rng = np.random.default_rng([20267, head.seed])
    m = maps(head, shape, affine)
    echoes = [m["m0"] * np.exp(-te / 1000 * m["r2star_hz"]) for te in TE_MS]
    image = np.sqrt(np.mean(np.square(echoes), axis=0)) * _bias(rng, shape)
    noise = rng.normal(0, 0.6 / snr, (2, *shape)).astype(np.float32)
    image = np.hypot(image + noise[0], noise[1])
    if smwi:
        image *= np.clip(1 - m["chi_ppm"], 0, 1) ** 4
    return Volume(1000 * image, affine)


def _bias(rng: np.random.Generator, shape) -> np.ndarray:
    coarse = ndimage.gaussian_filter(rng.normal(size=(12, 12, 12)), 3.0)
    coarse = 1 + 0.10 * coarse / np.abs(coarse).max()
    return ndimage.zoom(coarse, np.array(shape) / 12, order=1).astype(np.float32)


def _index(points: np.ndarray, affine: np.ndarray) -> np.ndarray:
    back = np.linalg.inv(affine)
    return np.moveaxis(points @ back[:3, :3].T + back[:3, 3], -1, 0)


def _member(members: np.ndarray, points: np.ndarray, affine: np.ndarray) -> np.ndarray:
    return np.clip(ndimage.map_coordinates(members.sum(0), _index(points, affine), order=1), 0, 1)


@cache
def _template(path: Path) -> Volume:
    return Volume(*read_volume(path))


def _brain(data: Path) -> Volume:
    return _template(data / "atlas" / "CIT168toMNI152-2009c_T1w_brain.nii.gz")


@cache
def _template_maps(brain: Volume) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The template, and how far outside the brain each voxel lies, in mm; both padded by what a head needs."""
    data = np.pad(brain.data, _PAD)
    mask = ndimage.binary_fill_holes(ndimage.binary_closing(data > 20, iterations=3))
    affine = brain.affine.copy()
    affine[:3, 3] -= brain.affine[:3, :3] @ (_PAD, _PAD, _PAD)
    return data, ndimage.distance_transform_edt(~mask).astype(np.float32), affine


@cache
def _atlas(data: Path, source: str) -> Atlas:
    if source == "cit168":
        return read_atlas(data / "atlas" / "cit168_midbrain_prob_4d.nii.gz")
    return read_atlas(
        data / "atlas" / "allen_human_reference_0p5mm_sym.nii.gz", data / "atlas" / "allen_human_reference_labels.json"
    )
