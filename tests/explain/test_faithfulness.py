"""Mass, pointing game and curves of maps whose place is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nigradat.anatomy import Side, mirror
from nigradat.errors import ConfigError
from nigradat.explain import faithfulness as module
from nigradat.explain.attribution import CellGrid
from nigradat.explain.faithfulness import FRACTIONS, Curves, faithfulness
from nigradat.explain.faithfulness_report import faithfulness_figure, faithfulness_table
from nigradat.explain.hirescam import LayerMaps
from nigradat.models.symmetric import ModelSpec, build
from nigradat.models.weights import LoadedModel, load_model, save_model
from nigradat.phantom.anatomy import N1_BIT, SN_BIT

VOXEL_GRID = CellGrid((50, 50, 20), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder = tmp_path_factory.mktemp("faith") / "model"
    return load_model(save_model(folder, build(ModelSpec(widths=(2, 2, 2, 2)), seed=1), {}))


@pytest.fixture
def patches() -> np.ndarray:
    return np.random.default_rng(0).uniform(0.5, 1.5, (2, 2, 50, 50, 20)).astype(np.float32)


def box_masks(n: int) -> np.ndarray:
    """A nigra of 5 x 5 x 4 voxels beside the patch's middle line; the right one is its mirror image."""
    canonical = np.zeros((50, 50, 20), np.uint8)
    canonical[20:25, 10:15, 8:12] = SN_BIT
    canonical[22, 12, 9] |= N1_BIT
    return np.stack([np.stack([mirror(canonical), canonical])] * n)


def with_maps(monkeypatch: pytest.MonkeyPatch, canonical: np.ndarray, grid: CellGrid = VOXEL_GRID) -> None:
    """Every model's map is this one, on both sides."""

    def attributions(loaded, patches, layers, **_):  # type: ignore[no-untyped-def]
        values = np.broadcast_to(canonical, (len(patches), 2, *canonical.shape)).copy()
        return {"x": LayerMaps("x", values, (grid, grid), values.sum(axis=(2, 3, 4)), np.zeros(2))}

    monkeypatch.setattr(module, "attributions", attributions)


def test_mass_inside_and_outside(loaded, patches, monkeypatch):
    values = np.zeros((50, 50, 20))
    values[22, 12, 10] = 3.0  # inside
    values[22, 18, 10] = -1.0  # 4 voxels = 2 mm from the last one of the nigra: just inside the dilation
    values[22, 19, 10] = 1.0  # 2.5 mm
    values[45, 45, 15] = 1.0
    with_maps(monkeypatch, values)
    found = faithfulness(loaded, patches, box_masks(2), curves=False)
    assert found.trained.mass == pytest.approx(np.full((2, 2), 4 / 6))
    assert found.trained.pointing == pytest.approx(np.ones((2, 2)))
    assert found.own_masks
    # chance, by counting: the dilation of a box is a rounded box
    index = np.stack(np.meshgrid(*(np.arange(n) for n in (50, 50, 20)), indexing="ij"), axis=-1) * [0.5, 0.5, 1.0]
    low, high = np.array([10.0, 5.0, 8.0]), np.array([12.0, 7.0, 11.0])
    distance = np.linalg.norm(np.maximum(np.maximum(low - index, index - high), 0), axis=-1)
    assert found.chance.mass == pytest.approx(np.full((2, 2), (distance <= 2).mean()))
    assert found.chance.pointing == pytest.approx(np.full((2, 2), (distance <= 4).mean()))


@pytest.mark.parametrize(("place", "hit"), [((22, 23, 9), 0.0), ((22, 22, 9), 1.0), ((22, 12, 16), 0.0)])
def test_pointing_within_four_millimetres(loaded, patches, monkeypatch, place, hit):
    values = np.zeros((50, 50, 20))
    values[place] = -2.0  # the strongest, whatever its sign
    with_maps(monkeypatch, values)
    found = faithfulness(loaded, patches, box_masks(2), curves=False)
    assert found.trained.pointing == pytest.approx(np.full((2, 2), hit))


def test_cells_share_their_mass_out(loaded, patches, monkeypatch):
    grid = CellGrid((6, 6, 2), (3.5, 3.5, 3.5), (8.0, 8.0, 8.0))
    values = np.zeros((6, 6, 2))
    values[2, 1, 1] = 1.0  # voxels 16-23, 8-15, 8-15; the dilated nigra has 16-28, 6-18, 6-13 but for its corners
    with_maps(monkeypatch, values, grid)
    found = faithfulness(loaded, patches, box_masks(2), curves=False)
    inside = np.zeros((50, 50, 20), bool)
    inside[16:24, 8:16, 8:16] = True
    index = np.argwhere(inside) * [0.5, 0.5, 1.0]
    low, high = np.array([10.0, 5.0, 8.0]), np.array([12.0, 7.0, 11.0])
    distance = np.linalg.norm(np.maximum(np.maximum(low - index, index - high), 0), axis=-1)
    assert found.trained.mass == pytest.approx(np.full((2, 2), (distance <= 2).mean()))


def test_curves_delete_what_the_map_names_first(loaded, patches, monkeypatch):
    """A model that reads one voxel: its own map deletes it at once, a map of the other corner only at the end."""
    seen = (10, 10, 10)

    def predict(_model, native):  # type: ignore[no-untyped-def]
        canonical = np.stack([mirror(native[:, 0]), native[:, 1]], axis=1)
        return canonical[(slice(None), slice(None), *seen)].astype(np.float64)

    monkeypatch.setattr(module, "predict_sbr", predict)
    patches[:, Side.LEFT.index][(slice(None), *seen)] = 5
    patches[:, Side.RIGHT.index][(slice(None), 10, 49 - 10, 10)] = 5
    first, last = np.zeros((50, 50, 20)), np.ones((50, 50, 20))
    first[seen] = 1
    last[seen] = 0
    curves = []
    for values in (first, last):
        with_maps(monkeypatch, values)
        made = faithfulness(loaded, patches, box_masks(2)).trained_curves
        assert isinstance(made, Curves)
        curves.append(made)
    whole = curves[0].deletion[..., -1]
    assert (whole > 1).all()
    assert curves[0].deletion[..., 1:] == pytest.approx(np.repeat(whole[..., None], len(FRACTIONS) - 1, axis=2))
    assert curves[0].insertion[..., 1:] == pytest.approx(0)
    assert curves[1].deletion[..., :-1] == pytest.approx(0)
    assert curves[1].deletion[..., -1] == pytest.approx(whole)
    assert (curves[0].area("deletion") > 0.99 * (whole / whole.mean(axis=0))).all()
    assert (curves[0].area("insertion") < 0.01 * (whole / whole.mean(axis=0))).all()


def test_a_real_map_is_complete_and_its_table_says_so(loaded, patches):
    before = patches.copy()
    found = faithfulness(loaded, patches, layer="last", seed=3)
    assert np.array_equal(patches, before)
    assert found.residual < 1e-5
    assert not found.own_masks
    assert not np.allclose(found.trained.mass, found.randomised.mass)
    for seed in (0, 1):  # never the weights that a training began with, as these of seed 1
        began = faithfulness(loaded, patches, layer="last", seed=seed, curves=False)
        assert not np.allclose(began.trained.mass, began.randomised.mass)
    again = faithfulness(loaded, patches, layer="last", seed=3)
    assert np.array_equal(found.chance_curves.deletion, again.chance_curves.deletion)
    table = faithfulness_table(found, "digital phantom, not patients")
    assert len(table.rows) == 4
    assert any("average phantom" in note for note in table.notes)
    figure = faithfulness_figure(found, "")
    assert figure is not None
    assert len(figure.axes) == 2
    assert faithfulness_figure(faithfulness(loaded, patches, curves=False), "") is None


def test_a_one_sided_model_leaves_the_other_side_out(patches, tmp_path: Path):
    folder = save_model(tmp_path / "left", build(ModelSpec(widths=(2, 2, 2, 2), sharing="left")), {})
    found = faithfulness(load_model(folder), patches)
    assert np.isnan(found.trained.mass[:, 0]).all()
    assert np.isfinite(found.trained.mass[:, 1]).all()
    assert all(np.isfinite(row.cells[0].value) for row in faithfulness_table(found, "").rows)


def test_faults_are_refused(loaded, patches):
    with pytest.raises(ConfigError, match="has no layer"):
        faithfulness(loaded, patches, layer="fifth")
    with pytest.raises(ConfigError, match="masks of shape"):
        faithfulness(loaded, patches, box_masks(1))
    with pytest.raises(ConfigError, match="without any nigra"):
        faithfulness(loaded, patches, 0 * box_masks(2))
