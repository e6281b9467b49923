"""Regions in MNI space: their size, their sides, how they are laid over a scan, and atlases from files."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from nigradat.anatomy import Side
from nigradat.errors import FieldOfViewError, ImageError, LateralityError
from nigradat.io.nifti import write_volume
from nigradat.spect.volumes_of_interest import (
    CAUDATE,
    PARTS,
    PUTAMEN,
    REFERENCES,
    Ellipsoid,
    cover,
    own_atlas,
    read_atlas,
    union,
    whole_brain,
)

BALL = Ellipsoid((10.0, 0.0, 0.0), ((20.0, 0.0, 0.0), (0.0, 20.0, 0.0), (0.0, 0.0, 20.0)))


def grid(voxel_mm: float, corner_mm=(-100.0, -120.0, -80.0)) -> np.ndarray:
    affine = np.diag([voxel_mm] * 3 + [1.0])
    affine[:3, 3] = corner_mm
    return affine


HEAD = grid(3.0), (70, 75, 58)


@pytest.mark.parametrize("voxel", [2.0, 3.3, 4.4])
def test_a_ball_has_its_volume_and_a_field_its_integral(voxel):
    affine = grid(voxel, (-41.3, -40.1, -39.7))
    shape = tuple(int(np.ceil(90 / voxel)) for _ in range(3))
    found = cover(union("ball", [BALL]), affine, shape)
    assert found.volume_ml == pytest.approx(4 / 3 * np.pi * 8, rel=0.01)
    assert BALL.volume_ml == pytest.approx(4 / 3 * np.pi * 8, rel=1e-9)
    x = affine[0, 0] * np.arange(shape[0]) + affine[0, 3]
    field = np.broadcast_to((2 + 0.1 * x)[:, None, None], shape)  # its mean over a ball is its value at the centre
    assert found.mean(field) == pytest.approx(3.0, abs=0.02)
    assert found.total(field) == pytest.approx(found.mean(field) * found.volume_ml, rel=1e-12)


@given(turn=st.integers(0, 2**32 - 1), voxel=st.floats(1.5, 4.5))
@settings(max_examples=25)
def test_a_region_keeps_its_volume_however_the_scan_lies(turn, voxel):
    rng = np.random.default_rng(turn)
    affine = np.eye(4)
    affine[:3, :3] = Rotation.random(rng=rng).as_matrix() * voxel
    shape = (int(260 / voxel),) * 3
    affine[:3, 3] = -affine[:3, :3] @ (np.array(shape) / 2) + rng.uniform(-voxel, voxel, 3)
    putamen = cover(own_atlas().parts["striatum", Side.LEFT], affine, shape)
    assert putamen.volume_ml == pytest.approx(10.22, rel=0.03)


def test_the_parts_add_up_and_do_not_overlap():
    parts = own_atlas().parts
    volumes = {key: cover(region, *HEAD).volume_ml for key, region in parts.items()}
    for side in Side:
        ahead, behind = volumes["anterior putamen", side], volumes["posterior putamen", side]
        assert ahead + behind == pytest.approx(volumes["putamen", side], rel=1e-9)
        assert volumes["caudate", side] + volumes["putamen", side] == pytest.approx(volumes["striatum", side], rel=1e-9)
        assert volumes["caudate", side] == pytest.approx(CAUDATE.volume_ml, rel=0.01)
        assert volumes["putamen", side] == pytest.approx(PUTAMEN.volume_ml, rel=0.01)


def test_each_side_lies_on_its_side_and_mirrors_the_other():
    atlas = own_atlas()
    points = np.random.default_rng(0).uniform((-60, -60, -40), (60, 60, 50), (20_000, 3))
    points[:, 0] += np.where(points[:, 0] >= 0, 1e-6, -1e-6)
    for regions in (atlas.parts, atlas.search):
        for part, side in regions:
            inside = regions[part, side].contains(points)
            assert inside.any()
            assert ((points[inside, 0] > 0) == (side is Side.RIGHT)).all()
            assert np.array_equal(inside, regions[part, side.other].contains(points * [-1, 1, 1]))
    for side in Side:
        caudate, putamen = (atlas.search[part, side].contains(points) for part in ("caudate", "putamen"))
        assert not (caudate & putamen).any()
        inside = atlas.generous[side.index].contains(points)
        assert ((points[inside, 0] > 0) == (side is Side.RIGHT)).all()
        assert inside[atlas.parts["striatum", side].contains(points)].all()


def test_references_lie_in_the_brain_and_away_from_both_striata():
    atlas = own_atlas()
    points = np.random.default_rng(1).uniform(*whole_brain().box_mm, (40_000, 3))
    for name in REFERENCES:
        inside = atlas.references[name].contains(points)
        assert whole_brain().contains(points[inside]).all()
        for generous in atlas.generous:
            assert not generous.contains(points[inside]).any()
    assert cover(atlas.references["occipital"], *HEAD).volume_ml > 20


def test_no_part_of_a_region_is_outside_its_box():
    atlas = own_atlas()
    points = np.random.default_rng(2).uniform((-90, -120, -80), (90, 90, 90), (60_000, 3))
    regions = [
        *atlas.parts.values(),
        *atlas.search.values(),
        *atlas.references.values(),
        *atlas.generous,
        whole_brain(),
    ]
    for region in regions:
        inside = points[region.contains(points)]
        low, high = region.box_mm
        assert ((inside >= low) & (inside <= high)).all(), region.name


def test_a_region_that_is_cut_is_refused():
    affine, (nx, ny, nz) = HEAD
    shifted = affine.copy()
    shifted[1, 3] = -76
    with pytest.raises(FieldOfViewError, match=r"\d+ % of the occipital reference lies outside"):
        cover(own_atlas().references["occipital"], shifted, (nx, ny, nz))
    with pytest.raises(FieldOfViewError, match="100 % of the right caudate"):
        cover(own_atlas().parts["caudate", Side.RIGHT], grid(3.0, (200, 200, 200)), (9, 9, 9))


# -- Atlases from files -------------------------------------------------------------------------------------------


@pytest.fixture
def write_atlas(tmp_path):
    """Our own parts as a label image at 1 mm, with other numbers and names where a test wants them."""

    def write(names=None, swap=False, name="striatum.nii.gz"):
        affine, shape = grid(1.0, (-45, -95, -30)), (91, 131, 66)
        index = np.indices(shape).reshape(3, -1).T
        points = index @ affine[:3, :3].T + affine[:3, 3]
        labels = np.zeros(len(points), dtype=np.int16)
        rows = []
        regions = {
            f"{part.replace(' ', '_')}_{side.value}": own_atlas().parts[part, side.other if swap else side]
            for part in ("caudate", "anterior putamen", "posterior putamen")
            for side in Side
        } | {"occipital": own_atlas().references["occipital"]}
        for i, (known, region) in enumerate(regions.items(), start=11):
            labels[region.contains(points)] = i
            rows.append((i, (names or {}).get(known, known)))
        path = tmp_path / name
        write_volume(path, labels.reshape(shape), affine)
        table = "index\tname\tcolour\n" + "".join(f"{i}\t{word}\tred\n" for i, word in rows)
        (tmp_path / name.replace(".nii.gz", ".tsv")).write_text(table, encoding="utf-8")
        return path

    return write


def test_a_label_image_gives_the_parts_it_holds(write_atlas):
    ours, theirs = own_atlas(), read_atlas(write_atlas())
    assert theirs.name == "striatum.nii.gz"
    assert theirs.part_names() == PARTS
    for part in PARTS:
        for side in Side:
            a, b = (cover(atlas.parts[part, side], *HEAD) for atlas in (ours, theirs))
            assert b.volume_ml == pytest.approx(a.volume_ml, rel=0.03)
    reference = cover(theirs.references["occipital"], *HEAD).volume_ml
    assert reference == pytest.approx(cover(ours.references["occipital"], *HEAD).volume_ml, rel=0.03)


def test_parts_that_an_atlas_lacks_are_left_out(write_atlas):
    names = {
        f"{part}_putamen_{side}": f"putamen_{side}" for part in ("anterior", "posterior") for side in ("right", "left")
    }
    atlas = read_atlas(write_atlas(names | {"occipital": "cuneus"}))
    assert atlas.part_names() == ("striatum", "caudate", "putamen")
    assert atlas.references["occipital"] is own_atlas().references["occipital"]


def test_an_unusable_atlas_is_refused(write_atlas, tmp_path):
    with pytest.raises(LateralityError):
        read_atlas(write_atlas(swap=True))
    with pytest.raises(ImageError, match="no caudate on the left"):
        read_atlas(write_atlas({"caudate_left": "nucleus"}))
    path = write_atlas(name="other.nii.gz")
    table = tmp_path / "other.tsv"
    table.write_text(table.read_text().replace("11\t", "99\t"))
    with pytest.raises(ImageError, match="no voxel has the label of the right caudate"):
        read_atlas(path)
    for content in ("index\tname\nx\tcaudate_right\n", "a,b\n1,2\n", ""):
        table.write_text(content)
        with pytest.raises(ImageError, match=r"index and name|no caudate"):
            read_atlas(path)
    table.unlink()
    with pytest.raises(ImageError, match="columns index and name"):
        read_atlas(path)
