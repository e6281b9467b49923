"""The published nets (github awjibon/mri_dat): their weights out of a TensorFlow SavedModel, in torch's layout.

Only the small per-side nets were published with weights: eight 3 x 3 x 3 convolutions with 16, 16, 32, 32, 64, 64, 128
and 128 channels, a pooling after each two, and one dense layer 1152 -> 1 (879,889 parameters). The weights are under
GPL-3.0; whoever imports them has to keep to that licence. This module carries none of them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from nigradat.anatomy import PATCH_SHAPE, Side
from nigradat.errors import WeightsError
from nigradat.io.files import new_folder, sha256_of
from nigradat.io.tensorflow_bundle import read_bundle
from nigradat.models.symmetric import ModelSpec, PairRegressor, Sharing
from nigradat.models.weights import save_model

CHANNELS: Final = (16, 16, 32, 32, 64, 64, 128, 128)
LICENCE: Final = "GPL-3.0"
SOURCE: Final = "https://github.com/awjibon/mri_dat"
# evaluation state that the authors saved with the weights, in units of SBR / 6.84 (RMSE .950 and .723 SBR)
PUBLISHED_MSE: Final = {Side.RIGHT: 0.019276, Side.LEFT: 0.011175}
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
    # not resolve(): the name that was given counts, not that of what a link leads to
    words = re.split(r"[^a-z]+", Path(os.path.abspath(folder)).name.lower())
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


def import_published(
    folders: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str], side: Side | None = None
) -> Path:
    """Published SavedModel folders (one side, or both in any order) to a model folder that ``predict`` takes.

    Args:
        folders: one or two.
        out: a new folder.
        side: of a single folder whose name tells none.

    Returns:
        The model folder. Its card carries the weights' own licence, GPL-3.0.

    Raises:
        WeightsError: unreadable folders, or two of the same side.
        OutputError: ``out`` is in use.

    Example:
        >>> nigradat.import_published(["net_vgg_left"], "published")                            # doctest: +SKIP
    """
    import torch

    nets = [read_saved_model(folder, side if len(folders) == 1 else None) for folder in folders]
    sides = [net.side for net in nets]
    if not 1 <= len(nets) <= 2 or len(set(sides)) != len(sides):
        raise WeightsError(
            f"{len(nets)} folders for {', '.join(s.value for s in sides)}", "one folder, or one right and one left"
        )
    sharing: Sharing = "separate" if len(nets) == 2 else ("right" if sides[0] is Side.RIGHT else "left")
    spec = ModelSpec(widths=CHANNELS[::2], sharing=sharing, head_dropout=0.0, centred=False, init="glorot")
    model = PairRegressor(spec)
    for net in nets:
        target = model.net(net.side)
        assert target is not None
        target.tower.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in net.tower_state().items()})
        target.head.load_state_dict(
            {"weight": torch.from_numpy(net.head_weight.copy()), "bias": torch.from_numpy(net.head_bias.copy())}
        )
    with new_folder(out) as hidden:
        save_model(
            hidden,
            model,
            {
                "name": "published",
                "title": f"published VGG-small ({', '.join(s.value for s in sides)})",
                "source": SOURCE,
                "licence": f"{LICENCE} (the authors' release; it binds whoever passes these weights on)",
                "training": {
                    "kind": "patients",
                    "provenance": {
                        "kind": "patients",
                        "note": "trained by the authors on SMWI of Philips Ingenia 3 T scanners; "
                        "which patients is not published",
                        "files_sha256": {net.side.value: net.sha256 for net in nets},
                    },
                },
                "sbr_scale": {
                    "tracer": ["123I-FP-CIT"],
                    "spect_device": ["Trionix XLT"],
                    "spect_software": ["DATquant (Xeleris 3.1)"],
                    "min": 0.43,
                    "max": 6.84,
                },
                "metrics": {
                    "on": "stored by the authors with the weights, 55 cases",
                    **{f"mse_{s.value}": PUBLISHED_MSE[s] for s in sides},
                },
            },
        )
    return Path(out)
