"""The specific binding ratio (SBR) of each striatum from one DaT-SPECT.

``SBR = (C_striatum - C_reference) / C_reference``. Three methods, on three scales that must not be mixed; every result
carries its own:

* ``voi-mean``: mean concentration over caudate and putamen. A camera's blur halves it, more or less.
* ``hottest``: mean of the hottest millilitres near the striatum. Less sensitive to a registration that is a little off,
  biased upwards by noise.
* ``southampton``: all counts in a volume wide enough to hold what spills out, over an assumed striatal volume,
  ``SBR = (C_total / c_reference - V) / V_striatum`` with ``C_total = c_reference V + c_specific V_striatum``. Needs no
  recovery coefficient; is as right as the assumed volume (11.2 ml by default, a population's mean).

Sources: EJNMMI Physics 2017, 4:8 (PMC5272851), figure 1, for the definition, the generous volume and the whole-brain
reference; the volumes of interest are ours (:mod:`nigradat.spect.volumes_of_interest`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from nigradat.anatomy import Side, to_patch_axes
from nigradat.errors import ConfigError, ImageError
from nigradat.io.nifti import AffineChoice
from nigradat.io.nuclear import read_spect
from nigradat.metrics.asymmetry import asymmetry_index
from nigradat.pair import SbrPair
from nigradat.spect.registration import Alignment, register
from nigradat.spect.volumes_of_interest import REFERENCES, Atlas, Cover, Part, Reference, Region, cover, own_atlas
from nigradat.volume import Source, Volume

Float64 = npt.NDArray[np.float64]
Method = Literal["voi-mean", "hottest", "southampton"]
METHODS: Final[tuple[Method, ...]] = ("voi-mean", "hottest", "southampton")
STRIATAL_VOLUME_ML: Final = 11.2
HOTTEST_ML: Final = 5.0
_SEARCHED: Final[tuple[Part, ...]] = ("striatum", "caudate", "putamen")
_FINE_BOX_ML: Final = 500.0  # regions in larger boxes are laid over the scan with one point a voxel


@dataclass(frozen=True)
class SbrRecipe:
    """How an SBR is measured. Two SBR are on one scale only if their recipes, tracers and cameras are alike.

    Attributes:
        method: ``voi-mean``, ``hottest`` or ``southampton``.
        reference: ``occipital``, or ``brain`` (the whole brain without its rim and the striata); default ``brain`` for
            ``southampton`` and ``occipital`` for the others.
        striatal_volume_ml: of one striatum, for ``southampton`` only; default 11.2.
        hottest_ml: how much of the hottest tissue counts, for ``hottest`` only; default 5.
        recovery: the SBR is divided by it; None for none. A factor between scales, such as a striatal phantom gives it
            for a camera: no correction of the partial volume of this patient. Not for ``southampton``.

    Raises:
        ConfigError: an unknown word, a value out of range, or one that the method does not use.
    """

    method: Method = "voi-mean"
    reference: Reference | None = None
    striatal_volume_ml: float | None = None
    hottest_ml: float | None = None
    recovery: float | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(f"the method {self.method!r}", f"one of {', '.join(METHODS)}")
        if self.reference is None:
            object.__setattr__(self, "reference", "brain" if self.method == "southampton" else "occipital")
        elif self.reference not in REFERENCES:
            raise ConfigError(f"the reference {self.reference!r}", f"one of {', '.join(REFERENCES)}")
        self._settle("striatal_volume_ml", "southampton", STRIATAL_VOLUME_ML, (1.0, 40.0))
        self._settle("hottest_ml", "hottest", HOTTEST_ML, (0.5, 20.0))
        if self.recovery is not None:
            if self.method == "southampton":
                raise ConfigError("a recovery coefficient for southampton", "none: this method counts what spills out")
            if not 0.1 <= self.recovery <= 1.0:
                raise ConfigError(f"a recovery coefficient of {self.recovery:g}", "one between 0.1 and 1")

    def _settle(self, name: str, method: Method, default: float, bounds: tuple[float, float]) -> None:
        value = getattr(self, name)
        if value is None:
            object.__setattr__(self, name, default if self.method == method else None)
        elif self.method != method:
            raise ConfigError(f"{name} = {value:g} for the method {self.method}", f"it with the method {method} only")
        elif not bounds[0] <= value <= bounds[1]:
            raise ConfigError(f"{name} = {value:g}", f"{bounds[0]:g} to {bounds[1]:g} ml")

    def describe(self) -> str:
        """In words, as it stands in tables: equal words, equal scale."""
        words = [self.method, f"reference {self.reference}"]
        if self.striatal_volume_ml is not None:
            words.append(f"striatum {self.striatal_volume_ml:g} ml")
        if self.hottest_ml is not None:
            words.append(f"hottest {self.hottest_ml:g} ml")
        if self.recovery is not None:
            words.append(f"divided by a recovery of {self.recovery:g}")
        return ", ".join(words)


@dataclass(frozen=True)
class PartSbr:
    """SBR of one part of the striatum on both sides; below 0 where it takes up less than the reference.

    Attributes:
        part: which.
        right, left: SBR.
        volume_ml: over which it was measured, right and left, in the patient's own millilitres.
    """

    part: Part
    right: float
    left: float
    volume_ml: tuple[float, float]

    def __getitem__(self, side: Side) -> float:
        return self.right if side is Side.RIGHT else self.left

    @property
    def asymmetry_percent(self) -> float:
        """``100 |R - L| / ((R + L) / 2)``; nan where the mean is not above 0."""
        return float(abs(asymmetry_index(self.right, self.left)))


@dataclass(frozen=True, eq=False)
class SbrMeasurement:
    """What one scan says.

    Attributes:
        recipe: the scale of the numbers.
        parts: the striatum first; with ``southampton`` the striatum alone.
        reference_volume_ml: of the reference region.
        atlas: name of the volumes of interest.
        alignment: how the head lies in the scan, and how that was checked.
        source: where the scan came from; it names no patient.
    """

    recipe: SbrRecipe
    parts: tuple[PartSbr, ...]
    reference_volume_ml: float
    atlas: str
    alignment: Alignment
    source: Source = field(default_factory=Source)

    def __getitem__(self, part: Part) -> PartSbr:
        for found in self.parts:
            if found.part == part:
                return found
        raise ConfigError(f"no SBR of the {part} by {self.recipe.method}", ", ".join(p.part for p in self.parts))

    @property
    def label(self) -> SbrPair:
        """Of both striata, as a cohort's label.

        Raises:
            CohortError: a side below 0, which is no binding ratio.
        """
        return SbrPair(self["striatum"].right, self["striatum"].left)

    @property
    def putamen_caudate_ratio(self) -> tuple[float, float] | None:
        """SBR of the putamen over that of the caudate, right and left (nan where the caudate has none); None where the
        method does not tell them apart."""
        if not {"putamen", "caudate"} <= {found.part for found in self.parts}:
            return None
        putamen, caudate = self["putamen"], self["caudate"]
        right, left = (putamen[side] / caudate[side] if caudate[side] > 0 else float("nan") for side in Side)
        return right, left

    def to_json(self) -> dict[str, Any]:
        """Plain values for output."""
        ratio = self.putamen_caudate_ratio
        return {
            "method": self.recipe.method,
            "scale": self.recipe.describe(),
            "recipe": self.recipe,
            "parts": [
                {
                    "part": found.part,
                    "right": found.right,
                    "left": found.left,
                    "asymmetry_percent": found.asymmetry_percent,
                    "volume_ml": {"right": found.volume_ml[0], "left": found.volume_ml[1]},
                }
                for found in self.parts
            ],
            "putamen_caudate_ratio": None if ratio is None else {"right": ratio[0], "left": ratio[1]},
            "reference_volume_ml": self.reference_volume_ml,
            "atlas": self.atlas,
            "alignment": {
                "scan_from_mni": self.alignment.scan_from_mni,
                "brain_overlap_dice": self.alignment.overlap,
                "hottest_spots": {s.value: spot for s, spot in zip(Side, self.alignment.striata, strict=False)},
            },
            "notes": list(self.alignment.notes),
            "source": self.source,
        }


def measure_sbr(
    scan: Volume | str | os.PathLike[str],
    recipe: SbrRecipe | None = None,
    *,
    atlas: Atlas | None = None,
    alignment: Alignment | None = None,
    affine: AffineChoice = "auto",
) -> SbrMeasurement:
    """Measure the SBR of both striata in one DaT-SPECT.

    The regions are laid over the scan; its counts are not interpolated. The result does not depend on the order in
    which the voxels are stored.

    Args:
        scan: a reconstructed SPECT, or the path of one: a DICOM file or folder, or a NIfTI.
        recipe: method, reference and their numbers; default the mean over the volumes of interest.
        atlas: see :func:`~nigradat.spect.volumes_of_interest.read_atlas`; default our own.
        alignment: where the pose is known; default it is found and checked by
            :func:`~nigradat.spect.registration.register`.
        affine: see :func:`nigradat.io.nifti.read_volume`.

    Raises:
        ConfigError: an atlas of which the recipe would use nothing.
        ImageError: no scan, no head in it, or a registration that fails its check.
        OrientationError: no usable orientation; a side is never guessed.
        FieldOfViewError: a region lies outside the scan.
        MissingExtraError: a library for DICOM or registration is not installed.

    Example:
        >>> found = measure_sbr("spect.dcm", SbrRecipe("southampton"))                          # doctest: +SKIP
        >>> found["striatum"].right, found["striatum"].left, found.recipe.describe()            # doctest: +SKIP
    """
    chosen, regions = recipe or SbrRecipe(), atlas or own_atlas()
    if atlas is not None and chosen.method != "voi-mean" and chosen.reference == "brain":
        raise ConfigError(f"an atlas for {chosen.describe()}", "none: its regions are our own with any atlas")
    given = scan if isinstance(scan, Volume) else read_spect(scan, affine)
    if not np.isfinite(given.data).all():
        raise ImageError(f"{int((~np.isfinite(given.data)).sum())} voxels of the scan are no number", "finite counts")
    data, matrix = to_patch_axes(given.data, given.affine)
    ordered = Volume(data.astype(np.float32), np.asarray(matrix, dtype=np.float64), given.source)
    pose = alignment or register(ordered)
    laid = lay_regions(chosen, regions, ordered.affine, ordered.data.shape, pose.scan_from_mni)
    parts = laid.measure(ordered.data)
    return SbrMeasurement(chosen, parts, laid.reference.volume_ml, regions.name, pose, given.source)


@dataclass(frozen=True, eq=False)
class LaidRegions:
    """A recipe's regions on one grid: laid once, they measure any scan on it.

    Attributes:
        recipe: what is measured in them.
        reference: of the reference region.
        covers: of each part, right and left.
    """

    recipe: SbrRecipe
    reference: Cover
    covers: Mapping[Part, tuple[Cover, Cover]]

    def measure(self, data: npt.NDArray[np.floating[Any]]) -> tuple[PartSbr, ...]:
        """SBR of each part in a scan of the grid's shape.

        Raises:
            ImageError: no counts in the reference.
        """
        usual = self.reference.mean(data)
        if not usual > 0:
            raise ImageError(f"a mean of {usual:.3g} in the {self.recipe.reference} reference", "counts above 0")
        parts = []
        for part, both in self.covers.items():
            right, left = (_ratio(self.recipe, data, found, usual) / (self.recipe.recovery or 1.0) for found in both)
            volumes = [self.recipe.hottest_ml or found.volume_ml for found in both]
            parts.append(PartSbr(part, right, left, (volumes[0], volumes[1])))
        return tuple(parts)


def lay_regions(
    recipe: SbrRecipe, atlas: Atlas, affine: Float64, shape: Sequence[int], scan_from_mni: Float64
) -> LaidRegions:
    """Lay a recipe's regions over a grid.

    Args:
        recipe, atlas: what to measure, and where.
        affine: ``(4, 4)`` from voxel index to RAS+ mm of the scan.
        shape: of its array.
        scan_from_mni: ``(4, 4)``, how the head lies in it.

    Raises:
        FieldOfViewError: a region lies outside the scan.
    """

    def laid(region: Region) -> Cover:
        box_ml = float(np.prod(region.box_mm[1] - region.box_mm[0])) / 1000
        return cover(region, affine, shape, scan_from_mni, points=3 if box_ml < _FINE_BOX_ML else 1)

    assert recipe.reference is not None
    covers = {
        part: (laid(_where(recipe, atlas, part, Side.RIGHT)), laid(_where(recipe, atlas, part, Side.LEFT)))
        for part in _measured_parts(recipe, atlas)
    }
    return LaidRegions(recipe, laid(atlas.references[recipe.reference]), covers)


def regions_of(recipe: SbrRecipe, atlas: Atlas) -> tuple[tuple[Region, Side | None], ...]:
    """The regions that a recipe measures in, for drawing: those of each side, then the reference (side None).

    With ``voi-mean`` parts that overlap others (striatum, putamen) are left out where their own parts are there.
    """
    parts = _measured_parts(recipe, atlas)
    if recipe.method != "southampton":
        parts = tuple(part for part in parts if part != "striatum")
    if "posterior putamen" in parts and "anterior putamen" in parts:
        parts = tuple(part for part in parts if part != "putamen")
    assert recipe.reference is not None
    sided = tuple((_where(recipe, atlas, part, side), side) for side in Side for part in parts)
    return (*sided, (atlas.references[recipe.reference], None))


def _measured_parts(recipe: SbrRecipe, atlas: Atlas) -> tuple[Part, ...]:
    if recipe.method == "southampton":
        return ("striatum",)
    return _SEARCHED if recipe.method == "hottest" else atlas.part_names()


def _where(recipe: SbrRecipe, atlas: Atlas, part: Part, side: Side) -> Region:
    if recipe.method == "southampton":
        return atlas.generous[side.index]
    return (atlas.search if recipe.method == "hottest" else atlas.parts)[part, side]


def _ratio(recipe: SbrRecipe, data: npt.NDArray[np.floating[Any]], found: Cover, usual: float) -> float:
    if recipe.method == "southampton":
        assert recipe.striatal_volume_ml is not None
        return (found.total(data) / usual - found.volume_ml) / recipe.striatal_volume_ml
    if recipe.method == "hottest":
        assert recipe.hottest_ml is not None
        return _hottest_mean(data, found, recipe.hottest_ml) / usual - 1.0
    return found.mean(data) / usual - 1.0


def _hottest_mean(data: npt.NDArray[np.floating[Any]], found: Cover, volume_ml: float) -> float:
    """Mean of the hottest voxels that lie mostly in a region, the last of them in part so that the volume is exact."""
    values = np.sort(data[found.window][found.share >= 0.5].astype(np.float64))[::-1]
    wanted = volume_ml / found.voxel_ml
    if wanted > values.size:
        raise ConfigError(
            f"the hottest {volume_ml:g} ml of a search volume of {values.size * found.voxel_ml:.1f} ml",
            "less than that",
        )
    weights = np.clip(wanted - np.arange(values.size), 0.0, 1.0)
    return float(weights @ values / wanted)
