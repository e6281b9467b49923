"""No identifier leaves a scan: they are planted wherever they fit, and every output is searched for them."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest

from made_dicom import PLANTED, UID, made, multi_echo, write_classic, write_enhanced
from nigradat.cli import main
from nigradat.errors import NigradatError
from nigradat.io.files import to_json
from nigradat.io.gre import read_gre, read_image, read_scan, use_of
from nigradat.io.series import TRAVELLING_ATTRIBUTES, Span, travelling

AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])
SHAPE = (6, 5, 4)
# words of the header that are no identifiers, but were not invited either
UNINVITED = ("'s Magnet", "MUSTERMANN", "Protocol", "101500", "Systems", "Eva")


def truth():
    rng = np.random.default_rng(2)
    return rng.uniform(-np.pi, np.pi, (2, *SHAPE)), rng.integers(1, 4000, (2, *SHAPE)).astype(float)


def volumes(maker="Siemens", **changes):
    return [dataclasses.replace(v, changes=changes) for v in multi_echo(maker, *truth(), AFFINE, times=(14.0, 27.0))]


def nifti(folder: Path) -> Path:
    """dcm2niix-like files whose names and sidecars name the patient."""
    folder.mkdir()
    phase, magnitude = truth()
    for e in (0, 1):
        for name, data in (
            (f"Mustermann_19560704_e{e + 1}", magnitude[e]),
            (f"Mustermann_19560704_e{e + 1}_ph", phase[e]),
        ):
            nib.save(nib.Nifti1Image(data.astype(np.float32), AFFINE), folder / f"{name}.nii.gz")
            sidecar = {
                "EchoTime": (0.014, 0.027)[e],
                "MagneticFieldStrength": 3,
                "Manufacturer": "Siemens Klinikum Mustermann",
                "PatientName": "Mustermann",
                "PatientID": "PLANTEDID",
                "PatientBirthDate": "1956-07-04",
                "SeriesInstanceUID": f"{UID}.3",
                "InstitutionName": "Klinikum",
                "SeriesDescription": "Secret Protocol of Mustermann",
                "ImageType": ["ORIGINAL", "PRIMARY", "P" if "ph" in name else "M", "Mustermann"],
                "BodyPartExamined": "Mustermann's head",
                "MRAcquisitionType": "PLANTEDID",
                "SeriesNumber": 19560704,
            }
            (folder / f"{name}.json").write_text(json.dumps(sidecar), encoding="utf-8")
    return folder


@pytest.fixture(params=["Siemens", "Philips", "GE", "enhanced", "nifti"])
def scan(request, tmp_path) -> Path:
    folder = tmp_path / "scan"
    if request.param == "nifti":
        return nifti(folder)
    if request.param == "enhanced":
        path = write_enhanced(folder / "Mustermann.dcm", *[dataclasses.replace(v, series=1) for v in volumes()])
        return path.parent
    write_classic(folder, *volumes(request.param))
    return folder


def clean(text: str) -> None:
    for word in (*PLANTED, *UNINVITED, "1956"):
        assert word.lower() not in text.lower(), word


def test_the_identifiers_are_really_there(scan):
    content = b"".join(path.read_bytes() + str(path).encode() for path in scan.iterdir())
    for word in ("Mustermann", "PLANTEDID", "Klinikum", UID):
        assert word.encode() in content


def test_nothing_of_them_reaches_the_command_line(scan, capsys, monkeypatch):
    monkeypatch.chdir(scan.parent)
    for option, word in (((), "SMWI"), (("--json",), '"use": "smwi"')):
        assert main(["inspect", "scan", *option]) == 0
        said = capsys.readouterr()
        assert word in said.out
        clean(said.out + said.err)


def test_nothing_of_them_is_in_the_values(scan):
    gre, image = read_gre(scan), read_image(scan, echo_time_ms=14, part="magnitude")
    series = read_scan(scan)
    clean(to_json([gre.source, image.source, [(one.to_json(), use_of(one)) for one in series]]))
    clean(repr([gre.source, image.source]) + repr(series))


def test_only_the_documented_attributes_travel(scan):
    gre = read_gre(scan)
    assert set(gre.source.attributes) <= set(TRAVELLING_ATTRIBUTES)
    for name, value in gre.source.attributes.items():
        allowed = TRAVELLING_ATTRIBUTES[name]
        assert allowed.low <= value <= allowed.high if isinstance(allowed, Span) else value in allowed
    (token,) = gre.source.files
    assert re.fullmatch(r"sha256:[0-9a-f]{12}", token)


def test_the_page_lists_exactly_what_travels():
    page = Path(__file__).parents[2] / "docs" / "reference" / "privacy.md"
    rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", page.read_text(encoding="utf-8"), re.MULTILINE)
    documented = dict(rows)
    assert list(documented) == list(TRAVELLING_ATTRIBUTES)
    for name, allowed in TRAVELLING_ATTRIBUTES.items():
        if isinstance(allowed, Span):
            unit = "" if allowed.unit == "count" else f" {allowed.unit}"
            assert documented[name] == f"{allowed.low:.10g} to {allowed.high:.10g}{unit}"
        else:
            assert documented[name] == ", ".join(allowed)


def test_every_attribute_of_a_header_is_kept_out_even_one_that_we_read():
    """Whatever stands where a number or a known word should be stays behind."""
    assert travelling(dict.fromkeys(TRAVELLING_ATTRIBUTES, "Mustermann 19560704")) == {}
    assert travelling(dict.fromkeys(TRAVELLING_ATTRIBUTES, 19560704)) == {}
    assert travelling({"Manufacturer": "SIEMENS of Mustermann", "Modality": "MR "}) == {
        "Manufacturer": "Siemens",
        "Modality": "MR",
    }
    assert travelling({"PatientName": "Mustermann", "FlipAngle": float("nan"), "RepetitionTime": None}) == {}


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-30]),
        lambda path: path.write_bytes(path.read_bytes()[:700]),
        lambda path: path.write_bytes(path.read_bytes().replace(b"DS", b"ZZ")),
        lambda path: path.unlink(),
    ],
)
def test_messages_name_no_file_of_a_folder_and_quote_no_header(tmp_path, damage, capsys, monkeypatch):
    paths = write_classic(tmp_path / "scan", *volumes())
    damage(sorted(paths)[1])
    monkeypatch.chdir(tmp_path)
    main(["inspect", "scan"])
    clean("".join(capsys.readouterr()))
    with pytest.raises(NigradatError) as raised:
        read_gre("scan")
    clean(str(raised.value))
    assert raised.value.__suppress_context__ or raised.value.__cause__ is None


def test_warnings_of_the_dicom_library_are_not_shown(tmp_path, recwarn, caplog, capsys):
    (path,) = write_classic(tmp_path, made((4, 4, 1)))
    data = pydicom.dcmread(path)
    data.PatientBirthDate = "1956-Mustermann"  # no date: pydicom would quote it
    data.add_new(0x00180050, "DS", "2.0")
    data.save_as(path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"2.0 ", b"M.0 "))
    recwarn.clear()
    caplog.clear()
    assert main(["inspect", str(path)]) in (0, 2)
    clean("".join(str(w.message) for w in recwarn) + caplog.text + "".join(capsys.readouterr()).replace(str(path), ""))
