"""Literal names of the methods and what each one is. Two functions, one dictionary."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace

from nigradat.errors import ConfigError
from nigradat.models.head import Output
from nigradat.models.symmetric import ModelSpec, PairRegressor, Sharing, TowerName, build


@dataclass(frozen=True)
class Method:
    """A row of the paper's tables, or of ours.

    Attributes:
        name: what is typed.
        title: what a table prints.
        sharing: one tower for both sides, one regressor per side, or one side's alone.
        symmetry_weight: lambda of the symmetric loss. The paper's value is not known; 0.1 is our reconstruction.
        source: where it comes from.
        tower, mirrored, output: see :class:`nigradat.models.symmetric.ModelSpec`.
    """

    name: str
    title: str
    sharing: Sharing
    symmetry_weight: float
    source: str
    tower: TowerName = "vgg"
    mirrored: bool = True
    output: Output = "sbr"

    def applied_to(self, spec: ModelSpec) -> ModelSpec:
        """The specification with what the method decides; width, dropout and the like stay as they are."""
        return replace(spec, sharing=self.sharing, tower=self.tower, mirrored=self.mirrored, output=self.output)


METHODS = {
    m.name: m
    for m in (
        Method("vit", "ViT", "separate", 0.0, "Dosovitskiy 2021, in 3D, one per side", tower="vit"),
        Method("mobilenetv3", "MobileNetV3", "separate", 0.0, "Howard 2019 (Small), 3D, per side", tower="mobilenetv3"),
        Method("resnet18", "ResNet-18", "separate", 0.0, "He 2016, in 3D (MONAI), one per side", tower="resnet18"),
        Method("vgg16", "VGG-16", "separate", 0.0, "Simonyan and Zisserman 2015 (D), 3D, per side", tower="vgg16"),
        Method("vgg-small", "VGG-small", "separate", 0.0, "Bae 2023: one regressor per side"),
        Method("vgg-left", "VGG-small (left only)", "left", 0.0, "Bae 2023: the left side's regressor"),
        Method("sym-vgg", "Sym. VGG", "shared", 0.0, "shared tower, lambda = 0 (the released 'paired' graph)"),
        Method("sym-vgg-plus", "Sym. VGG+", "shared", 0.1, "shared tower with the symmetric loss (reconstruction)"),
        Method(
            "sym-vgg-plus-unmirrored",
            "Sym. VGG+ without mirroring",
            "shared",
            0.1,
            "ablation: as Sym. VGG+, but the tower sees the right patch unmirrored",
            mirrored=False,
        ),
        Method(
            "sym-vgg-log",
            "Sym. VGG+ (log-normal head)",
            "shared",
            0.1,
            "extension, not in the paper: as Sym. VGG+, with a log-normal distribution of the SBR as output",
            output="log-normal",
        ),
    )
}


def list_models() -> list[str]:
    """Names that :func:`create_model` takes: the paper's rows in its order, then an ablation and an extension.

    Example:
        >>> list_models()[4:8]
        ['vgg-small', 'vgg-left', 'sym-vgg', 'sym-vgg-plus']
    """
    return list(METHODS)


def get_method(name: str) -> Method:
    """The entry of a name.

    Raises:
        ConfigError: unknown name; the nearest ones are shown.
    """
    if name not in METHODS:
        near = difflib.get_close_matches(name.lower(), METHODS, n=3, cutoff=0.4)
        raise ConfigError(
            f"no model is called '{name}'",
            ", ".join(METHODS),
            f"Did you mean {' or '.join(map(repr, near))}?" if near else "",
        )
    return METHODS[name]


def create_model(name: str, spec: ModelSpec | None = None, seed: int = 0) -> PairRegressor:
    """A network by name, with fresh weights.

    Args:
        name: one of :func:`list_models`.
        spec: width, dropout and the like; what the method decides (sharing, tower, mirroring, output) is replaced.
        seed: of the initial weights.

    Raises:
        ConfigError: unknown name, or a dropout that the method's tower has no place for.
        MissingExtraError: ``resnet18`` without MONAI.

    Example:
        >>> model = create_model("sym-vgg-plus")
        >>> sum(p.numel() for p in model.parameters())
        879889
    """
    return build(get_method(name).applied_to(spec or ModelSpec()), seed)
