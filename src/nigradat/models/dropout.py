"""Dropout whose masks come from an explicit generator: reproducible in training, and sampled on purpose afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class SeededDropout(nn.Module):
    """Dropout as a module, never a function, so that it can be found, counted and sampled.

    Three states: ``eval()`` passes the input through; ``train()`` drops each element independently, from the generator
    that :func:`seed_dropout` gave; inside :func:`one_network_draw` one mask without batch axis is drawn at the first
    call and kept, so that every patient and both sides meet the SAME thinned network.

    Args:
        p: probability that an element is dropped, in [0, 1).
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0.0 <= p < 1.0:
            raise ValueError(f"dropout rate {p}, expected 0 <= p < 1")
        self.p = p
        self.generator: torch.Generator | None = None
        self.mask: Tensor | None = None
        self.sampling = False
        self.of: tuple[int, Sequence[int]] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Apply the mask of the present state; kept elements are divided by ``1 - p``."""
        if self.p == 0.0 or not (self.sampling or self.training):
            return x
        if self.sampling:
            if self.mask is None:
                self.mask = self._draw(x.shape[1:], x)
            return x * self.mask
        if self.of is None or len(self.of[1]) == self.of[0]:
            return x * self._draw(x.shape, x)
        whole, taken = self.of
        rows = len(x) // len(taken)  # of a pair: one, or one a side
        mask = self._draw(torch.Size((whole * rows, *x.shape[1:])), x)
        return x * mask.view(whole, rows, *x.shape[1:])[list(taken)].flatten(0, 1)

    def _draw(self, shape: torch.Size, like: Tensor) -> Tensor:
        if self.generator is None:
            raise RuntimeError("dropout is stochastic here but has no generator: call seed_dropout(model, seed) first")
        # drawn on the generator's device (the CPU when sampling), so that every device sees the same masks
        keep = torch.rand(shape, generator=self.generator, device=self.generator.device) >= self.p
        return keep.to(like.device, like.dtype) / (1.0 - self.p)

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return f"p={self.p}"


def dropout_modules(model: nn.Module) -> list[SeededDropout]:
    """The modules of a model that really drop something (``p > 0``), in order of definition."""
    return [m for m in model.modules() if isinstance(m, SeededDropout) and m.p > 0]


def seed_dropout(
    model: nn.Module,
    seed: int,
    device: torch.device | str = "cpu",
    of: tuple[int, Sequence[int]] | None = None,
) -> None:
    """Give every dropout module of ``model`` one generator, seeded now.

    Args:
        model: any.
        seed: of the generator.
        device: of the generator.
        of: pairs of a whole batch, and which of them come here: they get the masks that they would have got in it.
    """
    generator = torch.Generator(device=device).manual_seed(seed)
    for module in dropout_modules(model):
        module.generator, module.of = generator, of


def module_seed(seed: int, i: int) -> int:
    """Seed of the mask of the ``i``-th of :func:`dropout_modules` in the draw ``seed``."""
    return (seed + i) % 2**63


@contextmanager
def one_network_draw(model: nn.Module, seed: int) -> Iterator[None]:
    """Inside, ``model`` is one fixed thinned network drawn from ``seed``; afterwards it is as before, errors included.

    Each module has its own generator, so that the masks do not depend on the order in which modules are called.
    """
    modules = dropout_modules(model)
    before = [(m.generator, m.sampling, m.mask) for m in modules]
    try:
        for i, m in enumerate(modules):
            m.generator, m.sampling, m.mask = torch.Generator().manual_seed(module_seed(seed, i)), True, None
        yield
    finally:
        for m, (old, sampling, mask) in zip(modules, before, strict=True):
            m.generator, m.sampling, m.mask = old, sampling, mask
