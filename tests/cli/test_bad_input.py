"""Bad input: exit code 2, a message that names it, no traceback, nothing half-written."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.io import loadmat, savemat

from nigradat.anatomy import PATCH_SHAPE, Side, nominal_affine
from nigradat.io.files import sha256_of
from nigradat.io.nifti import write_volume
from nigradat.pair import NigralPair


@pytest.fixture
def patches(random_pair, tmp_path, write_pair):
    """Right and left NIfTI of a valid pair."""
    return write_pair(random_pair, tmp_path)


@pytest.fixture
def ask(call, small_run, patches):
    """``predict`` on the pair of files, as it is or spoilt."""
    return lambda *more: call("predict", "--model", small_run, "--right", patches[0], "--left", patches[1], *more)


def without_orientation(path: Path) -> None:
    image = nib.load(path, mmap=False)  # the file is written anew below
    spoilt = nib.Nifti1Image(np.asarray(image.dataobj), None)
    spoilt.header.set_zooms((0.5, 0.5, 1.0))
    spoilt.set_sform(None, 0)
    spoilt.set_qform(None, 0)
    nib.save(spoilt, path)


def contradicting_forms(path: Path) -> None:
    image = nib.load(path, mmap=False)  # the file is written anew below
    flipped = image.affine @ np.diag([-1, 1, 1, 1])
    spoilt = nib.Nifti1Image(np.asarray(image.dataobj), image.affine)
    spoilt.set_sform(image.affine, 1)
    spoilt.set_qform(flipped, 1)
    nib.save(spoilt, path)


def rewrite(values: object, spacing: float = 1.0):
    def spoil(path: Path) -> None:
        affine = nominal_affine(Side.LEFT)
        affine[:3, :3] *= spacing
        voxels = np.asarray(nib.load(path, mmap=False).dataobj).copy()
        write_volume(path, values(voxels) if callable(values) else values, affine)

    return spoil


def with_nan(voxels):
    voxels[3, 3, 3] = np.nan
    return voxels


SPOILT = {
    "not an image": (lambda p: p.write_text("hello"), ["not a NIfTI image"]),
    "missing": (lambda p: p.unlink(), ["cannot be read"]),
    "truncated": (lambda p: p.write_bytes(p.read_bytes()[:60_000]), ["truncated"]),
    "wrong shape": (rewrite(np.ones((40, 50, 20), np.float32)), ["(40, 50, 20)", "(50, 50, 20)", "extract_pair"]),
    "four axes": (rewrite(np.ones((*PATCH_SHAPE, 2), np.float32)), ["a 3D volume"]),
    "wrong voxel size": (rewrite(lambda v: v, spacing=1.5), ["0.750 x 0.750 x 1.500 mm", "0.5 x 0.5 x 1.0 mm"]),
    "no number": (rewrite(with_nan), ["1 of 50000 voxels are no number"]),
    "constant": (rewrite(np.full(PATCH_SHAPE, 7, np.float32)), ["every voxel is 7"]),
    "negative mean": (rewrite(lambda v: v - 9), ["a positive mean"]),
    "no orientation": (without_orientation, ["no usable orientation", "a side is never guessed"]),
    "two orientations": (contradicting_forms, ["contradict each other", "--affine sform"]),
}


@pytest.mark.parametrize("fault", SPOILT)
def test_a_spoilt_patch_is_refused_by_name(fault, ask, patches):
    spoil, words = SPOILT[fault]
    spoil(patches[1])
    ask().refused(patches[1].name, *words)


def test_the_choice_of_one_orientation_helps(ask, patches):
    contradicting_forms(patches[1])
    ask("--affine", "sform").done()


def test_exchanged_sides_are_refused(call, small_run, patches):
    call("predict", "--model", small_run, "--right", patches[1], "--left", patches[0]).refused("right")


def test_one_patch_alone_is_refused(call, small_run, patches):
    call("predict", "--model", small_run, "--left", patches[1]).refused("only the left patch", "both sides")
    call("predict", "--model", small_run, patches[1]).refused("alone", "--right R --left L")


def test_no_input_is_refused(call, small_run, tmp_path):
    call("predict", "--model", small_run).refused("no input", ".mat")
    call("predict", "--model", small_run, tmp_path / "no.mat").refused("does not exist")
    call("predict", "--model", small_run, tmp_path).refused("no patch pair")


def test_a_spoilt_mat_is_refused(call, small_run, mat_file):
    whole = mat_file.read_bytes()
    mat_file.write_bytes(whole[: len(whole) // 2])
    call("predict", "--model", small_run, mat_file).refused(mat_file.name, "truncated")
    mat_file.write_text("hello" * 100)
    call("predict", "--model", small_run, mat_file).refused("not a MATLAB file")
    savemat(mat_file, {"right_patch": np.ones(PATCH_SHAPE)})
    call("predict", "--model", small_run, mat_file).refused("no variable left_patch")


def test_the_mat_file_itself_is_never_changed(call, small_run, mat_file):
    before = sha256_of(mat_file)
    call("predict", "--model", small_run, mat_file).done()
    assert sha256_of(mat_file) == before
    assert set(loadmat(mat_file)) >= {"right_patch", "left_patch"}


# -- Models -------------------------------------------------------------------------------------------------------


@pytest.fixture
def own_run(small_run, tmp_path):
    return Path(shutil.copytree(small_run, tmp_path / "run"))


def test_truncated_or_changed_weights_are_refused(call, own_run, mat_file):
    weights = own_run / "model.safetensors"
    whole = weights.read_bytes()
    for spoilt in (whole[:-10], whole[:-1] + bytes([whole[-1] ^ 1])):
        weights.write_bytes(spoilt)
        call("predict", mat_file, "--model", own_run).refused("SHA-256", "as its card says", "fresh copy")
    weights.unlink()
    call("predict", mat_file, "--model", own_run).refused("model.safetensors is missing")


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 99}'])
def test_a_spoilt_card_is_refused(call, own_run, mat_file, content):
    (own_run / "card.json").write_text(content)
    call("predict", mat_file, "--model", own_run).refused("card.json")


def test_a_folder_that_is_no_model_or_no_cohort_is_refused(call, tmp_path, small_run, small_cohort):
    call("calibrate", tmp_path, small_cohort.folder).refused("no card.json", "nigradat train")
    call("calibrate", small_run, tmp_path).refused("no packed cohort", "nigradat simulate")
    call("train", tmp_path, tmp_path / "out").refused("no packed cohort")
    call("evaluate", small_run, tmp_path, "--out", tmp_path / "out").refused("no packed cohort")
    call("study", tmp_path, tmp_path / "out").refused("no packed cohort")
    assert list(tmp_path.iterdir()) == []


def test_too_few_patients_for_a_promise_are_refused(call, own_run, small_cohort):
    call("calibrate", own_run, small_cohort.folder).refused("19")
    assert not (own_run / "calibration.json").exists()


def test_published_weights_that_are_none(call, tmp_path):
    (tmp_path / "net_left").mkdir()
    call("import-published", tmp_path / "net_left", tmp_path / "out").refused("variables")
    call("import-published", tmp_path / "net", tmp_path / "out").refused("no side", "--side left")
    assert not (tmp_path / "out").exists()


# -- Cohorts ------------------------------------------------------------------------------------------------------

LABELS = {
    "no number": ({"sbr_left": ["x", "3.1"]}, ["line 2", "sbr_left 'x' is no number"]),
    "not finite": ({"sbr_left": ["inf", "3.1"]}, ["line 2", "sbr_left"]),
    "negative": ({"sbr_right": ["2.0", "-1"]}, ["line 3", "negative"]),
    "missing": ({"sbr_right": "n/a", "sbr_left": "n/a"}, ["line 2", "line 3", "no SBR"]),
    "divided": ({"sbr_right": "0.5", "sbr_left": "0.9"}, ["the largest SBR is 0.9", "give the plain ratio"]),
    "mixed": ({"spect_software": ["A", "B"]}, ["spect_software is mixed: A (1), B (1)", "--allow-mixed"]),
    "twice": ({"participant_id": "sub-1", "session_id": "ses-1"}, ["sub-1, session ses-1", "already in line 2"]),
    "all at once": ({"sbr_left": ["x", "-1"], "age": "200"}, ["4 faults", "no number", "negative", "age 200"]),
}


@pytest.mark.parametrize("fault", LABELS)
def test_faulty_labels_are_refused_line_by_line(fault, call, manifest, tmp_path):
    columns, words = LABELS[fault]
    call("cohort", manifest(**columns), tmp_path / "out").refused("manifest.tsv", *words, "Nothing was written")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".*"))


def test_mixed_software_is_taken_when_asked_for(call, manifest, tmp_path):
    path = manifest(spect_software=["A", "B"])
    answer = call("cohort", path, tmp_path / "out", "--allow-mixed", "--json").done()
    assert answer.json["visits"] == 2
    assert answer.json["sbr_scale"]["spect_software"] == ["A", "B"]


def test_faulty_images_are_listed_with_their_lines(call, manifest, tmp_path):
    path = manifest()
    shutil.copy(tmp_path / "sub-1_right.nii", tmp_path / "sub-2_right.nii")
    call("cohort", path, tmp_path / "out").refused(
        "1 fault found", "line 3: ", "same voxels as the right patch of line 2"
    )
    for name in ("sub-1_left.nii", "sub-2_left.nii"):
        (tmp_path / name).write_text("hello")
    call("cohort", path, tmp_path / "out").refused("2 faults", "line 2: ", "line 3: ", "not a NIfTI image")
    assert not (tmp_path / "out").exists()


def test_no_manifest_at_all(call, tmp_path):
    call("cohort", tmp_path / "no.tsv", tmp_path / "out").refused("no.tsv", "cannot be read")


# -- Configuration and output -------------------------------------------------------------------------------------


def test_an_unknown_key_of_a_configuration_is_refused(call, small_cohort, tmp_path):
    file = tmp_path / "recipe.toml"
    for text, word in (("epoch = 3", "epoch"), ("[augmentation]\nnose = 1", "augmentation.nose"), ("epochs =", "TOML")):
        file.write_text(text)
        call("train", small_cohort.folder, tmp_path / "out", "--config", file).refused(word)
    call("train", small_cohort.folder, tmp_path / "out", "--config", tmp_path / "no.toml").refused("no.toml")
    assert not (tmp_path / "out").exists()


def test_labels_above_the_scale_name_the_option(call, small_cohort, tmp_path):
    call("train", small_cohort.folder, tmp_path / "out", "--sbr-max", "2").refused("the largest SBR", "--sbr-max")
    assert not (tmp_path / "out").exists()


def contents(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): sha256_of(p) for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_folder_that_holds_something_else_is_left_alone(call, own_run, small_cohort, manifest, tmp_path):
    before = contents(own_run)
    call("train", small_cohort.folder, own_run, "--widths", "2,2,2,3").refused("holds another run", "config.widths")
    call("simulate", own_run, "--patients", "2").refused("already holds")
    call("cohort", manifest(), own_run).refused("already holds")
    call("evaluate", own_run, small_cohort.folder, "--out", small_cohort.folder).refused("is no evaluation")
    assert contents(own_run) == before
    file = tmp_path / "file"
    file.write_text("mine")
    for arguments in (["simulate", file, "--patients", "2"], ["train", small_cohort.folder, file]):
        call(*arguments).refused("file")
    assert file.read_text() == "mine"


@contextmanager
def file_size_limit() -> Iterator[None]:
    """The system refuses to let a file grow beyond 16 kB, as a full disk or a quota would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16_384, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def full_when_synced() -> Iterator[None]:
    """The system takes what is written and says that there is no room when it is pushed to the disk."""

    def no_room(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", no_room)
        yield


@pytest.mark.parametrize("full_disk", [file_size_limit, full_when_synced])
def test_a_full_disk_leaves_nothing_half_written(full_disk, call, manifest, small_cohort, tmp_path):
    path, out = manifest(), tmp_path / "results"
    out.mkdir()
    for arguments in (["cohort", path, out / "c"], ["simulate", out / "s", "--patients", "1", "--workers", "1"]):
        with full_disk():
            answer = call(*arguments)
        answer.refused("the disk did not take the result", "Free some space")
        assert list(out.iterdir()) == []


@pytest.mark.parametrize("full_disk", [file_size_limit, full_when_synced])
def test_a_full_disk_while_training_leaves_a_run_that_goes_on(full_disk, call, small_cohort, tmp_path):
    out = tmp_path / "run"
    command = ["train", small_cohort.folder, out, "--widths", "2,2,2,2", "--epochs", "1"]
    with full_disk():
        answer = call(*command)
    answer.refused("the disk did not take the result", "Free some space")
    assert not (out / "card.json").exists()
    assert not list(tmp_path.rglob(".*"))
    call("show", out).refused("no card.json")
    call(*command).done()
    assert (out / "card.json").is_file()


def test_the_spoilt_files_are_spoilt(random_pair: NigralPair, patches, ask):
    """What all the refusals above start from is taken."""
    ask().done()
    assert np.array_equal(nib.load(patches[0]).get_fdata(dtype=np.float32), random_pair.patch(Side.RIGHT))
