"""Recipes: read, layered, refused; and no key that changes nothing."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from nigradat.errors import ConfigError
from nigradat.io.pack import PackedCohort
from nigradat.models.registry import get_method
from nigradat.models.weights import load_model
from nigradat.training.augment import Augmentation
from nigradat.training.config import RECIPES, AugmentationConfig, TrainConfig, make_config
from nigradat.training.fit import train


def test_the_papers_recipe() -> None:
    """Read off the published graph: Adam at 1e-4, Glorot weights, no L2 in the paired net, patches not centred."""
    c = make_config("paper")
    assert (c.optimiser, c.learning_rate, c.weight_decay, c.schedule) == ("adam", 1e-4, 0.0, "constant")
    assert (c.init, c.centred, c.sbr_max, c.symmetry_eps) == ("glorot", False, 6.84, 0.04)
    assert (c.epochs, c.patience, c.batch_size) == (200, 30, 8)
    assert (c.average_decay, c.start_at_mean) == (0.0, False)
    assert (c.warm_up_epochs, c.feature_weight, c.unit_activations) == (0, 0.0, False)


def test_the_warm_up_is_a_share_of_the_epochs() -> None:
    shares = [make_config(changes={"epochs": n, "warm_up": 0.3}).warm_up_epochs for n in (1, 3, 4, 10, 40)]
    assert shares == [0, 0, 1, 3, 12]


def test_later_layers_win_key_by_key(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text('epochs = 7\nmodel = "vgg-small"\nwidths = [1, 2, 3, 4]\n[augmentation]\nnoise = 0.2\ngain = 0.1\n')
    c = make_config("paper", path, {"epochs": 9, "augmentation": {"gain": 0.0, "scale": 0.1}})
    assert (c.epochs, c.model, c.widths, c.learning_rate) == (9, "vgg-small", (1, 2, 3, 4), 1e-4)
    a = c.augmentation
    assert (a.noise, a.gain, a.scale) == (0.2, 0.0, 0.1)
    assert a.shift_voxels == AugmentationConfig().shift_voxels
    assert RECIPES["paper"]["augmentation"] == {"ramp_epochs": 0}  # the recipe itself is as it was


def test_json_makes_it_again() -> None:
    c = make_config(changes={"widths": (1, 2, 3, 4), "symmetry_weight": 0.3, "augmentation": {"noise": 0.5}})
    assert make_config(changes=json.loads(json.dumps(c.to_json()))) == c
    assert make_config(changes={"augmentation": AugmentationConfig(noise=0.5)}).augmentation.noise == 0.5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epoch": 3}, "epoch"),
        ({"augmentation": {"flip": 0.5}}, "augmentation.flip"),
        ({"epochs": 0}, "epochs"),
        ({"epochs": "many"}, "epochs"),
        ({"learning_rate": -1}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"widths": [1, 2, 3]}, "widths"),
        ({"widths": [1, 2, 3, 0]}, "widths"),
        ({"head_dropout": 1.0}, "head_dropout"),
        ({"optimiser": "sgd"}, "optimiser"),
        ({"augmentation": {"probability": 1.5}}, "augmentation.probability"),
        ({"augmentation": 3}, "augmentation"),
        ({"seed": -1}, "seed"),
        ({"model": "sym-vgg+"}, "sym-vgg"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words.replace(".", r"\.")):
        make_config(changes=changes)


def test_every_fault_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        make_config(changes={"epoch": 3, "batch_size": 0, "augmentation": {"flip": 1}})
    assert all(word in str(caught.value) for word in ("epoch", "batch_size", "augmentation.flip"))


def test_unknown_recipe_and_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="default, paper"):
        make_config("papers")
    with pytest.raises(ConfigError, match=r"nothing\.toml"):
        make_config(file=tmp_path / "nothing.toml")
    for content in (b"epochs 3", b"\xff\xfe"):
        (tmp_path / "bad.toml").write_bytes(content)
        with pytest.raises(ConfigError, match=r"bad\.toml"):
            make_config(file=tmp_path / "bad.toml")


def test_the_method_gives_its_own_lambda() -> None:
    assert make_config(changes={"model": "sym-vgg"}).resolved_symmetry_weight == 0
    plus = make_config(changes={"model": "sym-vgg-plus"})
    assert plus.resolved_symmetry_weight == get_method("sym-vgg-plus").symmetry_weight > 0
    assert make_config(changes={"model": "sym-vgg", "symmetry_weight": 0.7}).resolved_symmetry_weight == 0.7
    assert make_config(changes={"symmetry_weight": 0}).resolved_symmetry_weight == 0  # 0 is not None


def test_augmentation_keys_are_those_of_the_code() -> None:
    names = [{f.name for f in dataclasses.fields(kind)} for kind in (AugmentationConfig, Augmentation)]
    assert names[0] == names[1]


MOVED = {
    "probability": 0.8,
    "shift_voxels": 2.0,
    "shift_slices": 1,
    "rotation_deg": 8.0,
    "scale": 0.03,
    "noise": 0.03,
    "gain": 0.03,
    "ramp_epochs": 0,
    "mirror_pairs": 0.0,
}
BASE: dict[str, object] = {
    "model": "sym-vgg-plus",
    "widths": (2, 2, 2, 2),
    "head_dropout": 0.2,
    "learning_rate": 1e-3,
    "weight_decay": 0.01,
    "epochs": 2,
    "warm_up": 0.5,
    "batch_size": 5,
    "average_decay": 0.9,
    "start_at_mean": True,
    "symmetry_weight": 0.5,
    "augmentation": MOVED,
}
# key: another value (with what else must be set for it to be able to matter)
OTHER: dict[str, dict[str, object]] = {
    "model": {"model": "vgg-small"},
    "widths": {"widths": (2, 2, 2, 3)},
    "head_dropout": {"head_dropout": 0.5},
    "block_dropout": {"block_dropout": 0.1},
    "centred": {"centred": False},
    "init": {"init": "glorot"},
    "sbr_max": {"sbr_max": 8.0},
    "symmetry_weight": {"symmetry_weight": 0.0},
    "symmetry_eps": {"symmetry_eps": 0.0},
    "optimiser": {"optimiser": "adam"},
    "learning_rate": {"learning_rate": 3e-3},
    "weight_decay": {"weight_decay": 0.5},
    "schedule": {"schedule": "constant"},
    "epochs": {"epochs": 3},
    "warm_up": {"warm_up": 0.0},
    "warm_up_rate": {"warm_up_rate": 3e-3},
    "feature_weight": {"feature_weight": 0.5},
    "output_penalty": {"output_penalty": 0.0},
    "unit_activations": {"unit_activations": False},
    "gradient_clip": {"gradient_clip": 1e-3},
    "adam_eps": {"adam_eps": 1e-2},
    "average_decay": {"average_decay": 0.0},
    "start_at_mean": {"start_at_mean": False},
    "batch_size": {"batch_size": 4},
    "seed": {"seed": 2},
}
OTHER_AUGMENTATION: dict[str, float] = {
    "probability": 0.2,
    "shift_voxels": 0.0,
    "shift_slices": 0,
    "rotation_deg": 0.0,
    "scale": 0.2,
    "noise": 0.2,
    "gain": 0.2,
    "ramp_epochs": 3,
    "mirror_pairs": 1.0,
}


def weights_of(cohort: PackedCohort, folder: Path, changes: dict[str, object]) -> dict[str, torch.Tensor]:
    config = make_config(changes={**BASE, **changes})
    return load_model(train(cohort, folder, config)).model.state_dict()


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[k].shape == b[k].shape and torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(scope="module")
def base_weights(small_cohort: PackedCohort, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    return weights_of(small_cohort, tmp_path_factory.mktemp("base") / "run", {})


def test_no_key_is_forgotten_here() -> None:
    assert OTHER.keys() | {"patience", "augmentation"} == {f.name for f in dataclasses.fields(TrainConfig)}
    assert OTHER_AUGMENTATION.keys() == {f.name for f in dataclasses.fields(AugmentationConfig)}


@pytest.mark.parametrize("key", OTHER)
def test_every_key_changes_the_result(
    key: str, small_cohort: PackedCohort, base_weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    assert not same(weights_of(small_cohort, tmp_path / "run", OTHER[key]), base_weights)


@pytest.mark.parametrize("key", OTHER_AUGMENTATION)
def test_every_augmentation_key_changes_the_result(
    key: str, small_cohort: PackedCohort, base_weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    changed: dict[str, object] = {"augmentation": {**MOVED, key: OTHER_AUGMENTATION[key]}}
    assert not same(weights_of(small_cohort, tmp_path / "run", changed), base_weights)


def test_the_defaults_written_out_change_nothing(
    small_cohort: PackedCohort, base_weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    plain = make_config(changes=BASE).to_json()
    assert same(weights_of(small_cohort, tmp_path / "run", plain), base_weights)
    assert np.isfinite([float(v.abs().sum()) for v in base_weights.values()]).all()
