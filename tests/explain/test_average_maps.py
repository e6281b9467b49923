"""Averages by SBR against sums one patient at a time, and what their figures and files say."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from nigradat.anatomy import PATCH_SHAPE, Side, mirror, nominal_affine
from nigradat.cli import main
from nigradat.errors import CohortError, ConfigError
from nigradat.explain.average import AverageMaps, average_maps, chosen_rows
from nigradat.explain.figures import average_figure, write_average_maps
from nigradat.explain.hirescam import attributions
from nigradat.io.pack import CohortWriter, PackedCohort, load_cohort
from nigradat.models.symmetric import ModelSpec, build
from nigradat.models.weights import LoadedModel, load_model
from nigradat.training.fit import SPLIT_NAME
from nigradat.training.split import Split
from small_runs import write_cohort, write_run

LAYER = "blocks.3.relu2"


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> PackedCohort:
    return write_cohort(tmp_path_factory.mktemp("average") / "cohort", 20, kind="phantom")


@pytest.fixture(scope="module")
def run(cohort, tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("average") / "run", cohort)[0]


@pytest.fixture(scope="module")
def found(cohort, run) -> AverageMaps:
    return average_maps(run, cohort, layers=["last"], subset="train")


def one_by_one(loaded: LoadedModel, cohort: PackedCohort, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean map of each third and mean image, from maps in native view, one side at a time."""
    labels = cohort.sbr[rows]
    edges = np.quantile(labels, [1 / 3, 2 / 3])
    sums, images, counts = np.zeros((3, *PATCH_SHAPE)), np.zeros((3, *PATCH_SHAPE)), np.zeros(3)
    for row, label in zip(rows, labels, strict=True):
        patches = cohort.read(int(row))
        (maps,) = attributions(loaded, patches[None], ["last"]).values()
        for side in Side:
            group = int((label[side.index] > edges).sum())
            native = maps.attribution(0, side, nominal_affine(side)).on_voxels(nominal_affine(side))
            image = patches[side.index] / patches[side.index].mean()
            flipped = (mirror(a) if side is Side.RIGHT else a for a in (native, image))
            sums[group], images[group] = (total[group] + a for total, a in zip((sums, images), flipped, strict=True))
            counts[group] += 1
    return sums / counts[:, None, None, None], images / counts[:, None, None, None]


@pytest.mark.parametrize("mirrored", [True, False])
def test_the_mean_is_that_of_the_maps_one_by_one(mirrored, cohort):
    network = build(ModelSpec(widths=(2, 2, 2, 4), mirrored=mirrored), seed=2).eval()
    network.nets["both"].head.bias.data.fill_(0.4)
    loaded = LoadedModel(network, {}, Path("model"))
    result = average_maps(loaded, cohort, layers=["last"])
    maps, images = one_by_one(loaded, cohort, np.arange(len(cohort)))
    np.testing.assert_allclose(result.maps[0].on_voxels, maps, atol=1e-7)
    np.testing.assert_allclose(result.image, images, rtol=1e-5)
    assert result.baseline == pytest.approx((0.4 * 6.84,) * 2)
    predicted = np.array([group.predicted for group in result.groups])
    np.testing.assert_allclose(0.4 * 6.84 + result.maps[0].total, predicted, atol=1e-5)
    np.testing.assert_allclose(result.maps[0].residual, 0, atol=1e-5)
    assert result.subset == "all"


def test_a_voxel_shows_its_cells_value(found):
    (average,) = found.maps
    assert average.cell_mm == (4, 4, 8)
    np.testing.assert_allclose(average.cells, average.on_voxels * 8 * 8 * 8, atol=1e-9)


def test_the_groups_are_thirds_of_the_labels(found, cohort, run):
    rows, part = chosen_rows(load_model(run), cohort, "train")
    labels = np.sort(cohort.sbr[rows].ravel())
    assert part == found.subset == "train"
    assert found.visits == len(rows)
    assert sum(group.sides for group in found.groups) == labels.size
    assert max(group.sides for group in found.groups) - min(group.sides for group in found.groups) <= 2
    start = 0
    for group in found.groups:
        own = labels[start : start + group.sides]
        assert (group.lowest, group.highest) == (own[0], own[-1])
        assert group.mean == pytest.approx(own.mean())
        start += group.sides
    assert found.is_phantom


def test_a_limit_takes_visits_from_the_whole_cohort(cohort, run):
    seen: list[tuple[int, int]] = []
    loaded = load_model(run)
    other = LoadedModel(loaded.model, {}, loaded.folder)
    result = average_maps(other, cohort, layers=["last"], limit=5, progress=lambda *done: seen.append(done))
    assert result.visits == 5
    assert seen == [(5, 5)]
    maps, _ = one_by_one(other, cohort, np.linspace(0, 19, 5).round().astype(int))
    np.testing.assert_allclose(result.maps[0].on_voxels, maps, atol=1e-7)


def test_a_one_sided_model_is_averaged_over_its_side(cohort):
    loaded = LoadedModel(build(ModelSpec(widths=(2, 2, 2, 2), sharing="right"), 1).eval(), {}, Path("model"))
    result = average_maps(loaded, cohort)
    assert sum(group.sides for group in result.groups) == len(cohort)
    assert np.isnan(result.baseline[1])
    assert len(result.maps) == 2
    assert all(np.isfinite(m.on_voxels).all() and np.isfinite(m.residual).all() for m in result.maps)


def relabelled(folder: Path, cohort: PackedCohort, **labels: float | None) -> PackedCohort:
    with CohortWriter(folder, 3, {"kind": "patients"}) as writer:
        for i in range(3):
            writer.patches[i] = cohort.read(i)
        writer.finish([replace(p, **labels) for p in cohort.participants[:3]])
    return load_cohort(folder)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({"sbr_right": None, "sbr_left": None}, "3 of 3 visits of .* have no SBR label"),
        ({"sbr_right": 2.0, "sbr_left": 2.0}, "1 different labels"),
    ],
)
def test_labels_that_make_no_groups_are_refused(labels, words, tmp_path, cohort, run):
    with pytest.raises(CohortError, match=words):
        average_maps(run, relabelled(tmp_path / "cohort", cohort, **labels))


def test_a_part_must_be_the_runs_own(tmp_path, cohort, run):
    with pytest.raises(ConfigError, match="the subset 'some'"):
        average_maps(run, cohort, subset="some")
    other = write_cohort(tmp_path / "other", 4, seed=9)
    with pytest.raises(ConfigError, match="did not train this model"):
        average_maps(run, other, subset="train")
    assert chosen_rows(load_model(run), other)[0].tolist() == [0, 1, 2, 3]
    copy = shutil.copytree(run, tmp_path / "run")
    split = Split.load(copy / SPLIT_NAME)
    replace(split, train=split.train[::-1]).save(copy / SPLIT_NAME)
    with pytest.raises(CohortError, match="is not the split"):
        average_maps(copy, cohort)


def test_the_figure_says_what_it_shows(found):
    figure = average_figure(found, found.maps[0], "last block", "digital phantom, not patients")
    texts = [t.get_text() for axes in figure.axes for t in axes.texts]
    assert texts.count("R") == texts.count("L") == 6
    rows = [axes.get_ylabel() for axes in figure.axes[:9:3]]
    for words, group in zip(rows, found.groups, strict=True):
        assert words.startswith(f"{group.name} third: {group.sides} sides,\nSBR {group.lowest:.2f}")
        assert f"predicted {group.predicted:.2f}" in words
    caption = figure.get_supxlabel()
    assert all(w in caption for w in ("digital phantom", "mirrored", "Research only"))
    assert [axes.get_title() for axes in figure.axes[:3]] == ["axial", "coronal", "sagittal"]
    (scale,) = [axes for axes in figure.axes if "SBR that 4 x 4 x 8 mm" in axes.get_ylabel()]
    assert scale.get_ylim()[0] == -scale.get_ylim()[1]
    shown = [image.get_clim() for axes in figure.axes[:9] for image in axes.images[1:2]]
    assert set(shown) == {scale.get_ylim()}  # one scale for all panels
    assert all(len(axes.collections) == 1 for axes in figure.axes[:9])  # nigrosome-1 in every plane
    (legend,) = figure.legends
    assert "nigrosome-1" in legend.get_texts()[0].get_text()


def test_what_is_written(tmp_path, found, run):
    data = write_average_maps(tmp_path / "out", found, load_model(run), "digital phantom, not patients")
    stored = json.loads((tmp_path / "out" / "maps.json").read_text())
    assert stored["layers"][0]["layer"] == LAYER
    assert stored["label"] == data["label"] == "digital phantom, not patients"
    assert [group["name"] for group in stored["groups"]] == ["low", "middle", "high"]
    for g, name in enumerate(stored["layers"][0]["files"]):
        image = nib.load(tmp_path / "out" / name)
        np.testing.assert_allclose(image.affine, nominal_affine(Side.LEFT), atol=1e-6)
        np.testing.assert_allclose(image.get_fdata(), found.maps[0].on_voxels[g], atol=1e-6)
        assert stored["layers"][0]["sum"][g] == pytest.approx(image.get_fdata().sum(), abs=1e-4)
    svg = (tmp_path / "out" / "hirescam_blocks-3-relu2.svg").read_text()
    assert "digital phantom" in svg
    assert (tmp_path / "out" / "hirescam_blocks-3-relu2.png").read_bytes().startswith(b"\x89PNG")


def test_average_maps_from_the_command_line(tmp_path, cohort, run, capsys):
    where = [str(run), str(cohort.folder)]
    words = ["--layer", "last", "--subset", "train", "--limit", "4"]
    assert main(["average-maps", *where, str(tmp_path / "json"), *words, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["visits"], printed["subset"], printed["label"]) == (4, "train", "digital phantom, not patients")
    out = tmp_path / "refused"
    assert main(["average-maps", *where, str(out), "--layer", "nowhere"]) == 2
    assert main(["average-maps", *where, str(out), "--subset", "none"]) == 2
    assert main(["average-maps", str(tmp_path), where[1], str(out)]) == 2
    message = capsys.readouterr().err
    assert all(w in message for w in ("no layer 'nowhere'", "the subset 'none'", "holds no card.json"))
    assert not out.exists()


def test_the_network_is_as_it_was(cohort):
    loaded = LoadedModel(build(ModelSpec(widths=(2, 2, 2, 2), head_dropout=0.4), 1), {}, Path("model"))
    loaded.model.train()
    before = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    average_maps(loaded, cohort, layers=["last"], limit=4)
    assert all(torch.equal(value, before[name]) for name, value in loaded.model.state_dict().items())
    assert all(module.training for module in loaded.model.modules())
