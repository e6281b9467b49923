"""Against published atlases: where our nigra lies, and nigrosome-1 in heads made from CIT168 and Allen."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from heads import gre, head_grid, make_head, slab_grid, t1w
from nibabel import orientations

from nigradat.anatomy import Side
from nigradat.io.nifti import read_volume
from nigradat.locate.atlas import nigrosome_sites, parametric_atlas, read_atlas
from nigradat.locate.locate import locate_nigrosomes
from nigradat.locate.registration import register
from nigradat.volume import Volume

pytest.importorskip("SimpleITK")
pytest.importorskip("nilearn")

# Of data/README.md: whole nigra, |x|, y, z
CENTROIDS = {"cit168": (9.5, -17.0, -13.6), "allen": (10.2, -17.3, -13.8)}


@pytest.fixture(scope="module")
def atlases(shared_data):
    folder = shared_data / "atlas"
    return {
        "cit168": read_atlas(folder / "cit168_midbrain_prob_4d.nii.gz"),
        "allen": read_atlas(
            folder / "allen_human_reference_0p5mm_sym.nii.gz", folder / "allen_human_reference_labels.json"
        ),
    }


@pytest.mark.parametrize("name", CENTROIDS)
@pytest.mark.parametrize("side", Side)
def test_published_atlases_are_read_as_documented_and_ours_agrees(atlases, name, side):
    theirs = atlases[name].centroid(atlases[name].nigra[side.index])
    mirror = (1 if side is Side.RIGHT else -1, 1, 1)
    # the documented value is the mean of both sides
    np.testing.assert_allclose(theirs * mirror, CENTROIDS[name], atol=0.5)
    ours = parametric_atlas().centroid(parametric_atlas().nigra[side.index])
    assert np.linalg.norm(ours - theirs) < 2.0
    red = parametric_atlas().centroid(parametric_atlas().red_nucleus[side.index])
    assert np.linalg.norm(red - atlases[name].centroid(atlases[name].red_nucleus[side.index])) < 2.0


@pytest.mark.parametrize(("side", "documented"), [(Side.RIGHT, (8.4, -19.0, -14.0)), (Side.LEFT, (-8.6, -19.3, -14.0))])
def test_the_compact_part_of_each_side_lies_where_the_atlas_says(atlases, side, documented):
    """The rule for nigrosome-1 stands on this map."""
    found = atlases["cit168"].centroid(atlases["cit168"].compact[side.index])
    np.testing.assert_allclose(found, documented, atol=0.5)


@pytest.mark.parametrize("name", CENTROIDS)
@pytest.mark.parametrize("side", Side)
def test_one_rule_puts_nigrosome_1_at_one_place(atlases, name, side):
    ours, theirs = nigrosome_sites(parametric_atlas())[side], nigrosome_sites(atlases[name])[side]
    assert np.linalg.norm(ours - theirs) < 2.0


@pytest.mark.slow
@pytest.mark.parametrize("name", CENTROIDS)
def test_an_atlas_returns_to_its_own_centroid(atlases, shared_data, name):
    """Through the registration of the CIT168 template, which lies in MNI152 space already, and back."""
    brain = Volume(*read_volume(shared_data / "atlas" / "CIT168toMNI152-2009c_T1w_brain.nii.gz"))
    aligned = register(brain)
    for side in Side:
        centroid = atlases[name].centroid(atlases[name].nigra[side.index])
        assert np.linalg.norm(aligned.to_scan(centroid) - centroid) < 1.0
        np.testing.assert_allclose(aligned.to_mni(aligned.to_scan(centroid)), centroid, atol=0.01)


def errors_mm(head, volume, **options):
    """Distance of both centres from the truth, and whether each is nearer to its own side than to the other."""
    found = locate_nigrosomes(volume, **options)
    truth = head.centres
    for side in Side:
        own, other = (np.linalg.norm(found.centres[side] - truth[s]) for s in (side, side.other))
        assert own < other
    return [float(np.linalg.norm(found.centres[side] - truth[side])) for side in Side]


@pytest.mark.slow
def test_a_slab_through_the_t1w_of_the_same_session(shared_data):
    head = make_head(shared_data, 101)
    reference = t1w(head, *head_grid(head))
    assert max(errors_mm(head, gre(head, *slab_grid(head), smwi=False), t1w=reference)) < 3.0


@pytest.mark.slow
@pytest.mark.timeout(6 * 3600)
@pytest.mark.parametrize(("source", "seeds"), [("cit168", range(50)), ("allen", range(60, 70))])
def test_many_heads(shared_data, capsys, source, seeds):
    """Random poses, sizes and deformations of 3 mm and more; slabs of SMWI tilted by up to 30 degrees."""
    found = []
    for seed in seeds:
        head = make_head(shared_data, seed, source)
        found += errors_mm(head, gre(head, *slab_grid(head)))
        with capsys.disabled():
            print(f"{source} {seed}: median {np.median(found):.2f} mm, 95 % within {np.quantile(found, 0.95):.2f} mm")
    assert np.median(found) < 1.5
    assert np.quantile(found, 0.95) < 3.0


@pytest.mark.slow
@pytest.mark.timeout(2 * 3600)
def test_no_storage_order_exchanges_the_sides_of_a_head(shared_data):
    """The whole way with its registration, for each of the 48 orders in which one slab can be stored."""
    head = make_head(shared_data, 102)
    slab = gre(head, *slab_grid(head, shape=(180, 200, 44), spacing=(1.0, 1.0, 1.5)))
    reference = locate_nigrosomes(slab)
    for order, flips in product(permutations(range(3)), product((1, -1), repeat=3)):
        ornt = np.column_stack([order, flips])
        data = orientations.apply_orientation(slab.data, ornt)
        stored = Volume(data, slab.affine @ orientations.inv_ornt_aff(ornt, slab.data.shape))
        found = locate_nigrosomes(stored)
        for side in Side:
            np.testing.assert_allclose(found.centres[side], reference.centres[side], atol=0.01)
        assert found.right_mm[0] > found.left_mm[0]
