"""What a network learns before it sees a label."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from nigradat.anatomy import to_canonical
from nigradat.baselines import hand_made_features
from nigradat.errors import NigradatError
from nigradat.models.symmetric import ModelSpec, build
from nigradat.models.weights import load_model, read_card
from nigradat.training import fit
from nigradat.training import module as lightning_side
from nigradat.training.config import make_config
from nigradat.training.data import canonical_tensor, mix
from nigradat.training.fit import train
from nigradat.training.split import make_split
from nigradat.training.warm_up import (
    N_FEATURES,
    FeatureNaming,
    feature_targets,
    has_dead_tower,
    one_cycle,
    start_heads,
    unit_activations,
)


def patches(cohort, n=6):
    return canonical_tensor(np.stack([cohort.read(i) for i in range(n)]))


@pytest.mark.parametrize("sharing", ["shared", "separate", "left"])
@pytest.mark.parametrize("tower", ["vgg", "vgg16"])
def test_each_convolution_starts_with_mean_0_and_variance_1(small_cohort, sharing, tower):
    model = build(ModelSpec(widths=(2, 3, 4, 5), sharing=sharing, tower=tower, block_dropout=0.2), seed=3)
    x = patches(small_cohort)
    unit_activations(model, x)
    assert model.training
    model.eval()
    outputs = []
    for module in model.modules():
        if isinstance(module, nn.Conv3d):
            # the ReLU behind writes in place
            module.register_forward_hook(lambda _, __, out: outputs.append(out.detach().clone()))
    with torch.no_grad():
        model(x)
    assert outputs
    for out in outputs:
        sd, mean = torch.std_mean(out, dim=(0, 2, 3, 4))
        torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-4, rtol=0)
        torch.testing.assert_close(sd, torch.ones_like(sd), atol=1e-3, rtol=0)


@pytest.mark.parametrize("sharing", ["shared", "separate", "left"])
@pytest.mark.parametrize("output", ["sbr", "log-normal"])
def test_heads_begin_with_the_mean_of_the_labels_and_a_quarter_of_their_sd(small_cohort, sharing, output):
    model = build(ModelSpec(widths=(2, 3, 4, 5), sharing=sharing, output=output), seed=3)
    x, labels = patches(small_cohort), small_cohort.sbr / 6.84
    start_heads(model, x, labels, at_mean=True)
    assert model.training
    model.eval()
    with torch.no_grad():
        first = model.outputs(model.features(x))[..., 0].numpy()
    wanted = np.log(labels) if output == "log-normal" else labels
    for columns in [[0, 1]] if sharing == "shared" else [[side.index] for side in model.sides]:
        assert first[:, columns].std(ddof=1) == pytest.approx(0.25 * wanted[:, columns].std(), rel=1e-3)
        assert first[:, columns].mean() == pytest.approx(wanted[:, columns].mean(), abs=1e-4)


def test_heads_at_the_mean_alone_keep_their_weights(small_cohort):
    model = build(ModelSpec(widths=(2, 2, 2, 2)), seed=3)
    before = model.nets["both"].head.weight.clone()
    start_heads(model, None, small_cohort.sbr / 6.84, at_mean=True)
    head = model.nets["both"].head
    assert torch.equal(head.weight, before)
    assert float(head.bias.detach()[0]) == pytest.approx(small_cohort.sbr.mean() / 6.84, rel=1e-6)


def test_a_tower_that_normalises_keeps_its_convolutions(small_cohort):
    spec = ModelSpec(widths=(8, 8, 8, 8), tower="mobilenetv3")
    model, before = build(spec, seed=1), build(spec, seed=1)
    unit_activations(model, patches(small_cohort))
    changed = [
        name
        for (name, a), b in zip(model.named_parameters(), before.parameters(), strict=True)
        if not torch.equal(a, b)
    ]
    assert changed == []


def test_features_are_those_of_the_training_patches_standardised(small_cohort):
    rows = np.array([0, 2, 3, 7])
    targets = feature_targets(small_cohort, rows).numpy()
    others = np.setdiff1d(np.arange(len(small_cohort)), rows)
    assert np.isnan(targets[others]).all()
    plain = hand_made_features(to_canonical(np.stack([small_cohort.read(int(i)) for i in rows])))
    for k in range(N_FEATURES):
        a, b = targets[rows][..., k].ravel(), plain[..., k].ravel()
        assert np.corrcoef(a, b)[0, 1] == pytest.approx(1, abs=1e-5)
        assert (a.mean(), a.std()) == (pytest.approx(0, abs=1e-5), pytest.approx(1, abs=1e-4))


def test_naming_starts_at_the_variance_of_the_targets_and_leaves_out_unanswered_sides():
    model = build(ModelSpec(widths=(2, 2, 2, 2), sharing="left"))
    naming = FeatureNaming(model)
    features = torch.full((5, 2, model.nets["left"].tower.n_features), torch.nan)
    features[:, 1] = torch.rand(5, features.shape[2])
    target = torch.randn(5, 2, N_FEATURES)
    assert float(naming(features, target).detach()) == pytest.approx(float((target[:, 1] ** 2).mean()), rel=1e-6)


def test_naming_learns_a_linear_relation():
    model = build(ModelSpec(widths=(2, 2, 2, 2)))
    naming, g = FeatureNaming(model), torch.Generator().manual_seed(0)
    features = torch.randn(64, 2, 18, generator=g)
    target = features @ torch.randn(18, N_FEATURES, generator=g)
    optimiser = torch.optim.Adam(naming.parameters(), lr=0.1)
    for _ in range(300):
        optimiser.zero_grad()
        loss = naming(features, target)
        loss.backward()
        optimiser.step()
    assert loss.item() < 1e-4 < float((target**2).mean())


@pytest.mark.parametrize("steps", [7, 64, 1001])
def test_one_cycle_is_that_of_torch(steps):
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, 3.0, total_steps=steps, pct_start=0.2, cycle_momentum=False
    )
    for step in range(steps):
        assert 3.0 * one_cycle(step, steps) == pytest.approx(optimiser.param_groups[0]["lr"], rel=1e-9)
        optimiser.step()
        if step < steps - 1:
            schedule.step()


def test_one_cycle_of_one_step_is_finite():
    assert 0 < one_cycle(0, 1) <= 1


def small(**changes):
    return make_config(changes={"widths": (2, 2, 4, 4), "epochs": 4, "warm_up": 0.5, "batch_size": 8, **changes})


def histories(cohort, out, **changes):
    kept = []
    train(
        cohort,
        out,
        small(**changes),
        split=make_split(cohort, 1),
        report=lambda history, best, epochs: kept.append((list(history), best, epochs)),
    )
    return kept


def test_no_epoch_of_the_warm_up_is_kept_and_labels_move_nothing_in_it(small_cohort, tmp_path):
    kept = histories(small_cohort, tmp_path / "run")
    history, best, epochs = kept[-1]
    assert (len(history), epochs) == (4, 4)
    assert [math.isnan(row["train_loss"]) for row in history] == [True, True, False, False]
    assert all(math.isfinite(row["feature_loss"]) for row in history)
    assert best >= 2
    # in the warm-up the output layer stands still: its error changes through the tower alone, its bias not at all
    other = histories(small_cohort, tmp_path / "other", symmetry_weight=5.0)[-1][0]
    assert [row["feature_loss"] for row in other[:2]] == [row["feature_loss"] for row in history[:2]]
    assert other[2]["train_loss"] != history[2]["train_loss"]


def test_fine_tuning_has_no_warm_up(small_cohort, tmp_path):
    train(small_cohort, tmp_path / "first", small(), split=make_split(small_cohort, 1))
    kept = []
    train(
        small_cohort,
        tmp_path / "second",
        small(epochs=2),
        split=make_split(small_cohort, 1),
        init=tmp_path / "first",
        report=lambda history, best, epochs: kept.append(history[-1]),
    )
    assert all(math.isfinite(row["train_loss"]) for row in kept)
    assert all(math.isnan(row["feature_loss"]) for row in kept)


@pytest.mark.parametrize(("sharing", "name"), [("shared", "both"), ("separate", "left"), ("right", "right")])
def test_a_tower_that_says_the_same_of_every_patch_is_dead(small_cohort, sharing, name):
    model, x = build(ModelSpec(widths=(4, 4, 4, 8), sharing=sharing), seed=3), patches(small_cohort)
    unit_activations(model, x)
    assert not has_dead_tower(model, x)
    last = [m for m in model.nets[name].modules() if isinstance(m, nn.Conv3d)][-1]
    with torch.no_grad():
        last.bias[:3] = -1e3  # 3 of 8 channels: it lives
        assert not has_dead_tower(model, x)
        last.bias[:5] = -1e3
    assert has_dead_tower(model, x)


def state(run):
    return load_model(run).model.state_dict()


@pytest.fixture
def dying(monkeypatch):
    """The towers of the first so many warm-ups are taken for dead."""

    def dying(deaths):
        answers = iter([True] * deaths + [False] * 9)
        monkeypatch.setattr(lightning_side, "has_dead_tower", lambda model, x: next(answers))

    return dying


def test_after_a_dead_tower_the_fit_starts_anew_from_other_weights(small_cohort, tmp_path, monkeypatch, dying):
    dying(1)
    kept = histories(small_cohort, tmp_path / "run")
    assert [len(history) for history, _, _ in kept] == [1, 2, 1, 2, 3, 4]
    card = read_card(tmp_path / "run")
    assert (card["training"]["starts"], card["training"]["epochs"]) == (2, 4)
    # everything but the first weights is as it was: the same fit, had it begun with them
    monkeypatch.setattr(fit, "build", lambda spec, seed: build(spec, mix(seed, 1)))
    histories(small_cohort, tmp_path / "same")
    assert read_card(tmp_path / "same")["training"]["starts"] == 1
    assert all(map(torch.equal, state(tmp_path / "run").values(), state(tmp_path / "same").values()))


@pytest.mark.parametrize("killed_after", [2, 3])
def test_a_second_start_that_was_killed_ends_as_one_that_was_not(small_cohort, tmp_path, dying, killed_after):
    dying(1)
    histories(small_cohort, tmp_path / "whole")
    calls = []

    def kill(*_):
        calls.append(1)
        if len(calls) == killed_after:
            raise RuntimeError("killed")

    dying(1)
    with pytest.raises(RuntimeError, match="killed"):
        train(small_cohort, tmp_path / "run", small(), split=make_split(small_cohort, 1), report=kill)
    if killed_after == 2:  # the dead tower is written down; nobody looks at it again
        dying(0)
    histories(small_cohort, tmp_path / "run")
    assert read_card(tmp_path / "run")["training"]["starts"] == 2
    assert all(map(torch.equal, state(tmp_path / "run").values(), state(tmp_path / "whole").values()))


def test_a_tower_that_always_dies_is_refused(small_cohort, tmp_path):
    for _ in range(2):  # also when it is tried again
        with pytest.raises(NigradatError, match="died in each of 5 warm-ups") as error:
            histories(small_cohort, tmp_path / "run", warm_up_rate=10.0)
        assert "warm_up_rate" in str(error.value)
    assert not (tmp_path / "run" / "card.json").exists()
