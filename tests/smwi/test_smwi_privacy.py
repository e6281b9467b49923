"""A patient is planted in every header, sidecar and file name; no file that is written from them names her."""

from __future__ import annotations

import gzip
import json
import struct
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from forward_model import TIMES_MS, make_head
from made_dicom import PLANTED, multi_echo, write_classic
from nigradat.cli import main
from nigradat.smwi.recipe import REFERENCES, SIDECAR_KEY, SPANS, SmwiRecipe

NAME = "Erika_Mustermann_19560704_PLANTEDID"
WORDS = ("Erika", "1956-07-04", *PLANTED)
FOREIGN = {  # as another program may write it
    "PatientName": "Erika Mustermann",
    "PatientBirthDate": "1956-07-04",
    "PatientID": "PLANTEDID",
    "InstitutionName": "Klinikum",
    "SeriesDescription": "Secret Protocol of Erika",
    "Manufacturer": "Siemens Klinikum",
    "Steps": ["made for Erika Mustermann"],
    "Sources": [f"{NAME}.dcm"],
    "SourceAttributes": {"PatientName": "Erika Mustermann", "FlipAngle": 19560704},
    "GeneratedBy": {"Name": "Klinikum's program", "Author": "Erika"},
    SIDECAR_KEY: {"m": 19560704, "combination": "Erika", "operator": "Erika", "chi_th_ppm": 1.0},
}


def save(path: Path, data, affine, sidecar=FOREIGN) -> Path:
    """A NIfTI that names her in every text that its header has, in an extension, beside it and in its name."""
    image = nib.Nifti1Image(np.asarray(data, np.float32), affine)
    header = image.header
    header["descrip"], header["aux_file"] = "Erika Mustermann 1956-07-04", "Mustermann.dcm"
    header["db_name"], header["intent_name"] = "PLANTEDID", "Klinikum"
    header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Erika Mustermann"))
    nib.save(image, path)
    path.with_name(path.name.removesuffix(".gz").removesuffix(".nii") + ".json").write_text(json.dumps(sidecar))
    return path


@pytest.fixture(scope="module")
def head():
    return make_head((48, 52, 28), (2.0, 2.2, 2.4), snr=40, seed=9, cavity=False)


@pytest.fixture(scope="module")
def dicom(head, tmp_path_factory):
    gre = head.gre
    volumes = multi_echo("Siemens", gre.phase, gre.magnitude * (3000 / gre.magnitude.max()), gre.affine, TIMES_MS)
    named = [replace(one, changes={"PatientName": "Mustermann^Erika"}) for one in volumes]
    folder = tmp_path_factory.mktemp("scans") / NAME
    write_classic(folder, *named, name=NAME + "_{:03d}.dcm")
    return folder


@pytest.fixture(scope="module")
def nifti(head, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans") / NAME
    folder.mkdir()
    for e, time in enumerate(TIMES_MS):
        for end, letter, data in (("", "M", head.gre.magnitude[e]), ("_ph", "P", head.gre.phase[e])):
            facts = {"EchoTime": time / 1000, "MagneticFieldStrength": 3, "ImageType": ["ORIGINAL", "PRIMARY", letter]}
            save(folder / f"{NAME}_e{e + 1}{end}.nii.gz", data, head.gre.affine, FOREIGN | facts)
    return folder


@pytest.fixture(scope="module")
def chi(head, tmp_path_factory):
    return save(tmp_path_factory.mktemp("maps") / f"{NAME}_qsm.nii.gz", head.chi, head.gre.affine)


def names_her(text: bytes | str) -> list[str]:
    content = text.encode() if isinstance(text, str) else text
    return [word for word in WORDS if word.lower().encode() in content.lower()]


def check_folder(folder: Path) -> int:
    """How many files were searched, unpacked."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in files:
        content = path.read_bytes()
        if path.suffix == ".gz":
            assert not content[3] & 0b11110  # no name, no comment in gzip's own header
            content = gzip.decompress(content)
        if path.suffix == ".png":
            assert not {b"zTXt", b"iTXt", b"eXIf"} & set(chunks(content)), path  # packed words would be missed
        assert not names_her(str(path.relative_to(folder))), path
        assert not names_her(content), (path, names_her(content))
    return len(files)


def chunks(png: bytes):
    at = 8
    while at < len(png):
        (length,) = struct.unpack_from(">I", png, at)
        yield png[at + 4 : at + 8]
        at += length + 12


def call(capsys, *arguments):
    capsys.readouterr()
    code = main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    assert code == 0, said.err
    assert not names_her(said.out + said.err)


def test_the_planted_words_would_be_found(dicom, nifti, chi):
    for path in (*dicom.iterdir(), *nifti.iterdir(), chi):
        content = path.read_bytes()
        assert names_her(gzip.decompress(content) if path.suffix == ".gz" else content), path


@pytest.mark.parametrize("kind", ["dicom", "nifti"])
@pytest.mark.parametrize("given", [False, True])
def test_no_file_of_an_smwi_names_the_patient(kind, given, request, chi, tmp_path, capsys):
    scan, out = request.getfixturevalue(kind), tmp_path / "smwi"
    how = ("--chi", chi) if given else ("--inversion", "tkd")
    call(capsys, "smwi", scan, out, *how, "--diamagnetic", "--json")
    assert check_folder(out) == (6 if given else 10)
    told = json.loads((out / ("chi.json" if given else "smwi.json")).read_text())
    assert all(source.startswith("sha256:") and len(source) == 19 for source in told["Sources"])


def test_no_file_of_a_location_names_the_patient(head, tmp_path, capsys):
    """From an image beside which another program left its words."""
    image = save(tmp_path / f"{NAME}_smwi.nii.gz", head.gre.magnitude[0], head.gre.affine)
    centres = tmp_path / f"{NAME}.tsv"
    centres.write_text("side\tx\ty\tz\nright\t11\t0\t0\nleft\t-11\t0\t0\n")
    call(capsys, "locate", image, tmp_path / "located", "--centres", centres, "--json")
    assert check_folder(tmp_path / "located") == 7
    told = json.loads((tmp_path / "located" / "right.json").read_text())
    assert told[SIDECAR_KEY] == {"combination": "other", "chi_th_ppm": 1.0}


def test_the_page_says_what_a_sidecar_of_an_smwi_may_say():
    page = (Path(__file__).parents[2] / "docs" / "reference" / "privacy.md").read_text(encoding="utf-8")
    for name, (low, high) in SPANS.items():
        assert f"`{name}` ({low} to {high})" in page
    assert set(SPANS) | {"combination", "inversion", "reference"} == set(SmwiRecipe.__dataclass_fields__)
    assert all(f"`{word}`" in page for word in ("combination", "inversion", "reference", *REFERENCES, "given", "other"))
