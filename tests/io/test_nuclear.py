"""Reconstructed SPECT from NM DICOM: every orientation, what is refused, and what travels."""

from __future__ import annotations

import json
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRLittleEndian, NuclearMedicineImageStorage, RLELossless, generate_uid

from nigradat.errors import ImageError, NigradatError, OrientationError
from nigradat.io.files import to_json
from nigradat.io.nifti import write_volume
from nigradat.io.nuclear import TRAVELLING_ATTRIBUTES, read_spect
from nigradat.phantom.striatum import PHANTOM_NOTE
from nigradat.spect.labels import labelled
from nigradat.spect.registration import Alignment
from nigradat.spect.sbr import measure_sbr

PLANTED = "Mustermann"
SHAPE = (5, 6, 4)  # columns, rows, slices
SIZES = (4.0, 3.5, 2.5)
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
ALL_ORDERS = ["".join(c) for axes in permutations(("RL", "AP", "SI")) for c in product(*axes)]


def item(**values):
    out = Dataset()
    for keyword, value in values.items():
        setattr(out, keyword, value)
    return out


def nm_dicom(path, stored, affine, *, slope=None, order=None, changes=None, compress=False):
    """Write ``stored`` (columns, rows, slices) as a reconstructed SPECT, with a name planted wherever one fits."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = NuclearMedicineImageStorage, ExplicitVRLittleEndian
    data = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.Modality = NuclearMedicineImageStorage, "NM"
    data.SOPInstanceUID = meta.MediaStorageSOPInstanceUID = generate_uid()
    data.StudyInstanceUID, data.SeriesInstanceUID = f"1.2.826.{len(PLANTED)}.1", "1.2.826.7777.1"
    data.ImageType = ["DERIVED", "PRIMARY", "RECON TOMO", "EMISSION"]
    data.PatientName = data.ReferringPhysicianName = data.OperatorsName = f"{PLANTED}^Max"
    data.PatientID = data.AccessionNumber = data.InstitutionName = data.StudyDescription = PLANTED
    data.SeriesDescription = data.ImageComments = data.StationName = data.ManufacturerModelName = PLANTED
    data.PatientBirthDate = data.StudyDate = data.AcquisitionDate = "19560704"
    data.Manufacturer = f"SIEMENS NM of {PLANTED}"
    data.ReconstructionMethod = f"Flash3D {PLANTED}"
    data.CorrectedImage = ["ATTN", "SCAT", "UNIF"]
    data.RadiopharmaceuticalInformationSequence = Items([item(Radiopharmaceutical=f"Ioflupane for {PLANTED}")])
    to_lps = LPS @ affine
    size = np.linalg.norm(to_lps[:3, :3], axis=0)
    along = to_lps[:3, :3] / size
    # the sign says whether slices follow the normal of the first
    sign = float(np.sign(np.cross(along[:, 0], along[:, 1]) @ along[:, 2]))
    data.SpacingBetweenSlices = sign * float(size[2])
    data.SliceThickness = float(size[2])
    data.PixelSpacing = [float(size[1]), float(size[0])]
    detector = item(
        ImageOrientationPatient=[float(v) for v in along[:, :2].T.ravel()],
        ImagePositionPatient=[float(v) for v in to_lps[:3, 3]],
    )
    data.DetectorInformationSequence = Items([detector])
    order = np.arange(stored.shape[2]) if order is None else np.array(order)
    data.NumberOfFrames = stored.shape[2]
    data.FrameIncrementPointer = 0x00540080
    data.SliceVector = [int(i) + 1 for i in order]
    if slope is not None:
        data.RescaleSlope, data.RescaleIntercept = slope, 0
    frames = np.ascontiguousarray(stored[:, :, order].transpose(2, 1, 0)).astype("<u2")
    data.Rows, data.Columns, data.SamplesPerPixel = frames.shape[1], frames.shape[2], 1
    data.PhotometricInterpretation, data.BitsAllocated, data.BitsStored = "MONOCHROME2", 16, 16
    data.HighBit, data.PixelRepresentation, data.PixelData = 15, 0, frames.tobytes()
    for keyword, value in (changes or {}).items():
        if value is None:
            del data[keyword]
        else:
            setattr(data, keyword, value)
    if compress:
        data.compress(RLELossless)
    data.save_as(path, enforce_file_format=True)
    return path


def affine_of(codes):
    """An affine whose axes rise as the codes say, with voxels of three sizes."""
    matrix = np.eye(4)
    matrix[:3, :3] = 0
    for axis, code in enumerate(codes):
        world = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}[code]
        matrix[world, axis] = SIZES[axis] * (1 if code in "RAS" else -1)
    matrix[:3, 3] = -30, 17, 55
    return matrix


def stored(seed=0):
    return np.random.default_rng(seed).integers(0, 60_000, SHAPE)


def by_place(volume):
    """Every voxel's value by its place in the world."""
    index = np.indices(volume.data.shape).reshape(3, -1)
    places = np.round(volume.affine[:3, :3] @ index + volume.affine[:3, 3:], 3) + 0.0
    return dict(zip(map(tuple, places.T), volume.data.ravel().tolist(), strict=True))


@pytest.mark.parametrize("codes", ALL_ORDERS)
def test_every_voxel_keeps_its_place_in_all_48_orientations(tmp_path, codes):
    affine, values = affine_of(codes), stored()
    found = read_spect(nm_dicom(tmp_path / "scan.dcm", values, affine))
    index = np.indices(SHAPE).reshape(3, -1)
    places = np.round(affine[:3, :3] @ index + affine[:3, 3:], 3) + 0.0
    assert by_place(found) == dict(zip(map(tuple, places.T), values.ravel().astype(float).tolist(), strict=True))


def test_frames_are_sorted_by_the_slice_vector_and_scaled(tmp_path):
    values, affine = stored(), affine_of("LPS")
    plain = read_spect(nm_dicom(tmp_path / "a.dcm", values, affine))
    mixed = read_spect(nm_dicom(tmp_path / "b.dcm", values, affine, order=[2, 0, 3, 1], slope=0.25))
    assert by_place(mixed) == {place: value / 4 for place, value in by_place(plain).items()}


def test_a_tilted_scan_keeps_its_tilt(tmp_path):
    from scipy.spatial.transform import Rotation

    affine = affine_of("LPS")
    affine[:3, :3] = Rotation.from_euler("xz", [11, 7], degrees=True).as_matrix() @ affine[:3, :3]
    found = read_spect(nm_dicom(tmp_path / "scan.dcm", stored(), affine))
    np.testing.assert_allclose(found.affine, affine, atol=1e-4)


def test_compressed_folders_and_archives(tmp_path):
    import shutil

    folder = tmp_path / "scan"
    folder.mkdir()
    path = nm_dicom(folder / "one.dcm", stored(), affine_of("LPS"), compress=True)
    (folder / "notes.txt").write_text("no DICOM")
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", folder)
    first = by_place(read_spect(path))
    assert first == by_place(read_spect(folder)) == by_place(read_spect(archive))
    nm_dicom(folder / "two.dcm", stored(1), affine_of("LPS"))
    with pytest.raises(ImageError, match="2 multi-frame images in 2 DICOM files"):
        read_spect(folder)


def test_a_nifti_is_read_as_it_is(tmp_path):
    write_volume(tmp_path / "spect.nii.gz", stored().astype(np.float32), affine_of("RAS"))
    found = read_spect(tmp_path / "spect.nii.gz")
    assert np.array_equal(found.data, nib.load(tmp_path / "spect.nii.gz").get_fdata())
    assert found.source.kind == "nifti"
    assert "spect.nii" not in to_json(found.source)
    assert found.source.attributes == {}


def test_the_sidecar_of_a_nifti_is_put_into_our_words(tmp_path):
    write_volume(tmp_path / "sub-01_spect.nii.gz", stored().astype(np.float32), affine_of("RAS"))
    said = {
        "TracerName": "Ioflupane (Erika Mustermann)",
        "Manufacturer": "SIEMENS NM",
        "ReconMethodName": "3D-OSEM for Erika",
        "AttenuationCorrection": "Chang, mu .11",
        "ScatterCorrectionMethod": "none",
        "PatientName": "Mustermann",
    }
    (tmp_path / "sub-01_spect.json").write_text(json.dumps(said), encoding="utf-8")
    found = read_spect(tmp_path / "sub-01_spect.nii.gz").source.attributes
    assert found["tracer"] == "123I-FP-CIT"
    assert found["reconstruction"] == "OSEM; corrected for attenuation"
    assert "siemens" in str(found["manufacturer"]).lower()
    assert "Erika" not in to_json(found)
    assert "Mustermann" not in to_json(found)


@pytest.mark.parametrize(
    ("said", "tracer"),
    [
        ({"TracerName": "FP-CIT", "TracerRadionuclide": "I123"}, "123I-FP-CIT"),
        ({"TracerName": "[123I]FP-CIT"}, "123I-FP-CIT"),
        ({"TracerName": "TRODAT-1", "TracerRadionuclide": "Tc99m"}, "99mTc-TRODAT-1"),
        ({"TracerName": "FP-CIT", "TracerRadionuclide": "F18"}, None),
        ({"TracerName": "18F-FP-CIT"}, None),
        ({"TracerName": "beta-CIT", "TracerRadionuclide": "C11"}, None),
    ],
)
def test_a_namesake_with_another_nuclide_is_not_taken_for_the_tracer(tmp_path, said, tracer):
    write_volume(tmp_path / "pet.nii.gz", stored().astype(np.float32), affine_of("RAS"))
    (tmp_path / "pet.json").write_text(json.dumps(said), encoding="utf-8")
    if tracer is None:
        with pytest.raises(ImageError, match="another nuclide"):
            read_spect(tmp_path / "pet.nii.gz")
    given = None if tracer else "18F-FP-CIT"
    assert read_spect(tmp_path / "pet.nii.gz", tracer=given).source.attributes.get("tracer") == tracer


def test_a_tracer_of_something_else_is_refused_unless_the_user_knows_better(tmp_path):
    write_volume(tmp_path / "sub-01_pet.nii.gz", stored().astype(np.float32), affine_of("RAS"))
    with pytest.raises(ImageError, match=r"a PET whose tracer .*--tracer"):
        read_spect(tmp_path / "sub-01_pet.nii.gz")
    said = {"TracerName": "FDG", "TracerRadionuclide": "F18", "Modality": "PT"}
    (tmp_path / "sub-01_pet.json").write_text(json.dumps(said), encoding="utf-8")
    with pytest.raises(ImageError, match="123I-FP-CIT") as refused:
        read_spect(tmp_path / "sub-01_pet.nii.gz")
    assert "FDG" not in str(refused.value)  # free text stays behind
    assert "tracer" not in read_spect(tmp_path / "sub-01_pet.nii.gz", tracer="11C-PE2I").source.attributes
    said = {"TracerName": "Joflupan (123I)", "Modality": "NM"}
    (tmp_path / "sub-01_pet.json").write_text(json.dumps(said), encoding="utf-8")
    assert read_spect(tmp_path / "sub-01_pet.nii.gz").source.attributes["tracer"] == "123I-FP-CIT"


def test_a_correction_that_was_not_made_is_not_told(tmp_path):
    write_volume(tmp_path / "a.nii.gz", stored().astype(np.float32), affine_of("RAS"))
    said = {"ReconstructionMethod": "Filtered Back Projection", "AttenuationCorrection": "not corrected"}
    (tmp_path / "a.json").write_text(json.dumps(said), encoding="utf-8")
    assert read_spect(tmp_path / "a.nii.gz").source.attributes == {"reconstruction": "FBP"}


# -- What is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"SpacingBetweenSlices": None}, OrientationError, "lacks SpacingBetweenSlices.*never guessed"),
        (
            {"DetectorInformationSequence": None},
            OrientationError,
            "lacks ImagePositionPatient, ImageOrientationPatient",
        ),
        ({"PixelSpacing": None}, OrientationError, "without pixel spacing"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "TOMO", "EMISSION"]}, ImageError, "kind TOMO.*not the reconstructed"),
        ({"ImageType": ["DERIVED", "PRIMARY", "RECON GATED TOMO"]}, ImageError, "kind RECON GATED TOMO"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", PLANTED]}, ImageError, "kind unknown"),
        ({"Modality": "PT"}, ImageError, "modality PT"),
        ({"Modality": "MUSTER"}, ImageError, "of another kind"),
        ({"FrameIncrementPointer": [0x00540010, 0x00540080]}, ImageError, "differ in more than their slice"),
        ({"SliceVector": [1, 2, 2, 4]}, ImageError, "no order of its 4 frames"),
        ({"NumberOfFrames": 9, "SliceVector": list(range(1, 10))}, ImageError, "truncated"),
        ({"Rows": None}, ImageError, "scan.dcm"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(tmp_path, changes, error, words):
    path = nm_dicom(tmp_path / "scan.dcm", stored(), affine_of("LPS"), changes=changes)
    with pytest.raises(error, match=words) as caught:
        read_spect(path)
    assert PLANTED not in str(caught.value)


@pytest.mark.parametrize(
    ("tag", "words"),
    [(b"\x18\x00\x88\x00DS", "lacks SpacingBetweenSlices"), (b"\x28\x00\x08\x00IS", "damaged DICOM")],
)
def test_a_number_that_is_none_is_no_number(tmp_path, tag, words):
    """Spacing Between Slices, for which the unsigned thickness is no substitute, and Number of Frames."""
    path = nm_dicom(tmp_path / "scan.dcm", stored(), affine_of("LPS"))
    content = bytearray(path.read_bytes())
    start = content.index(tag) + len(tag)
    length = int.from_bytes(content[start : start + 2], "little")
    content[start + 2 : start + 2 + length] = b"x" * length
    path.write_bytes(content)
    with pytest.raises(NigradatError, match=words):
        read_spect(path)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path, keep):
    path = nm_dicom(tmp_path / "scan.dcm", stored(), affine_of("LPS"))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(NigradatError) as caught:
        read_spect(path)
    assert PLANTED not in str(caught.value)


def test_what_is_no_scan_is_refused(tmp_path):
    (tmp_path / "text.dcm").write_text("hello")
    with pytest.raises(ImageError, match=r"neither DICOM nor NIfTI|0 multi-frame images"):
        read_spect(tmp_path / "text.dcm")
    with pytest.raises(ImageError, match="does not exist"):
        read_spect(tmp_path / "none.dcm")


# -- Privacy ------------------------------------------------------------------------------------------------------


def test_only_words_of_our_own_travel(tmp_path, recwarn, capsys):
    changes = {"PatientSize": 9.9}
    path = nm_dicom(tmp_path / f"{PLANTED}.dcm", stored(), affine_of("LPS"), changes=changes)
    scan = read_spect(path)
    assert set(scan.source.attributes) == set(TRAVELLING_ATTRIBUTES)
    assert scan.source.attributes == {
        "tracer": "123I-FP-CIT",
        "manufacturer": "Siemens",
        "reconstruction": "OSEM; corrected for attenuation, scatter",
    }
    said = to_json(scan.source) + "".join(str(w.message) for w in recwarn) + "".join(capsys.readouterr())
    for secret in (PLANTED, PLANTED.lower(), "19560704", "1.2.826", ".dcm"):
        assert secret not in said


def test_the_page_on_privacy_lists_what_travels():
    page = (Path(__file__).parents[2] / "docs" / "reference" / "privacy.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in TRAVELLING_ATTRIBUTES)


def test_a_header_that_tells_nothing_gives_no_attribute(tmp_path):
    bare = dict.fromkeys(
        ("Manufacturer", "ReconstructionMethod", "CorrectedImage", "RadiopharmaceuticalInformationSequence")
    )
    scan = read_spect(nm_dicom(tmp_path / "scan.dcm", stored(), affine_of("LPS"), changes=bare))
    assert scan.source.attributes == {}
    odd = {"CorrectedImage": "ATTN", "ReconstructionMethod": None}
    scan = read_spect(nm_dicom(tmp_path / "scan.dcm", stored(), affine_of("LPS"), changes=odd))
    assert scan.source.attributes["reconstruction"] == "corrected for attenuation"


def test_no_identifier_reaches_a_result_or_a_label(tmp_path):
    from nigradat.io.manifest import Participant
    from nigradat.phantom.striatum import SideUptake, striatal_head
    from nigradat.report.sbr_sheet import sbr_facts, write_sbr

    head = striatal_head(SideUptake.even(3.0), SideUptake.even(1.5))
    drawn = head.draw(0)
    path = nm_dicom(tmp_path / f"{PLANTED}.dcm", drawn.data, drawn.affine)
    scan = read_spect(path)
    found = measure_sbr(path, alignment=Alignment(head.scan_from_mni))
    assert found["striatum"].right > 1.5 * found["striatum"].left
    out = write_sbr(tmp_path / "out", scan, found)
    content = b"".join(file.read_bytes() for file in out.iterdir()) + repr(labelled(Participant("a"), found)).encode()
    content += to_json(sbr_facts(found)).encode()
    for secret in (PLANTED, PLANTED.lower(), "19560704", "1.2.826", str(tmp_path)):
        assert secret.encode() not in content
    assert json.loads((out / "sbr.json").read_text())["source"]["attributes"]["tracer"] == "123I-FP-CIT"
    assert PHANTOM_NOTE not in content.decode("latin-1")  # a DICOM does not say that it is simulated
