"""``nigradat smwi`` on files: what it writes, what it refuses, and nothing half-written."""

from __future__ import annotations

import json

import numpy as np
import pytest

from forward_model import TIMES_MS, make_head
from nigradat.cli import main
from nigradat.io.nifti import read_volume, write_volume
from nigradat.smwi.chain import make_smwi
from nigradat.smwi.recipe import SIDECAR_KEY, SmwiRecipe, recipe_beside


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """A BIDS-like folder of a small head."""
    head = make_head((56, 64, 28), (2.0, 2.2, 2.4), snr=40, seed=9, cavity=False)
    folder = tmp_path_factory.mktemp("gre")
    for i, time in enumerate(TIMES_MS):
        for part, data in (("mag", head.gre.magnitude[i]), ("phase", head.gre.phase[i])):
            stem = folder / f"sub-01_echo-{i + 1}_part-{part}_MEGRE"
            write_volume(f"{stem}.nii.gz", data, head.gre.affine)
            facts = {"EchoTime": time / 1000, "MagneticFieldStrength": 3.0, "Manufacturer": "Siemens"}
            if part == "phase":
                facts["Units"] = "rad"
            stem.with_suffix(".json").write_text(json.dumps(facts))
    return folder, head


def call(capsys, *arguments):
    capsys.readouterr()
    code = main(["smwi", *map(str, arguments)])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_images_and_sidecars(scan, tmp_path, capsys):
    folder, head = scan
    code, out, err = call(capsys, folder, tmp_path / "smwi", "--diamagnetic", "--json")
    assert code == 0, err
    stems = ["chi", "field", "mask", "smwi", "smwi-diamagnetic"]
    names = sorted(p.name for p in (tmp_path / "smwi").iterdir())
    assert names == sorted([f"{s}.json" for s in stems] + [f"{s}.nii.gz" for s in stems])
    expected = make_smwi(head.gre)
    voxels, affine = read_volume(tmp_path / "smwi" / "smwi.nii.gz")
    assert voxels == pytest.approx(expected.smwi.data, abs=1e-3)
    assert affine == pytest.approx(head.gre.affine, abs=1e-4)
    assert json.loads(out)["recipe"] == SmwiRecipe().to_json()
    for stem in stems:
        assert recipe_beside(tmp_path / "smwi" / f"{stem}.nii.gz") == SmwiRecipe().to_json()
    said = json.loads((tmp_path / "smwi" / "chi.json").read_text())
    assert said["Units"] == "ppm"
    assert "Research only" in said["IntendedUse"]
    assert any("V-SHARP" in step for step in json.loads((tmp_path / "smwi" / "field.json").read_text())["Steps"])


def test_from_a_map_without_phases(scan, tmp_path, capsys):
    folder, head = scan
    chi = np.full(head.chi.shape, 0.1, np.float32)
    write_volume(tmp_path / "qsm.nii.gz", chi, head.gre.affine)
    magnitude = folder / "sub-01_echo-2_part-mag_MEGRE.nii.gz"
    code, _, err = call(capsys, magnitude, tmp_path / "out", "--chi", tmp_path / "qsm.nii.gz", "--threshold-ppm", "0.2")
    assert code == 0, err
    voxels, _ = read_volume(tmp_path / "out" / "smwi.nii.gz")
    assert voxels == pytest.approx(head.gre.magnitude[1] * 0.5**4, rel=1e-3)
    recipe = json.loads((tmp_path / "out" / "smwi.json").read_text())[SIDECAR_KEY]
    assert recipe == {"chi_th_ppm": 0.2, "m": 4.0, "combination": "rms", "inversion": "given"}
    assert not (tmp_path / "out" / "field.nii.gz").exists()


def test_bad_input_is_refused_and_leaves_nothing(scan, tmp_path, capsys):
    folder, head = scan
    write_volume(tmp_path / "wrong.nii.gz", np.ones((5, 5, 5), np.float32), head.gre.affine)
    single = tmp_path / "single"
    single.mkdir()
    for path in folder.glob("*echo-1*"):
        (single / path.name).write_bytes(path.read_bytes())
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "notes.txt").write_text("mine")
    for arguments, words in (
        ((tmp_path / "nowhere", tmp_path / "out"), "nowhere"),
        ((single, tmp_path / "out"), "echo"),
        ((folder, tmp_path / "out", "--mask", tmp_path / "wrong.nii.gz"), "the mask"),
        ((folder, tmp_path / "out", "--chi", tmp_path / "wrong.nii.gz"), "susceptibility map"),
        ((folder, tmp_path / "out", "--phase-sign", "upside-down"), "upside-down"),
        ((folder, tmp_path / "used"), "notes.txt"),
    ):
        code, out, err = call(capsys, *arguments)
        assert (code, out) == (2, ""), (arguments, err)
        assert words in err
        assert "Traceback" not in err
        assert not (tmp_path / "out").exists()
    assert [p.name for p in (tmp_path / "used").iterdir()] == ["notes.txt"]
