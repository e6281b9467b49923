"""Painted nigrosome-1 and shifted centres, on models whose answer is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nigradat.anatomy import Side, mirror
from nigradat.errors import ConfigError, ImageError
from nigradat.explain.probe_report import (
    centring_figure,
    centring_table,
    data_label,
    dose_figure,
    dose_table,
    write_probe,
)
from nigradat.explain.probes import centring_response, dose_response
from nigradat.io.inputs import read_patches
from nigradat.models.symmetric import ModelSpec, build
from nigradat.models.weights import LoadedModel, load_model, save_model
from nigradat.phantom.anatomy import N1_BIT, SN_BIT, standard_shapes
from small_runs import write_cohort


@pytest.fixture
def loaded(tmp_path: Path) -> LoadedModel:
    spec = ModelSpec(widths=(2, 2, 2, 2), centred=False)
    return load_model(save_model(tmp_path / "model", build(spec, seed=1), {"training": {"kind": "phantom"}}))


def reading(loaded: LoadedModel, region: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the model read a region; everything around the network stays."""
    from nigradat.explain import probes

    def predict(model: object, patches: np.ndarray) -> np.ndarray:
        canonical = np.stack([mirror(patches[:, 0]), patches[:, 1]], axis=1).astype(np.float64)
        return (canonical * region).sum(axis=(2, 3, 4)) / region.sum() / canonical.mean(axis=(2, 3, 4))

    monkeypatch.setattr(probes, "predict_sbr", predict)


@pytest.fixture
def patches() -> np.ndarray:
    return np.random.default_rng(0).uniform(0.5, 1.5, (3, 2, 50, 50, 20)).astype(np.float32)


def test_the_standard_shapes_lie_where_the_patch_is_centred():
    shapes = standard_shapes()
    inside = shapes[N1_BIT]
    centroid = [(np.indices(inside.shape)[i] * inside).sum() / inside.sum() for i in range(3)]
    assert np.abs((np.array(centroid) - [24.5, 24.5, 9.5]) * [0.5, 0.5, 1]).max() < 0.5
    assert (shapes[N1_BIT] <= shapes[SN_BIT] + 1e-6).all()
    assert 20 < inside.sum() * 0.25 < 60  # mm3


@pytest.mark.parametrize("scale", [1.0, 7.0])
def test_who_reads_nigrosome_1_answers_the_painted_level(loaded, patches, monkeypatch, scale):
    core = standard_shapes()[N1_BIT] > 0.999
    reading(loaded, core, monkeypatch)
    levels = [0.5, 1.0, 1.5]
    found = dose_response(loaded, scale * patches, levels)
    assert found.painted == pytest.approx(np.broadcast_to(np.array(levels)[None, :, None], (3, 3, 2)), rel=0.01)
    assert found.slope() == pytest.approx(np.ones((3, 2)), abs=0.02)
    assert np.abs(found.slope(control=True)).max() < 0.02


def test_shifts_go_where_they_say(loaded, patches, monkeypatch):
    """A bright voxel 2 mm lateral of the centre comes to the centre when the centre moves 2 mm lateral; both sides."""
    one = np.ones((1, 2, 50, 50, 20), np.float32)
    for axis, voxels in ((0, 4), (1, 4), (2, 2)):
        at = [24, 24, 9]
        at[axis] += voxels
        bright = one.copy()
        bright[0, Side.LEFT.index][tuple(at)] = 100
        canonical = np.ones((50, 50, 20), np.float32)
        canonical[tuple(at)] = 100
        bright[0, Side.RIGHT.index] = mirror(canonical)
        region = np.zeros((50, 50, 20))
        region[24, 24, 9] = 1
        reading(loaded, region, monkeypatch)
        found = centring_response(loaded, bright, [-2, 0, 2])
        peak = found.shifted[0, axis, :, 0] > 10
        assert peak.tolist() == [False, False, True]
        assert found.shifted[0, axis, :, 1] == pytest.approx(found.shifted[0, axis, :, 0])


def test_no_shift_no_change_and_inputs_stay(loaded, patches):
    before = patches.copy()
    found = centring_response(loaded, patches, [0])
    assert np.abs(found.change()).max() < 1e-6
    dose_response(loaded, patches, [0.5, 1])
    assert np.array_equal(patches, before)


@pytest.mark.parametrize("levels", [[1.0], [1.0, 1.0], [0.0, 1.0], [np.nan, 1.0]])
def test_levels_that_make_no_dose_are_refused(loaded, patches, levels):
    with pytest.raises(ConfigError, match="painted levels"):
        dose_response(loaded, patches, levels)


@pytest.mark.parametrize("shifts", [[0.5], [10], [], [np.nan]])
def test_shifts_that_interpolate_or_leave_the_patch_are_refused(loaded, patches, shifts):
    with pytest.raises(ConfigError, match="whole millimetres"):
        centring_response(loaded, patches, shifts)


def test_a_wrong_shape_is_refused(loaded):
    with pytest.raises(ConfigError, match="patches of shape"):
        dose_response(loaded, np.ones((2, 50, 50, 20), np.float32))


def test_a_one_sided_model_leaves_the_other_side_out(tmp_path, patches):
    folder = save_model(tmp_path / "left", build(ModelSpec(widths=(2, 2, 2, 2), sharing="left")), {})
    found = dose_response(load_model(folder), patches)
    assert np.isnan(found.painted[:, :, 0]).all()
    table = dose_table(found, "")
    assert table.rows[0].cells[0].value is None
    assert dose_figure(found, "").axes[0].get_title(loc="left") == "left"
    assert len(dose_figure(found, "").axes) == 1
    centring = centring_response(load_model(folder), patches, [-1, 0, 1])
    assert np.isfinite(centring.shifted[..., 1]).all()
    assert centring_figure(centring, "").axes


def test_what_is_written_carries_the_label(loaded, patches, tmp_path):
    many = np.concatenate([patches, patches * np.float32(1) + np.float32(0.1)])
    label = data_label(loaded, True)
    table = centring_table(centring_response(loaded, many, [-1, 0, 1]), label)
    assert table.rows[0].cells[0].low is not None
    assert table.rows[1].cells[0].value == 0
    folder = write_probe(tmp_path / "out", table, dose_figure(dose_response(loaded, many), label), "text")
    names = {path.name for path in folder.iterdir()}
    assert names == {f"mis-centring.{kind}" for kind in ("csv", "json", "png", "svg")}
    assert "digital phantom" in (folder / "mis-centring.csv").read_text()
    assert json.loads((folder / "mis-centring.json").read_text())["label"] == label
    assert data_label(loaded, False) == "model trained on a digital phantom"


def test_patches_of_a_cohort_are_spread_over_it(tmp_path):
    cohort = write_cohort(tmp_path / "cohort", 12)
    sample = read_patches(cohort.folder, 4)
    assert not sample.is_phantom
    assert np.array_equal(sample.patches, np.asarray(cohort.patches)[[0, 4, 7, 11]])
    assert len(read_patches(cohort.folder, 100).patches) == 12
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError):
        read_patches(tmp_path / "empty", 4)
