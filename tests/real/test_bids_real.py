"""The whole way in one visit: echoes with wraps, a T1w of another pose and a DaT-SPECT in, a labelled cohort out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from heads import TE_MS, head_grid, make_head, maps, rotation, slab_grid, t1w
from scipy import ndimage

from nigradat.anatomy import Side
from nigradat.bids.app import read_record, run_group, run_participants
from nigradat.bids.layout import find_visits
from nigradat.io.nifti import read_volume, write_volume
from nigradat.phantom.striatum import SideUptake, striatal_head

pytest.importorskip("SimpleITK")
pytest.importorskip("nilearn")

NAME, FIELD_T = "sub-01", 3.0
RIGHT, LEFT = SideUptake(3.2, 2.4, 1.4), SideUptake(1.6, 1.1, 0.6)


def echoes(truth, affine, spacing):
    """Complex echoes of a 3 T scan: the field of the susceptibility, a background field, coil phase, noise."""
    chi = np.asarray(truth["chi_ppm"], dtype=float)
    shape = np.array(chi.shape)
    k = np.stack(np.meshgrid(*(np.fft.fftfreq(n, s) for n, s in zip(shape, spacing, strict=True)), indexing="ij"))
    along = np.linalg.inv(affine[:3, :3] / spacing) @ (0.0, 0.0, 1.0)  # the main field in the slab's axes
    k2 = (k**2).sum(axis=0)
    k2[0, 0, 0] = 1.0
    kernel = 1 / 3 - np.tensordot(along, k, 1) ** 2 / k2
    kernel[0, 0, 0] = 0.0
    local = np.fft.ifftn(np.fft.fftn(chi) * kernel).real
    x, y, z = (np.linspace(-1, 1, n).reshape([-1 if i == j else 1 for j in range(3)]) for i, n in enumerate(shape))
    field = local + 0.4 * x - 0.5 * y + 0.6 * (x**2 - y**2) + 0.3 * z
    offset = 0.8 + 0.9 * np.sin(1.5 * x + y) + 0.4 * z
    rng = np.random.default_rng(5)
    for time in TE_MS:
        size = truth["m0"] * np.exp(-time / 1000 * truth["r2star_hz"])
        clean = size * np.exp(1j * (2 * np.pi * 42.577 * FIELD_T * time * 1e-3 * field + offset))
        yield clean + (rng.normal(size=shape) + 1j * rng.normal(size=shape)) / 40


@pytest.fixture(scope="module")
def visit(shared_data, tmp_path_factory):
    """The data set's folder and what is true of its one participant."""
    head = make_head(shared_data, 3)
    root = tmp_path_factory.mktemp("bids") / "raw"
    anat, pet = root / NAME / "anat", root / NAME / "pet"
    anat.mkdir(parents=True)
    pet.mkdir()
    spacing = (0.8, 0.8, 1.0)
    shape, affine = slab_grid(head, (220, 260, 56), spacing, tilt_deg=18)
    truth = maps(head, shape, affine)
    for i, echo in enumerate(echoes(truth, affine, np.array(spacing)), 1):
        # the scanner's own integers: magnitude in any unit, phase from -4096 to 4095
        for part, data in (("mag", 1000 * np.abs(echo)), ("phase", np.angle(echo) / np.pi * 4096)):
            stem = anat / f"{NAME}_echo-{i}_part-{part}_MEGRE"
            write_volume(f"{stem}.nii.gz", data.astype(np.float32), affine)
            facts = {"EchoTime": TE_MS[i - 1] / 1000, "MagneticFieldStrength": FIELD_T, "Manufacturer": "Siemens"}
            stem.with_suffix(".json").write_text(json.dumps(facts))
    # the T1w was taken after a movement of the head
    moved = np.eye(4)
    moved[:3, :3] = rotation(np.deg2rad([4.0, -2.0, 3.0]))
    moved[:3, 3] = (3.0, -2.0, 4.0)
    whole = t1w(head, *head_grid(head, (150, 184, 150), (1.2, 1.2, 1.2)))
    write_volume(anat / f"{NAME}_T1w.nii.gz", whole.data, moved @ whole.affine)
    (anat / f"{NAME}_T1w.json").write_text("{}")
    scan = striatal_head(RIGHT, LEFT, scan_from_mni=head.pose).draw(1)
    write_volume(pet / f"{NAME}_trc-fpcit_pet.nii.gz", scan.data, scan.affine)
    (pet / f"{NAME}_trc-fpcit_pet.json").write_text(json.dumps({"TracerName": "[123I]FP-CIT"}))
    (root / "dataset_description.json").write_text(
        json.dumps({"Name": "one head", "BIDSVersion": "1.10.0", "License": "CC0"})
    )
    (root / "participants.tsv").write_text(f"participant_id\tage\tsex\n{NAME}\t63\tF\n")
    return root, head, truth, affine


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_from_echoes_t1w_and_spect_to_a_labelled_cohort(visit, tmp_path):
    root, head, truth, affine = visit
    out = tmp_path / "out"
    outcome = run_participants(root, out)
    assert not outcome.failed, outcome.failed
    record = read_record(out, find_visits(root)[0])
    for side in Side:  # both sides, each on its own side
        assert np.linalg.norm(np.array(record.centres_mm[side.value]) - head.centres[side]) < 3.0
    assert record.sbr_error == ""
    assert record.sbr is not None
    assert record.sbr["right"] > 1.5 * record.sbr["left"] > 0

    anat = out / NAME / "anat"
    chi, chi_affine = read_volume(anat / f"{NAME}_Chimap.nii.gz")
    assert chi_affine == pytest.approx(affine, abs=1e-4)
    mask = read_volume(anat / f"{NAME}_desc-brain_mask.nii.gz")[0] > 0
    weight = (1 - np.clip(truth["chi_ppm"], 0, 1)) ** 4
    iron = truth["chi_ppm"] > 0.08
    assert (mask & iron).sum() > 0.8 * iron.sum()
    near = ndimage.binary_dilation(iron, iterations=6) & mask
    assert np.corrcoef(chi[near], truth["chi_ppm"][near])[0, 1] > 0.8
    found = (1 - np.clip(chi, 0, 1)) ** 4
    assert np.sqrt(np.mean((found - weight)[iron & mask] ** 2)) < 0.12

    page = (out / f"{NAME}.html").read_text()
    assert page.count("data:image/png;base64,") == 2  # the windows and the regions of the SPECT
    for words in ("gradient echo, made into SMWI", "used for the registration", "DaT-SPECT"):
        assert words in page
    cohort = run_group(root, out)
    assert cohort.sbr == pytest.approx(np.array([[record.sbr["right"], record.sbr["left"]]]), abs=0.01)
    assert cohort.smwi_recipe["chi_th_ppm"] == 1.0
    assert cohort.read(0).shape == (2, 50, 50, 20)
    validator = Path(sys.executable).with_name("bids-validator-deno")
    if validator.exists():
        done = subprocess.run([validator, out, "--format", "json"], capture_output=True, text=True, check=False)
        issues = json.loads(done.stdout)["issues"]["issues"]
        assert [(i["code"], i.get("location")) for i in issues if i["severity"] == "error"] == []
