"""SHAP maps: how much each voxel moved a side's SBR away from the mean prediction of some background patients.

Two estimators of the same thing, whose maps of a side add up to prediction minus baseline:

* ``deepshap`` (Lundberg and Lee, NeurIPS 2017): the DeepLIFT multipliers (Shrikumar et al., ICML 2017, rescale rule)
  against each background patient, averaged. Exact, one pass forth and back for each background patient, for towers
  that consist of convolutions, dense layers, batch normalisations, ReLU, poolings and sums.
* ``expected-gradients`` (Erion et al., Nature Machine Intelligence 2021, 3, 620): the gradient at random places
  between the patient and random background patients. For every tower; the sum is right but for the sampling error,
  which the map's residual tells.

The voxels are those of the NORMALISED patch, as the net sees it: divided by its own mean, which itself is not taken
apart. A voxel twice as bright also lowers all others through the mean; that is not in the map.

Both work on a model as it is and leave nothing on it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from nigradat.anatomy import PATCH_SHAPE, Side, to_canonical
from nigradat.errors import ConfigError
from nigradat.explain.attribution import Attribution
from nigradat.explain.hirescam import at_rest
from nigradat.models.head import Output, expected, log_normal, log_normal_mean
from nigradat.models.symmetric import PairRegressor, SideRegressor
from nigradat.models.weights import LoadedModel
from nigradat.pair import NigralPair, check_patch

Method = Literal["deepshap", "expected-gradients"]
METHODS: Final[tuple[Method, ...]] = get_args(Method)
Patches = npt.NDArray[np.float32]

_AFFINE_LAYERS: Final = (
    nn.Conv3d,
    nn.Linear,
    nn.BatchNorm3d,
    nn.AvgPool3d,
    nn.AdaptiveAvgPool3d,
    nn.Flatten,
    nn.Identity,
)
_AFFINE_FUNCTIONS: Final = (operator.add, operator.iadd, torch.add, torch.flatten)
_AFFINE_METHODS: Final = ("view", "reshape", "flatten", "contiguous", "size")
_NEAR: Final = 1e-6  # below this difference of an activation's inputs its slope stands for the quotient, as in shap


def shap_attributions(
    loaded: LoadedModel,
    pair: NigralPair,
    background: Patches,
    *,
    method: Method,
    seed: int = 0,
    chunk: int = 8,
    draws: int = 200,
) -> list[Attribution]:
    """Signed SBR of every voxel of both patches.

    Args:
        loaded: model; left as it was, also after an error.
        pair: whose SBR is taken apart.
        background: native patches of other patients, ``(n, 2, 50, 50, 20)``, right first: a side is held against the
            same side of these. Some tens of patients that trained the model are usual.
        method: ``deepshap`` or ``expected-gradients``.
        seed: of the expected gradients' draws; DeepSHAP draws nothing.
        chunk: patches sent through the net at once. It bounds the memory and changes nothing else but rounding.
        draws: gradients that are averaged; each background patient is drawn equally often, as far as that divides.

    Returns:
        One map a side that the model answers for, right first: ``(50, 50, 20)`` on the patch grid, native view, with
        the mean prediction over the background as baseline. ``residual`` is 0 to rounding for DeepSHAP.

    Raises:
        ConfigError: unknown method, no background, numbers below 1, or a tower with layers that DeepSHAP has no rule
            for (named in the message).
        ImageError: a background patch that is no measurement.

    Example:
        >>> loaded, cohort = nigradat.load("run"), nigradat.load_cohort("cohort")               # doctest: +SKIP
        >>> others = np.stack([cohort.read(row) for row in range(1, 31)])                       # doctest: +SKIP
        >>> maps = shap_attributions(loaded, cohort.pair(0), others, method="deepshap")         # doctest: +SKIP
    """
    _check(background, method, chunk, draws)
    model = loaded.model
    shown, others = _as_seen(model, pair.patches[None]), _as_seen(model, background)
    # the right side's map in the view of the net, then in that of the pair; a side without an answer stays zero
    maps = torch.zeros((1, *shown.shape[1:]), dtype=torch.float64)
    answers: dict[Side, list[float]] = {}
    dtype = next(model.parameters()).dtype
    with at_rest(model) as device:
        for side in model.sides:
            net = model.net(side)
            assert net is not None
            with torch.no_grad():
                x, refs = (net.preprocess(t[:, side.index].to(device, dtype)) for t in (shown, others))
            if method == "deepshap":
                values, *answers[side] = _deepshap(net, model.spec.output, x, refs, chunk)
            else:
                values, *answers[side] = _expected_gradients(net, model.spec.output, x, refs, draws, chunk, seed)
            maps[0, side.index] = values.cpu()
    scale = model.spec.sbr_max
    # both steps are their own inverse
    native = to_canonical(model.as_seen(maps).squeeze(2).numpy())[0] * scale
    return [
        Attribution(
            method=method,
            side=side,
            values=native[side.index],
            affine=pair.affines[side.index],
            prediction=prediction * scale,
            baseline=baseline * scale,
        )
        for side, (prediction, baseline) in answers.items()
    ]


def _check(background: Patches, method: str, chunk: int, draws: int) -> None:
    if method not in METHODS:
        raise ConfigError(f"the method '{method}'", " or ".join(METHODS))
    if background.ndim != 5 or background.shape[1:] != (2, *PATCH_SHAPE) or not len(background):
        raise ConfigError(
            f"a background of shape {background.shape}",
            f"at least one pair, (n, 2, {', '.join(map(str, PATCH_SHAPE))})",
        )
    for name, value in (("chunk", chunk), ("draws", draws)):
        if value < 1:
            raise ConfigError(f"{name} = {value}", "at least 1")
    for i, both in enumerate(background):
        for side in Side:
            check_patch(both[side.index], f"{side.value} patch of background pair {i}")


def _as_seen(model: PairRegressor, patches: Patches) -> Tensor:
    """Native ``(n, 2, 50, 50, 20)`` as the nets see it before its normalisation, ``(n, 2, 1, 50, 50, 20)``."""
    canonical = to_canonical(np.asarray(patches, dtype=np.float32))
    return model.as_seen(torch.from_numpy(canonical).unsqueeze(2))


# -- Expected gradients -------------------------------------------------------------------------------------------


def _expected_gradients(
    net: SideRegressor, output: Output, x: Tensor, refs: Tensor, draws: int, chunk: int, seed: int
) -> tuple[Tensor, float, float]:
    """Mean of ``(x - r) * gradient(r + a (x - r))`` over background patches r and places a.

    Both are drawn evenly (a Latin hypercube): the mean is that of independent draws, its scatter is smaller.

    Args and returns: as :func:`_deepshap`.
    """

    def answer(batch: Tensor) -> Tensor:
        return expected(net.head(net.tower(batch)), output)

    rng = np.random.default_rng([seed, 0x4547])
    order = np.concatenate([rng.permutation(len(refs)) for _ in range(-(-draws // len(refs)))])[:draws]
    places = (rng.permutation(draws) + rng.uniform(size=draws)) / draws
    total = torch.zeros(x.shape[1:], dtype=torch.float64, device=x.device)
    for start in range(0, draws, chunk):
        r = refs[torch.from_numpy(order[start : start + chunk]).to(x.device)]
        a = torch.from_numpy(places[start : start + chunk]).to(x).view(-1, 1, 1, 1, 1)
        point = (r + a * (x - r)).requires_grad_()
        (gradient,) = torch.autograd.grad(answer(point).sum(), point)
        total += ((x - r) * gradient).double().sum(dim=0)
    with torch.no_grad():
        baseline = torch.cat([answer(part) for part in torch.split(refs, chunk)]).double().mean()
        return total / draws, float(answer(x)), float(baseline)


# -- DeepSHAP -----------------------------------------------------------------------------------------------------


def _deepshap(net: SideRegressor, output: Output, x: Tensor, refs: Tensor, chunk: int) -> tuple[Tensor, float, float]:
    """Mean of ``(x - r) * multiplier`` over the background patches r.

    Args:
        net: in evaluation mode.
        output: what its outputs mean.
        x: the normalised patch, ``(1, 1, 50, 50, 20)``.
        refs: the normalised background, ``(n, 1, 50, 50, 20)``.
        chunk: patches at once.

    Returns:
        ``(1, 50, 50, 20)`` float64, the answer for the patch, and its mean over the background; normalised SBR.
    """
    tower = _Multipliers(net.tower)
    total = torch.zeros(x.shape[1:], dtype=torch.float64, device=x.device)
    prediction, baseline = 0.0, 0.0
    for r in torch.split(refs, chunk):
        point = torch.cat([x, r]).requires_grad_()
        answer = _expected_rescaled(net.head(tower.run(point)), output)
        (multiplier,) = torch.autograd.grad(answer[1:].sum(), point)
        total += ((x - r) * multiplier[1:]).double().sum(dim=0)
        prediction = float(answer[0].detach())
        baseline += float(answer[1:].detach().double().sum())
    return total / len(refs), prediction, baseline / len(refs)


def _expected_rescaled(raw: Tensor, output: Output) -> Tensor:
    """:func:`nigradat.models.head.expected` in steps of one number each, for which the rescale rule is exact."""
    if output == "sbr":
        return expected(raw, output)
    half_variance = _rescaled(raw[:, 1], lambda s: log_normal(torch.stack([s, s], dim=-1))[1] ** 2 / 2)
    return _rescaled(raw[:, 0] + half_variance, lambda log: log_normal_mean(log, torch.zeros_like(log)))


# From here on the FIRST patch of a batch is the one explained and the others are its references. The backward pass
# gives each reference the multiplier of its difference from the first patch, and the first patch nothing.


class _Multipliers(fx.Interpreter):
    """Runs a tower layer by layer, ReLU and max pooling with DeepLIFT's rules in the backward pass.

    The tower's own modules are called, and none of them is changed.
    """

    def __init__(self, tower: nn.Module) -> None:
        try:
            graph = fx.symbolic_trace(tower)
        except fx.proxy.TraceError as error:
            raise _no_rule(type(tower).__name__, "") from error
        super().__init__(graph)
        # layers first: their names say more than those of functions between them
        for node in sorted(graph.graph.nodes, key=lambda node: bool(node.op != "call_module")):
            self._check(node)

    def _check(self, node: fx.Node) -> None:
        if node.op == "call_module":
            layer = self.fetch_attr(str(node.target))
            if not isinstance(layer, (*_AFFINE_LAYERS, nn.ReLU, nn.MaxPool3d)):
                raise _no_rule(type(layer).__name__, f"tower.{node.target}")
        elif (node.op == "call_function" and node.target not in _AFFINE_FUNCTIONS) or (
            node.op == "call_method" and node.target not in _AFFINE_METHODS
        ):
            raise _no_rule(getattr(node.target, "__name__", str(node.target)), str(node.name))

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One layer of the tower."""
        layer = self.fetch_attr(target)
        if isinstance(layer, nn.ReLU):
            return _rescaled(args[0], torch.relu)
        if isinstance(layer, nn.MaxPool3d):
            return _MaxPool.apply(args[0], layer)  # type: ignore[no-untyped-call]  # missing in torch's stubs
        return super().call_module(target, args, kwargs)


def _no_rule(kind: str, place: str) -> ConfigError:
    return ConfigError(
        f"DeepSHAP has no rule for the layer {kind}" + (f" ({place})" if place else ""),
        "a tower of convolutions, dense layers, batch normalisations, ReLU, poolings and sums",
        "Take the method expected-gradients, which works with every tower",
    )


def _rescaled(x: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
    """``f`` of each number by itself, with the rescale rule in the backward pass."""
    out: Tensor = _Rescaled.apply(x, f)  # type: ignore[no-untyped-call]  # missing in torch's stubs
    return out


class _Rescaled(torch.autograd.Function):
    """DeepLIFT's rescale rule: the multiplier of a number is its difference after ``f`` over that before."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.f = f
        ctx.save_for_backward(x)
        return f(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        y = ctx.f(x)  # made again: it costs little, and keeping it would take as much memory as all else
        before = x[:1] - x[1:]
        near = before.abs() < _NEAR
        slope = (y[:1] - y[1:]).div_(before.masked_fill_(near, 1.0))
        if bool(near.any()):
            with torch.enable_grad():
                there = x[1:].detach().requires_grad_()
                (gradient,) = torch.autograd.grad(ctx.f(there).sum(), there)
            slope = torch.where(near, gradient, slope)
        return _for_references(slope.mul_(grads[0][1:])), None


class _MaxPool(torch.autograd.Function):
    """Max pooling with the rule of the package shap (DeepExplainer), under which the parts add up.

    A maximum that is higher than the reference's rose at the patch's largest voxel; one that is lower fell at the
    reference's largest voxel. That voxel's own difference is at least as large and has the same sign.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: nn.MaxPool3d) -> Tensor:
        y, where = functional.max_pool3d(
            x, layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.ceil_mode, return_indices=True
        )
        ctx.save_for_backward(x, y, where)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        x, y, where = ctx.saved_tensors
        change = y[:1] - y[1:]
        cause = torch.where(change > 0, where[:1], where[1:])
        parts = torch.zeros_like(x[1:], memory_format=torch.contiguous_format)
        # windows may overlap, so one voxel may be the largest of several
        parts.flatten(2).scatter_add_(2, cause.flatten(2), (grads[0][1:] * change).flatten(2))
        before = x[:1] - x[1:]
        return _for_references(torch.where(before == 0, 0.0, parts / before)), None


def _for_references(multipliers: Tensor) -> Tensor:
    """The gradient of a whole batch: nothing for the first patch."""
    return torch.cat([torch.zeros_like(multipliers[:1]), multipliers])
