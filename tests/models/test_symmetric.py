"""Two sides, one tower or two."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from nigradat.anatomy import PATCH_SHAPE, Side, mirror_pair, to_canonical
from nigradat.errors import ConfigError
from nigradat.models.symmetric import ModelSpec, PairRegressor, Sharing, build

TINY = (2, 2, 3, 3)


def canonical(native: np.ndarray) -> Tensor:
    return torch.from_numpy(to_canonical(native)).unsqueeze(2)


def native_pairs(n: int = 3) -> np.ndarray:
    return np.random.default_rng(7).uniform(0.5, 1.5, (n, 2, *PATCH_SHAPE)).astype(np.float32)


def a_model(sharing: Sharing, **options: object) -> PairRegressor:
    return build(ModelSpec(widths=TINY, sharing=sharing, **options), seed=4).eval()  # type: ignore[arg-type]


def test_shared_tower_exchanges_with_the_mirrored_patient() -> None:
    model, native = a_model("shared"), native_pairs()
    with torch.no_grad():
        out, mirrored = model(canonical(native)), model(canonical(mirror_pair(native)))
    assert torch.allclose(mirrored, out.flip(1), atol=1e-6)
    assert not torch.allclose(out, out.flip(1), atol=1e-4)  # the sides do differ


def test_separate_towers_do_not() -> None:
    model, native = a_model("separate"), native_pairs()
    with torch.no_grad():
        out, mirrored = model(canonical(native)), model(canonical(mirror_pair(native)))
    assert not torch.allclose(mirrored, out.flip(1), atol=1e-3)


@pytest.mark.parametrize("sharing", ["shared", "separate"])
def test_each_side_is_that_sides_net_alone(sharing: Sharing) -> None:
    """No information crosses at inference: changing one patch leaves the other side's output as it was."""
    model, x = a_model(sharing), canonical(native_pairs())
    changed = x.clone()
    changed[:, 1] = changed[:, 1].flip(2)
    with torch.no_grad():
        before, after = model(x), model(changed)
        for side in Side:
            net = model.net(side)
            assert net is not None
            assert torch.allclose(before[:, side.index], net(x[:, side.index])[:, 0], atol=1e-6)
    assert torch.equal(before[:, 0], after[:, 0])
    assert not torch.allclose(before[:, 1], after[:, 1], atol=1e-4)


@pytest.mark.parametrize("side", list(Side))
def test_a_one_sided_model_answers_for_one_side(side: Side) -> None:
    model = a_model(side.value)  # type: ignore[arg-type]
    out = model(canonical(native_pairs()))
    assert model.sides == (side,)
    assert model.net(side.other) is None
    assert torch.isfinite(out[:, side.index]).all()
    assert torch.isnan(out[:, side.other.index]).all()
    out[:, side.index].sum().backward()  # the missing side brings no NaN into the gradients
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_parameters_are_shared_or_not() -> None:
    counts = {s: sum(p.numel() for p in a_model(s).parameters()) for s in ("shared", "separate", "left")}
    assert counts["separate"] == 2 * counts["shared"] == 2 * counts["left"]


def test_separate_towers_start_from_different_weights() -> None:
    state = a_model("separate").state_dict()
    name = "tower.blocks.0.conv1.weight"
    assert not torch.equal(state[f"nets.right.{name}"], state[f"nets.left.{name}"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"widths": (1, 2, 3)},
        {"widths": (1, 2, 3, 0)},
        {"sharing": "both"},
        {"init": "normal"},
        {"head_dropout": 1.0},
        {"block_dropout": -0.1},
        {"sbr_max": 0.0},
        {"sbr_max": float("nan")},
    ],
)
def test_impossible_networks_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        ModelSpec(**wrong)  # type: ignore[arg-type]


def test_a_spec_survives_json() -> None:
    spec = ModelSpec(widths=(1, 2, 3, 4), sharing="right", head_dropout=0.3, centred=False, sbr_max=5.0)
    assert ModelSpec(**spec.to_json()) == spec
