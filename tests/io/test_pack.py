"""A packed cohort is whole or absent, belongs together, and is read without a copy in memory."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from scipy.io import savemat

from nigradat.anatomy import PATCH_SHAPE, Side, nominal_affine
from nigradat.errors import CohortError, ImageError, ManifestError, OutputError
from nigradat.io.manifest import Participant, write_participants
from nigradat.io.nifti import write_volume
from nigradat.io.pack import CohortWriter, load_cohort, pack_cohort, verify

SCALE = {"tracer": "123I-FP-CIT", "spect_device": "Trionix XLT", "spect_software": "DATquant"}


def noise(seed):
    return np.random.default_rng(seed).uniform(0.5, 1.5, (2, *PATCH_SHAPE)).astype(np.float32)


def participant(i, **changes):
    return Participant(**({"participant_id": f"sub-{i}", "sbr_right": 2.0 + i, "sbr_left": 1.0 + i} | SCALE | changes))


def write_cohort(out, n=3, kind="phantom", **changes):
    with CohortWriter(out, n, {"kind": kind}, {"note": "made up"}) as writer:
        for i in range(n):
            writer.patches[i] = noise(i)
        writer.finish([participant(i, **changes) for i in range(n)])
    return load_cohort(out)


def names(folder):
    return sorted(p.name for p in folder.iterdir())


# ---------------------------------------------------------------------------------------------- writing and loading


def test_what_was_written_is_loaded(tmp_path):
    cohort = write_cohort(tmp_path / "c")
    assert len(cohort) == 3
    for i in range(3):
        assert np.array_equal(cohort.patches[i], noise(i))
        assert np.array_equal(cohort.read(i), noise(i))
        pair = cohort.pair(i)
        assert np.array_equal(pair.patches, noise(i))
        assert pair.participant_id == f"sub-{i}"
        assert pair.affine_is_nominal
    assert np.array_equal(cohort.sbr, [[2, 1], [3, 2], [4, 3]])
    assert cohort.patient_ids == cohort.visit_ids == ("sub-0", "sub-1", "sub-2")
    assert cohort.is_phantom
    assert cohort.sbr_scale == {k: [v] for k, v in SCALE.items()} | {"min": 1.0, "max": 4.0, "note": "made up"}
    verify(cohort)


def test_rows_are_counted_like_those_of_a_list(tmp_path):
    cohort = write_cohort(tmp_path / "c")
    assert np.array_equal(cohort.read(-1), noise(2))
    with pytest.raises(IndexError):
        cohort.read(3)


def test_patches_cannot_be_written_through_a_loaded_cohort(tmp_path):
    cohort = write_cohort(tmp_path / "c")
    with pytest.raises(ValueError, match="read-only"):
        cohort.patches[0] = 1
    cohort.read(0)[:] = 0
    verify(cohort)


def test_visits_without_labels_have_none(tmp_path):
    cohort = write_cohort(tmp_path / "c", sbr_right=None, sbr_left=None, session_id="ses-1")
    assert np.isnan(cohort.sbr).all()
    assert cohort.sbr.shape == (3, 2)
    assert cohort.sbr_scale["max"] is None
    assert cohort.visit_ids[0] == "sub-0_ses-1"


def test_positions_are_kept_where_they_are_known(tmp_path):
    affines = np.stack([nominal_affine(side) for side in Side])
    affines[:, :3, 3] += (0.5, -17.0, -13.0)
    with CohortWriter(tmp_path / "c", 2, {"kind": "patients"}) as writer:
        writer.patches[:] = noise(0)
        writer.affines[0] = affines
        writer.finish([participant(0), participant(1)])
    cohort = load_cohort(tmp_path / "c")
    assert np.array_equal(cohort.pair(0).affines, affines)
    assert [cohort.pair(i).affine_is_nominal for i in range(2)] == [False, True]
    assert not cohort.is_phantom


def test_further_files_travel_with_the_cohort_and_workers_can_fill_it(tmp_path):
    with CohortWriter(tmp_path / "c", 2, {"kind": "phantom"}) as writer:
        (writer.folder / "truth").mkdir()
        (writer.folder / "truth" / "latents.tsv").write_text("u\n")
        other_process = np.load(writer.memmap_path, mmap_mode="r+")
        other_process[:] = noise(5)
        other_process.flush()
        writer.finish([participant(0), participant(1)])
    assert np.array_equal(load_cohort(tmp_path / "c").read(1), noise(5))
    assert names(tmp_path / "c") == ["affines.npy", "cohort.json", "participants.tsv", "patches.npy", "truth"]


def test_a_cohort_goes_to_a_worker_as_its_folder_and_not_as_its_voxels(tmp_path):
    cohort = write_cohort(tmp_path / "c")
    assert cohort.__reduce__() == (load_cohort, (cohort.folder,))  # all that a worker is sent
    assert np.array_equal(copy.copy(cohort).read(1), noise(1))  # made the same way


@pytest.mark.parametrize("fault", [KeyboardInterrupt, ValueError])
def test_nothing_is_left_of_a_writer_that_was_interrupted(tmp_path, fault):
    def interrupted():
        with CohortWriter(tmp_path / "c", 2, {"kind": "phantom"}) as writer:
            writer.patches[0] = 1
            raise fault

    with pytest.raises(fault):
        interrupted()
    assert names(tmp_path) == []


def test_an_unfinished_or_misfitting_cohort_is_refused_and_nothing_is_left(tmp_path):
    with (
        pytest.raises(CohortError, match="not finished"),
        CohortWriter(tmp_path / "c", 2, {"kind": "phantom"}),
    ):
        pass
    for table, message in (
        ([participant(0)], "1 participants for 2 rows"),
        ([participant(0)] * 2, "2 times"),
        ([participant(0), participant(1, sex="x")], "sub-1"),
    ):
        with pytest.raises(CohortError, match=message), CohortWriter(tmp_path / "c", 2, {"kind": "phantom"}) as writer:
            writer.finish(table)
    with pytest.raises(CohortError, match="kind 'guess'"):
        CohortWriter(tmp_path / "c", 2, {"kind": "guess"})
    with pytest.raises(CohortError, match="0 visits"):
        CohortWriter(tmp_path / "c", 0, {"kind": "phantom"})
    assert names(tmp_path) == []


_TOO_SMALL_A_DISK = """
import resource, sys
from nigradat.errors import OutputError
from nigradat.io.pack import CohortWriter
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
try:
    with CohortWriter(sys.argv[1], 3, {"kind": "phantom"}) as writer:
        print("entered")
except OutputError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="file size limits as on Linux")
def test_a_cohort_that_does_not_fit_is_refused_before_it_is_begun(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", _TOO_SMALL_A_DISK, str(tmp_path / "c")], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("the disk did not take the result")
    assert names(tmp_path) == []


def test_the_room_is_reserved_when_the_writer_begins(tmp_path):
    with CohortWriter(tmp_path / "c", 4, {"kind": "phantom"}) as writer:
        status = writer.memmap_path.stat()
        assert status.st_size > 4 * 400_000
        if sys.platform == "linux":
            assert status.st_blocks * 512 >= status.st_size
        writer.finish([participant(i) for i in range(4)])


# ---------------------------------------------------------------------------------------------- damage


def edit_card(folder, **changes):
    path = folder / "cohort.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def truncate(path, size):
    with path.open("r+b") as stream:
        stream.truncate(size)


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: shutil.rmtree(f), "no packed cohort"),
        (lambda f: (f / "cohort.json").unlink(), "no packed cohort"),
        (lambda f: truncate(f / "cohort.json", 40), "is damaged"),
        (lambda f: (f / "cohort.json").write_text("[]"), "format version None"),
        (lambda f: edit_card(f, version=99), "format version 99"),
        (lambda f: edit_card(f, rows="3"), "rows is unusable"),
        (lambda f: edit_card(f, rows=2), "3 lines in participants.tsv, 2 in cohort.json"),
        (lambda f: edit_card(f, provenance={}), "provenance is unusable"),
        (lambda f: edit_card(f, files={}), "is not the file"),
        (lambda f: (f / "patches.npy").unlink(), "patches.npy: missing"),
        (lambda f: truncate(f / "patches.npy", 1_000_000), "patches.npy: missing, truncated"),
        (lambda f: truncate(f / "patches.npy", 50), "patches.npy: missing, truncated"),
        (lambda f: np.save(f / "patches.npy", np.zeros((3, 2, 50, 50, 20))), "float64 of shape"),
        (lambda f: np.save(f / "patches.npy", np.zeros((2, 2, 50, 50, 20), "f4")), r"float32 of shape \(2, 2"),
        (lambda f: np.save(f / "patches.npy", np.array([object()])), "patches.npy: missing, truncated or no"),
        (lambda f: (f / "participants.tsv").unlink(), "participants.tsv cannot be read"),
        (lambda f: flip(f / "participants.tsv", -5), "participants.tsv is not the file"),
        (lambda f: flip(f / "affines.npy", -1), "affines.npy is not the file"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(tmp_path, damage, message):
    write_cohort(tmp_path / "c")
    damage(tmp_path / "c")
    with pytest.raises(CohortError, match=message):
        load_cohort(tmp_path / "c")


def test_altered_patches_are_found_by_verifying(tmp_path):
    cohort = write_cohort(tmp_path / "c")
    flip(cohort.folder / "patches.npy", 700_000)
    with pytest.raises(CohortError, match=r"patches\.npy is not the file"):
        verify(load_cohort(cohort.folder))


def test_a_file_cut_off_while_it_is_open_is_an_error_and_no_crash(tmp_path):
    cohort = write_cohort(tmp_path / "c")
    truncate(cohort.folder / "patches.npy", 500_000)
    with pytest.raises(CohortError, match="ends before the end of row 2"):
        cohort.read(2)


# ---------------------------------------------------------------------------------------------- packing a manifest


def save_patches(folder, i, spoil=None):
    """Two NIfTI patches of one visit, at known positions."""
    patches = noise(i)
    if spoil:
        spoil(patches)
    for side, patch in zip(Side, patches, strict=True):
        write_volume(folder / f"s{i}_{side.value}.nii.gz", patch, nominal_affine(side))
    return {"right": f"s{i}_right.nii.gz", "left": f"s{i}_left.nii.gz"}


def write_manifest(folder, rows):
    columns = list(dict.fromkeys(key for row in rows for key in row))
    path = folder / "manifest.tsv"
    path.write_text("".join("\t".join(map(str, line)) + "\n" for line in [columns, *(r.values() for r in rows)]))
    return path


def row(folder, i, spoil=None, **changes):
    labels = {"participant_id": f"sub-{i}", "sbr_right": 2.5, "sbr_left": 1.25}
    return labels | save_patches(folder, i, spoil) | SCALE | changes


def packing_faults(path, **options):
    out = path.parent / "out"
    with pytest.raises(ManifestError) as caught:
        pack_cohort(path, out, **options)
    assert not [p for p in path.parent.iterdir() if p.name.startswith((".", "out"))], "nothing is written"
    return caught.value.faults


def test_a_manifest_is_packed_in_its_order(tmp_path):
    mat = tmp_path / "case.mat"
    savemat(mat, {"right_patch": noise(7)[0], "left_patch": noise(7)[1]})
    rows = [row(tmp_path, 1, session_id="n/a"), row(tmp_path, 2, right="case.mat", left="case.mat", session_id="b")]
    done = []
    cohort = pack_cohort(write_manifest(tmp_path, rows), tmp_path / "out", progress=lambda *at: done.append(at))
    assert np.array_equal(cohort.read(0), noise(1))
    assert np.array_equal(cohort.read(1), noise(7))
    assert [cohort.pair(i).affine_is_nominal for i in range(2)] == [False, True]
    np.testing.assert_allclose(cohort.pair(0).affines, [nominal_affine(side) for side in Side], atol=1e-5)
    assert cohort.visit_ids == ("sub-1", "sub-2_b")
    assert cohort.provenance["kind"] == "patients"
    assert str(tmp_path) not in json.dumps(dict(cohort.card)), "no path of the user's machine in the card"
    assert done == [(1, 2), (2, 2)]
    verify(cohort)


def test_faults_of_lines_and_images_are_listed_together(tmp_path):
    rows = [
        row(tmp_path, 1),
        row(tmp_path, 2, lambda p: p[1].__setitem__(slice(3), np.nan)),
        row(tmp_path, 3, sbr_left="low"),
        row(tmp_path, 4, lambda p: p[0].fill(1)),
        row(tmp_path, 5),
        row(tmp_path, 6),
    ]
    truncate(tmp_path / "s5_left.nii.gz", 9000)
    write_volume(tmp_path / "s6_right.nii.gz", noise(6)[0][:, :, :19], nominal_affine(Side.RIGHT))
    found = packing_faults(write_manifest(tmp_path, rows))
    starts = ("line 3: ", "line 4: sbr_left 'low'", "line 5: ", "line 6: ", "line 7: ")
    assert len(found) == len(starts)
    assert all(fault.startswith(start) for fault, start in zip(found, starts, strict=True))
    for fault, what in zip(
        [found[0], *found[2:]],
        ("left patch of sub-2: 3000 of 50000", "right patch of sub-4: every voxel is 1", "truncated", "(50, 50, 19)"),
        strict=True,
    ):
        assert what in fault


def test_labels_that_look_normalised_are_refused(tmp_path):
    rows = [row(tmp_path, i, sbr_right=0.4, sbr_left=0.99) for i in range(2)]
    (fault,) = packing_faults(write_manifest(tmp_path, rows))
    assert fault.startswith("the largest SBR is 0.99")
    rows[0]["sbr_right"] = 1.0
    assert pack_cohort(write_manifest(tmp_path, rows), tmp_path / "out").sbr_scale["max"] == 1.0


@pytest.mark.parametrize("column", ["spect_software", "tracer"])
@pytest.mark.parametrize("other", ["BasGan", "n/a"])
def test_labels_of_several_origins_need_a_word(tmp_path, column, other):
    rows = [row(tmp_path, i, **({column: other} if i == 1 else {})) for i in range(3)]
    path = write_manifest(tmp_path, rows)
    (fault,) = packing_faults(path)
    assert fault.startswith(f"{column} is mixed: ")
    assert f"{other} (1)" in fault
    assert f"{SCALE[column]} (2)" in fault
    cohort = pack_cohort(path, tmp_path / "out", allow_mixed=True)
    assert sorted(cohort.sbr_scale[column]) == sorted([SCALE[column], other])
    assert cohort.provenance["allow_mixed"] is True


def test_labels_can_come_from_a_scan(tmp_path):
    unlabelled = {"sbr_right": "n/a", "sbr_left": "n/a", **dict.fromkeys(SCALE, "n/a")}
    for i in (1, 2):
        (tmp_path / f"spect{i}.dcm").write_text(str(i))
    path = write_manifest(tmp_path, [row(tmp_path, i, **unlabelled, spect=f"spect{i}.dcm") for i in (1, 2)])
    faults = packing_faults(path)
    assert len(faults) == 2
    assert all("nothing was given that measures them" in fault for fault in faults)

    def label(visit, scan):
        value = float(scan.read_text())
        return dataclasses.replace(visit, sbr_right=value, sbr_left=value / 2, sbr_method="here")

    def fail(visit, scan):
        raise ImageError(f"{scan.name} is dark")

    assert packing_faults(path, label=fail) == ("line 2: spect1.dcm is dark.", "line 3: spect2.dcm is dark.")
    mixed = [row(tmp_path, 1, spect="spect1.dcm", **unlabelled), row(tmp_path, 2, spect="spect2.dcm")]
    told = packing_faults(write_manifest(tmp_path, mixed), label=label)
    assert any(fault.startswith("sbr_method is mixed: here (1), n/a (1)") for fault in told)
    path = write_manifest(tmp_path, [row(tmp_path, i, **unlabelled, spect=f"spect{i}.dcm") for i in (1, 2)])
    cohort = pack_cohort(path, tmp_path / "out", label=label)
    assert cohort.sbr.tolist() == [[1.0, 0.5], [2.0, 1.0]]
    assert cohort.sbr_scale["sbr_method"] == ["here"]


def test_the_same_voxels_in_two_visits_are_refused(tmp_path):
    rows = [row(tmp_path, 1), row(tmp_path, 2, lambda p: p.__setitem__(0, noise(1)[0]))]
    (fault,) = packing_faults(write_manifest(tmp_path, rows))
    assert fault == "line 3: its right patch has the same voxels as the right patch of line 2"


def test_an_output_folder_in_use_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "theirs").write_text("x")
    with pytest.raises(OutputError, match="theirs"):
        pack_cohort(write_manifest(tmp_path, [row(tmp_path, 1)]), tmp_path / "out")
    assert names(tmp_path / "out") == ["theirs"]


# ---------------------------------------------------------------------------------------------- memory

_SWEEP = """
import sys
from pathlib import Path
import numpy as np
from nigradat.io.pack import load_cohort

def resident_mb(kind):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(kind + ":"))

cohort = load_cohort(sys.argv[1])
rows = np.random.default_rng(0).integers(len(cohort), size=400)
total, own = resident_mb("VmRSS"), resident_mb("RssAnon")
checksum = sum(float(cohort.read(int(row))[0, 0, 0, 0]) for row in rows)
print("read", resident_mb("VmRSS") - total)
checksum += sum(float(cohort.patches[int(row)].sum()) for row in rows)
print("mapped", resident_mb("RssAnon") - own)
print("rows", len(cohort), checksum)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is needed to see the resident memory")
def test_fifty_thousand_patients_are_read_without_a_copy_in_memory(tmp_path):
    """A sparse file of 20 GB; 400 rows of it (160 MB) are read at random."""
    rows = 50_000
    small = write_cohort(tmp_path / "small", 1)
    folder = tmp_path / "large"
    folder.mkdir()
    np.lib.format.open_memmap(folder / "patches.npy", "w+", np.float32, (rows, 2, *PATCH_SHAPE))
    if (folder / "patches.npy").stat().st_blocks * 512 > 1e9:
        pytest.skip("this file system keeps no sparse files")
    np.save(folder / "affines.npy", np.full((rows, 2, 4, 4), np.nan))
    write_participants(folder / "participants.tsv", [participant(i) for i in range(rows)])
    contents = {name: (folder / name).read_bytes() for name in ("affines.npy", "participants.tsv")}
    files = {name: {"sha256": hashlib.sha256(content).hexdigest()} for name, content in contents.items()}
    (folder / "cohort.json").write_text(json.dumps(dict(small.card) | {"rows": rows, "files": files}))

    done = subprocess.run([sys.executable, "-c", _SWEEP, str(folder)], capture_output=True, text=True, check=True)
    figures = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert figures["rows"] == f"{rows} 0.0"
    assert float(figures["read"]) < 20
    assert float(figures["mapped"]) < 20
