"""What holds for every model, whatever its tower: one battery over all names."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import nigradat
from nigradat.anatomy import PATCH_SHAPE, Side, mirror_pair, to_canonical
from nigradat.errors import MissingExtraError
from nigradat.io.pack import PackedCohort
from nigradat.models.dropout import one_network_draw, seed_dropout
from nigradat.models.head import N_OUTPUTS
from nigradat.models.registry import create_model, get_method, list_models
from nigradat.models.symmetric import ModelSpec, PairRegressor
from nigradat.models.weights import load_model, save_model
from nigradat.training.config import Hardware, TrainConfig, make_config
from nigradat.training.fit import train
from nigradat.uncertainty.mc_dropout import draw_predictions, draw_seeds, predict_sbr

WIDTHS = (4, 4, 8, 8)
ROUNDING: dict[str, Any] = {"nan_ok": True, "rel": 1e-5, "abs": 2e-5}  # float32; untrained outputs are tens of SBR
ONE = Hardware(accelerator="cpu", threads=1)


def native_pairs(n: int = 2, seed: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.5, 1.5, (n, 2, *PATCH_SHAPE)).astype(np.float32)


def canonical(native: np.ndarray) -> Tensor:
    return torch.from_numpy(to_canonical(native)).unsqueeze(2)


def a_model(name: str, *, head_dropout: float = 0.3, seed: int = 4) -> PairRegressor:
    """Seen in training once, so that normalisations have statistics of their own; then in evaluation mode."""
    model = create_model(name, ModelSpec(widths=WIDTHS, head_dropout=head_dropout), seed)
    seed_dropout(model, 1)
    with torch.no_grad():
        model.train()(canonical(native_pairs(4, seed=1)))
    return model.eval()


def answered(model: PairRegressor) -> list[int]:
    return [side.index for side in model.sides]


@pytest.fixture(params=list_models())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_both_sides_in_one_number_a_side_out(name: str) -> None:
    model, x = a_model(name), canonical(native_pairs(3))
    before = x.clone()
    with torch.no_grad():
        out, features = model(x), model.features(x)
    assert out.shape == (3, 2)
    assert features.shape == (3, 2, model.nets[next(iter(model.nets))].tower.n_features)  # type: ignore[union-attr]
    sides = answered(model)
    assert sides == ([Side.LEFT.index] if name == "vgg-left" else [0, 1])
    assert torch.isfinite(out[:, sides]).all()
    assert torch.isnan(out).sum() == 3 * (2 - len(sides))
    assert out[:, sides].std(dim=0).min() > 0  # patients can be told apart
    assert torch.equal(model.heads(features).nan_to_num(), out.nan_to_num())
    assert torch.equal(x, before)


def test_the_gradient_reaches_every_parameter(name: str) -> None:
    model = create_model(name, ModelSpec(widths=WIDTHS), seed=2).train()
    seed_dropout(model, 1)
    outputs = model.outputs(model.features(canonical(native_pairs(4))))[:, answered(model)]
    assert outputs.shape[-1] == N_OUTPUTS[get_method(name).output]
    ((outputs - 1) ** 2).sum().backward()
    gradients = {n: v.grad for n, v in model.named_parameters()}
    assert [n for n, grad in gradients.items() if grad is None or not grad.any()] == []
    assert all(torch.isfinite(grad).all() for grad in gradients.values() if grad is not None)


def test_what_is_saved_comes_back_bit_by_bit(name: str, tmp_path: Path) -> None:
    model, x = a_model(name), canonical(native_pairs())
    loaded = load_model(save_model(tmp_path / "model", model, {"title": "A title"}))
    assert loaded.spec == model.spec
    there, here = loaded.model.state_dict(), model.state_dict()
    assert there.keys() == here.keys()
    assert all(torch.equal(there[k], here[k]) for k in here)
    with torch.no_grad():
        assert torch.equal(loaded.model(x).nan_to_num(), model(x).nan_to_num())


def test_the_mirrored_patient_has_the_sides_exchanged_where_one_net_sees_both_alike(name: str) -> None:
    model, native, method = a_model(name), native_pairs(), get_method(name)
    with torch.no_grad():
        out, mirrored = model(canonical(native)), model(canonical(mirror_pair(native)))
    exchanged = torch.allclose(mirrored, out.flip(1), rtol=1e-4, atol=1e-5)
    assert exchanged == (method.sharing == "shared" and method.mirrored)
    if len(model.sides) == 2:  # otherwise nothing could tell an exchange
        assert not torch.allclose(out, out.flip(1), rtol=1e-3, atol=1e-4)


def test_without_mirroring_the_net_sees_both_patches_as_they_lie() -> None:
    model, native = a_model("sym-vgg-plus-unmirrored"), native_pairs()
    assert torch.equal(model.as_seen(canonical(native)).squeeze(2), torch.from_numpy(native))
    net = model.net(Side.RIGHT)
    assert net is not None
    with torch.no_grad():
        right = net(torch.from_numpy(native[:, :1]))[:, 0]
        assert torch.allclose(model(canonical(native))[:, 0], right, atol=1e-6)
    plus = a_model("sym-vgg-plus")
    assert plus.as_seen(canonical(native)).shape == model.as_seen(canonical(native)).shape
    assert torch.equal(plus.as_seen(canonical(native)), canonical(native))


def test_draws_vary_with_dropout_and_only_with_it(name: str) -> None:
    patches = native_pairs()
    model = a_model(name)
    drawn = draw_predictions(model, patches, samples=6, seed=3)
    sides = answered(model)
    assert (drawn.samples[:, :, sides].std(axis=0) > 0).all()
    for t, draw in enumerate(draw_seeds(3, 6)):  # the quick way is the whole network's
        with one_network_draw(model, draw), torch.no_grad():
            whole = model(canonical(patches)).double().numpy() * 6.84
        assert drawn.samples[t] == pytest.approx(whole, **ROUNDING)
    assert drawn.point == pytest.approx(predict_sbr(model, patches), **ROUNDING)
    still = a_model(name, head_dropout=0.0)
    outputs = []
    for draw in (1, 2):
        with one_network_draw(still, draw), torch.no_grad():
            outputs.append(still(canonical(patches)).nan_to_num())
    assert torch.equal(*outputs)


def test_weights_are_those_of_the_seed_alone(name: str) -> None:
    spec = ModelSpec(widths=WIDTHS)
    states = []
    for seed, elsewhere in ((1, 11), (1, 12), (2, 11)):
        torch.manual_seed(elsewhere)
        before = torch.get_rng_state()
        states.append(create_model(name, spec, seed).state_dict())
        assert torch.equal(torch.get_rng_state(), before)
    first, same, other = states
    assert all(torch.equal(first[k], same[k]) for k in first)
    assert all(not torch.equal(first[k], other[k]) for k in first if first[k].ndim > 1)


def test_loading_leaves_the_global_random_state_alone(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", a_model("vit"), {})
    before = torch.get_rng_state()
    load_model(folder)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_prediction_does_not_depend_on_company(name: str) -> None:
    model, patches = a_model(name), native_pairs(3)
    together = predict_sbr(model, patches)
    for i in range(3):
        assert predict_sbr(model, patches[i : i + 1]) == pytest.approx(together[i : i + 1], **ROUNDING)
    assert predict_sbr(model, patches[::-1].copy()) == pytest.approx(together[::-1], **ROUNDING)
    assert np.array_equal(predict_sbr(model, patches), together, equal_nan=True)


def a_config(name: str, epochs: int) -> TrainConfig:
    return make_config(changes={"model": name, "widths": WIDTHS, "epochs": epochs, "batch_size": 8, "seed": 3})


@pytest.fixture(scope="module")
def one_epoch(small_cohort: PackedCohort, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The run of a model that was trained for one epoch."""
    out = tmp_path_factory.mktemp("runs")
    return lambda name: train(small_cohort, out / name, a_config(name, 1), hardware=ONE)


def test_one_epoch_of_training(name: str, one_epoch: Callable[[str], Path]) -> None:
    run, config = one_epoch(name), a_config(name, 1)
    loaded = nigradat.load(run)
    fresh = create_model(name, config.spec, config.seed).state_dict()
    trained = loaded.model.state_dict()
    assert loaded.spec == config.spec
    assert loaded.card["title"] == get_method(name).title
    assert all(not torch.equal(trained[k], v) for k, v in fresh.items() if v.ndim > 1)
    written = (run / "model.safetensors").stat().st_mtime_ns
    one_epoch(name)  # finished, so left alone
    assert (run / "model.safetensors").stat().st_mtime_ns == written
    out = predict_sbr(loaded.model, native_pairs())
    assert np.isfinite(out[:, answered(loaded.model)]).all()


@pytest.mark.parametrize("name", ["vit", "resnet18"])
def test_an_interrupted_training_ends_with_the_same_bits(name: str, small_cohort: PackedCohort, tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    config = a_config(name, 2)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(small_cohort, tmp_path / "run", config, hardware=ONE, report=interrupt)
    for folder in ("run", "whole"):
        train(small_cohort, tmp_path / folder, config, hardware=ONE)
    runs = [(tmp_path / folder / "model.safetensors").read_bytes() for folder in ("run", "whole")]
    assert runs[0] == runs[1]


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3"])
def test_the_average_of_the_weights_has_the_average_of_the_statistics(
    name: str, one_epoch: Callable[[str], Path]
) -> None:
    """A kept network whose weights are averaged and whose normalisations are still fresh would predict nonsense."""
    run = one_epoch(name)
    state = load_model(run).model.state_dict()
    steps = -(-len(nigradat.Split.load(run / "split.json").train) // 8)
    means = [v for k, v in state.items() if k.endswith("running_mean")]
    assert means
    assert all(v.abs().max() > 0 for v in means)
    assert {int(v) for k, v in state.items() if k.endswith("num_batches_tracked")} == {steps}


def test_without_monai_only_its_model_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "monai.networks.nets.resnet", None)
    with pytest.raises(MissingExtraError, match=r"nigradat\[monai\]"):
        create_model("resnet18", ModelSpec(widths=WIDTHS))
    for other in list_models():
        if other != "resnet18":
            create_model(other, ModelSpec(widths=WIDTHS))
