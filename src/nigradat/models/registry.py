"""Literal names of the methods and what each one is. Two functions, one dictionary."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace

from nigradat.errors import ConfigError
from nigradat.models.symmetric import ModelSpec, PairRegressor, Sharing, build


@dataclass(frozen=True)
class Method:
    """A row of the paper's tables.

    Attributes:
        name: what is typed.
        title: what a table prints.
        sharing: one tower for both sides, or one regressor per side.
        symmetry_weight: lambda of the symmetric loss. The paper's value is not known; 0.1 is our reconstruction.
        source: where it comes from.
    """

    name: str
    title: str
    sharing: Sharing
    symmetry_weight: float
    source: str


METHODS = {
    m.name: m
    for m in (
        Method("vgg-small", "VGG-small", "separate", 0.0, "Bae 2023: one regressor per side"),
        Method("sym-vgg", "Sym. VGG", "shared", 0.0, "shared tower, lambda = 0 (the released 'paired' graph)"),
        Method("sym-vgg-plus", "Sym. VGG+", "shared", 0.1, "shared tower with the symmetric loss (reconstruction)"),
    )
}


def list_models() -> list[str]:
    """Names that :func:`create_model` takes.

    Example:
        >>> list_models()
        ['vgg-small', 'sym-vgg', 'sym-vgg-plus']
    """
    return list(METHODS)


def get_method(name: str) -> Method:
    """The entry of a name.

    Raises:
        ConfigError: unknown name; the nearest one is shown.
    """
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=1, cutoff=0.3)
        raise ConfigError(
            f"no model is called '{name}'", ", ".join(METHODS), f"Did you mean '{near[0]}'?" if near else ""
        )
    return METHODS[name]


def create_model(name: str, spec: ModelSpec | None = None, seed: int = 0) -> PairRegressor:
    """A network by name, with fresh weights.

    Args:
        name: one of :func:`list_models`.
        spec: width, dropout and the like; its ``sharing`` is replaced by the method's own.
        seed: of the initial weights.

    Example:
        >>> model = create_model("sym-vgg-plus")
        >>> sum(p.numel() for p in model.parameters())
        879889
    """
    return build(replace(spec or ModelSpec(), sharing=get_method(name).sharing), seed)
