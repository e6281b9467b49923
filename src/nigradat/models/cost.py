"""The layer table of a tower, as the paper prints it, with what each layer costs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from nigradat.anatomy import PATCH_SHAPE
from nigradat.models.dropout import SeededDropout
from nigradat.models.vgg import VggRegressor


@dataclass(frozen=True)
class LayerRow:
    """One layer: its output shape (channels last, as in the paper), parameters and multiply-accumulates a patch."""

    name: str
    kind: str
    output: tuple[int, ...]
    parameters: int
    macs: int


def layer_table(net: VggRegressor) -> list[LayerRow]:
    """Layers of one side's regressor in the order of execution, measured by sending a patch through it.

    ReLU is part of its convolution's row, and dropout that drops nothing is left out.
    """
    rows: list[LayerRow] = []
    names = {module: name for name, module in net.named_modules()}

    def record(module: nn.Module, _: object, output: torch.Tensor) -> None:
        shape = tuple(output.shape[1:])
        kind = type(module).__name__
        macs = 0
        if isinstance(module, nn.Conv3d):
            kind = f"Conv3D {'x'.join(map(str, module.kernel_size))}, ReLU"
            macs = output[0].numel() * module.in_channels * math.prod(module.kernel_size)
        elif isinstance(module, nn.MaxPool3d):
            kind = "MaxPool3D 2x2x2"
        elif isinstance(module, SeededDropout):
            kind = f"Dropout {module.p:g}"
        elif isinstance(module, nn.Linear):
            kind, macs = "Dense", module.in_features * module.out_features
        shown = (*shape[1:], shape[0]) if len(shape) == 4 else shape
        rows.append(LayerRow(names[module], kind, shown, sum(p.numel() for p in module.parameters()), macs))

    wanted = (nn.Conv3d, nn.MaxPool3d, nn.Linear)
    handles = [
        m.register_forward_hook(record)
        for m in net.modules()
        if isinstance(m, wanted) or (isinstance(m, SeededDropout) and m.p > 0)
    ]
    training = net.training
    try:
        net.eval()
        with torch.no_grad():
            net(torch.ones(1, 1, *PATCH_SHAPE))
    finally:
        net.train(training)
        for handle in handles:
            handle.remove()
    flat = LayerRow("flatten", "Flatten", (net.tower.n_features,), 0, 0)
    head = next(i for i, row in enumerate(rows) if row.kind == "Dense" or row.name == "dropout")
    return [LayerRow("input", "Input", (*PATCH_SHAPE, 1), 0, 0), *rows[:head], flat, *rows[head:]]
