"""Whatever a user calls an input becomes the same pairs."""

from __future__ import annotations

import types

import numpy as np
import pytest
from scipy.io import savemat

from nigradat.anatomy import Side
from nigradat.errors import ConfigError, ImageError, ManifestError, NigradatError
from nigradat.io.inputs import read_inputs
from nigradat.io.nifti import write_volume


@pytest.fixture
def folder(small_cohort, tmp_path):
    """Two patients of the cohort, one as NIfTI with a manifest, one as .mat."""
    (tmp_path / "mats").mkdir()
    (tmp_path / "niftis").mkdir()
    pair = small_cohort.pair(0)
    savemat(tmp_path / "mats" / "a.mat", {f"{s.value}_patch": np.array(pair.patch(s)) for s in Side})
    pair = small_cohort.pair(1)
    for side, letter in ((Side.RIGHT, "R"), (Side.LEFT, "L")):
        path = tmp_path / "niftis" / f"b_hemi-{letter}.nii.gz"
        write_volume(path, pair.patch(side), pair.affines[side.index])
    lines = ["participant_id\tsession_id\tright\tleft", "b\tses-1\tniftis/b_hemi-R.nii.gz\tniftis/b_hemi-L.nii.gz"]
    (tmp_path / "manifest.tsv").write_text("\n".join(lines) + "\n")
    return tmp_path


def niftis(folder):
    return {"right": folder / "niftis" / "b_hemi-R.nii.gz", "left": folder / "niftis" / "b_hemi-L.nii.gz"}


@pytest.mark.parametrize(
    ("item", "row", "name", "session"),
    [
        ("mats/a.mat", 0, "a", "n/a"),
        ("mats", 0, "a", "n/a"),
        ("niftis", 1, "b", "n/a"),
        ("manifest.tsv", 1, "b", "ses-1"),
    ],
)
def test_every_kind_of_input_gives_the_pair(folder, small_cohort, item, row, name, session):
    (pair,) = read_inputs([folder / item])
    assert np.array_equal(pair.patches, small_cohort.read(row))
    assert (pair.participant_id, pair.session_id) == (name, session)


def test_two_patches_come_first_and_then_the_others_in_order(folder):
    found = [pair.participant_id for pair in read_inputs([str(folder / "mats"), folder / "niftis"], **niftis(folder))]
    assert found == ["b", "a", "b"]


def test_a_packed_cohort_gives_all_its_visits(small_cohort):
    found = list(read_inputs([small_cohort.folder]))
    assert [pair.participant_id for pair in found] == list(small_cohort.patient_ids)
    assert np.array_equal(found[5].patches, small_cohort.read(5))


def test_pairs_come_one_by_one(folder):
    """A fault further down does not keep the first pair back, and memory holds one pair."""
    pairs = read_inputs([folder / "mats" / "a.mat", folder / "no.mat"])
    assert isinstance(pairs, types.GeneratorType)
    assert next(pairs).participant_id == "a"
    with pytest.raises(ImageError, match="does not exist"):
        next(pairs)


@pytest.mark.parametrize("side", ["right", "left"])
def test_one_patch_without_the_other_is_refused(folder, side):
    with pytest.raises(ConfigError, match=f"only the {side} patch"):
        list(read_inputs([], **{side: niftis(folder)[side]}))


@pytest.mark.parametrize(
    ("item", "kind", "words"),
    [
        ("no", ImageError, "does not exist"),
        ("no.tsv", ImageError, "does not exist"),
        ("empty", ImageError, "no patch pair"),
        ("niftis/b_hemi-R.nii.gz", ImageError, "alone"),
        ("table.csv", ImageError, "alone"),
        ("bad.tsv", ManifestError, "does not exist"),
    ],
)
def test_what_is_no_input_is_refused_with_what_is_taken(folder, item, kind, words):
    (folder / "empty").mkdir()
    (folder / "table.csv").write_text("a,b\n")
    (folder / "bad.tsv").write_text("participant_id\tright\tleft\nx\tr.nii\tl.nii\n")
    with pytest.raises(kind, match=words) as refused:
        list(read_inputs([folder / item]))
    assert isinstance(refused.value, NigradatError)


def test_nothing_at_all_is_refused():
    with pytest.raises(ConfigError, match="no input"):
        list(read_inputs([]))
