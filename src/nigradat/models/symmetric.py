"""The pair: one regressor for both sides ("symmetric"), or one per side; with any of the towers.

With the shared tower the two sides do not exchange information at inference; symmetry acts through the shared weights
and, in training, through :func:`nigradat.training.loss.symmetric_loss`. That is what the published graph shows.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from nigradat.anatomy import MIRROR_AXIS, PATCH_SHAPE, Side
from nigradat.errors import ConfigError
from nigradat.models.dropout import SeededDropout
from nigradat.models.head import N_OUTPUTS, Output, expected, log_normal
from nigradat.models.mobilenet import MobileNetTower
from nigradat.models.resnet import ResNetTower
from nigradat.models.vgg import SMALL_WIDTHS, VggTower
from nigradat.models.vgg16 import Vgg16Tower
from nigradat.models.vit import Positions, VitTower

Sharing = Literal["shared", "separate", "right", "left"]
Initialisation = Literal["he", "glorot"]
TowerName = Literal["vgg", "vgg16", "resnet18", "mobilenetv3", "vit"]
Tower = VggTower | Vgg16Tower | ResNetTower | MobileNetTower | VitTower
WITH_BLOCK_DROPOUT = ("vgg", "vgg16")
PAPER_SBR_MAX = 6.84


@dataclass(frozen=True)
class ModelSpec:
    """Everything that is needed to build a network again.

    Attributes:
        widths: channels of the VGG's four blocks; every other tower takes its size from them, too.
        sharing: ``shared`` one tower for both sides; ``separate`` one regressor per side; ``right`` or ``left`` answers
            for that side only.
        head_dropout: rate before the linear layer.
        block_dropout: rate after each pooling of a VGG; the other towers have no place for it.
        centred: subtract 1 from the mean-normalised patch.
        init: see :func:`initialise`.
        sbr_max: the network's prediction times this is SBR.
        output: ``sbr``, or ``log-normal`` for a mean and an SD of the log of it (:mod:`nigradat.models.head`).
        tower: the network between a patch and its features.
        mirrored: the nets see the right patch as the model receives it, mirrored to look like a left one. False undoes
            the mirroring inside the model (to measure what it is worth); what the model is given stays the same.
    """

    widths: tuple[int, ...] = SMALL_WIDTHS
    sharing: Sharing = "shared"
    head_dropout: float = 0.4
    block_dropout: float = 0.0
    centred: bool = True
    init: Initialisation = "he"
    sbr_max: float = PAPER_SBR_MAX
    output: Output = "sbr"
    tower: TowerName = "vgg"
    mirrored: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(int(w) for w in self.widths))
        if len(self.widths) != 4 or min(self.widths) < 1:
            raise ConfigError(f"tower widths {self.widths}", "four positive numbers, for example 16,32,64,128")
        for name, kind in (("sharing", Sharing), ("init", Initialisation), ("output", Output), ("tower", TowerName)):
            if getattr(self, name) not in get_args(kind):
                raise ConfigError(f"{name} '{getattr(self, name)}'", " | ".join(get_args(kind)))
        for name in ("head_dropout", "block_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ConfigError(f"{name} of {getattr(self, name)}", "a rate from 0 to below 1")
        if self.block_dropout and self.tower not in WITH_BLOCK_DROPOUT:
            raise ConfigError(
                f"block_dropout of {self.block_dropout} in the tower '{self.tower}', which has no place for it",
                f"0, or one of the towers {', '.join(WITH_BLOCK_DROPOUT)}",
                "Use dropout before the head (--dropout head)",
            )
        if not self.sbr_max > 0:
            raise ConfigError(f"sbr_max of {self.sbr_max}", "a positive SBR")

    def to_json(self) -> dict[str, Any]:
        """Plain values for a card."""
        return {**asdict(self), "widths": list(self.widths)}


def build_tower(name: TowerName, widths: tuple[int, ...], block_dropout: float = 0.0) -> Tower:
    """A tower by name, its weights torch's own until :func:`initialise` draws them.

    Raises:
        MissingExtraError: the tower is MONAI's, and MONAI is not installed.
    """
    if name == "vgg16":
        return Vgg16Tower(widths, block_dropout)
    if name == "resnet18":
        return ResNetTower(widths)
    if name == "mobilenetv3":
        return MobileNetTower(widths)
    if name == "vit":
        return VitTower(widths)
    return VggTower(widths, block_dropout)


class SideRegressor(nn.Module):
    """One side's regressor: own-mean normalisation, tower, head dropout, linear output.

    Args:
        tower: patch to features.
        head_dropout: rate before the linear layer.
        centred: subtract 1 after the division by the mean. The published nets do not; learning from scratch needs it.
        outputs: numbers that the linear layer gives, see :data:`nigradat.models.head.N_OUTPUTS`.
    """

    def __init__(self, tower: Tower, *, head_dropout: float = 0.0, centred: bool = True, outputs: int = 1) -> None:
        super().__init__()
        self.centred = centred
        self.tower = tower
        self.dropout = SeededDropout(head_dropout)
        self.head = nn.Linear(tower.n_features, outputs)

    def preprocess(self, x: Tensor) -> Tensor:
        """Each patch divided by its own mean (a new tensor), minus 1 where ``centred``."""
        x = x / x.mean(dim=(-3, -2, -1), keepdim=True)
        x = x - 1.0 if self.centred else x
        return x.contiguous(memory_format=torch.channels_last_3d)

    def features(self, x: Tensor) -> Tensor:
        """``(B, 1, 50, 50, 20)`` raw patches as the net sees them to ``(B, n_features)``, before the head's dropout."""
        features: Tensor = self.tower(self.preprocess(x))
        return features

    def forward(self, x: Tensor) -> Tensor:
        """``(B, 1, 50, 50, 20)`` raw patches as the net sees them to ``(B, outputs)``."""
        out: Tensor = self.head(self.dropout(self.features(x)))
        return out


class PairRegressor(nn.Module):
    """Both sides of a patient to both SBRs.

    Args:
        spec: what to build.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        names = {"shared": ("both",), "separate": ("right", "left")}.get(spec.sharing, (spec.sharing,))
        # a new layer fills itself from torch's global generator; the state that it had is given back
        with torch.random.fork_rng(devices=()):
            self.nets = nn.ModuleDict({name: self._side_regressor() for name in names})

    def _side_regressor(self) -> SideRegressor:
        spec = self.spec
        return SideRegressor(
            build_tower(spec.tower, spec.widths, spec.block_dropout),
            head_dropout=spec.head_dropout,
            centred=spec.centred,
            outputs=N_OUTPUTS[spec.output],
        )

    def net(self, side: Side) -> SideRegressor | None:
        """The regressor that answers for a side, or None."""
        for name in ("both", side.value):
            if name in self.nets:
                net = self.nets[name]
                assert isinstance(net, SideRegressor)
                return net
        return None

    @property
    def sides(self) -> tuple[Side, ...]:
        """The sides that the model answers for."""
        return tuple(side for side in Side if self.net(side) is not None)

    def as_seen(self, x: Tensor) -> Tensor:
        """The canonical batch ``(B, 2, 1, 50, 50, 20)`` as the nets see it: itself where the model is ``mirrored``."""
        if self.spec.mirrored:
            return x
        sides = [x[:, side.index] for side in Side]
        sides[Side.RIGHT.index] = sides[Side.RIGHT.index].flip(MIRROR_AXIS - len(PATCH_SHAPE))
        return torch.stack(sides, dim=1)

    def features(self, x: Tensor) -> Tensor:
        """``(B, 2, 1, 50, 50, 20)`` raw patches in canonical view to ``(B, 2, n_features)``.

        NaN for a side that no net answers for.
        """
        x = self.as_seen(x)
        if "both" in self.nets:
            both = self.nets["both"]
            assert isinstance(both, SideRegressor)
            return both.features(x.flatten(0, 1)).view(len(x), 2, -1)
        columns = []
        for side in Side:
            net = self.net(side)
            columns.append(None if net is None else net.features(x[:, side.index]))
        filled = next(c for c in columns if c is not None)
        return torch.stack([torch.full_like(filled, torch.nan) if c is None else c for c in columns], dim=1)

    def outputs(self, features: Tensor) -> Tensor:
        """``(B, 2, n_features)`` to the ``(B, 2, k)`` outputs, dropout included; NaN where no net answers.

        k is 1, or 2 with the log-normal head.
        """
        columns = []
        for side in Side:
            net, h = self.net(side), features[:, side.index]
            missing = h.new_full((len(h), N_OUTPUTS[self.spec.output]), torch.nan)
            columns.append(missing if net is None else net.head(net.dropout(h)))
        return torch.stack(columns, dim=1)

    def heads(self, features: Tensor) -> Tensor:
        """``(B, 2, n_features)`` to ``(B, 2)`` normalised SBR, dropout included; NaN where no net answers.

        With the log-normal head it is the conditional mean ``exp(mu + sd^2 / 2)``.
        """
        return expected(self.outputs(features), self.spec.output)

    def distribution(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, 2, n_features)`` to mean and SD of log normalised SBR, ``(B, 2)`` each, dropout included.

        Raises:
            ConfigError: the model has no log-normal head.
        """
        if self.spec.output != "log-normal":
            raise ConfigError("a distribution asked of a model that predicts one number a side", "a log-normal head")
        return log_normal(self.outputs(features))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, 2, 1, 50, 50, 20)`` raw patches in canonical view to ``(B, 2)`` normalised SBR, right first."""
        return self.heads(self.features(x))


def build(spec: ModelSpec, seed: int = 0) -> PairRegressor:
    """A network with fresh weights from ``seed``."""
    model = PairRegressor(spec)
    initialise(model, spec.init, seed)
    if spec.output == "log-normal":
        for side in model.sides:
            model.net(side).head.weight.data[1].zero_()  # type: ignore[union-attr]  # one SD for all to begin with
    return in_fast_layout(model)


def initialise(model: nn.Module, kind: Initialisation, seed: int) -> None:
    """Fresh weights from a seed: ``he`` (normal, for ReLU; He 2015) or ``glorot`` (uniform; as in the published graph).

    That concerns convolutions. In both, dense layers are Glorot-uniform, biases are zero, normalisations pass through,
    and a transformer's positions are normal with SD 0.02.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv3d) and kind == "he":
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
        elif isinstance(module, nn.Conv3d | nn.Linear):
            nn.init.xavier_uniform_(module.weight, generator=generator)
        elif isinstance(module, nn.BatchNorm3d | nn.LayerNorm):
            module.reset_parameters()
        elif isinstance(module, Positions):
            nn.init.normal_(module.vectors, std=0.02, generator=generator)
        if isinstance(module, nn.Conv3d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


def in_fast_layout(model: PairRegressor) -> PairRegressor:
    """The same network, its kernels stored channels last, which the convolutions of CPU and GPU run fastest on."""
    model.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # missing in torch's stubs
    return model
