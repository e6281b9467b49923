"""HiResCAM: the part of a prediction that each cell of a layer contributes, signed and in SBR.

Source: Draelos and Carin, "Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural networks"
(arXiv 2011.08891). With A the layer's output and Y the SBR, a cell's value is ``sum over channels of A * dY/dA``. Where
all that follows the layer is linear or max pooling (a VGG's last block), the values and the last layer's bias add up to
Y. Elsewhere they do not have to, and the residual says by how much: in a VGG it is what the biases of the layers
between contribute.

Nothing is clipped, scaled or stretched. A cell lies where its layer's strides put it: the last convolution of the VGG
has 6 x 6 x 2 cells of 4 x 4 x 8 mm, which cover the voxels 0 to 47 and 0 to 15 of 50 and 20.

The same product at the network's input, the patch divided by its mean (less 1 where the model is ``centred``), is the
map called "gradient" (input x gradient). It is for the Vision Transformer, which has no convolutional layer after its
tokens; there it is summed over each token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from nigradat.anatomy import PATCH_SHAPE, Side, mirror
from nigradat.errors import ConfigError
from nigradat.explain.attribution import Attribution, CellGrid
from nigradat.models.head import Output, expected
from nigradat.models.symmetric import ModelSpec, PairRegressor, SideRegressor, TowerName, build_tower
from nigradat.models.weights import LoadedModel
from nigradat.pair import NigralPair
from nigradat.training.data import canonical_tensor

Array = npt.NDArray[np.float64]
Patches = npt.NDArray[np.float32]

CHUNK: Final = 8  # pairs through the network at once
VOXELS, TOKENS = "voxels", "tokens"  # where a gradient map can be taken: the network's input, or a ViT's tokens
BLOCKS: Final[Mapping[TowerName, Mapping[str, str]]] = {
    "vgg": {"third": "blocks.2.relu2", "last": "blocks.3.relu2"},
    "vgg16": {"third": "blocks.2.relu3", "last": "blocks.4.relu3"},
    "resnet18": {"third": "net.layer3", "last": "net.layer4"},
    "mobilenetv3": {"third": "layers.8", "last": "layers.12"},  # before the last stride; before the mean over voxels
    "vit": {},
}
_BLOCK_WORDS: Final = ("last", "third")
_MOST_NAMES: Final = 50  # in a message
_PATCH: Final = (PATCH_SHAPE[0], PATCH_SHAPE[1], PATCH_SHAPE[2])
_VOXEL_GRID: Final = CellGrid(_PATCH, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@dataclass(frozen=True, eq=False)
class LayerMaps:
    """The maps of many pairs at one layer.

    Attributes:
        layer: its name inside the tower, :data:`VOXELS` for the network's input.
        values: ``(n, 2, i, j, k)``, right first, in SBR, in the CANONICAL view (right sides look like left ones); NaN
            for a side that the model does not answer for.
        grids: where the cells lie in the canonical view, right and left. They differ only in a model that undoes the
            mirroring.
        prediction: ``(n, 2)``, the model's SBR without dropout.
        baseline: ``(2,)``, the last layer's bias as SBR: the prediction where all features are 0.
    """

    layer: str
    values: Array
    grids: tuple[CellGrid, CellGrid]
    prediction: Array
    baseline: Array

    @property
    def residual(self) -> Array:
        """``(n, 2)``: prediction - baseline - sum of the map."""
        left: Array = self.prediction - self.baseline - self.values.sum(axis=(2, 3, 4))
        return left

    def on_voxels(self) -> Array:
        """The maps in SBR per voxel of the canonical patch, ``(n, 2, 50, 50, 20)``; each sum is kept."""
        return np.stack([self.grids[s.index].shared_out(self.values[:, s.index]) for s in Side], axis=1)

    def attribution(self, row: int, side: Side, patch_affine: npt.ArrayLike) -> Attribution:
        """One map in native view, placed by the affine of the patch that it explains."""
        values, grid = self.values[row, side.index], self.grids[side.index]
        if side is Side.RIGHT:
            values, grid = mirror(values), grid.mirrored()
        return Attribution(
            method="gradient" if self.layer in (VOXELS, TOKENS) else "hirescam",
            side=side,
            values=np.array(values),
            affine=grid.affine(patch_affine),
            prediction=float(self.prediction[row, side.index]),
            baseline=float(self.baseline[side.index]),
            layer=None if self.layer == VOXELS else self.layer,
        )


def hirescam(
    loaded: LoadedModel, pair: NigralPair, layers: Sequence[str] | None = None, sides: Sequence[Side] = tuple(Side)
) -> list[Attribution]:
    """Which parts of both patches carry the prediction.

    Args:
        loaded: any model with a convolutional tower.
        pair: not changed.
        layers: ``last``, ``third`` or names as :func:`layer_grids` gives them; default the last and the third block.
        sides: of which the model's own are taken.

    Returns:
        One map a layer and side, in native view.

    Raises:
        ConfigError: a layer that the tower does not have, or a tower without convolutional blocks (``vit``).

    Example:
        >>> maps = nigradat.hirescam(nigradat.load("run"), pair)                                # doctest: +SKIP
        >>> [(m.side, m.layer, m.values.sum(), m.residual) for m in maps]                       # doctest: +SKIP
    """
    names = [layer_name(loaded.spec, layer) for layer in (layers or _BLOCK_WORDS)]
    return _of_pair(loaded, pair, names, sides)


def gradient_maps(loaded: LoadedModel, pair: NigralPair, sides: Sequence[Side] = tuple(Side)) -> list[Attribution]:
    """Input x gradient on the voxels, or on the tokens of a Vision Transformer. For any model.

    The input is the normalised patch, not the raw one: a prediction does not depend on the patch's scale, so over the
    raw voxels the products would add up to 0 (Euler's theorem).
    """
    return _of_pair(loaded, pair, [TOKENS if loaded.spec.tower == "vit" else VOXELS], sides)


def _of_pair(loaded: LoadedModel, pair: NigralPair, layers: Sequence[str], sides: Sequence[Side]) -> list[Attribution]:
    found = attributions(loaded, pair.patches[None], layers)
    answered = [side for side in sides if side in loaded.model.sides]
    return [maps.attribution(0, side, pair.affines[side.index]) for maps in found.values() for side in answered]


def attributions(
    loaded: LoadedModel, patches: Patches, layers: Sequence[str] | None = None, *, chunk: int = CHUNK
) -> dict[str, LayerMaps]:
    """The maps of many pairs: one forward and one backward pass a batch, for all layers and both sides.

    The network is in evaluation mode (no dropout) meanwhile, and afterwards as it was, errors included. The sides of a
    patient do not meet: what is in one patch does not change the other side's map.

    Args:
        loaded: model.
        patches: native, ``(n, 2, 50, 50, 20)``, right first; not changed.
        layers: as for :func:`hirescam`, or :data:`VOXELS` or :data:`TOKENS`; default the last and the third block.
        chunk: pairs at once; the maps are the same for any value (to rounding).

    Returns:
        The maps by the layer's full name, in the order asked for.

    Raises:
        ConfigError: a layer that the tower does not have, or patches of another shape.
    """
    if patches.ndim != 5 or patches.shape[1:] != (2, *PATCH_SHAPE) or not len(patches):
        raise ConfigError(f"patches of shape {patches.shape}", f"(n, 2, {', '.join(map(str, PATCH_SHAPE))})")
    model, spec = loaded.model, loaded.spec
    names = list(dict.fromkeys(layer_name(spec, layer) for layer in (layers or _BLOCK_WORDS)))
    predicted = np.full((len(patches), 2), np.nan)
    values = {name: np.full((len(patches), 2, *_grid(spec.tower, spec.widths, name).shape), np.nan) for name in names}
    with at_rest(model) as device:
        for start in range(0, len(patches), chunk):
            rows = slice(start, start + chunk)
            x = model.as_seen(canonical_tensor(patches[rows]).to(device))
            for net, sides in _nets(model):
                together = torch.cat([x[:, side.index] for side in sides])
                sbr, maps = _take_apart(net, together, names, spec.output, spec.sbr_max)
                for i, side in enumerate(sides):
                    own = slice(i * len(x), (i + 1) * len(x))
                    predicted[rows, side.index] = sbr[own]
                    for name in names:
                        values[name][rows, side.index] = maps[name][own]
        baseline = np.array([_bias(model.net(side), spec.output, spec.sbr_max) for side in Side])
    out = {}
    for name in names:
        seen = _grid(spec.tower, spec.widths, name)
        canonical = seen
        if not spec.mirrored:  # the network saw the right patch as it is
            values[name][:, Side.RIGHT.index] = mirror(values[name][:, Side.RIGHT.index]).copy()
            canonical = seen.mirrored()
        out[name] = LayerMaps(name, values[name], (canonical, seen), predicted, baseline)
    return out


def layer_name(spec: ModelSpec, layer: str) -> str:
    """The full name of a layer: what ``last`` and ``third`` stand for, or the name itself where the tower has it.

    Raises:
        ConfigError: it has not; the layers there are are named.
    """
    tower, there = spec.tower, layer_grids(spec.tower, spec.widths)
    name = BLOCKS[tower].get(layer, layer).removeprefix("tower.")
    if name == VOXELS or name in there:
        return name
    if layer in _BLOCK_WORDS:
        raise ConfigError(
            f"the {layer} block of the tower '{tower}', which has no convolutional blocks",
            ", ".join((VOXELS, *there)),
            "Ask for gradient maps (--method gradient)",
        )
    shown, rest = list(there), ""
    if len(shown) > _MOST_NAMES:
        shown, rest = [name for name in there if name.count(".") <= 1], ", or a layer inside these"
    raise ConfigError(
        f"the tower '{tower}' has no layer '{layer}' with a place in the image",
        f"one of {', '.join((*BLOCKS[tower], VOXELS, *shown))}{rest}",
    )


def layer_in_words(tower: TowerName, layer: str | None) -> str:
    """What a reader calls a layer: ``last block (blocks.3.relu2)``, ``layer blocks.1.pool``, ``voxels``."""
    if layer in (None, VOXELS, TOKENS):
        return layer or VOXELS
    words = [word for word, name in BLOCKS[tower].items() if name == layer]
    return f"{words[0]} block ({layer})" if words else f"layer {layer}"


@cache
def layer_grids(tower: TowerName, widths: tuple[int, ...]) -> Mapping[str, CellGrid]:
    """The layers of a tower whose output has a place in the image, in the order of execution, and where its cells lie.

    A layer's step is the product of the strides before it, and its first cell is at the middle of what that cell sees
    (its receptive field, borders apart). Measured by a patch sent through a network without values.

    Raises:
        MissingExtraError: the tower is MONAI's, and MONAI is not installed.
    """
    with torch.random.fork_rng(devices=()), torch.device("meta"):
        network = build_tower(tower, widths).eval()
    known = {_PATCH: _VOXEL_GRID}  # every change of resolution makes a shape that was not there before
    names = {module: name for name, module in network.named_modules() if name}
    found: dict[str, CellGrid] = {}

    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
        if not isinstance(output, Tensor) or output.ndim != 5:
            return
        before, after = _spatial(inputs[0]), _spatial(output)
        if isinstance(module, nn.Conv3d | nn.MaxPool3d) and before in known:
            known.setdefault(after, _after(known[before], module, after))
        if after in known:
            found[names[module]] = known[after]

    handles = [module.register_forward_hook(record) for module in names]
    try:
        with torch.no_grad():
            network(torch.ones(1, 1, *PATCH_SHAPE, device="meta"))
    finally:
        for handle in handles:
            handle.remove()
    return found


def _spatial(x: Tensor) -> tuple[int, int, int]:
    i, j, k = x.shape[2:]
    return i, j, k


def _after(grid: CellGrid, module: nn.Conv3d | nn.MaxPool3d, shape: tuple[int, int, int]) -> CellGrid:
    kernel, stride, padding = (
        (value,) * 3 if isinstance(value, int) else tuple(map(int, value))
        for value in (module.kernel_size, module.stride, module.padding)
    )
    first = [f + ((k - 1) / 2 - p) * s for f, s, k, p in zip(grid.first, grid.step, kernel, padding, strict=True)]
    step = [s * by for s, by in zip(grid.step, stride, strict=True)]
    return CellGrid(shape, (first[0], first[1], first[2]), (step[0], step[1], step[2]))


def _grid(tower: TowerName, widths: tuple[int, ...], layer: str) -> CellGrid:
    return _VOXEL_GRID if layer == VOXELS else layer_grids(tower, widths)[layer]


@contextmanager
def captured(layers: Mapping[str, nn.Module]) -> Iterator[Mapping[str, list[Tensor]]]:
    """What layers put out inside the block: for each a list with one entry A CALL, in the order of the calls.

    A shared tower may be called once for each side; its outputs must not be mixed up, and the last call must not stand
    for all. The gradient of anything made of an entry can be asked for that very entry. Nothing before the layers is
    recorded for a gradient where nothing before them needs one. The hooks go at the end of the block, errors included.
    """
    calls: dict[str, list[Tensor]] = {name: [] for name in layers}

    def keeper(kept: list[Tensor]) -> Callable[[nn.Module, Any, Tensor], Tensor]:
        def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
            kept.append(output if output.requires_grad else output.detach().requires_grad_())
            return kept[-1].clone()  # an activation that works in place must not overwrite what is kept

        return keep

    handles = [module.register_forward_hook(keeper(calls[name])) for name, module in layers.items()]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _take_apart(
    net: SideRegressor, x: Tensor, layers: Sequence[str], output: Output, sbr_max: float
) -> tuple[Array, dict[str, Array]]:
    """SBR ``(B,)`` of patches ``(B, 1, 50, 50, 20)`` as the net sees them, and each layer's maps ``(B, i, j, k)``."""
    seen = net.preprocess(x)
    if VOXELS in layers:
        seen.requires_grad_()
    with captured({name: net.tower.get_submodule(name) for name in layers if name != VOXELS}) as calls:
        sbr = expected(net.head(net.dropout(net.tower(seen))), output) * sbr_max
    # an activation that a block uses twice in one pass stands for the block's output
    kept = [seen if name == VOXELS else calls[name][-1] for name in layers]
    # patches of a batch do not meet in the network: the gradient of the sum is each one's own
    gradients = torch.autograd.grad(sbr.sum(), kept)
    maps = {
        name: (a.detach() * gradient).sum(dim=1).double().cpu().numpy()
        for name, a, gradient in zip(layers, kept, gradients, strict=True)
    }
    return sbr.detach().double().cpu().numpy(), maps


def _bias(net: SideRegressor | None, output: Output, sbr_max: float) -> float:
    return float("nan") if net is None else float(expected(net.head.bias, output)) * sbr_max


def _nets(model: PairRegressor) -> list[tuple[SideRegressor, tuple[Side, ...]]]:
    """Each network with the sides that it answers for."""
    if model.spec.sharing == "shared":
        both = model.net(Side.RIGHT)
        assert both is not None
        return [(both, tuple(Side))]
    return [(net, (side,)) for side in model.sides if (net := model.net(side)) is not None]


@contextmanager
def at_rest(model: PairRegressor) -> Iterator[torch.device]:
    """Evaluation mode, gradients on but of no weight; afterwards as it was, errors included."""
    modes = {module: module.training for module in model.modules()}
    learning = {parameter: parameter.requires_grad for parameter in model.parameters()}
    try:
        model.eval()
        model.requires_grad_(False)
        with torch.enable_grad():
            yield next(iter(learning)).device
    finally:
        for module, mode in modes.items():
            module.training = mode
        for parameter, before in learning.items():
            parameter.requires_grad_(before)
