"""The layer table of one side's regressor, as the paper prints it, with what each layer costs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import nn

from nigradat.anatomy import PATCH_SHAPE
from nigradat.models.dropout import SeededDropout
from nigradat.models.symmetric import SideRegressor
from nigradat.models.vit import Positions, SelfAttention

_ACTIVATIONS = {nn.ReLU: "ReLU", nn.GELU: "GELU", nn.Hardswish: "hard-swish", nn.Hardsigmoid: "hard-sigmoid"}
_NAMES = {
    nn.Linear: "Dense",
    nn.Flatten: "Flatten",
    nn.BatchNorm3d: "BatchNorm",
    nn.LayerNorm: "LayerNorm",
    nn.AdaptiveAvgPool3d: "Mean over voxels",
    Positions: "Positions",
    SelfAttention: "Attention products",
}


@dataclass(frozen=True)
class LayerRow:
    """One layer: its output shape (channels last, as in the paper), parameters and multiply-accumulates a patch.

    Multiply-accumulates are those of convolutions, dense layers and attention; normalisations, activations, poolings
    and sums are left out, as is usual.
    """

    name: str
    kind: str
    output: tuple[int, ...]
    parameters: int
    macs: int


def layer_table(net: SideRegressor) -> list[LayerRow]:
    """Layers of one side's regressor in the order of execution, measured by sending a patch through it.

    An activation is part of the row before it, and dropout that drops nothing is left out. Parameters and
    multiply-accumulates are each counted in one row only, so their sums are those of the network. On the device "meta"
    nothing is computed, and the table is the same.
    """
    rows = [LayerRow("input", "Input", (*PATCH_SHAPE, 1), 0, 0)]
    names = {module: name for name, module in net.named_modules()}

    def record(module: nn.Module, _: object, output: torch.Tensor) -> None:
        if type(module) in _ACTIVATIONS:
            rows[-1] = replace(rows[-1], kind=f"{rows[-1].kind}, {_ACTIVATIONS[type(module)]}")
            return
        shape = tuple(output.shape[1:])
        shown = (*shape[1:], shape[0]) if len(shape) == 4 else shape
        own = sum(p.numel() for p in module.parameters(recurse=False))
        rows.append(LayerRow(names[module], _kind(module), shown, own, _macs(module, output)))

    training = net.training
    handles = [m.register_forward_hook(record) for m in net.modules() if _has_row(m) or type(m) in _ACTIVATIONS]
    try:
        net.eval()
        with torch.no_grad():
            net(torch.ones(1, 1, *PATCH_SHAPE, device=net.head.weight.device))
    finally:
        net.train(training)
        for handle in handles:
            handle.remove()
    return rows


def _has_row(module: nn.Module) -> bool:
    if isinstance(module, SeededDropout):
        return module.p > 0
    return any(True for _ in module.parameters(recurse=False)) or isinstance(module, (nn.MaxPool3d, *_NAMES))


def _kind(module: nn.Module) -> str:
    if isinstance(module, nn.Conv3d):
        depthwise = "depthwise " if module.groups > 1 else ""
        stride = "" if set(module.stride) == {1} else f", stride {_lengths(module.stride)}"
        return f"Conv3D {depthwise}{_lengths(module.kernel_size)}{stride}"
    if isinstance(module, nn.MaxPool3d):
        return f"MaxPool3D {_lengths(module.kernel_size)}"
    if isinstance(module, SeededDropout):
        return f"Dropout {module.p:g}"
    return _NAMES.get(type(module), type(module).__name__)


def _lengths(value: int | tuple[int, ...]) -> str:
    return "x".join(map(str, (value,) * 3 if isinstance(value, int) else value))


def _macs(module: nn.Module, output: torch.Tensor) -> int:
    if isinstance(module, nn.Conv3d):
        return output[0].numel() * module.in_channels // module.groups * math.prod(module.kernel_size)
    if isinstance(module, nn.Linear):
        return output[0].numel() * module.in_features
    if isinstance(module, SelfAttention):  # queries with keys, weights with values
        tokens, dimension = output.shape[1:]
        return 2 * tokens * tokens * dimension
    return 0
