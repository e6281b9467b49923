"""DICOM in: slices by position, parts, echoes and units of three makers; what is wrong is refused by name."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nibabel import orientations
from pydicom.sequence import Sequence as Items
from pydicom.uid import generate_uid

from made_dicom import UID, Made, item, made, multi_echo, write_classic, write_enhanced
from nigradat.errors import ConfigError, ImageError, OrientationError
from nigradat.io import dicom_frames
from nigradat.io.gre import read_gre, read_image, read_scan, use_of
from nigradat.io.nuclear import read_spect
from nigradat.volume import Volume

SHAPE = (7, 6, 5)
AFFINE = np.array([[0.5, 0, 0, -10], [0, 0.75, 0, 20], [0, 0, 2.0, -30], [0, 0, 0, 1]])
ALL_48 = [
    np.column_stack([permutation, signs])
    for permutation in ([0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0])
    for signs in ([a, b, c] for a in (1, -1) for b in (1, -1) for c in (1, -1))
]


def gre_truth(shape=SHAPE, echoes=3, seed=3):
    rng = np.random.default_rng(seed)
    phase = rng.uniform(-np.pi, np.pi, (echoes, *shape))
    return phase, rng.integers(1, 4000, (echoes, *shape)).astype(float)


def at_the_same_place(volume, stored, affine):
    """The read voxels in the order of the written ones, found by world position."""
    index = np.indices(stored.shape).reshape(3, -1)
    world = affine[:3, :3] @ index + affine[:3, 3:]
    there = np.linalg.solve(volume.affine[:3, :3], world - volume.affine[:3, 3:])
    assert np.abs(there - np.round(there)).max() < 1e-3
    i, j, k = np.round(there).astype(int)
    assert volume.data.shape[0] > i.max()
    return volume.data[i, j, k].reshape(stored.shape)


# -- Geometry -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(48))
def test_every_orientation_keeps_each_voxel_in_its_place(tmp_path, number):
    inverse = orientations.inv_ornt_aff(ALL_48[number], SHAPE)
    one = made(SHAPE, AFFINE @ inverse, seed=number)
    if number % 2:
        write_enhanced(tmp_path / "scan.dcm", one)
    else:
        write_classic(tmp_path, one)
    volume = read_image(tmp_path)
    assert np.array_equal(at_the_same_place(volume, one.stored, one.affine), one.stored)
    assert np.linalg.det(volume.affine[:3, :3]) != 0


@given(
    angles=st.tuples(*[st.floats(-np.pi, np.pi)] * 3),
    size=st.tuples(*[st.floats(0.3, 4)] * 3),
    seed=st.integers(0, 99),
)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_oblique_stack_keeps_each_voxel_in_its_place(tmp_path_factory, angles, size, seed):
    a, b, c = angles
    turn = (
        np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
        @ np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
        @ np.array([[1, 0, 0], [0, np.cos(c), -np.sin(c)], [0, np.sin(c), np.cos(c)]])
    )
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn * size, np.random.default_rng(seed).uniform(-100, 100, 3)
    one = made((4, 3, 3), affine, seed=seed)
    folder = tmp_path_factory.mktemp("oblique")
    write_classic(folder, one, shuffle=seed)
    volume = read_image(folder)
    assert np.array_equal(at_the_same_place(volume, one.stored, affine), one.stored)
    assert np.allclose(np.sort(volume.spacing_mm), np.sort(size), rtol=1e-5)


def test_the_first_slice_is_the_lowest_along_the_normal_of_rows_and_columns(tmp_path):
    one = made(SHAPE, AFFINE)
    write_classic(tmp_path, one)
    volume = read_image(tmp_path)
    x, y, z = (np.diag([-1.0, -1, 1]) @ volume.affine[:3, :3]).T
    assert np.cross(x, y) @ z > 0


def without(volume: Made, *slices: int) -> list[Made]:
    """The slices of a volume one by one, some left out."""
    out = []
    for k in range(volume.stored.shape[2]):
        if k not in slices:
            affine = volume.affine.copy()
            affine[:3, 3] += k * affine[:3, 2]
            out.append(replace(volume, stored=volume.stored[:, :, k : k + 1], affine=affine))
    return out


def refused(folder, words, kind=ImageError):
    with pytest.raises(kind, match=words):
        read_image(folder)
    (series,) = read_scan(folder)
    assert use_of(series).purpose == "refuse"
    assert str(use_of(series).because[0])


def test_a_missing_slice_is_named(tmp_path):
    write_classic(tmp_path, *without(made(), 2))
    refused(tmp_path, r"1 missing slices \(after 2 of 4, 2 mm apart\)")


def test_two_missing_slices_in_a_row_are_counted(tmp_path):
    write_classic(tmp_path, *without(made((3, 3, 9)), 4, 5))
    refused(tmp_path, "2 missing slices")


def test_a_slice_missing_at_the_end_of_one_part_is_a_mixed_grid(tmp_path):
    phase = made(part="P", slope=2, intercept=-4096)
    write_classic(tmp_path, made(), *without(phase, 4))
    refused(tmp_path, "mixed grids: the phase at 5 ms lies elsewhere than the magnitude")


def test_a_doubled_slice_is_named(tmp_path):
    write_classic(tmp_path, made(), *without(made(), 0, 1, 3, 4))
    refused(tmp_path, "1 doubled slices: 6 slices for 5 positions")


def test_a_folder_with_two_copies_is_named(tmp_path):
    for path in write_classic(tmp_path, made()):
        (tmp_path / f"copy_{path.name}").write_bytes(path.read_bytes())
    refused(tmp_path, "5 doubled slices.*copies of the same instances")


def test_uneven_gaps_are_named(tmp_path):
    slices = without(made())
    slices[3].affine[2, 3] += 0.6
    write_classic(tmp_path, *slices)
    refused(tmp_path, r"uneven gaps between slices, 1.4 to 2.6 mm")


def test_a_slice_beside_the_line_is_named(tmp_path):
    slices = without(made())
    slices[2].affine[0, 3] += 0.6
    write_classic(tmp_path, *slices)
    refused(tmp_path, "off their common line")


def test_a_localizer_of_three_planes_is_a_mixed_grid(tmp_path):
    turned = AFFINE[:, [1, 2, 0, 3]]
    write_classic(tmp_path, made(SHAPE, AFFINE), made(SHAPE, turned, seed=1))
    refused(tmp_path, "mixed grids: 5 of 10 slices point another way")


def test_two_matrices_are_a_mixed_grid(tmp_path):
    write_classic(tmp_path, *without(made(), 4), made((6, 6, 1)))
    refused(tmp_path, r"mixed grids: slices of (7 x 6 pixels of 1 x 1 mm, 6 x 6|6 x 6 pixels of 1 x 1 mm, 7 x 6)")


def test_a_sheared_stack_is_refused(tmp_path):
    sheared = np.array([[1.0, 0, 0.3, 0], [0, 1, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]])
    write_classic(tmp_path, made(affine=sheared))
    refused(tmp_path, "off the right angle", OrientationError)


@pytest.mark.parametrize("keyword", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
def test_a_side_is_never_guessed(tmp_path, keyword):
    write_classic(tmp_path, made(changes={keyword: None}))
    refused(tmp_path, "5 of 5 slices without", OrientationError)


@pytest.mark.parametrize("wrong", [[0, 0, 0, 0, 0, 0], [1, 0, 0, 1, 0, 0], [1, 0, 0, 0, 2, 0]])
def test_directions_that_are_none_are_refused(tmp_path, wrong):
    write_classic(tmp_path, made(changes={"ImageOrientationPatient": wrong}))
    refused(tmp_path, "perpendicular unit vectors", OrientationError)


def test_one_slice_has_its_stated_thickness_or_is_refused(tmp_path):
    write_classic(tmp_path / "a", made((4, 4, 1)))
    assert read_image(tmp_path / "a").spacing_mm[2] == pytest.approx(2.0)
    write_classic(tmp_path / "b", made((4, 4, 1), changes={"SliceThickness": None}))
    refused(tmp_path / "b", "without a thickness", OrientationError)


# -- Makers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("maker", ["Siemens", "Philips", "GE"])
def test_a_makers_phase_becomes_radians(tmp_path, maker):
    phase, magnitude = gre_truth()
    volumes = multi_echo(maker, phase, magnitude, AFFINE)
    write_classic(tmp_path, *volumes)
    gre = read_gre(tmp_path)
    assert gre.echo_times_ms.tolist() == [14, 27, 40]
    assert gre.field_strength_t == 3
    turned = np.abs(np.angle(np.exp(1j * (gre.phase - phase))))
    assert turned.max() < np.pi / 2048 + 1e-3  # the finest step that the maker stores
    ratio = gre.magnitude / magnitude
    assert np.allclose(ratio, ratio[0, 0, 0, 0])
    steps = " ".join(gre.source.steps)
    assert ("turned" if maker == "GE" else "left as stored") in steps
    assert maker in steps
    assert gre.source.kind == "dicom-classic"
    assert gre.source.attributes["Manufacturer"] == maker
    np.testing.assert_allclose(gre.affine[:3, :3], np.abs(AFFINE[:3, :3]) * np.sign(gre.affine[:3, :3]), atol=1e-6)


@pytest.mark.parametrize("maker", ["Siemens", "Philips"])
def test_enhanced_and_classic_are_identical(tmp_path, maker):
    volumes = [replace(v, series=1) for v in multi_echo(maker, *gre_truth(), AFFINE)]
    write_classic(tmp_path / "classic", *volumes)
    write_enhanced(tmp_path / "enhanced.dcm", *volumes)
    one, other = read_gre(tmp_path / "classic"), read_gre(tmp_path / "enhanced.dcm")
    for name in ("magnitude", "phase", "affine", "echo_times_ms"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert one.source.files == other.source.files
    assert (one.source.kind, other.source.kind) == ("dicom-classic", "dicom-enhanced")


def test_philips_private_scaling_makes_echoes_comparable(tmp_path):
    """The public slope may differ between echoes of one signal; the private one undoes that."""
    one = made(slope=2.0, intercept=0, scale_slope=0.01, maker="Philips", echo_ms=5)
    other = replace(one, slope=3.0, echo_ms=10)
    write_classic(tmp_path, one, other)
    first, second = (read_image(tmp_path, echo_time_ms=t).data for t in (5, 10))
    assert np.array_equal(first, second)
    assert np.allclose(
        at_the_same_place(read_image(tmp_path, echo_time_ms=5), one.stored, one.affine), one.stored / 0.01
    )


def test_the_sign_can_be_said(tmp_path):
    write_classic(tmp_path, *multi_echo("GE", *gre_truth(), AFFINE))
    auto, stored, turned = (read_gre(tmp_path, phase_sign=s).phase for s in ("auto", "as-stored", "reversed"))
    assert np.array_equal(auto, turned)
    assert np.array_equal(stored, -turned)
    with pytest.raises(ConfigError, match="phase sign 'up'"):
        read_gre(tmp_path, phase_sign="up")  # type: ignore[arg-type]


def test_ge_real_and_imaginary_with_every_other_slice_turned(tmp_path):
    shape = (8, 8, 6)
    x, y, z = np.indices(shape) / 8
    true = np.stack([1.2 * x + e * (0.4 * y + 0.3 * z) for e in (1, 2)])
    signal = 1000 * np.exp(-1j * true) * np.where(np.arange(6) % 2, -1, 1)
    volumes = [
        Made(np.round(part).astype(np.int16), AFFINE, name, 10.0 * e, e, maker="GE")
        for e, echo in enumerate(signal, start=1)
        for name, part in (("R", echo.real), ("I", echo.imag))
    ]
    write_classic(tmp_path, *volumes)
    (series,) = read_scan(tmp_path)
    assert use_of(series).purpose == "smwi"
    gre = read_gre(tmp_path)
    found = np.stack([at_the_same_place(Volume(echo, gre.affine), volumes[0].stored, AFFINE) for echo in gre.phase])
    assert np.abs(np.angle(np.exp(1j * (found - true)))).max() < 0.01
    assert np.allclose(gre.magnitude, 1000, atol=2)
    assert "every other slice turned by pi" in " ".join(gre.source.steps)


# -- What belongs together ----------------------------------------------------------------------------------------


def siemens(**changes):
    return [replace(v, **changes) for v in multi_echo("Siemens", *gre_truth(), AFFINE)]


def test_magnitude_and_phase_of_two_series_become_one(tmp_path):
    write_classic(tmp_path, *siemens())
    (series,) = read_scan(tmp_path)
    assert series.holds == "magnitude at 14, 27 and 40 ms; phase at 14, 27 and 40 ms"
    assert "magnitude and phase put together from two series of one scan" in series.notes


def test_each_echo_as_a_series_of_its_own_becomes_one(tmp_path):
    volumes = [replace(v, series=10 * v.echo_number + v.series) for v in siemens()]
    write_classic(tmp_path, *volumes)
    (series,) = read_scan(tmp_path)
    assert series.echo_times_ms("phase") == (14, 27, 40)
    assert read_gre(tmp_path).magnitude.shape == (3, *SHAPE)


def test_two_magnitudes_for_one_phase_are_left_apart(tmp_path):
    normalised = [replace(v, series=5, stored=v.stored // 2) for v in siemens() if v.part == "M"]
    write_classic(tmp_path, *siemens(), *normalised)
    assert [series.label for series in read_scan(tmp_path)] == ["1", "2", "3"]
    with pytest.raises(ImageError, match="2 magnitude series that this phase could belong to"):
        read_gre(tmp_path)


def test_a_repeated_scan_is_told_apart_by_its_time_and_the_user_chooses(tmp_path):
    again = [replace(v, series=v.series + 10, time="111500") for v in siemens()]
    write_classic(tmp_path, *siemens(), *again)
    assert [series.attributes["SeriesNumber"] for series in read_scan(tmp_path)] == [1, 11]
    with pytest.raises(ImageError, match=r"2 series that could be a multi-echo scan \(1: .*; 2: .*\)"):
        read_gre(tmp_path)
    assert read_gre(tmp_path, series="2").phase is not None
    with pytest.raises(ConfigError, match=r"series 3 of .* one of 1, 2"):
        read_gre(tmp_path, series="3")


def test_series_of_another_place_or_study_are_not_put_together(tmp_path):
    moved = AFFINE.copy()
    moved[0, 3] += 1
    volumes = [replace(v, affine=moved) if v.part == "P" else v for v in siemens()]
    write_classic(tmp_path / "moved", *volumes)
    assert len(read_scan(tmp_path / "moved")) == 2
    other = {"StudyInstanceUID": f"{UID}.77"}
    write_classic(tmp_path / "study", *[replace(v, changes=other) if v.part == "P" else v for v in siemens()])
    assert len(read_scan(tmp_path / "study")) == 2


def test_a_series_beside_another_of_a_t1w_is_found(tmp_path):
    write_classic(tmp_path, *siemens(), made(SHAPE, AFFINE, series=9, echo_ms=3, changes={"RepetitionTime": 2000}))
    assert read_gre(tmp_path).magnitude.shape == (3, *SHAPE)


def test_repetitions_are_told_apart_by_what_the_header_says_of_time(tmp_path):
    volumes = [made(seed=n, acquisition=n, time=f"10150{n}") for n in (1, 2, 3)]
    write_classic(tmp_path / "classic", *volumes)
    write_enhanced(tmp_path / "enhanced" / "1.dcm", *volumes)
    for folder in ("classic", "enhanced"):
        (series,) = read_scan(tmp_path / folder)
        assert (series.repetitions, series.holds) == (3, "magnitude at 5 ms, 3 times")
        with pytest.raises(ImageError, match="3 images"):
            read_image(tmp_path / folder)


def test_echoes_without_times_are_told_apart_by_number(tmp_path):
    volumes = [replace(v, changes={"EchoTime": None}) for v in siemens(series=1)]
    write_classic(tmp_path, *volumes)
    with pytest.raises(ImageError, match="3 echoes without echo times"):
        read_gre(tmp_path)
    assert read_gre(tmp_path, echo_times_ms=[14, 27, 40]).echo_times_ms.tolist() == [14, 27, 40]


# -- What is no phase, no head, no scan ---------------------------------------------------------------------------


def no_gre(folder, words):
    with pytest.raises(ImageError, match=words):
        read_gre(folder)


def test_a_field_map_is_refused_with_the_reason(tmp_path):
    field = made(part="FIELD_MAP", slope=0.25, intercept=-500, unit="Hz", maker="Philips", echo_ms=0, seed=1)
    write_enhanced(tmp_path / "1.dcm", made(maker="Philips"), field)
    no_gre(tmp_path, "a field map in Hz: it is computed from phases of several echoes")
    (series,) = read_scan(tmp_path)
    assert use_of(series).purpose == "image"
    assert series.images[1].unit == "Hz"


@pytest.mark.parametrize(
    "changes", [{"SequenceName": "*swi3d1r"}, {"SeriesDescription": "Filt_PHA: Ax SWAN"}, {"SequenceName": "*fm2d2r"}]
)
def test_a_filtered_phase_and_a_phase_difference_are_refused_with_the_reason(tmp_path, changes):
    write_classic(tmp_path, *siemens(changes=changes, series=1))
    is_difference = "*fm2d2r" in changes.values()
    no_gre(tmp_path, "difference of two echoes" if is_difference else "high-pass filtered for SWI")
    if not is_difference:
        gre = read_gre(tmp_path, trust_phase=True)
        assert np.abs(gre.phase).max() > 3
        assert "was trusted, as asked for" in " ".join(gre.source.steps)


def test_one_phase_beside_magnitudes_of_two_echoes_is_a_difference(tmp_path):
    write_classic(tmp_path, *[v for v in siemens() if v.part == "M" or v.echo_number == 3])
    assert [series.holds for series in read_scan(tmp_path)][1] == "phase difference at 40 ms"
    no_gre(tmp_path, "none of 2 series is a multi-echo scan .*the difference of two echoes' phases")


def test_what_is_missing_is_named(tmp_path):
    parts = {"phase": [v for v in siemens() if v.part == "P"], "magnitude": [v for v in siemens() if v.part == "M"]}
    for part, volumes in parts.items():
        write_classic(tmp_path / part, *volumes)
        no_gre(tmp_path / part, f"{part} at 14, 27 and 40 ms without {'magnitude' if part == 'phase' else 'phase'}")
    write_classic(tmp_path / "one", *[v for v in siemens() if v.echo_number == 1])
    no_gre(tmp_path / "one", "one echo")
    write_classic(tmp_path / "less", *[v for v in siemens(series=1) if (v.part, v.echo_number) != ("P", 1)])
    no_gre(tmp_path / "less", "echoes that differ: magnitude at 14, 27 and 40 ms; phase at 27 and 40 ms")


def test_another_body_part_is_refused_unless_allowed(tmp_path):
    write_classic(tmp_path, *siemens(changes={"BodyPartExamined": "KNEE"}))
    no_gre(tmp_path, "a scan of the body part KNEE")
    assert read_gre(tmp_path, any_body_part=True).source.attributes["BodyPartExamined"] == "KNEE"
    with pytest.raises(ImageError, match="KNEE"):
        read_image(tmp_path, echo_time_ms=14)


def test_objects_without_an_image_are_passed_over(tmp_path):
    write_classic(tmp_path, made())
    report = pydicom.dcmread(next(tmp_path.iterdir()))
    for keyword in ("PixelData", "Rows", "Columns"):
        del report[keyword]
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.33"
    report.save_as(tmp_path / "report.dcm")
    (tmp_path / "notes.txt").write_text("Mustermann", encoding="utf-8")
    assert read_image(tmp_path).data.shape == SHAPE


def test_colour_pictures_are_no_image(tmp_path):
    (path,) = write_classic(tmp_path, made((4, 4, 1)))
    data = pydicom.dcmread(path)
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PlanarConfiguration = 3, "RGB", 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 8, 8, 7
    data.PixelData = bytes(4 * 4 * 3)
    data.save_as(path)
    with pytest.raises(ImageError, match=r"no image among other"):
        read_image(tmp_path)
    assert use_of(read_scan(tmp_path)[0]).purpose == "refuse"


# -- Encodings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", ["RLELossless", "JPEGLSLossless", "DeflatedExplicitVRLittleEndian"])
@pytest.mark.parametrize("kind", ["classic", "enhanced"])
def test_compressed_pixels_are_the_same(tmp_path, syntax, kind):
    one = made((8, 9, 4))
    paths = write_classic(tmp_path, one) if kind == "classic" else [write_enhanced(tmp_path / "1.dcm", one)]
    plain = read_image(tmp_path)
    for path in paths:
        data = pydicom.dcmread(path)
        uid = getattr(pydicom.uid, syntax)
        if uid.is_encapsulated:
            data.compress(uid)
        else:
            data.file_meta.TransferSyntaxUID = uid
        data.save_as(path, enforce_file_format=True)
    assert np.array_equal(read_image(tmp_path).data, plain.data)
    if uid.is_encapsulated:
        paths[0].write_bytes(paths[0].read_bytes()[:-40])
        with pytest.raises(ImageError, match="truncated"):
            read_scan(tmp_path)


@pytest.mark.parametrize("reader", [read_scan, read_spect])
def test_a_deflated_bomb_is_refused_before_it_unfolds(tmp_path, monkeypatch, reader):
    (path,) = write_classic(tmp_path, made((8, 9, 1)))
    data = pydicom.dcmread(path)
    data.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    data.Rows = data.Columns = 4096
    data.PixelData = bytes(2 * 4096 * 4096)
    data.save_as(path, enforce_file_format=True)
    monkeypatch.setattr(dicom_frames, "FREE_BYTES", 2**20)
    with pytest.raises(ImageError, match=r"deflated, it unpacks to more than"):
        reader(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-200] + bytes(b ^ 255 for b in whole[-200:]))
    with pytest.raises(ImageError, match=r"damaged|unpacks"):
        reader(path)


@pytest.mark.parametrize("keyword", ["Rows", "Columns"])
def test_an_image_without_pixels_is_refused(tmp_path, keyword):
    (path,) = write_classic(tmp_path, made((8, 9, 1)))
    data = pydicom.dcmread(path)
    setattr(data, keyword, 0)
    data.save_as(path)
    with pytest.raises(ImageError, match="without pixels"):
        read_scan(tmp_path)


@pytest.mark.parametrize("syntax", ["JPEGLosslessProcess14_1", "JPEG2000Lossless"])
def test_syntaxes_that_gdcm_decodes(tmp_path, syntax):
    gdcm = pytest.importorskip("gdcm")
    paths = write_classic(tmp_path, made((16, 16, 3)))
    plain = read_image(tmp_path)
    for path in paths:
        reader = gdcm.ImageReader()
        reader.SetFileName(str(path))
        assert reader.Read()
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer = gdcm.ImageWriter()
        writer.SetFileName(str(path))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
        assert pydicom.dcmread(path).file_meta.TransferSyntaxUID.is_compressed
    assert np.array_equal(read_image(tmp_path).data, plain.data)


def test_implicit_and_big_endian_and_bare_files(tmp_path):
    one = made()
    write_classic(tmp_path / "plain", one)
    expected = read_image(tmp_path / "plain").data
    for name in ("implicit", "big", "bare"):
        for path in write_classic(tmp_path / name, one):
            data = pydicom.dcmread(path)
            if name == "big":
                data.PixelData = np.frombuffer(data.PixelData, "<u2").astype(">u2").tobytes()
                data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRBigEndian
                pydicom.dcmwrite(path, data, implicit_vr=False, little_endian=False, force_encoding=True)
            elif name == "implicit":
                data.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
                data.save_as(path, implicit_vr=True, little_endian=True)
            else:
                content = path.read_bytes()
                path.write_bytes(content[132:])  # neither preamble nor "DICM"
        assert np.array_equal(read_image(tmp_path / name).data, expected), name


def test_a_signed_image_keeps_its_sign(tmp_path):
    one = made()
    signed = replace(one, stored=one.stored.astype(np.int16) - 2048)
    write_classic(tmp_path, signed)
    assert np.array_equal(at_the_same_place(read_image(tmp_path), signed.stored, signed.affine), signed.stored)


# -- Damage -------------------------------------------------------------------------------------------------------


@given(keep=st.floats(0.001, 0.999), enhanced=st.booleans())
@settings(max_examples=60)
def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path_factory, keep, enhanced):
    folder = tmp_path_factory.mktemp("cut")
    path = write_enhanced(folder / "1.dcm", made()) if enhanced else write_classic(folder, made())[0]
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises((ImageError, OrientationError)):
        read_image(folder)


def test_a_flipped_header_ends_in_a_refusal(tmp_path):
    path = write_enhanced(tmp_path / "1.dcm", made())
    whole = path.read_bytes()
    for at in range(140, len(whole) - 1000, 211):
        path.write_bytes(whole[:at] + b"\xff\xff\xff" + whole[at + 3 :])
        try:
            read_scan(tmp_path)
        except (ImageError, OrientationError):
            continue


# -- Nuclear medicine ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [3.5, -3.5])
def test_a_reconstructed_spect_has_its_place(tmp_path, step):
    (path,) = write_classic(tmp_path, made((6, 5, 1), changes={"Modality": "NM", "BodyPartExamined": "BRAIN"}))
    data = pydicom.dcmread(path)
    kind = "1.2.840.10008.5.1.4.1.1.20"
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = kind
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    stored = np.random.default_rng(5).integers(0, 4000, (4, 5, 6)).astype("<u2")
    data.PixelData, data.NumberOfFrames, data.SliceVector = stored.tobytes(), 4, [1, 2, 3, 4]
    data.ImageType, data.PixelSpacing = ["ORIGINAL", "PRIMARY", "RECON TOMO", "EMISSION"], [3.5, 3.5]
    data.SpacingBetweenSlices = step
    where = item(ImagePositionPatient=[-10, -20, 50], ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    data.DetectorInformationSequence = Items([where])
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "EchoTime"):
        del data[keyword]
    data.save_as(path)
    volume = read_image(path)
    affine = np.array([[-3.5, 0, 0, 10], [0, -3.5, 0, 20], [0, 0, step, 50], [0, 0, 0, 1]])
    assert np.array_equal(at_the_same_place(volume, stored.transpose(2, 1, 0), affine), stored.transpose(2, 1, 0))
    assert volume.source.attributes["Modality"] == "NM"


@pytest.mark.parametrize("bits", [32, 64])
def test_floating_point_pixels_are_not_taken_for_whole_numbers(tmp_path, bits):
    """As a parametric map has them."""
    keyword, kind = {32: ("FloatPixelData", "<f4"), 64: ("DoubleFloatPixelData", "<f8")}[bits]
    volume = made()
    values = (volume.stored / 7).astype(kind)
    for k, path in enumerate(write_classic(tmp_path, volume, shuffle=None)):
        data = pydicom.dcmread(path)
        del data.PixelData
        data.BitsAllocated = bits
        setattr(data, keyword, np.ascontiguousarray(values[:, :, k].T).tobytes())
        data.save_as(path)
    found = read_image(tmp_path)
    assert np.allclose(np.sort(found.data, axis=None), np.sort(values, axis=None))


@pytest.mark.parametrize("suffix", [".dcm", ""])
def test_a_file_that_cannot_be_read_is_no_missing_slice(tmp_path, suffix, monkeypatch):
    paths = write_classic(tmp_path, made(), name="slice_{:03d}" + suffix)
    real = Path.open

    def denied(self, *args, **kwargs):
        if self.name == paths[-1].name:
            raise PermissionError(13, "Permission denied")
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(ImageError, match=r"cannot be read \(Permission denied\)"):
        read_image(tmp_path)


@pytest.mark.parametrize("opening", [1, 2])
def test_a_disk_that_fails_is_no_damaged_header(tmp_path, opening, monkeypatch):
    """The first time a file is opened its header is read, the second time its pixels."""
    paths = write_classic(tmp_path, made())
    real, opened = Path.open, []

    class Failing(io.BufferedReader):
        def read(self, size=-1):
            raise OSError(5, "Input/output error")

    def failing(self, *args, **kwargs):
        stream = real(self, *args, **kwargs)
        opened.extend([1] * (self.name == paths[-1].name))
        return Failing(stream.detach()) if self.name == paths[-1].name and len(opened) == opening else stream

    monkeypatch.setattr(Path, "open", failing)
    with pytest.raises(ImageError, match=r"file \d of 5 .* cannot be read \(Input/output error\)"):
        read_image(tmp_path)
