"""Real DICOM of two makers: every trap of these files."""

from __future__ import annotations

import gzip
import json
import re
import tarfile

import numpy as np
import pydicom
import pytest

from nigradat.cli import main
from nigradat.errors import ImageError
from nigradat.io.gre import read_gre, read_image, read_scan, use_of
from nigradat.io.series import TRAVELLING_ATTRIBUTES

ENHANCED = "philips_elition_enhanced_2echo_mag_phase.dcm.gz"
CLASSIC = "philips_elition_classic_2echo_mag_phase.tar.xz"
SIEMENS = "siemens_ve11c_classic_gre_2echo_dupinstance_phantom.tar.xz"
EPI = "siemens_xa10_enhanced_epi.tar.xz"
FIELD_MAP = "philips_achieva_enhanced_b0map.dcm"


@pytest.fixture(scope="module")
def dicom(shared_data):
    return shared_data / "dicom"


@pytest.fixture(scope="module")
def philips(dicom):
    return read_gre(dicom / ENHANCED), read_gre(dicom / CLASSIC)


def unpacked(archive, folder):
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return sorted(path for path in folder.rglob("*.dcm"))


# -- Philips: one series, enhanced and classic --------------------------------------------------------------------


def test_enhanced_and_classic_are_identical(philips):
    enhanced, classic = philips
    for name in ("magnitude", "phase", "affine", "echo_times_ms"):
        assert np.array_equal(getattr(enhanced, name), getattr(classic, name)), name
    assert enhanced.magnitude.shape == (2, 80, 80, 53)
    assert enhanced.echo_times_ms.tolist() == [2.3, 4.6]
    assert enhanced.field_strength_t == 3
    assert (enhanced.source.kind, classic.source.kind) == ("dicom-enhanced", "dicom-classic")
    assert enhanced.source.files == classic.source.files


def test_phase_is_in_milliradians_though_the_rescale_type_says_otherwise(dicom, philips):
    with gzip.open(dicom / ENHANCED) as stream:
        data = pydicom.dcmread(stream, stop_before_pixels=True)
    types = {f.PixelValueTransformationSequence[0].RescaleType for f in data.PerFrameFunctionalGroupsSequence}
    assert types == {"US"}
    (series,) = read_scan(dicom / ENHANCED)
    phases = [series.images[i] for i in series.places("phase")]
    assert [image.unit for image in phases] == ["mrad", "mrad"]
    assert phases[0].value_range == pytest.approx((-3142, 3140), abs=1)
    assert "phase in mrad, as the header says" in philips[0].source.steps
    assert np.abs(philips[0].phase).max() <= np.float32(np.pi)
    assert np.abs(philips[0].phase).max() > 3.14


def test_the_voxels_are_those_of_an_independent_sum(dicom, philips, tmp_path):
    """Slice by slice with pydicom alone: values, and the place of three voxels by the formula of PS3.3 C.7.6.2.1.1."""
    gre = philips[1]
    inverse = np.linalg.inv(gre.affine)
    for path in unpacked(dicom / CLASSIC, tmp_path)[::23]:
        data = pydicom.dcmread(path)
        echo = [2.3, 4.6].index(float(data.EchoTime))
        along, across = np.array(data.ImageOrientationPatient, float).reshape(2, 3)
        for row, column in ((0, 0), (40, 17), (79, 79)):
            step_rows, step_columns = map(float, data.PixelSpacing)
            place = (
                np.array(data.ImagePositionPatient, float) + along * column * step_columns + across * row * step_rows
            )
            index = inverse @ [*(place * [-1, -1, 1]), 1]
            i, j, k = np.round(index[:3]).astype(int)
            assert np.abs(index[:3] - [i, j, k]).max() < 1e-3
            stored = int(data.pixel_array[row, column])
            if "P" in data.ImageType:
                expected = (stored * float(data.RescaleSlope) + float(data.RescaleIntercept)) / 1000
                assert gre.phase[echo, i, j, k] == pytest.approx(np.clip(expected, -np.pi, np.pi), abs=1e-5)
            else:
                scale = float(data[0x2005, 0x100E].value)
                assert gre.magnitude[echo, i, j, k] == pytest.approx(stored / scale, rel=1e-6)


def test_the_private_scaling_agrees_with_the_public_phase(dicom, philips, tmp_path):
    """Philips' private scaling of the phase gives radians by itself: 2047.5 is zero, 651.74 one radian."""
    path = next(p for p in unpacked(dicom / CLASSIC, tmp_path) if p.name.endswith("_ph.dcm"))
    data = pydicom.dcmread(path)
    private = (data.pixel_array - float(data[0x2005, 0x100D].value)) / float(data[0x2005, 0x100E].value)
    public = (data.pixel_array * float(data.RescaleSlope) + float(data.RescaleIntercept)) / 1000
    assert np.abs(private - public).max() < 1e-3


def test_phase_grows_where_the_field_is_stronger(philips):
    """Right above an air-filled sinus the field is stronger: beside tissue air is paramagnetic."""
    gre = philips[0]
    hertz = np.angle(np.exp(1j * (gre.phase[1] - gre.phase[0]))) / (2 * np.pi * np.diff(gre.echo_times_ms)[0] * 1e-3)
    inside = gre.magnitude[0] > 0.25 * np.percentile(gre.magnitude[0], 99)
    k = int(np.argmin(np.abs(gre.affine[2, 3] + np.arange(53) * gre.affine[2, 2] - 33)))  # just above the sinuses
    frontal = np.zeros(inside.shape, bool)
    frontal[32:48, 20:36, k - 2 : k + 2] = True
    brain = inside.copy()
    brain[..., : k - 2] = brain[..., k + 8 :] = False
    assert np.median(hertz[frontal & inside]) > np.median(hertz[brain]) + 20


# -- Siemens: a field-mapping series ------------------------------------------------------------------------------


def test_doubled_instance_numbers_change_nothing(dicom, tmp_path):
    paths = unpacked(dicom / SIEMENS, tmp_path)
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]
    magnitudes = [h for h in headers if "M" in h.ImageType]
    assert len({h.InstanceNumber for h in magnitudes}) < len(magnitudes)
    first, second = read_scan(dicom / SIEMENS)
    assert first.echo_times_ms("magnitude") == (5.19, 7.65)
    assert first.shape == second.shape == (64, 64, 36)
    assert np.array_equal(first.affine, second.affine)
    for time in (5.19, 7.65):
        volume = read_image(dicom / SIEMENS, series="1", echo_time_ms=time)
        of_echo = sorted(
            (path for path, h in zip(paths, headers, strict=True) if "M" in h.ImageType and float(h.EchoTime) == time),
            key=lambda path: float(pydicom.dcmread(path).ImagePositionPatient[2]),
        )
        stored = np.stack([pydicom.dcmread(path).pixel_array.T for path in of_echo], axis=-1)
        assert np.array_equal(volume.data, stored)


def test_a_phase_difference_with_slope_2_is_not_taken_for_the_phase_of_an_echo(dicom):
    _, second = read_scan(dicom / SIEMENS)
    (image,) = second.images
    assert (image.part, image.value_range) == ("phase difference", (-4096, 4094))
    assert use_of(second).purpose == "refuse"
    with pytest.raises(ImageError, match="the difference of two echoes' phases"):
        read_gre(dicom / SIEMENS)


# -- Siemens XA: several enhanced files ---------------------------------------------------------------------------


def test_an_enhanced_series_of_several_files(dicom, tmp_path):
    (series,) = read_scan(dicom / EPI)
    assert (series.kind, series.shape, series.repetitions) == ("dicom-enhanced", (64, 64, 6), 4)
    assert series.holds == "magnitude at 30 ms, 4 times"
    for i, path in enumerate(unpacked(dicom / EPI, tmp_path)):
        stored = pydicom.dcmread(path).pixel_array.transpose(2, 1, 0)
        assert np.array_equal(series.read([i])[0], stored)
        assert np.array_equal(read_image(path).data, stored)
    with pytest.raises(ImageError, match="magnitude at 30 ms, 4 times without phase"):
        read_gre(dicom / EPI)


# -- Philips: a field map -----------------------------------------------------------------------------------------


def test_a_field_map_is_refused_as_phase_with_the_reason(dicom):
    (series,) = read_scan(dicom / FIELD_MAP)
    assert [image.part for image in series.images] == ["magnitude", "field map"]
    assert series.images[1].unit == "Hz"
    low, high = series.images[1].value_range
    assert -500 <= low < -400 < 400 < high <= 500
    with pytest.raises(ImageError, match="a field map in Hz"):
        read_gre(dicom / FIELD_MAP)
    assert read_image(dicom / FIELD_MAP).data.shape == (64, 64, 32)


# -- All of them --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [ENHANCED, CLASSIC, SIEMENS, EPI, FIELD_MAP])
def test_inspect_prints_no_identifier(dicom, name, capsys):
    assert main(["inspect", str(dicom / name), "--json"]) == 0
    out = capsys.readouterr().out
    for series in json.loads(out)["series"]:
        assert set(series["attributes"]) <= set(TRAVELLING_ATTRIBUTES)
    assert main(["inspect", str(dicom / name)]) == 0
    out += capsys.readouterr().out
    planted = [
        "d2n",
        "Elition",
        "Achieva",
        "Prisma",
        "phantom",
        "crlab",
        "ROGERS",
        "Vanderbilt",
        "USC",
        "Luci",
        "Austin",
    ]
    for word in [*planted, "gre_field", "REST1", "B0 NS", "1.3.46", "1.3.12", "45053", "175689", "67060"]:
        assert word not in out, word
    assert not re.search(r"(19|20)\d{6}", out)
