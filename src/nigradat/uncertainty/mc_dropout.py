"""Monte-Carlo dropout, explicit: draws of the network, not of a random state that happens to be on.

One draw is one thinned network (Gal and Ghahramani 2016). It meets every patient and BOTH sides: with a shared tower
``l_t = f(x_L; theta_t)`` and ``r_t = f(mirror(x_R); theta_t)`` have the same ``theta_t``. A draw depends on (seed, t)
alone, so a patient's samples do not depend on who else is in the batch.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nigradat.errors import CalibrationError
from nigradat.models.dropout import SeededDropout, dropout_modules, module_seed, one_network_draw
from nigradat.models.symmetric import PairRegressor
from nigradat.models.vgg import VggRegressor
from nigradat.training.data import canonical_tensor

CHUNK = 8  # pairs sent through the tower at once: 8 pairs of the widest published net take about 1.5 GB


def predict_sbr(model: PairRegressor, patches: npt.NDArray[np.float32], chunk: int = CHUNK) -> npt.NDArray[np.float64]:
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
) -> npt.NDArray[np.float64]:
    """Predictions of ``samples`` thinned networks, ``(T, n, 2)`` SBR; see :func:`predict_with_samples`."""
    return predict_with_samples(model, patches, samples=samples, seed=seed, chunk=chunk)[1]


def predict_with_samples(
    model: PairRegressor,
    patches: npt.NDArray[np.float32],
    *,
    samples: int = 100,
    seed: int = 0,
    chunk: int = CHUNK,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The deterministic prediction and those of ``samples`` thinned networks, with the tower run once for both.

    With dropout before the head only, the tower runs once and all samples are one matrix product. Otherwise the layers
    before the first dropout run once per patch and the others once per sample.

    Args:
        model: must have dropout; it is left in the mode it came in, also after an error.
        patches: native, ``(n, 2, 50, 50, 20)``; not changed.
        samples: T.
        seed: of the draws.
        chunk: pairs at once; the samples are the same for any value (to rounding).

    Returns:
        ``(n, 2)`` and ``(T, n, 2)`` SBR, right first; NaN for a side that the model does not answer for.

    Raises:
        CalibrationError: the model has no dropout, or none of it acted.
    """
    modules = dropout_modules(model)
    if not modules:
        raise CalibrationError(
            "the model has no dropout",
            "dropout before the head or in the blocks",
            "Train with --dropout head or blocks",
        )
    if samples < 2:
        raise CalibrationError(f"{samples} Monte-Carlo samples", "at least 2 (100 is usual)")
    inside = any(m is not net.dropout for net in _nets(model) for m in dropout_modules(net))
    draw = _draws_of_network if inside else _draws_of_head
    points, out = [], []
    with _evaluating(model) as device:
        for x in _chunks(patches, chunk):
            point, draws = draw(model, x.to(device), samples, seed)
            points.append(point.double().cpu())
            out.append(draws.double().cpu())
    values = torch.cat(out, dim=1).numpy() * model.spec.sbr_max
    answered = [side.index for side in model.sides]
    if not (np.ptp(values[:, :, answered], axis=0) > 0).any():
        raise CalibrationError("dropout did not change a single prediction", "samples that differ", "Check the weights")
    return torch.cat(points).numpy() * model.spec.sbr_max, values


def draw_seeds(seed: int, samples: int) -> list[int]:
    """One seed a draw; the first ones do not depend on how many there are."""
    words = np.random.SeedSequence([seed, 0x6D63]).generate_state(samples, np.uint64)
    return [int(word >> 1) for word in words]


def _draws_of_head(model: PairRegressor, x: Tensor, samples: int, seed: int) -> tuple[Tensor, Tensor]:
    features = model.features(x)
    out = x.new_full((samples, len(x), 2), torch.nan)
    weights = {net: net.head.weight * _head_masks(model, net, samples, seed).to(x) for net in _nets(model)}
    for side in model.sides:
        net = model.net(side)
        assert net is not None
        out[:, :, side.index] = (features[:, side.index] @ weights[net].T + net.head.bias).T
    return model.heads(features), out


def _head_masks(model: PairRegressor, net: VggRegressor, samples: int, seed: int) -> Tensor:
    """``(T, n_features)``: the masks that the net would meet inside ``one_network_draw``, without running it."""
    i = dropout_modules(model).index(net.dropout)
    uniform, generator = torch.empty((samples, net.tower.n_features)), torch.Generator()
    for row, draw in zip(uniform, draw_seeds(seed, samples), strict=True):
        generator.manual_seed(module_seed(draw, i))
        torch.rand(len(row), generator=generator, out=row)
    return (uniform >= net.dropout.p) / (1.0 - net.dropout.p)


def _draws_of_network(model: PairRegressor, x: Tensor, samples: int, seed: int) -> tuple[Tensor, Tensor]:
    stems = [(side, net, _stem(net, x[:, side.index])) for side in model.sides if (net := model.net(side)) is not None]
    point = x.new_full((len(x), 2), torch.nan)
    for side, net, stem in stems:
        point[:, side.index] = _rest(net, stem)
    out = x.new_full((samples, len(x), 2), torch.nan)
    for t, draw in enumerate(draw_seeds(seed, samples)):
        with one_network_draw(model, draw):
            if "both" in model.nets:  # both sides in one batch: one mask for the two
                net = stems[0][1]
                out[t] = _rest(net, torch.cat([stem for _, _, stem in stems])).view(2, len(x)).T
            else:
                for side, net, stem in stems:
                    out[t, :, side.index] = _rest(net, stem)
    return point, out


def _stem(net: torch.nn.Module, x: Tensor) -> Tensor:
    """What comes before the first dropout: the first block's convolutions and pooling, most of the tower's cost."""
    x = net.preprocess(x).contiguous(memory_format=torch.channels_last_3d)  # type: ignore[operator]
    for layer in net.tower.blocks[0]:  # type: ignore[index, union-attr]
        if not isinstance(layer, SeededDropout):
            x = layer(x)
    return x


def _rest(net: torch.nn.Module, stem: Tensor) -> Tensor:
    blocks = net.tower.blocks  # type: ignore[union-attr]
    x = blocks[0].dropout(stem)  # type: ignore[index, union-attr]
    for block in blocks[1:]:  # type: ignore[index]
        x = block(x)
    out: Tensor = net.head(net.dropout(torch.flatten(x, 1)))  # type: ignore[operator]
    return out.squeeze(1)


def _nets(model: PairRegressor) -> list[VggRegressor]:
    return [net for net in model.nets.values() if isinstance(net, VggRegressor)]


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
