"""Phantom cohorts on disk: the same bytes however they are made, and the truth apart from what training sees."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nigradat.anatomy import PATCH_SHAPE
from nigradat.errors import CohortError, ConfigError, NigradatError, OutputError
from nigradat.io.pack import load_cohort
from nigradat.phantom import PRESETS, Recipe, read_truth, render_patient, sample_latents, simulate
from nigradat.phantom import cohort as cohort_module


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate(tmp_path_factory.mktemp("phantom") / "cohort", patients=4, preset="paper", seed=7, workers=1)


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_bytes_do_not_depend_on_the_number_of_workers(folder: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    several = simulate(tmp_path / "out", patients=4, seed=7, workers=3, progress=lambda i, n: seen.append((i, n)))
    assert hashes(several) == hashes(folder)
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_patient_does_not_depend_on_the_number_of_patients(folder: Path, tmp_path: Path) -> None:
    small, large = load_cohort(simulate(tmp_path / "out", patients=2, seed=7, workers=1)), load_cohort(folder)
    np.testing.assert_array_equal(small.patches, large.patches[:2])
    assert small.participants == large.participants[:2]


def test_another_seed_makes_other_patients(folder: Path, tmp_path: Path) -> None:
    other = load_cohort(simulate(tmp_path / "out", patients=1, seed=8, workers=1))
    assert not np.allclose(other.patches[0], load_cohort(folder).patches[0])


def test_it_is_a_packed_cohort_marked_as_phantom(folder: Path) -> None:
    cohort = load_cohort(folder)
    assert cohort.is_phantom
    assert cohort.provenance["seed"] == 7
    assert cohort.provenance["preset"]["name"] == "paper"
    assert [p.participant_id for p in cohort.participants] == ["sub-0001", "sub-0002", "sub-0003", "sub-0004"]
    for p in cohort.participants:
        assert {p.scanner, p.tracer, p.spect_device, p.spect_software} == {"digital phantom"}
        assert p.diagnosis is None
        assert p.hyperintensity_right is None


def test_training_sees_labels_and_no_latents(folder: Path) -> None:
    cohort, latents = load_cohort(folder), sample_latents(4, "paper", 7)
    np.testing.assert_array_equal(cohort.sbr, latents.sbr)
    header = (folder / "participants.tsv").read_text().splitlines()[0].split("\t")
    assert not {name.split("_")[0] for name in header} & {"u", "m", "d", "z"}
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {"truth"}


def test_the_truth_can_be_read_back_to_the_last_bit(folder: Path) -> None:
    truth, latents = read_truth(folder), sample_latents(4, "paper", 7)
    for name in ("u", "m", "d", "z", "sbr", "age", "sex"):
        np.testing.assert_array_equal(getattr(truth.latents, name), getattr(latents, name))
    assert truth.preset == PRESETS["paper"]
    assert truth.seed == 7
    assert truth.participant_id == tuple(p.participant_id for p in load_cohort(folder).participants)
    assert truth.masks.shape == (4, 2, *PATCH_SHAPE)


def test_a_patient_can_be_rendered_again(folder: Path) -> None:
    cohort, truth = load_cohort(folder), read_truth(folder)
    again = render_patient(7, 2, truth.latents.age[2], truth.latents.d[2])
    np.testing.assert_array_equal(again.patches, cohort.patches[2])
    np.testing.assert_array_equal(again.masks, truth.masks[2])
    plain = render_patient(7, 2, truth.latents.age[2], truth.latents.d[2], Recipe(power=0.0))
    np.testing.assert_array_equal(plain.patches, again.magnitude)


def test_dates_apart_as_in_the_paper() -> None:
    rng = np.random.default_rng(0)
    days = np.array([cohort_module._sample_gap_days(rng) for _ in range(20_000)])
    assert days.mean() == pytest.approx(42, abs=2)
    assert days.std() == pytest.approx(60, abs=3)
    assert np.median(days) < 1


def test_an_interrupted_run_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    for workers in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            simulate(tmp_path / "out", patients=3, seed=1, workers=workers, progress=interrupt)
        assert list(tmp_path.iterdir()) == []


def test_a_worker_that_dies_is_reported(tmp_path: Path) -> None:
    job = cohort_module._Job(str(tmp_path / "nowhere.npy"), str(tmp_path / "nowhere.npy"), 1)
    with pytest.raises(NigradatError, match=r"ended early.*nowhere\.npy"):
        cohort_module._drive(job, iter([]), lambda: None)


def test_it_runs_from_a_script_without_a_main_guard(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import nigradat.phantom as p\np.simulate('out', patients=2, seed=1, workers=2)\nprint('once')\n")
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "once\n"
    assert (tmp_path / "out" / "cohort.json").is_file()


def test_what_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match="no preset"):
        simulate(out, patients=2, preset="no", seed=1)
    with pytest.raises(ConfigError, match="workers"):
        simulate(out, patients=2, seed=1, workers=0)
    with pytest.raises(ConfigError, match="patients"):
        simulate(out, patients=0, seed=1)
    assert not out.exists()
    out.mkdir()
    (out / "mine.txt").write_text("kept")
    with pytest.raises(OutputError, match=r"mine\.txt"):
        simulate(out, patients=1, seed=1, workers=1)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("name", ["truth.json", "latents.tsv", "masks.npy"])
def test_damaged_truth_is_an_error(tmp_path: Path, name: str) -> None:
    folder = simulate(tmp_path / "out", patients=1, seed=1, workers=1)
    path = folder / "truth" / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CohortError, match="truth"):
        read_truth(folder)


def test_the_description_names_the_mask_bits(folder: Path) -> None:
    description = json.loads((folder / "truth" / "truth.json").read_text())
    masks = read_truth(folder).masks
    bits = description["mask_bits"]
    assert set(np.unique(masks)) <= {0, bits["substantia nigra"], 3, bits["red nucleus"], 5, 7}
    assert (masks & bits["nigrosome-1"]).any()
