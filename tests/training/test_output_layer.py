"""The solved output layer against scikit-learn and against the gradient of the loss that it claims to minimise."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from nigradat.models.symmetric import ModelSpec, build
from nigradat.training.config import make_config
from nigradat.training.data import canonical_tensor
from nigradat.training.loss import log_normal_nll
from nigradat.training.output_layer import solve_output_layer

N = 12
STILL = {  # every pass over the patients sees the same patches
    "augmentation": {
        "shift_voxels": 0.0,
        "shift_slices": 0,
        "rotation_deg": 0.0,
        "scale": 0.0,
        "noise": 0.0,
        "gain": 0.0,
    }
}


def heads(model):
    return {name: net.head for name, net in model.nets.items()}


def solved(make_cohort, **changes):
    cohort = make_cohort(N + 3)
    rows = np.arange(1, N + 1)
    config = make_config(changes={"widths": (2, 2, 3, 4), **STILL, **changes})
    model = build(config.spec, seed=3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    solve_output_layer(model, cohort, rows, config)
    for name, head in heads(model).items():  # half way: what was solved lies as far again
        with torch.no_grad():
            head.weight.mul_(2).sub_(before[f"nets.{name}.head.weight"])
            head.bias.mul_(2).sub_(before[f"nets.{name}.head.bias"])
    with torch.no_grad():
        features = model.eval().features(canonical_tensor(np.stack([cohort.read(int(i)) for i in rows]))).double()
    return model, before, features, torch.from_numpy(cohort.sbr[rows]) / config.sbr_max, config


def energy(features):
    """Mean squared length of the patches' features about their mean."""
    return float(((features - features.mean(dim=0)) ** 2).sum(dim=1).mean())


def test_without_symmetry_it_is_ridge_regression(make_cohort):
    model, before, features, target, _ = solved(make_cohort, model="sym-vgg", output_penalty=0.7)
    x, y = features.flatten(0, 1), target.flatten()
    theirs = Ridge(alpha=0.7 * energy(x)).fit(x.numpy(), y.numpy())
    head = model.nets["both"].head
    assert head.weight.detach().numpy()[0] == pytest.approx(theirs.coef_, rel=1e-3, abs=1e-6)
    assert float(head.bias.detach()) == pytest.approx(theirs.intercept_, rel=1e-4)
    # nothing but the output layer has changed, and that has
    after = model.state_dict()
    assert {name for name in after if not torch.equal(after[name], before[name])} == {
        "nets.both.head.weight",
        "nets.both.head.bias",
    }


@pytest.mark.parametrize("method", ["sym-vgg-plus", "vgg-small"])
def test_with_symmetry_the_gradient_of_the_loss_is_zero(make_cohort, method):
    model, _, features, target, _ = solved(make_cohort, model=method, symmetry_weight=0.4, output_penalty=0.5)
    layers = {}
    price = 0.0
    for side in (0, 1):
        name = "both" if "both" in model.nets else ("right", "left")[side]
        if name not in layers:
            head = model.nets[name].head
            layers[name] = [p.detach().double().squeeze(0).requires_grad_() for p in (head.weight, head.bias)]
            own = features.flatten(0, 1) if name == "both" else features[:, side]
            price = price + 0.5 * energy(own) * (layers[name][0] ** 2).sum()
    answers = []
    for side in (0, 1):
        weight, bias = layers["both" if "both" in layers else ("right", "left")[side]]
        answers.append(features[:, side] @ weight + bias)
    error = sum(((answer - target[:, side]) ** 2).sum() for side, answer in enumerate(answers))
    loss = error + 0.4 * ((answers[1] - answers[0]) ** 2).sum() + price
    leaves = [leaf for pair in layers.values() for leaf in pair]
    scale = max(float(g.abs().max()) for g in torch.autograd.grad(error, leaves, retain_graph=True))
    for gradient in torch.autograd.grad(loss, leaves):
        assert float(gradient.abs().max()) < 1e-4 * max(scale, 1.0)


def test_a_log_normal_head_keeps_its_sd_and_gets_the_mean_of_its_likelihood(make_cohort):
    model, before, features, target, _ = solved(make_cohort, model="sym-vgg-log", output_penalty=0.3)
    head = model.nets["both"].head
    for name in ("weight", "bias"):
        assert torch.equal(getattr(head, name)[1], before[f"nets.both.head.{name}"][1])
    _, sd = model.distribution(features.float())
    sd = sd.detach().double().flatten()
    x, y = features.flatten(0, 1), target.flatten()
    weight = head.weight.detach()[0].double().requires_grad_()
    bias = head.bias.detach()[0].double().requires_grad_()
    # beta-NLL with beta = 1/2; at a typical SD its slope is that of half a squared error
    likelihood = (2 * 0.33 * sd * log_normal_nll(x @ weight + bias, sd, y)).sum()
    worth = 0.33 / sd
    mean = (worth[:, None] * x).sum(dim=0) / worth.sum()
    spread = float((worth[:, None] * x**2).sum() / worth.sum() - mean @ mean)
    loss = likelihood + 0.3 * spread * (weight**2).sum()
    for gradient in torch.autograd.grad(loss, [weight, bias]):
        assert float(gradient.abs().max()) < 1e-3


def test_one_side_alone_and_a_dead_tower(make_cohort):
    model, _, features, target, _ = solved(make_cohort, model="vgg-left", output_penalty=0.7)
    theirs = Ridge(alpha=0.7 * energy(features[:, 1])).fit(features[:, 1].numpy(), target[:, 1].numpy())
    assert model.nets["left"].head.weight.detach().numpy()[0] == pytest.approx(theirs.coef_, rel=1e-3, abs=1e-6)
    dead = build(ModelSpec(widths=(2, 2, 2, 2)))
    for parameter in dead.parameters():
        parameter.data.zero_()
    cohort = make_cohort(N)
    solve_output_layer(dead, cohort, np.arange(N), make_config(changes={"widths": (2, 2, 2, 2), "model": "sym-vgg"}))
    assert float(dead.nets["both"].head.bias.detach()) == pytest.approx(float(cohort.sbr.mean()) / 6.84 / 2, rel=1e-4)
    assert float(dead.nets["both"].head.weight.detach().abs().max()) < 1e-6
