"""The pair: one tower for both sides ("symmetric"), or one regressor per side.

With the shared tower the two sides do not exchange information at inference; symmetry acts through the shared weights
and, in training, through :func:`nigradat.training.loss.symmetric_loss`. That is what the published graph shows.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from nigradat.anatomy import Side
from nigradat.errors import ConfigError
from nigradat.models.vgg import SMALL_WIDTHS, VggRegressor, initialise

Sharing = Literal["shared", "separate", "right", "left"]
Initialisation = Literal["he", "glorot"]
PAPER_SBR_MAX = 6.84


@dataclass(frozen=True)
class ModelSpec:
    """Everything that is needed to build a network again.

    Attributes:
        widths: channels of the four blocks.
        sharing: ``shared`` one tower for both sides; ``separate`` one regressor per side; ``right`` or ``left`` answers
            for that side only.
        head_dropout: rate before the linear layer.
        block_dropout: rate after each pooling.
        centred: subtract 1 from the mean-normalised patch.
        init: see :func:`nigradat.models.vgg.initialise`.
        sbr_max: the network's output times this is SBR.
    """

    widths: tuple[int, ...] = SMALL_WIDTHS
    sharing: Sharing = "shared"
    head_dropout: float = 0.3
    block_dropout: float = 0.0
    centred: bool = True
    init: Initialisation = "he"
    sbr_max: float = PAPER_SBR_MAX

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(int(w) for w in self.widths))
        if len(self.widths) != 4 or min(self.widths) < 1:
            raise ConfigError(f"tower widths {self.widths}", "four positive numbers, for example 16,32,64,128")
        if self.sharing not in get_args(Sharing):
            raise ConfigError(f"sharing '{self.sharing}'", " | ".join(get_args(Sharing)))
        if self.init not in get_args(Initialisation):
            raise ConfigError(f"initialisation '{self.init}'", " | ".join(get_args(Initialisation)))
        for name in ("head_dropout", "block_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ConfigError(f"{name} of {getattr(self, name)}", "a rate from 0 to below 1")
        if not self.sbr_max > 0:
            raise ConfigError(f"sbr_max of {self.sbr_max}", "a positive SBR")

    def to_json(self) -> dict[str, Any]:
        """Plain values for a card."""
        return {**asdict(self), "widths": list(self.widths)}


class PairRegressor(nn.Module):
    """Both sides of a patient to both SBRs.

    Args:
        spec: what to build.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        names = {"shared": ("both",), "separate": ("right", "left")}.get(spec.sharing, (spec.sharing,))
        self.nets = nn.ModuleDict(
            {
                name: VggRegressor(
                    spec.widths,
                    head_dropout=spec.head_dropout,
                    block_dropout=spec.block_dropout,
                    centred=spec.centred,
                )
                for name in names
            }
        )

    def net(self, side: Side) -> VggRegressor | None:
        """The regressor that answers for a side, or None."""
        for name in ("both", side.value):
            if name in self.nets:
                net = self.nets[name]
                assert isinstance(net, VggRegressor)
                return net
        return None

    @property
    def sides(self) -> tuple[Side, ...]:
        """The sides that the model answers for."""
        return tuple(side for side in Side if self.net(side) is not None)

    def features(self, x: Tensor) -> Tensor:
        """``(B, 2, 1, 50, 50, 20)`` raw patches in canonical view to ``(B, 2, n_features)``.

        NaN for a side that no net answers for.
        """
        if "both" in self.nets:
            both = self.nets["both"]
            assert isinstance(both, VggRegressor)
            return both.features(x.flatten(0, 1)).view(len(x), 2, -1)
        columns = []
        for side in Side:
            net = self.net(side)
            columns.append(None if net is None else net.features(x[:, side.index]))
        filled = next(c for c in columns if c is not None)
        return torch.stack([torch.full_like(filled, torch.nan) if c is None else c for c in columns], dim=1)

    def heads(self, features: Tensor) -> Tensor:
        """``(B, 2, n_features)`` to ``(B, 2)`` normalised SBR, dropout included; NaN where no net answers."""
        columns = []
        for side in Side:
            net, h = self.net(side), features[:, side.index]
            columns.append(h.new_full((len(h),), torch.nan) if net is None else net.head(net.dropout(h)).squeeze(1))
        return torch.stack(columns, dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, 2, 1, 50, 50, 20)`` raw patches in canonical view to ``(B, 2)`` normalised SBR, right first."""
        return self.heads(self.features(x))


def build(spec: ModelSpec, seed: int = 0) -> PairRegressor:
    """A network with fresh weights from ``seed``."""
    model = PairRegressor(spec)
    initialise(model, spec.init, seed)
    return in_fast_layout(model)


def in_fast_layout(model: PairRegressor) -> PairRegressor:
    """The same network, its kernels stored channels last, which the convolutions of CPU and GPU run fastest on."""
    model.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # missing in torch's stubs
    return model
