"""Monte-Carlo dropout, explicit: draws of the network, not of a random state that happens to be on.

One draw is one thinned network (Gal and Ghahramani 2016). It meets every patient and BOTH sides: with a shared tower
``l_t = f(x_L; theta_t)`` and ``r_t = f(mirror(x_R); theta_t)`` have the same ``theta_t``. A draw depends on (seed, t)
alone, so a patient's samples do not depend on who else is in the batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nigradat.errors import CalibrationError
from nigradat.models.dropout import dropout_modules, module_seed, one_network_draw
from nigradat.models.head import N_OUTPUTS, expected, log_normal, log_normal_variance
from nigradat.models.symmetric import PairRegressor, SideRegressor
from nigradat.models.vgg import VggTower
from nigradat.models.vgg16 import Vgg16Tower
from nigradat.training.data import canonical_tensor

CHUNK = 8  # pairs sent through the tower at once: 8 pairs of the widest published net take about 1.5 GB
Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Draws:
    """What a model answers on n visits, SBR, right first; NaN for a side that it does not answer for.

    Attributes:
        point: ``(n, 2)``, the deterministic prediction.
        samples: ``(T, n, 2)``, the predictions of T thinned networks; T equal ones of a model without dropout.
        noise_sd: ``(n, 2)``, SD of a label about its prediction as the model itself states it, root mean square over
            the thinned networks; None where it states none (no log-normal head).
        features: ``(n, 2, F)`` float32, what the tower made of the patches before any dropout, where that was asked for
            and the tower ran in one piece; else None.
    """

    point: Array
    samples: Array
    noise_sd: Array | None = None
    features: npt.NDArray[np.float32] | None = None

    @classmethod
    def joined(cls, parts: Sequence[Draws]) -> Draws:
        """Those of several batches of visits as those of all."""
        noise = [part.noise_sd for part in parts if part.noise_sd is not None]
        features = [part.features for part in parts if part.features is not None]
        return cls(
            np.concatenate([part.point for part in parts]),
            np.concatenate([part.samples for part in parts], axis=1),
            np.concatenate(noise) if noise else None,
            np.concatenate(features) if features else None,
        )


def has_spread(model: PairRegressor) -> bool:
    """Whether the model has an uncertainty at all: dropout to be sampled, or a noise SD of its own."""
    return bool(dropout_modules(model)) or model.spec.output == "log-normal"


def predict_sbr(model: PairRegressor, patches: npt.NDArray[np.float32], chunk: int = CHUNK) -> Array:
    """The deterministic prediction (no dropout).

    Args:
        model: left in the mode it came in.
        patches: native, ``(n, 2, 50, 50, 20)``, right first; not changed.
        chunk: pairs at once.

    Returns:
        ``(n, 2)`` SBR, right first; NaN for a side that the model does not answer for.
    """
    with _evaluating(model) as device:
        out = [model(x.to(device)).cpu() for x in _chunks(patches, chunk)]
    return torch.cat(out).double().numpy() * model.spec.sbr_max


def mc_samples(
    model: PairRegressor,
    patches: npt.NDArray[np.float32],
    *,
    samples: int = 100,
    seed: int = 0,
    chunk: int = CHUNK,
) -> Array:
    """Predictions of ``samples`` thinned networks, ``(T, n, 2)`` SBR; see :func:`predict_with_samples`."""
    return predict_with_samples(model, patches, samples=samples, seed=seed, chunk=chunk)[1]


def predict_with_samples(
    model: PairRegressor,
    patches: npt.NDArray[np.float32],
    *,
    samples: int = 100,
    seed: int = 0,
    chunk: int = CHUNK,
) -> tuple[Array, Array]:
    """The deterministic prediction and those of ``samples`` thinned networks.

    A log-normal head's own noise is not in them: where a spread is to be made of them, take :func:`draw_predictions`.

    Args:
        model: must have dropout.
        patches, samples, seed, chunk: see :func:`draw_predictions`.

    Returns:
        ``(n, 2)`` and ``(T, n, 2)`` SBR, right first; NaN for a side that the model does not answer for.

    Raises:
        CalibrationError: the model has no dropout, or none of it acted.
    """
    if not dropout_modules(model):
        raise _no_dropout()
    drawn = draw_predictions(model, patches, samples=samples, seed=seed, chunk=chunk)
    return drawn.point, drawn.samples


def draw_predictions(
    model: PairRegressor,
    patches: npt.NDArray[np.float32],
    *,
    samples: int = 100,
    seed: int = 0,
    chunk: int = CHUNK,
    keep_features: bool = False,
) -> Draws:
    """All that a spread is made of, with the tower run once where it can be.

    With dropout before the head only, the tower runs once and all samples are one matrix product. Otherwise the layers
    before the first dropout run once per patch and the others once per sample.

    Args:
        model: with dropout or a log-normal head; it is left in the mode it came in, also after an error.
        patches: native, ``(n, 2, 50, 50, 20)``; not changed.
        samples: T.
        seed: of the draws.
        chunk: pairs at once; the samples are the same for any value (to rounding).
        keep_features: hand out the tower's features, too, where there is no dropout inside it.

    Raises:
        CalibrationError: the model has no spread (see :func:`has_spread`), or none of its dropout acted.
    """
    if not has_spread(model):
        raise _no_dropout()
    if samples < 2:
        raise CalibrationError(f"{samples} Monte-Carlo samples", "at least 2 (100 is usual)")
    with _evaluating(model) as device:
        drawn = Draws.joined(
            [_draw(model, x.to(device), samples, seed, keep_features) for x in _chunks(patches, chunk)]
        )
    answered = [side.index for side in model.sides]
    if dropout_modules(model) and not (np.ptp(drawn.samples[:, :, answered], axis=0) > 0).any():
        raise CalibrationError("dropout did not change a single prediction", "samples that differ", "Check the weights")
    return drawn


def _no_dropout() -> CalibrationError:
    return CalibrationError(
        "the model has no dropout", "dropout before the head or in the blocks", "Train with --dropout head or blocks"
    )


def _draw(model: PairRegressor, x: Tensor, samples: int, seed: int, keep_features: bool) -> Draws:
    if any(m is not net.dropout for net in _nets(model) for m in dropout_modules(net)):
        return _in_sbr(model, *_draws_of_network(model, x, samples, seed))
    features = model.features(x)
    point = model.outputs(features)
    draws = (
        _draws_of_head(model, features, samples, seed)
        if dropout_modules(model)
        else point.expand(samples, *point.shape)
    )
    drawn = _in_sbr(model, point, draws)
    return replace(drawn, features=features.cpu().numpy()) if keep_features else drawn


def _in_sbr(model: PairRegressor, point: Tensor, draws: Tensor) -> Draws:
    """From the outputs ``(n, 2, k)`` of the whole network and ``(T, n, 2, k)`` of thinned ones."""
    output, scale = model.spec.output, model.spec.sbr_max
    noise = None
    if output == "log-normal":
        noise = log_normal_variance(*log_normal(draws.cpu().double())).mean(dim=0).sqrt().numpy() * scale
    mean, sampled = (expected(raw, output).cpu().double().numpy() * scale for raw in (point, draws))
    return Draws(mean, sampled, noise)


def draw_seeds(seed: int, samples: int) -> list[int]:
    """One seed a draw; the first ones do not depend on how many there are."""
    words = np.random.SeedSequence([seed, 0x6D63]).generate_state(samples, np.uint64)
    return [int(word >> 1) for word in words]


def _draws_of_head(model: PairRegressor, features: Tensor, samples: int, seed: int) -> Tensor:
    out = features.new_full((samples, len(features), 2, N_OUTPUTS[model.spec.output]), torch.nan)
    masks = {net: _head_masks(model, net, samples, seed).to(features) for net in _nets(model)}
    for side in model.sides:
        net = model.net(side)
        assert net is not None
        for k, (weight, bias) in enumerate(zip(net.head.weight, net.head.bias, strict=True)):
            out[:, :, side.index, k] = (features[:, side.index] @ (weight * masks[net]).T + bias).T
    return out


def _head_masks(model: PairRegressor, net: SideRegressor, samples: int, seed: int) -> Tensor:
    """``(T, n_features)``: the masks that the net would meet inside ``one_network_draw``, without running it."""
    i = dropout_modules(model).index(net.dropout)
    uniform, generator = torch.empty((samples, net.tower.n_features)), torch.Generator()
    for row, draw in zip(uniform, draw_seeds(seed, samples), strict=True):
        generator.manual_seed(module_seed(draw, i))
        torch.rand(len(row), generator=generator, out=row)
    return (uniform >= net.dropout.p) / (1.0 - net.dropout.p)


def _draws_of_network(model: PairRegressor, x: Tensor, samples: int, seed: int) -> tuple[Tensor, Tensor]:
    x = model.as_seen(x)
    stems = [(side, net, _stem(net, x[:, side.index])) for side in model.sides if (net := model.net(side)) is not None]
    point = x.new_full((len(x), 2, N_OUTPUTS[model.spec.output]), torch.nan)
    for side, net, stem in stems:
        point[:, side.index] = _rest(net, stem)
    out = x.new_full((samples, *point.shape), torch.nan)
    for t, draw in enumerate(draw_seeds(seed, samples)):
        with one_network_draw(model, draw):
            if "both" in model.nets:  # both sides in one batch: one mask for the two
                net = stems[0][1]
                both = _rest(net, torch.cat([stem for _, _, stem in stems]))
                out[t] = both.view(2, len(x), -1).transpose(0, 1)
            else:
                for side, net, stem in stems:
                    out[t, :, side.index] = _rest(net, stem)
    return point, out


def _stem(net: SideRegressor, x: Tensor) -> Tensor:
    """What comes before the first dropout: the first block's convolutions and pooling, most of the tower's cost."""
    assert isinstance(net.tower, VggTower | Vgg16Tower)  # no other tower has dropout inside
    return net.tower.stem(net.preprocess(x))


def _rest(net: SideRegressor, stem: Tensor) -> Tensor:
    assert isinstance(net.tower, VggTower | Vgg16Tower)
    out: Tensor = net.head(net.dropout(net.tower.rest(stem)))
    return out


def _nets(model: PairRegressor) -> list[SideRegressor]:
    return [net for net in model.nets.values() if isinstance(net, SideRegressor)]


def _chunks(patches: npt.NDArray[np.float32], chunk: int) -> Iterator[Tensor]:
    for start in range(0, len(patches), chunk):
        yield canonical_tensor(patches[start : start + chunk])


class _evaluating:
    """Evaluation mode without gradients; the model goes back to its previous mode, also after an error."""

    def __init__(self, model: PairRegressor) -> None:
        self.model = model

    def __enter__(self) -> torch.device:
        self.modes = {m: m.training for m in self.model.modules()}
        self.model.eval()
        self.no_grad = torch.inference_mode()
        self.no_grad.__enter__()
        return next(self.model.parameters()).device

    def __exit__(self, *error: object) -> None:
        self.no_grad.__exit__(*error)
        for module, mode in self.modes.items():
            module.training = mode
