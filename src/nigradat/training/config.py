"""What a training run is made of: one frozen model, read from TOML, written as JSON beside every result."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from nigradat.errors import ConfigError
from nigradat.models.registry import get_method
from nigradat.models.symmetric import PAPER_SBR_MAX, Initialisation, ModelSpec
from nigradat.training.loss import PAPER_EPS

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


@checked(frozen=True, config=ConfigDict(extra="forbid"))
class AugmentationConfig:
    """See :class:`nigradat.training.augment.Augmentation`, which this becomes."""

    probability: Share = 0.9
    shift_voxels: NotNegative = 3.0
    shift_slices: Annotated[int, Field(ge=0, le=5)] = 1
    rotation_deg: NotNegative = 10.0
    scale: Annotated[float, Field(ge=0, lt=0.5)] = 0.06
    noise: NotNegative = 0.03
    gain: Annotated[float, Field(ge=0, lt=1)] = 0.05
    ramp_epochs: Annotated[int, Field(ge=0)] = 10
    mirror_pairs: Share = 0.0


@checked(frozen=True, config=ConfigDict(extra="forbid"))
class TrainConfig:
    """A training recipe.

    Attributes:
        model: name of the method (``nigradat.list_models()``).
        widths: channels of the tower's four blocks.
        head_dropout, block_dropout, centred, init, sbr_max: see :class:`nigradat.models.symmetric.ModelSpec`.
        symmetry_weight: lambda of the symmetric loss; None takes the method's own.
        symmetry_eps: free side difference, in units of SBR / sbr_max.
        optimiser: ``adamw`` or ``adam`` (with ``weight_decay`` as L2 there).
        learning_rate: highest one of the ``one-cycle`` schedule, or the one of ``constant``.
        epochs: at most so many, those of the warm-up included.
        patience: stop after so many epochs with labels without a better error on the stopping patients.
        batch_size: pairs a step.
        gradient_clip: largest norm of a step's gradient; 0 leaves it as it is.
        adam_eps: added to the root of the second moment.
        average_decay: decay per step of the running average of the weights that is validated and kept; 0 keeps the
            weights themselves.
        start_at_mean: the fresh output layer begins at the training patients' mean SBR instead of 0.
        unit_activations, warm_up, feature_weight: see :mod:`nigradat.training.warm_up`: each layer starts with outputs
            of unit variance; in this share of the epochs, the first ones, the tower sees no label and learns to name
            the hand-made features; the error in naming them stays in the loss with this weight.
        output_penalty: of the output layer that is solved at the end (:mod:`nigradat.training.output_layer`); 0 keeps
            the layer that the steps of the optimiser left.
        warm_up_rate: highest learning rate of the warm-up, on a one-cycle schedule of its own.
        seed: weights, order, augmentation and dropout all come from it.
    """

    model: str = "sym-vgg-plus"
    widths: tuple[Count, Count, Count, Count] = (16, 32, 64, 128)
    head_dropout: Rate = 0.4
    block_dropout: Rate = 0.0
    centred: bool = True
    init: Initialisation = "he"
    sbr_max: Positive = PAPER_SBR_MAX
    symmetry_weight: NotNegative | None = None
    symmetry_eps: NotNegative = PAPER_EPS
    optimiser: Literal["adamw", "adam"] = "adamw"
    learning_rate: Positive = 1.2e-4
    weight_decay: NotNegative = 0.3
    schedule: Literal["one-cycle", "constant"] = "one-cycle"
    epochs: Count = 40
    patience: Count = 40
    batch_size: Count = 4
    gradient_clip: NotNegative = 1.0
    adam_eps: Positive = 1e-8
    average_decay: Rate = 0.99
    start_at_mean: bool = True
    unit_activations: bool = True
    warm_up: Rate = 0.3
    warm_up_rate: Positive = 3e-4
    feature_weight: NotNegative = 0.3
    output_penalty: NotNegative = 1.0
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1

    def __post_init__(self) -> None:
        _ = self.spec  # refuses what does not fit together

    @property
    def warm_up_epochs(self) -> int:
        """Epochs without labels."""
        return int(self.warm_up * self.epochs + 1e-9)

    @property
    def resolved_symmetry_weight(self) -> float:
        """Lambda as used."""
        return get_method(self.model).symmetry_weight if self.symmetry_weight is None else self.symmetry_weight

    @property
    def spec(self) -> ModelSpec:
        """The network to build."""
        plain = ModelSpec(
            widths=self.widths,
            head_dropout=self.head_dropout,
            block_dropout=self.block_dropout,
            centred=self.centred,
            init=self.init,
            sbr_max=self.sbr_max,
        )
        return get_method(self.model).applied_to(plain)

    def to_json(self) -> dict[str, Any]:
        """Plain values; :func:`make_config` makes it again from them."""
        plain: dict[str, Any] = TypeAdapter(TrainConfig).dump_python(self, mode="json")
        return plain


# 'paper' is what the release and the paper's tables let us establish, as plain as that: Glorot weights, no centring,
# Adam at the published rate. It is kept for comparison; on the phantom it hardly learns (docs/explanation/recipe.md).
RECIPES: dict[str, dict[str, Any]] = {
    "default": {},
    "paper": {
        "centred": False,
        "init": "glorot",
        "optimiser": "adam",
        "learning_rate": 1e-4,
        "weight_decay": 0.0,
        "schedule": "constant",
        "head_dropout": 0.2,
        "batch_size": 8,
        "gradient_clip": 0.0,
        "adam_eps": 1e-7,
        "average_decay": 0.0,
        "start_at_mean": False,
        "unit_activations": False,
        "warm_up": 0.0,
        "feature_weight": 0.0,
        "output_penalty": 0.0,
        "augmentation": {"ramp_epochs": 0},
        "epochs": 200,
        "patience": 30,
    },
}

DROPOUT: Final[Mapping[str, Mapping[str, float]]] = {
    "none": {"head_dropout": 0.0, "block_dropout": 0.0},
    "head": {"block_dropout": 0.0},  # at the recipe's own rate
    "blocks": {"head_dropout": 0.5, "block_dropout": 0.2},
}
"""Places of dropout by name, and what each changes in a recipe."""


def make_config(
    recipe: str = "default", file: str | os.PathLike[str] | None = None, changes: dict[str, Any] | None = None
) -> TrainConfig:
    """A recipe by name, changed by a TOML file, changed by single values, in this order.

    Raises:
        ConfigError: unknown recipe or key, or a value that does not fit; every fault is named.

    Example:
        >>> make_config("paper", changes={"epochs": 5}).learning_rate
        0.0001
    """
    if recipe not in RECIPES:
        raise ConfigError(f"no recipe is called '{recipe}'", ", ".join(RECIPES))
    values: dict[str, Any] = {}
    for layer in (RECIPES[recipe], _read_toml(file) if file is not None else {}, changes or {}):
        before = values.get("augmentation", {})
        values |= layer
        if isinstance(before, dict) and isinstance(layer.get("augmentation"), dict):
            values["augmentation"] = before | layer["augmentation"]  # a layer changes single values there, too
    try:
        return TypeAdapter(TrainConfig).validate_python(values)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg'].lower()}" for e in error.errors())
        raise ConfigError(
            f"a configuration that does not fit ({faults})", "the keys of 'nigradat train --help'"
        ) from error


def _read_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as TOML ({error})", "lines such as epochs = 30") from error


@dataclass(frozen=True)
class Hardware:
    """Where a run computes. With one device it does not change what is computed, within rounding.

    Attributes:
        accelerator: auto, cpu or gpu.
        devices: processes of data-parallel training (DDP) when above 1; together they draw the augmentation and
            dropout of one, so that the weights are the same within rounding.
        threads: CPU threads a process; None leaves it to torch. Bit-equality holds at equal thread counts.
        tensorboard: also write TensorBoard events (extra ``tb``).
    """

    accelerator: str = "auto"
    devices: int = 1
    threads: int | None = None
    tensorboard: bool = False
