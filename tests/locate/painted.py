"""A scan painted with the dark shapes of the parametric atlas, so that its centres are known exactly."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from nigradat.anatomy import Side
from nigradat.locate.atlas import nigrosome_sites, parametric_atlas
from nigradat.locate.registration import transform
from nigradat.volume import Volume


def painted(to_scan=None, shape=(130, 110, 60), spacing=(0.6, 0.6, 1.0), noise=0.05, seed=0, tilt_deg=0.0) -> Volume:
    """Bright tissue with dark nigra and red nucleus; ``to_scan`` moves MNI152 to the scan, ``(4, 4)``."""
    move = np.eye(4) if to_scan is None else to_scan
    atlas = parametric_atlas()
    tilt = np.deg2rad(tilt_deg)
    turn = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    affine = np.eye(4)
    affine[:3, :3] = turn * np.array(spacing)
    middle = transform(move, np.array([0.0, -20.0, -13.0]))
    affine[:3, 3] = middle - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    points = transform(np.linalg.inv(atlas.affine) @ np.linalg.inv(move) @ affine, index.astype(float))
    dark = np.maximum(atlas.nigra.sum(0), atlas.red_nucleus.sum(0))
    member = ndimage.map_coordinates(dark, np.moveaxis(points, -1, 0), order=1)
    rng = np.random.default_rng(seed)
    return Volume(1000 * (1 - 0.5 * member + rng.normal(0, noise, shape)), affine)


def true_centres(to_scan=None) -> dict[Side, np.ndarray]:
    move = np.eye(4) if to_scan is None else to_scan
    return {side: transform(move, site) for side, site in nigrosome_sites(parametric_atlas()).items()}
