"""NIfTI echoes in: names, sidecars, units of the phase; what does not belong together is refused."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nigradat.errors import ConfigError, ImageError, OrientationError
from nigradat.io.gre import read_gre, read_image, read_scan, use_of
from nigradat.io.nifti import read_raw
from nigradat.io.phase import from_complex, phase_scale, to_radians

AFFINE = np.array([[0.5, 0, 0, -10], [0, 0.5, 0, -20], [0, 0, 1.0, -30], [0, 0, 0, 1]])
SHAPE = (8, 7, 6)
TIMES_MS = [14.0, 27.0, 40.0]
RNG = np.random.default_rng(0)
PHASE = RNG.uniform(-np.pi, np.pi, (3, *SHAPE)).astype(np.float32)
PHASE[:, 0, 0, :2] = -np.pi, np.pi  # every echo reaches both ends
MAGNITUDE = RNG.uniform(1, 1000, (3, *SHAPE)).astype(np.float32)


def save(path: Path, data, sidecar=None, affine=AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.asarray(data), affine), path)
    if sidecar is not None:
        path.with_name(path.name.split(".nii")[0] + ".json").write_text(json.dumps(sidecar), encoding="utf-8")
    return path


def bids(root: Path, *, units="rad", skip=(), **common) -> Path:
    """A participant's MEGRE; what all echoes share stands in a sidecar at the root."""
    folder = root / "sub-01" / "anat"
    root.mkdir(parents=True, exist_ok=True)
    shared = {"MagneticFieldStrength": 3, "Manufacturer": "SIEMENS"} | common
    (root / "MEGRE.json").write_text(json.dumps(shared), encoding="utf-8")
    (root / "dataset_description.json").write_text("{}", encoding="utf-8")
    for e in range(3):
        for part, data, more in (("mag", MAGNITUDE, {}), ("phase", PHASE, {"Units": units} if units else {})):
            if (part, e + 1) not in skip:
                name = f"sub-01_part-{part}_echo-{e + 1}_MEGRE.nii.gz"
                save(folder / name, data[e], {"EchoTime": TIMES_MS[e] / 1000} | more)
    return folder


def check(gre, tolerance=1e-5):
    assert gre.echo_times_ms.tolist() == TIMES_MS
    np.testing.assert_allclose(gre.affine, AFFINE, atol=1e-6)
    assert np.array_equal(gre.magnitude, MAGNITUDE)
    assert np.abs(np.angle(np.exp(1j * (gre.phase - PHASE)))).max() < tolerance


# -- Names --------------------------------------------------------------------------------------------------------


def test_a_bids_folder_with_inherited_sidecars(tmp_path):
    folder = bids(tmp_path / "data")
    gre = read_gre(folder)
    check(gre)
    assert (gre.source.kind, gre.field_strength_t) == ("bids", 3)
    assert "phase in rad, as the header says" in gre.source.steps
    check(read_gre(tmp_path / "data"))


def test_the_nearest_sidecar_wins(tmp_path):
    folder = bids(tmp_path / "data")
    (folder / "sub-01_MEGRE.json").write_text('{"MagneticFieldStrength": 1.5}', encoding="utf-8")
    (folder / "sub-01_part-phase_MEGRE.json").write_text('{"MagneticFieldStrength": 7}', encoding="utf-8")
    assert read_gre(folder).field_strength_t == 1.5  # the magnitude speaks for the scan
    (folder / "sub-02_MEGRE.json").write_text('{"MagneticFieldStrength": 9}', encoding="utf-8")
    assert read_gre(folder).field_strength_t == 1.5


def test_names_of_dcm2niix(tmp_path):
    for e in range(3):
        sidecar = {"EchoTime": TIMES_MS[e] / 1000, "EchoNumber": e + 1, "MagneticFieldStrength": 3}
        save(tmp_path / f"20_gre_e{e + 1}.nii", MAGNITUDE[e], sidecar | {"ImageType": ["ORIGINAL", "PRIMARY", "M"]})
        save(tmp_path / f"20_gre_e{e + 1}_ph.nii", PHASE[e], sidecar | {"ImageType": ["ORIGINAL", "PRIMARY", "P"]})
    check(read_gre(tmp_path))


def test_echoes_go_by_number_where_their_times_are_given(tmp_path):
    """By name e10 would come before e2."""
    for e in range(11):
        for part, data in (("", MAGNITUDE[0] + e), ("_ph", np.clip(PHASE[0] + 0.01 * e, -3.1, 3.1))):
            kind = {"MagneticFieldStrength": 3, "ImageType": ["ORIGINAL", "PRIMARY", "P" if part else "M"]}
            save(tmp_path / f"gre_e{e + 1}{part}.nii", data.astype(np.float32), kind)
    times = [4.0 + 3 * e for e in range(11)]
    gre = read_gre(tmp_path, echo_times_ms=times)
    assert gre.echo_times_ms.tolist() == times
    assert np.allclose(gre.magnitude, np.stack([MAGNITUDE[0] + e for e in range(11)]))


def test_two_files_of_one_echo_get_no_times_by_their_order(tmp_path):
    for name, data in (("gre_e1", MAGNITUDE), ("gre_e1_ph", PHASE)):
        kind = {"MagneticFieldStrength": 3, "ImageType": ["ORIGINAL", "PRIMARY", "P" if "ph" in name else "M"]}
        for e, suffix in enumerate((".nii", ".nii.gz")):
            save(tmp_path / f"{name}{suffix}", data[e], kind)
    with pytest.raises(ImageError, match="several images of the same part and echo"):
        read_gre(tmp_path, echo_times_ms=TIMES_MS[:2])


@pytest.mark.parametrize("names", [("mag.nii", "phase.nii"), ("A-Magnitude.nii.gz", "A-Phase.nii.gz")])
def test_echoes_along_the_fourth_axis(tmp_path, names):
    save(tmp_path / names[0], np.moveaxis(MAGNITUDE, 0, -1), {"EchoTime": [t / 1000 for t in TIMES_MS]})
    save(tmp_path / names[1], np.moveaxis(PHASE, 0, -1), {"EchoTime": [t / 1000 for t in TIMES_MS]})
    with pytest.raises(ImageError, match="no field strength"):
        read_gre(tmp_path)
    check(read_gre(tmp_path, field_strength_t=3))


def test_what_files_do_not_say_can_be_given_and_not_contradicted(tmp_path):
    save(tmp_path / "mag.nii", np.moveaxis(MAGNITUDE, 0, -1), {"MagneticFieldStrength": 3})
    save(tmp_path / "phase.nii", np.moveaxis(PHASE, 0, -1))
    with pytest.raises(ImageError, match="3 echoes without echo times"):
        read_gre(tmp_path)
    check(read_gre(tmp_path, echo_times_ms=TIMES_MS))
    with pytest.raises(ConfigError, match="7 T for a scan at 3 T"):
        read_gre(tmp_path, echo_times_ms=TIMES_MS, field_strength_t=7)


def test_real_and_imaginary(tmp_path):
    signal = MAGNITUDE * np.exp(1j * PHASE)
    for e in range(3):
        sidecar = {"EchoTime": TIMES_MS[e] / 1000, "MagneticFieldStrength": 3}
        for part, data in (("real", signal.real), ("imag", signal.imag)):
            save(tmp_path / f"sub-01_part-{part}_echo-{e + 1}_MEGRE.nii", data[e].astype(np.float32), sidecar)
    gre = read_gre(tmp_path)
    np.testing.assert_allclose(gre.magnitude, MAGNITUDE, rtol=1e-5)
    assert np.abs(np.angle(np.exp(1j * (gre.phase - PHASE)))).max() < 1e-5


def test_one_file_is_an_image_with_its_affine(tmp_path):
    volume = read_image(save(tmp_path / "sub-01_T1w.nii.gz", MAGNITUDE[0]))
    assert np.array_equal(volume.data, MAGNITUDE[0])
    np.testing.assert_allclose(volume.affine, AFFINE)
    assert volume.source.kind == "bids"


def test_one_echo_of_many_is_an_image(tmp_path):
    folder = bids(tmp_path)
    with pytest.raises(ImageError, match="3 images: magnitude at 14, 27 and 40 ms"):
        read_image(folder)
    volume = read_image(folder, echo_time_ms=27)
    assert np.array_equal(volume.data, MAGNITUDE[1])
    assert volume.source.attributes["EchoTime"] == 27


def test_a_choice_among_series(tmp_path):
    bids(tmp_path)
    save(tmp_path / "sub-01" / "anat" / "sub-01_T1w.nii.gz", MAGNITUDE[0])
    check(read_gre(tmp_path))
    series = {one.holds: one.label for one in read_scan(tmp_path)}
    assert np.array_equal(read_image(tmp_path, series=series["image"]).data, MAGNITUDE[0])
    with pytest.raises(ImageError, match=r"image \(1\) without magnitude|image without magnitude"):
        read_gre(tmp_path, series=series["image"])


# -- Units --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "units"),
    [
        (PHASE, "rad"),
        (PHASE, None),
        (PHASE + np.float32(np.pi), "rad"),
        (PHASE * 1000, "mrad"),
        (PHASE * 1000, None),
        (np.degrees(PHASE), "deg"),
        (np.degrees(PHASE), None),
        (PHASE / np.pi * 4096, None),
        ((PHASE / np.pi + 1) * 2047.5, "arbitrary"),
        (PHASE * 0.00117, None),
        (PHASE * 0.00117, "rad"),
        (PHASE * 17, "arbitrary"),
    ],
)
def test_units_are_taken_from_the_header_or_the_range(tmp_path, stored, units):
    save(tmp_path / "mag.nii", np.moveaxis(MAGNITUDE, 0, -1), {"MagneticFieldStrength": 3})
    save(tmp_path / "phase.nii", np.moveaxis(stored, 0, -1).astype(np.float32), {"Units": units} if units else None)
    gre = read_gre(tmp_path, echo_times_ms=TIMES_MS)
    shift = np.pi if stored.min() > -1e-3 and units == "rad" else 0  # from 0 on: the same angles
    difference = np.angle(np.exp(1j * (gre.phase - PHASE - shift)))
    assert np.abs(difference).max() < 4e-3
    assert any("phase" in step for step in gre.source.steps)


def test_a_slope_that_shrinks_the_phase_is_disregarded_and_said(tmp_path):
    save(tmp_path / "mag.nii", np.moveaxis(MAGNITUDE, 0, -1), {"MagneticFieldStrength": 3})
    path = save(tmp_path / "phase.nii", np.moveaxis(PHASE, 0, -1))
    content = bytearray(path.read_bytes())
    content[112:120] = np.array([0.00117, 0.0], "<f4").tobytes()  # scl_slope, scl_inter
    path.write_bytes(content)
    assert np.abs(np.asarray(nib.load(path).dataobj)).max() < 0.004
    gre = read_gre(tmp_path, echo_times_ms=TIMES_MS)
    assert np.array_equal(gre.phase, np.clip(PHASE, -np.float32(np.pi), np.float32(np.pi)))
    assert "scl_slope of 0.00117 disregarded" in " ".join(gre.source.steps)


@pytest.mark.parametrize(
    ("ranges", "unit", "words"),
    [
        ([(-3, 3), (-9, 9)], "rad", "phase of -9 to 9 rad"),
        ([(-1, 1), (-2, 2)], "", "not all echoes fill that range"),
        ([(-1, 7), (-1, 7)], "", "in no stated unit"),
        ([(5, 5)], "", "is 5 everywhere"),
        ([(-500, 500)], "Hz", "a field map in Hz"),
        ([(float("nan"), 1)], "", "no number"),
    ],
)
def test_a_phase_in_no_unit_is_refused(ranges, unit, words):
    with pytest.raises(ImageError, match=words):
        phase_scale(ranges, unit)


@given(half=st.floats(0.01, 1e5), echoes=st.integers(1, 4))
def test_any_full_symmetric_range_becomes_a_full_turn(half, echoes):
    assume(not 165 < half < 180)  # close to 180 it is taken as degrees, and need not be quite full
    scale = phase_scale([(-half, half)] * echoes, "")
    values = np.linspace(-half, half, 7, dtype=np.float32)
    # close to a usual range it is taken as that one, which may be up to 4 % wider
    assert np.allclose(to_radians(values, scale), np.linspace(-np.pi, np.pi, 7), atol=0.04 * np.pi + 1e-3)


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=20))
def test_wrapping_keeps_the_angle(values):
    angles = np.array(values, np.float32)
    scale = phase_scale([(-np.pi, np.pi)], "rad")
    wrapped = to_radians(angles, scale)
    assert np.abs(wrapped).max() <= np.float32(np.pi)
    inside = np.abs(angles).max() <= np.pi
    assert np.abs(np.angle(np.exp(1j * (wrapped - angles.astype(np.float64))))).max() < (1e-6 if inside else 1e-4)


def test_a_smooth_complex_image_is_left_alone():
    z = np.broadcast_to(np.arange(8) * 0.4, (1, 4, 4, 8))
    magnitude, phase, statement = from_complex(np.cos(z).astype(np.float32), np.sin(z).astype(np.float32))
    assert np.allclose(magnitude, 1)
    assert np.allclose(np.exp(1j * phase), np.exp(1j * z), atol=1e-6)
    assert "turned" not in statement


# -- Refusals -----------------------------------------------------------------------------------------------------


def refused(path, words, kind=ImageError, **options):
    with pytest.raises(kind, match=words):
        read_gre(path, **options)


def test_what_is_missing_is_named(tmp_path):
    refused(bids(tmp_path / "a", skip=[("phase", e) for e in (1, 2, 3)]), "without phase")
    refused(bids(tmp_path / "b", skip=[("mag", e) for e in (1, 2, 3)]), "without magnitude")
    refused(bids(tmp_path / "c", skip=[("phase", 2)]), "echoes that differ")
    refused(bids(tmp_path / "d", skip=[(p, e) for p in ("mag", "phase") for e in (2, 3)]), "one echo")


def test_a_field_map_is_refused_as_phase(tmp_path):
    refused(bids(tmp_path / "a", units="Hz"), "a field map in Hz")
    save(tmp_path / "b" / "sub-01_fieldmap.nii.gz", PHASE[0], {"Units": "Hz"})
    refused(tmp_path / "b", "a field map in Hz")
    assert use_of(read_scan(tmp_path / "b")[0]).purpose == "refuse"


def test_a_filtered_phase_is_refused(tmp_path):
    refused(bids(tmp_path, SequenceName="*swi3d1r", ImageType=["ORIGINAL", "PRIMARY", "P"]), "high-pass filtered")


def test_another_body_part_is_refused(tmp_path):
    folder = bids(tmp_path, BodyPartExamined="KNEE")
    refused(folder, "body part KNEE")
    check(read_gre(folder, any_body_part=True))


def test_files_of_one_scan_on_two_grids_are_refused(tmp_path):
    folder = bids(tmp_path)
    moved = AFFINE.copy()
    moved[0, 3] += 1
    save(folder / "sub-01_part-phase_echo-2_MEGRE.nii.gz", PHASE[1], {"EchoTime": 0.027}, moved)
    refused(folder, "mixed grids")
    save(folder / "sub-01_part-phase_echo-2_MEGRE.nii.gz", PHASE[1][:-1], {"EchoTime": 0.027})
    refused(folder, "mixed grids")


def test_the_same_echo_twice_is_refused(tmp_path):
    folder = bids(tmp_path)
    (folder / "sub-01_part-phase_echo-3_MEGRE.json").write_text('{"EchoTime": 0.027, "Units": "rad"}', encoding="utf-8")
    (folder / "sub-01_part-mag_echo-3_MEGRE.json").write_text('{"EchoTime": 0.027}', encoding="utf-8")
    refused(folder, "several images of the same part and echo")


def test_an_image_without_a_place_is_refused(tmp_path):
    image = nib.Nifti1Image(MAGNITUDE[0], None)
    image.header["sform_code"] = image.header["qform_code"] = 0
    (tmp_path / "a.nii").write_bytes(image.to_bytes())
    with pytest.raises(OrientationError, match="no usable orientation"):
        read_image(tmp_path / "a.nii")
    (series,) = read_scan(tmp_path)
    assert use_of(series).purpose == "refuse"


def test_voxels_that_are_no_number_are_refused(tmp_path):
    bad = MAGNITUDE[0].copy()
    bad[3, 3, 3] = np.nan
    with pytest.raises(ImageError, match="no number"):
        read_image(save(tmp_path / "a.nii", bad))
    folder = bids(tmp_path / "data")
    for part in ("mag", "phase"):
        name = f"sub-01_part-{part}_echo-1_MEGRE.nii.gz"
        whole = (folder / name).read_bytes()
        save(folder / name, bad)
        refused(folder, "no number")
        (folder / name).write_bytes(whole)


def test_a_damaged_file_or_sidecar_is_named_without_its_name(tmp_path):
    folder = bids(tmp_path / "data")
    path = folder / "sub-01_part-mag_echo-2_MEGRE.nii.gz"
    path.write_bytes(path.read_bytes()[:-20])
    refused(folder, r"file \d of 12 .*truncated or damaged")
    path.with_name("sub-01_part-mag_echo-2_MEGRE.json").write_text("[1]", encoding="utf-8")
    refused(folder, "no JSON object")


@pytest.mark.parametrize("damage", ["[" * 100_000, '{"Units": ' + "9" * 5000 + "}", "\ufffe", "[1]"])
def test_a_damaged_sidecar_is_a_problem_of_its_own_series(tmp_path, damage):
    save(tmp_path / "Mustermann_T1w.nii", MAGNITUDE[0], {})
    save(tmp_path / "other_T1w.nii", MAGNITUDE[0], {})
    (tmp_path / "Mustermann_T1w.json").write_text(damage, encoding="utf-16")
    damaged, whole = read_scan(tmp_path)
    (problem,) = damaged.problems
    assert "file 2 of 4 (sorted by name): the sidecar (file 1 of 4) is no JSON object" in str(problem)
    assert not whole.problems
    assert read_image(tmp_path).data.shape == MAGNITUDE[0].shape


@pytest.mark.parametrize(
    "sidecar",
    [
        {"ImageType": 5},
        {"ImageType": {"M": 1}},
        {"EchoTime": 10**400},
        {"EchoTime": [[1]]},
        {"EchoNumber": "inf", "Units": 5},
        {"EchoNumber": -(10**400), "Manufacturer": [1], "MagneticFieldStrength": {}},
    ],
)
def test_values_of_another_kind_say_nothing(tmp_path, sidecar):
    save(tmp_path / "mag.nii", MAGNITUDE[0], sidecar)
    (series,) = read_scan(tmp_path)
    assert series.echo_times_ms("magnitude") == (None,)
    assert series.attributes == {}


def test_what_a_scan_lacks_is_said_before_it_is_read(tmp_path):
    folder = bids(tmp_path / "a", MagneticFieldStrength=None)
    (series,) = read_scan(folder)
    assert any("--field-strength" in step for step in use_of(series).steps)
    refused(folder, "no field strength")
    folder = bids(tmp_path / "b")
    assert not any("--field-strength" in step for step in use_of(read_scan(folder)[0]).steps)
    bad = MAGNITUDE[0].copy()
    bad[3, 3, 3] = np.inf
    save(folder / "sub-01_part-mag_echo-1_MEGRE.nii.gz", bad)
    use = use_of(read_scan(folder)[0])
    assert use.purpose == "image"
    assert "no number" in str(use.because[0])


def test_a_wrong_choice_of_orientation(tmp_path):
    with pytest.raises(ConfigError, match="affine 'both'"):
        read_scan(bids(tmp_path), affine="both")  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 3, 2, 2)])
def test_raw_images_have_three_or_four_axes(tmp_path, shape):
    with pytest.raises(ImageError, match="three axes, or four"):
        read_raw(save(tmp_path / "a.nii", np.zeros(shape, np.float32)))


def test_raw_numbers_and_scaled_ones(tmp_path):
    stored = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    path = save(tmp_path / "a.nii", stored)
    content = bytearray(path.read_bytes())
    content[112:120] = np.array([0.5, -3], "<f4").tobytes()
    path.write_bytes(content)
    raw = read_raw(path)
    assert (raw.volumes, raw.slope, raw.inter, raw.is_float) == (1, 0.5, -3, False)
    assert np.array_equal(raw.volume(0), stored * 0.5 - 3)
    assert np.array_equal(raw.volume(0, scaled=False), stored)
