"""Augmentation of a batch of pairs: parameters are drawn first, then applied, so that any batch can be made again.

Torch alone. In-plane movement is one bicubic resampling (the planes are isotropic; trilinear would blur the noise
texture that tells real patches), slices move by whole steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Augmentation:
    """How far a training patch may be moved; not at all unless said. The sizes in use are those of the training recipe.

    Attributes:
        probability: that a patch is moved at all (shifts, rotation, zoom); noise and gain come on top of that for all.
        shift_voxels: largest shift in plane (0.5 mm each), uniform.
        shift_slices: largest whole-slice shift (1 mm each).
        rotation_deg: largest in-plane rotation, uniform.
        scale: largest relative in-plane zoom, uniform.
        noise: SD of added Gaussian noise, in units of the patch mean, drawn uniformly from 0 to this.
        gain: largest relative intensity change across half the patch along each axis (a linear field; a global gain
            would be undone by the division by the mean).
        ramp_epochs: all of the above but the probability grow from 0 to their full size over so many epochs: a net that
            still predicts the mean finds its first signal sooner in patches that lie still.
        mirror_pairs: probability of exchanging the patient's sides, labels included. It changes nothing for a shared
            tower, whose two inputs are alike; a single patch is never flipped.
    """

    probability: float = 1.0
    shift_voxels: float = 0.0
    shift_slices: int = 0
    rotation_deg: float = 0.0
    scale: float = 0.0
    noise: float = 0.0
    gain: float = 0.0
    ramp_epochs: int = 0
    mirror_pairs: float = 0.0

    def in_epoch(self, epoch: int) -> Augmentation:
        """The recipe as it stands in an epoch (from 0)."""
        share = min(1.0, epoch / self.ramp_epochs) if self.ramp_epochs else 1.0
        sizes = ("shift_voxels", "rotation_deg", "scale", "noise", "gain")
        grown = {name: share * getattr(self, name) for name in sizes}
        return replace(self, **grown, shift_slices=round(share * self.shift_slices))


@dataclass(frozen=True, eq=False)
class AugmentationDraw:
    """Drawn parameters for ``n`` patches of ``n // 2`` pairs; see :class:`Augmentation`.

    Attributes:
        noise_seed: of the noise of a whole batch, of which these patches are ``patches`` (None: all).
        whole: patches of that batch.
    """

    theta: Tensor  # (n, 2, 3) in-plane affine
    slices: Tensor  # (n,)
    field: Tensor  # (n, 3)
    noise_sd: Tensor  # (n,)
    noise_seed: int
    exchange: Tensor  # (n // 2,) bool
    whole: int
    patches: Tensor | None = None

    def of(self, pairs: Sequence[int]) -> AugmentationDraw:
        """The parameters of some pairs: their patches are moved as in the whole batch, noise included."""
        if len(pairs) == len(self.exchange):
            return self
        chosen = torch.tensor(pairs)
        patches = (2 * chosen[:, None] + torch.arange(2)).flatten()
        kept = {name: getattr(self, name)[patches] for name in ("theta", "slices", "field", "noise_sd")}
        return replace(self, **kept, exchange=self.exchange[chosen], patches=patches)


def draw_augmentation(recipe: Augmentation, n_pairs: int, seed: int) -> AugmentationDraw:
    """Parameters for ``n_pairs`` pairs; both sides are moved independently (they were centred independently)."""
    g = torch.Generator().manual_seed(seed)
    n = 2 * n_pairs

    def symmetric(*shape: int) -> Tensor:
        return 2 * torch.rand(*shape, generator=g) - 1

    moved = (torch.rand(n, generator=g) < recipe.probability).float()
    angle = symmetric(n) * math.radians(recipe.rotation_deg) * moved
    zoom = 1 + symmetric(n) * recipe.scale * moved
    shift = symmetric(n, 2) * recipe.shift_voxels * moved[:, None]
    slices = torch.randint(-recipe.shift_slices, recipe.shift_slices + 1, (n,), generator=g) * moved.long()
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    # grid_sample's normalised units: 2 / 50 a voxel
    theta = torch.stack(
        [torch.stack([cos, -sin, shift[:, 0] * 2 / 50], 1), torch.stack([sin, cos, shift[:, 1] * 2 / 50], 1)], 1
    )
    return AugmentationDraw(
        theta=theta,
        slices=slices,
        field=symmetric(n, 3) * recipe.gain,
        noise_sd=torch.rand(n, generator=g) * recipe.noise,
        noise_seed=int(torch.randint(2**62, (1,), generator=g)),
        exchange=torch.rand(n_pairs, generator=g) < recipe.mirror_pairs,
        whole=n,
    )


def apply_augmentation(x: Tensor, target: Tensor, draw: AugmentationDraw) -> tuple[Tensor, Tensor]:
    """Move a batch.

    Args:
        x: ``(B, 2, 1, 50, 50, 20)`` canonical patches.
        target: ``(B, 2, ...)`` labels and whatever else belongs to the sides.
        draw: parameters for the same B.

    Returns:
        New tensors of the same shapes.
    """
    exchange = draw.exchange.to(x.device)
    # in the canonical view a mirrored patient is just the two inputs exchanged
    x = torch.where(exchange[:, None, None, None, None, None], x.flip(1), x)
    target = torch.where(exchange.view(-1, *[1] * (target.ndim - 1)), target.flip(1), target)
    flat = x.flatten(0, 1).squeeze(1)  # (n, 50, 50, 20)
    depth = flat.shape[-1]
    index = (torch.arange(depth, device=x.device) + draw.slices.to(x.device)[:, None]).clamp(0, depth - 1)
    flat = torch.gather(flat, 3, index[:, None, None, :].expand_as(flat))
    grid = F.affine_grid(draw.theta.to(x), [len(flat), depth, *flat.shape[1:3]], align_corners=False)
    flat = F.grid_sample(
        flat.permute(0, 3, 1, 2), grid, mode="bicubic", padding_mode="border", align_corners=False
    ).permute(0, 2, 3, 1)
    field = draw.field.to(x)
    for axis in range(3):
        ramp = torch.linspace(-1, 1, flat.shape[axis + 1], device=x.device)
        shape = [1, 1, 1, 1]
        shape[axis + 1] = -1
        flat = flat * (1 + field[:, axis, None, None, None] * ramp.view(shape))
    if float(draw.noise_sd.max()) > 0:
        g = torch.Generator(device=x.device).manual_seed(draw.noise_seed)
        noise = torch.randn((draw.whole, *flat.shape[1:]), generator=g, device=x.device, dtype=flat.dtype)
        if draw.patches is not None:
            noise = noise[draw.patches.to(x.device)]
        flat = flat + noise * (draw.noise_sd.to(x) * flat.mean(dim=(1, 2, 3)))[:, None, None, None]
    return flat.reshape(x.shape), target
