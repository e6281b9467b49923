"""How an SMWI was made, as one value that travels with the image: into its sidecar, the cohort and the model card."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final, Literal, get_args

from nigradat.errors import ConfigError, ImageError

Combination = Literal["rms", "mean"]
Inversion = Literal["tv", "tkd"]
Reference = Literal["mask", "csf", "none"]
COMBINATIONS: Final[tuple[str, ...]] = get_args(Combination)
INVERSIONS: Final[tuple[str, ...]] = get_args(Inversion)
REFERENCES: Final[tuple[str, ...]] = get_args(Reference)

SIDECAR_KEY: Final = "SmwiRecipe"
OF_UNKNOWN_ORIGIN: Final = "given"


@dataclass(frozen=True)
class SmwiRecipe:
    """Everything that decides how an SMWI looks, with the defaults of Nam et al. for the weighting.

    Attributes:
        chi_th_ppm: susceptibility at which the weight has fallen to 0.
        m: power of the weight.
        combination: of the weighted echoes: root mean square, or mean.
        inversion: from local field to susceptibility: ``tv`` (total variation, iterative) or ``tkd`` (thresholded
            k-space division).
        tv_lambda_ppm_mm: weight of the total variation (``tv`` only).
        tv_iterations: how many in each round (``tv`` only).
        tkd_threshold: smallest size of the dipole kernel that is divided by (``tkd`` only).
        sharp_radius_mm: largest sphere of the background removal.
        sharp_threshold: smallest size of its kernel that is divided by.
        rounds: how often background removal and inversion take turns; each round takes the background from what the
            map so far does not explain.
        reference: what susceptibility 0 means: the mean over the ``mask``, over ``csf``, or as it comes (``none``).

    Raises:
        ConfigError: a value out of range, naming it.
    """

    chi_th_ppm: float = 1.0
    m: float = 4.0
    combination: Combination = "rms"
    inversion: Inversion = "tv"
    tv_lambda_ppm_mm: float = 2e-4
    tv_iterations: int = 6
    tkd_threshold: float = 0.15
    sharp_radius_mm: float = 12.0
    sharp_threshold: float = 0.05
    rounds: int = 3
    reference: Reference = "mask"

    def __post_init__(self) -> None:
        for name, allowed in (("combination", COMBINATIONS), ("inversion", INVERSIONS), ("reference", REFERENCES)):
            if (value := getattr(self, name)) not in allowed:
                raise ConfigError(f"{name} {value!r}", f"one of {', '.join(allowed)}")
        for name in ("chi_th_ppm", "m", "tv_lambda_ppm_mm", "sharp_radius_mm"):
            if not (math.isfinite(value := getattr(self, name)) and value > 0):
                raise ConfigError(f"{name} {value:g}", "a number above 0")
        for name, top in (("tkd_threshold", 2 / 3), ("sharp_threshold", 1.0)):
            if not 0 < (value := getattr(self, name)) < top:
                raise ConfigError(f"{name} {value:g}", f"a number above 0 and below {top:.2g}")
        for name in ("tv_iterations", "rounds"):
            if (value := getattr(self, name)) < 1:
                raise ConfigError(f"{name} {value}", "at least 1")

    def to_json(self) -> dict[str, Any]:
        """As it stands in a sidecar: the parameters that had a part, and no others."""
        other = "tkd_" if self.inversion == "tv" else "tv_"
        return {name: value for name, value in asdict(self).items() if not name.startswith(other)}

    def weighting_json(self) -> dict[str, Any]:
        """The part that is known where the susceptibility map came from elsewhere."""
        return {name: getattr(self, name) for name in ("chi_th_ppm", "m", "combination")}


DEFAULT_RECIPE: Final = SmwiRecipe()


def recipe_differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> tuple[str, ...]:
    """Where two recipes contradict each other, in words; what only one of them states is no contradiction.

    Example:
        >>> recipe_differences({"chi_th_ppm": 1.0, "m": 4.0}, {"chi_th_ppm": 0.2, "inversion": "tkd"})
        ('chi_th_ppm 1 against 0.2',)
    """

    def shown(value: Any) -> str:
        return f"{value:g}" if isinstance(value, int | float) else str(value)

    return tuple(
        f"{name} {shown(ours[name])} against {shown(theirs[name])}"
        for name in ours
        if name in theirs and ours[name] != theirs[name]
    )


def sidecar_of(image: str | os.PathLike[str]) -> Path:
    """Where the JSON sidecar of a NIfTI lies: the same name, ending in ``.json``."""
    path = Path(image)
    name = path.name.removesuffix(".gz").removesuffix(".nii")
    return path.with_name(f"{name}.json")


def recipe_beside(image: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The recipe in an image's sidecar, or None where there is no sidecar or no recipe in it.

    Only parameters that a recipe has, as numbers within :data:`SPANS` or our own words (else ``other``): a sidecar of
    another program may name a patient, and a number may be a birth date.

    Raises:
        ImageError: a sidecar that is no JSON object, or a recipe that is none.
    """
    path = sidecar_of(image)
    if path.suffix != ".json" or path == Path(image) or not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ImageError(f"{path}: not JSON ({error})", "the sidecar of an image", "Mend or remove it") from error
    recipe = content.get(SIDECAR_KEY) if isinstance(content, dict) else None
    if recipe is None and isinstance(content, dict):
        return None
    if not isinstance(recipe, dict):
        raise ImageError(f"{path}: {SIDECAR_KEY} is {type(recipe).__name__}", "a JSON object", "Mend or remove it")
    return {name: _told(value) for name, value in recipe.items() if name in _FIELDS and _is_told(name, value)}


SPANS: Final[dict[str, tuple[float, float]]] = {
    "chi_th_ppm": (0, 100),
    "m": (0, 100),
    "tv_lambda_ppm_mm": (0, 1),
    "tv_iterations": (1, 1000),
    "tkd_threshold": (0, 1),
    "sharp_radius_mm": (0, 100),
    "sharp_threshold": (0, 1),
    "rounds": (1, 1000),
}
"""Between which bounds a parameter is taken from a sidecar, both included: far wider than any recipe in use."""

_FIELDS: Final = {one.name: one.default for one in fields(SmwiRecipe)}
_WORDS: Final = {*COMBINATIONS, *INVERSIONS, *REFERENCES, OF_UNKNOWN_ORIGIN}


def _is_told(name: str, value: object) -> bool:
    if isinstance(_FIELDS[name], str):
        return isinstance(value, str)
    low, high = SPANS[name]
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _told(value: Any) -> Any:
    """A word that is none of ours still differs from ours, but is not repeated."""
    return "other" if isinstance(value, str) and value not in _WORDS else value
