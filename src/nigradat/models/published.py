"""The published nets (github awjibon/mri_dat): their weights out of a TensorFlow SavedModel, in torch's layout.

Only the small per-side nets were published with weights: eight 3 x 3 x 3 convolutions with 16, 16, 32, 32, 64, 64, 128
and 128 channels, a pooling after each two, and one dense layer 1152 -> 1 (879,889 parameters). The weights are under
GPL-3.0; whoever imports them has to keep to that licence. This module carries none of them.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from nigradat.anatomy import PATCH_SHAPE, Side
from nigradat.errors import WeightsError
from nigradat.io.files import sha256_of
from nigradat.io.tensorflow_bundle import read_bundle

CHANNELS: Final = (16, 16, 32, 32, 64, 64, 128, 128)
LICENCE: Final = "GPL-3.0"
SOURCE: Final = "https://github.com/awjibon/mri_dat"
_POOLINGS: Final = 4
_POOLED_SHAPE: Final = tuple(n // 2**_POOLINGS for n in PATCH_SHAPE)  # (3, 3, 1)
_KEY: Final = re.compile(r"layer_with_weights-(\d+)/(kernel|bias)/\.ATTRIBUTES/VARIABLE_VALUE")


@dataclass(frozen=True, eq=False)
class PublishedNet:
    """Weights of one published per-side net, float32, in torch's layout.

    Attributes:
        side: whose patches it was trained on. The right one's net saw mirrored patches, as every net here.
        convolutions: eight ``(weight (out, in, 3, 3, 3), bias (out,))``.
        head_weight: ``(1, 1152)``, for features flattened in the order channel, then the three patch axes.
        head_bias: ``(1,)``.
        sha256: of the files that were read, by name.
    """

    side: Side
    convolutions: tuple[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]], ...]
    head_weight: npt.NDArray[np.float32]
    head_bias: npt.NDArray[np.float32]
    sha256: dict[str, str]

    def tower_state(self) -> dict[str, npt.NDArray[np.float32]]:
        """The convolutions under the names of :class:`nigradat.models.vgg.VggTower`'s parameters."""
        state: dict[str, npt.NDArray[np.float32]] = {}
        for i, (weight, bias) in enumerate(self.convolutions):
            layer = f"blocks.{i // 2}.conv{i % 2 + 1}"
            state |= {f"{layer}.weight": weight, f"{layer}.bias": bias}
        return state


def read_saved_model(folder: str | os.PathLike[str], side: Side | None = None) -> PublishedNet:
    """Read a published net from its SavedModel folder, without TensorFlow.

    Args:
        folder: with ``variables/variables.index`` and ``variables/variables.data-00000-of-00001`` inside.
        side: taken from the folder's name (``net_vgg_left``) if not given.

    Raises:
        WeightsError: files missing, truncated or damaged; another architecture; a name that tells no side.
    """
    base = Path(folder)
    side = side or side_of(base)
    variables = base / "variables"
    if not variables.is_dir():
        raise WeightsError(f"{base} has no folder 'variables'", "a TensorFlow SavedModel folder such as net_vgg_left")
    layers = _layers(base, read_bundle(variables / "variables"))
    *convolutions, (head_kernel, head_bias) = layers
    return PublishedNet(
        side=side,
        convolutions=tuple((_conv_weight(kernel), bias) for kernel, bias in convolutions),
        head_weight=_head_weight(head_kernel),
        head_bias=head_bias,
        sha256={path.name: sha256_of(path) for path in sorted(variables.iterdir()) if path.is_file()},
    )


def side_of(folder: Path) -> Side:
    """The side that a folder's name tells.

    Raises:
        WeightsError: it tells none, or both.
    """
    words = re.split(r"[^a-z]+", folder.resolve().name.lower())
    named = [side for side in Side if side.value in words]
    if len(named) != 1:
        raise WeightsError(
            f"the folder name {folder.name!r} tells {'both sides' if named else 'no side'}",
            "left or right as one of its words",
            "Say --side left or --side right",
        )
    return named[0]


def _layers(
    folder: Path, tensors: dict[str, npt.NDArray[np.generic]]
) -> list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
    """Kernel and bias of each layer in order, their shapes checked against the published architecture."""
    found = {(int(m[1]), m[2]): values for key, values in tensors.items() if (m := _KEY.fullmatch(key))}
    inputs = (1, *CHANNELS[:-1])
    expected: dict[tuple[int, str], tuple[int, ...]] = {
        (i, "kernel"): (3, 3, 3, n_in, n_out) for i, (n_in, n_out) in enumerate(zip(inputs, CHANNELS, strict=True))
    }
    head = len(CHANNELS)
    expected[head, "kernel"] = (int(np.prod(_POOLED_SHAPE)) * CHANNELS[-1], 1)
    expected |= {(i, "bias"): (shape[-1],) for (i, _), shape in list(expected.items())}
    wrong = [
        f"layer {i} {what} {tuple(found[i, what].shape) if (i, what) in found else 'missing'}, not {shape}"
        for (i, what), shape in sorted(expected.items())
        if (i, what) not in found or found[i, what].shape != shape or found[i, what].dtype != np.float32
    ]
    wrong += [f"layer {i} {what} is one too many" for i, what in sorted(found.keys() - expected.keys())]
    if wrong:
        raise WeightsError(
            f"{folder}: not the published architecture: {'; '.join(wrong[:4])}",
            f"3 x 3 x 3 convolutions of {', '.join(map(str, CHANNELS))} channels and a dense layer "
            f"{expected[head, 'kernel'][0]} -> 1, float32",
        )
    if bad := [f"layer {i} {what}" for (i, what) in sorted(found) if not np.isfinite(found[i, what]).all()]:
        raise WeightsError(f"{folder}: values that are no number in {', '.join(bad)}", "finite weights")
    return [(found[i, "kernel"].astype(np.float32), found[i, "bias"].astype(np.float32)) for i in range(head + 1)]


def _conv_weight(kernel: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Keras ``(3, 3, 3, in, out)`` to torch ``(out, in, 3, 3, 3)``; both libraries correlate, so nothing is flipped."""
    return np.ascontiguousarray(kernel.transpose(4, 3, 0, 1, 2))


def _head_weight(kernel: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Keras flattens with the channel last, torch with the channel first."""
    grid = kernel.reshape(*_POOLED_SHAPE, CHANNELS[-1])
    return np.ascontiguousarray(np.moveaxis(grid, -1, 0).reshape(1, -1))
