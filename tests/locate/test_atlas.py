"""The parametric atlas lies where published atlases do, and any atlas gives nigrosome-1 by one rule."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest

from nigradat.anatomy import Side
from nigradat.errors import ConfigError, ImageError
from nigradat.locate.atlas import Atlas, nigrosome_sites, parametric_atlas, read_atlas

# Whole-nigra centroids, |x|, y, z of MNI152: Pauli 2018 (CIT168, SNc and SNr) and Ding 2016 (Allen)
PUBLISHED_NIGRA = ((9.5, -17.0, -13.6), (10.2, -17.3, -13.8))


def mirrored(point):
    return np.asarray(point) * (-1, 1, 1)


@pytest.mark.parametrize("published", PUBLISHED_NIGRA)
@pytest.mark.parametrize("side", Side)
def test_the_nigra_lies_within_two_millimetres_of_published_atlases(published, side):
    atlas = parametric_atlas()
    here = atlas.centroid(atlas.nigra[side.index])
    there = np.array(published) if side is Side.RIGHT else mirrored(published)
    assert np.linalg.norm(here - there) < 2.0


def test_sizes_are_those_of_published_anatomy():
    atlas = parametric_atlas()
    voxel = abs(np.linalg.det(atlas.affine[:3, :3]))
    for side in Side:
        assert 300 < atlas.nigra[side.index].sum() * voxel < 620
        assert 350 < atlas.red_nucleus[side.index].sum() * voxel < 450
        assert 0.25 < atlas.compact[side.index].sum() / atlas.nigra[side.index].sum() < 0.5


def test_the_compact_part_lies_inside_the_nigra():
    atlas = parametric_atlas()
    assert (atlas.compact <= atlas.nigra).all()


def test_both_sides_are_mirror_images():
    atlas = parametric_atlas()
    sites = nigrosome_sites(atlas)
    np.testing.assert_allclose(sites[Side.RIGHT], mirrored(sites[Side.LEFT]), atol=1e-6)
    np.testing.assert_array_equal(atlas.nigra[0], atlas.nigra[1][::-1])


def test_nigrosome_1_lies_at_the_posterolateral_border_of_the_nigra():
    atlas = parametric_atlas()
    site = nigrosome_sites(atlas)[Side.RIGHT]
    centre = atlas.centroid(atlas.nigra[Side.RIGHT.index])
    assert site[1] < centre[1] - 3
    assert site[0] > centre[0]
    index = np.round(np.linalg.solve(atlas.affine[:3, :3], site - atlas.affine[:3, 3])).astype(int)
    assert atlas.nigra[(Side.RIGHT.index, *index)] > 0.5


def test_the_rule_on_a_bar_whose_answer_is_known():
    """On a bar along the posterolateral diagonal the outermost fifth has its centre at nine tenths of the length."""
    affine = np.diag([0.5, 0.5, 0.5, 1.0])
    affine[:3, 3] = (-40, -40, -10)
    x, y, z = np.meshgrid(*(affine[i, 3] + 0.5 * np.arange(n) for i, n in enumerate((161, 121, 41))), indexing="ij")
    along, across = (np.abs(x) - y) / np.sqrt(2), (np.abs(x) + y) / np.sqrt(2)
    # away from x = 0: from 14 to 34 mm along the diagonal
    bar = (along > 14) & (along < 34) & (np.abs(across) < 1.5) & (np.abs(z) < 1.5)
    sides = np.stack([bar & (x > 0), bar & (x < 0)]).astype(np.float32)
    sites = nigrosome_sites(Atlas("bar", affine, sides, sides, sides))
    expected = 32.0 / np.sqrt(2)
    np.testing.assert_allclose(sites[Side.RIGHT], (expected, -expected, 0), atol=0.15)
    np.testing.assert_allclose(sites[Side.LEFT], (-expected, -expected, 0), atol=0.15)


# -- Atlases from files -----------------------------------------------------------------------------------------------


@pytest.fixture
def atlas_file(tmp_path):
    """The parametric atlas as someone else would have it: a label image, or maps, and names."""

    def write(kind="labels", names=None, flip=False, suffix=".json"):
        ours = parametric_atlas()
        both = {
            "SNc": ours.compact.max(0),
            "SNr": (ours.nigra - ours.compact).max(0),
            "Red Nucleus": ours.red_nucleus.max(0),
        }
        affine = ours.affine @ np.diag([-1, 1, 1, 1]) if flip else ours.affine
        path = tmp_path / "other.nii.gz"
        if kind == "labels":
            image = np.zeros(ours.nigra.shape[1:], np.uint8)
            for number, member in enumerate(both.values(), start=1):
                image[member > 0.5] = number
            given = names or {"labels": ["background", *both]}
        else:
            maps, called = [], []
            for name, member in (("SNc", ours.compact), ("SNr", ours.nigra - ours.compact), ("RN", ours.red_nucleus)):
                for side in Side:
                    maps.append(255 * member[side.index])
                    called.append(f"{side.value} {name}")
            image = np.stack(maps, -1).round().astype(np.uint8)
            given = names or {"volumes": called}
        nib.save(nib.Nifti1Image(image, affine), path)
        if suffix == ".json":
            (tmp_path / "other.json").write_text(json.dumps(given), encoding="utf-8")
        elif suffix == ".tsv":
            lines = "".join(f"{i}\t{name}\n" for i, name in enumerate(["background", *both]))
            (tmp_path / "other.tsv").write_text("index\tname\n" + lines, encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize(("kind", "suffix"), [("labels", ".json"), ("labels", ".tsv"), ("maps", ".json")])
def test_an_atlas_survives_the_way_through_a_file(atlas_file, kind, suffix):
    atlas = read_atlas(atlas_file(kind, suffix=suffix))
    ours = parametric_atlas()
    for side in Side:
        for read, own in (
            (atlas.nigra, ours.nigra),
            (atlas.compact, ours.compact),
            (atlas.red_nucleus, ours.red_nucleus),
        ):
            there = ours.centroid(own[side.index])
            np.testing.assert_allclose(atlas.centroid(read[side.index]), there, atol=0.3)
        there = nigrosome_sites(ours)[side]
        np.testing.assert_allclose(nigrosome_sites(atlas)[side], there, atol=0.5)


def test_names_by_number(atlas_file):
    path = atlas_file(names={"labels": {"1": "SNc", "2": "SNr", "3": "RN"}})
    assert read_atlas(path).nigra.any()


def test_a_nigra_in_one_piece_gets_the_compact_layer_that_ours_has(atlas_file):
    path = atlas_file(names={"labels": ["background", "SN", "substantia nigra", "RN"]})
    atlas = read_atlas(path)
    for side in Side:
        compact, nigra = atlas.compact[side.index], atlas.nigra[side.index]
        assert 0.25 < compact.sum() / nigra.sum() < 0.5
        inwards = -1 if side is Side.RIGHT else 1
        moved = atlas.centroid(compact) - atlas.centroid(nigra)
        assert moved[0] * inwards > 0.3
        assert moved[1] < 0
        ours = parametric_atlas()
        np.testing.assert_allclose(atlas.centroid(compact), ours.centroid(ours.compact[side.index]), atol=1.0)
        np.testing.assert_allclose(nigrosome_sites(atlas)[side], nigrosome_sites(ours)[side], atol=1.0)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({"labels": ["background", "SNc", "SNr", "thalamus"]}, "red nucleus"),
        ({"labels": ["background", "a", "b", "c"]}, "none of the structures"),
        ({"labels": ["background", "left SN", "left SNr", "left RN"]}, "on the right"),
        ({"structures": []}, "'labels' or 'volumes'"),
        ({"labels": {"one": "SN"}}, "'labels' or 'volumes'"),
    ],
)
def test_an_atlas_without_what_is_needed_is_refused(atlas_file, names, words):
    with pytest.raises((ImageError, ConfigError), match=words):
        read_atlas(atlas_file(names=names))


def test_an_atlas_without_names_is_refused(atlas_file):
    with pytest.raises(ConfigError, match=r"other\.json or other\.tsv beside it"):
        read_atlas(atlas_file(suffix=""))


def test_an_atlas_whose_sides_are_exchanged_is_refused(atlas_file):
    """Names say right where the affine says left."""
    with pytest.raises(ImageError, match="lies at x = -"):
        read_atlas(atlas_file("maps", flip=True))
