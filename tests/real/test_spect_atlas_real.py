"""Our ellipsoids against the Allen human reference, and a head with its striata."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from nigradat.anatomy import Side
from nigradat.phantom.striatum import random_pose
from nigradat.spect.registration import register
from nigradat.spect.sbr import SbrRecipe, measure_sbr
from nigradat.spect.template import blurred, uptake
from nigradat.spect.volumes_of_interest import own_atlas
from nigradat.volume import Volume

PUTAMEN, CAUDATE = (9,), (6, 7)


@pytest.fixture(scope="module")
def allen(shared_data):
    image = nib.load(shared_data / "atlas" / "allen_human_reference_0p5mm_sym.nii.gz")
    return np.asarray(image.dataobj), image.affine


def places(allen, labels, side):
    data, affine = allen
    found = np.argwhere(np.isin(data, labels)) @ affine[:3, :3].T + affine[:3, 3]
    return found[(found[:, 0] > 0) == (side is Side.RIGHT)]


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize(("part", "labels", "dice"), [("putamen", PUTAMEN, 0.7), ("caudate", CAUDATE, 0.6)])
def test_our_parts_lie_on_theirs(allen, part, labels, dice, side):
    theirs = places(allen, labels, side)
    ours = own_atlas().parts[part, side]
    low, high = ours.box_mm
    axes = [np.arange(a, b + 0.25, 0.5) for a, b in zip(np.floor(low), np.ceil(high), strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    inside = points[ours.contains(points)]
    assert np.linalg.norm(inside.mean(axis=0) - theirs.mean(axis=0)) < 5
    assert 2 * ours.contains(theirs).sum() / (len(inside) + len(theirs)) > dice


def allen_head(allen, sbr, pose, seed):
    """Their striata in our brain, in some pose."""
    data, affine = allen
    shape, scan = (72, 80, 68), np.diag([3.0, 3.0, 3.0, 1.0])
    scan[:3, 3] = pose[:3, :3] @ [0, -18, 6] + pose[:3, 3] - 3 * (np.array(shape) - 1) / 2
    to_mni = np.linalg.inv(pose) @ scan
    index = np.linalg.inv(affine) @ to_mni
    image = uptake(shape, to_mni, {})
    x = affine[0, 0] * np.arange(data.shape[0])[:, None, None] + affine[0, 3]
    volumes = []
    for side in Side:
        mask = np.isin(data, (*PUTAMEN, *CAUDATE)) & ((x > 0) == (side is Side.RIGHT))
        soft = ndimage.gaussian_filter(mask.astype(np.float32), 2.5)  # to the voxels' own size
        share = ndimage.affine_transform(soft, index[:3, :3], index[:3, 3], output_shape=shape, order=1)
        image += sbr[side.index] * share
        volumes.append(float(share.sum()) * 0.027)
    image = blurred(image, 10.0, scan)
    return Volume(np.random.default_rng(seed).poisson(image * 2e6 / image.sum()), scan), volumes


@pytest.mark.parametrize(("seed", "sbr"), [(0, (2.0, 1.0)), (1, (0.8, 1.2))])
def test_southampton_measures_striata_that_are_not_ours(allen, seed, sbr):
    scan, volumes = allen_head(allen, sbr, random_pose(seed), seed)
    found = register(scan)
    for side in Side:
        recipe = SbrRecipe("southampton", striatal_volume_ml=volumes[side.index])
        assert measure_sbr(scan, recipe, alignment=found)["striatum"][side] == pytest.approx(sbr[side.index], rel=0.1)
