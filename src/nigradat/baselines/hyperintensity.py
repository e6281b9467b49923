"""Nigral hyperintensity: read by an observer, or measured by an automatic index where nobody has read.

A healthy nigrosome-1 shows as a bright streak in the dark nigra, and its loss goes with a low striatal uptake on that
side. Observers read it on 3 T images (Gao 2015), SWI (Reiter 2015, Bae 2016) and SMWI (Nam 2017, Bae 2021); here their
readings come from the cohort's table. In all of this module a lost hyperintensity (``absent``) is the positive finding.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from nigradat.anatomy import PATCH_SHAPE, PATCH_SPACING_MM, Side
from nigradat.baselines.features import Array, each_patch, ellipsoid, own_mean
from nigradat.baselines.intensity import NIGRA_AXES, NIGRA_CENTRE_MM
from nigradat.errors import CohortError, ConfigError
from nigradat.io.manifest import HYPERINTENSITY, MISSING, Participant
from nigradat.metrics.binary import BinaryAgreement, agreement_with_finding

Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]
Unsure = Literal["left-out", "absent", "present"]

INDEX_NAMES: Final = ("n1_index",)
SEARCH_MM: Final = 1.5
_PRESENT, _ABSENT, _UNSURE = HYPERINTENSITY
_LEAST_CONTRAST: Final = 0.05  # of the patch's mean: without a dark nigra there is nothing that could be lost in it


# -- The automatic index ------------------------------------------------------------------------------------------


def n1_index(canonical: npt.NDArray[np.floating]) -> Array:
    """How bright the nigrosome-1 site is between the dark nigra (0) and ordinary tissue (1); high means present.

    Defined by hand and never fitted. First the nigra is found: among all places within 1.5 mm of the nominal one, that
    where an oblique slab is darkest against the tissue in front of and behind it. The slab leaves the nigrosome-1 site
    out, so a bright nigrosome neither attracts nor repels the search; a search for the brightest site would find
    brightness in every patch. There, with ``dark`` the mean of the darker half of the slab,

        index = (median at the site - dark) / (median of the patch - dark).

    A ratio of differences needs no noise level and is the same at any gain. Where ordinary tissue is less than 5 % of
    the patch's mean brighter than the slab (no nigra in sight), 5 % are taken and the index counts down from 1.

    Args:
        canonical: shape ``(..., 50, 50, 20)``, right patches mirrored (:func:`nigradat.anatomy.to_canonical`);
            read patch by patch.

    Returns:
        Shape ``(..., 1)``, see :data:`INDEX_NAMES`; not clipped.

    Raises:
        ImageError: another patch shape, or a patch whose mean is not a positive number.
    """
    return each_patch(canonical, _index_of, 1)


@dataclass(frozen=True, eq=False)
class _Places:
    """Flat voxel numbers of each region at each place of the search, ``(places, voxels)``."""

    site: Indices
    slab: Indices
    around: Indices


@cache
def _places() -> _Places:
    site = ellipsoid((0.0, 0.0, 0.0), (2.5, 2.2, 0.8), NIGRA_AXES)  # 18 mm3; nigrosome-1 has some 10 to 30
    wide_site = ellipsoid((0.0, 0.0, 0.0), (3.5, 3.2, 1.4), NIGRA_AXES)
    slab = ellipsoid(NIGRA_CENTRE_MM, (5.0, 5.0, 2.0), NIGRA_AXES)
    layer = ellipsoid(NIGRA_CENTRE_MM, (99.0, 99.0, 3.2), NIGRA_AXES)  # all that is within 3.2 mm of the mid-plane
    around = ellipsoid(NIGRA_CENTRE_MM, (6.5, 6.5, 5.0), NIGRA_AXES) & ~layer
    reach = [int(SEARCH_MM / spacing) for spacing in PATCH_SPACING_MM]
    shifts = np.array(list(product(*(range(-n, n + 1) for n in reach))))
    shifts = shifts[((shifts * PATCH_SPACING_MM) ** 2).sum(axis=1) <= SEARCH_MM**2 + 1e-9]
    steps = shifts @ np.array([PATCH_SHAPE[1] * PATCH_SHAPE[2], PATCH_SHAPE[2], 1])

    def everywhere(region: Bools) -> Indices:
        return np.asarray(
            np.flatnonzero(region) + steps[:, None]
        )  # no region comes within 1.5 mm of the patch's border

    return _Places(everywhere(site), everywhere(slab & ~wide_site), everywhere(around))


def _index_of(patch: npt.NDArray[np.float32]) -> list[float]:
    places, voxels = _places(), patch.ravel() / np.float32(own_mean(patch))
    slabs = voxels[places.slab]
    best = int(np.argmax(voxels[places.around].mean(axis=1) - slabs.mean(axis=1)))
    slab = np.sort(slabs[best])
    dark = float(slab[: slab.size // 2].mean())
    tissue, site = float(np.median(voxels)), float(np.median(voxels[places.site[best]]))
    return [1.0 - (tissue - site) / max(tissue - dark, _LEAST_CONTRAST)]


@dataclass(frozen=True)
class Cut:
    """Where an index is read as present, chosen on training patients.

    Attributes:
        value: present from here upwards.
        threshold_sbr: the SBR below which a training side counted as degenerated.
        youden: sensitivity + specificity - 1 that the cut reached among the training sides: optimistic elsewhere.
    """

    value: float
    threshold_sbr: float
    youden: float


def youden_cut(index: npt.ArrayLike, sbr: npt.ArrayLike, threshold_sbr: float) -> Cut | None:
    """The cut with the largest Youden index for ``SBR < threshold_sbr``; half-way between two training values.

    Args:
        index: of the training sides, any shape.
        sbr: same shape.
        threshold_sbr: on the cohort's own SBR scale (2.56 is the paper's, and holds on its scale alone).

    Returns:
        None where the training sides are all on one side of the threshold, or the index never varies.

    Raises:
        CohortError: shapes that differ, or values that are not finite.
        ConfigError: a threshold that is no number.

    Example:
        >>> youden_cut([0.1, 0.2, 0.6, 0.9], [1.0, 1.5, 3.0, 3.5], threshold_sbr=2.56)
        Cut(value=0.4, threshold_sbr=2.56, youden=1.0)
    """
    _check_threshold(threshold_sbr)
    values, labels = np.asarray(index, dtype=np.float64), np.asarray(sbr, dtype=np.float64)
    if values.shape != labels.shape or not (np.isfinite(values).all() and np.isfinite(labels).all()):
        raise CohortError(
            f"an index of shape {values.shape} for SBR of shape {labels.shape}", "equal shapes, finite values"
        )
    low = labels.ravel() < threshold_sbr
    steps, group = np.unique(values, return_inverse=True)
    if steps.size < 2 or not 0 < np.count_nonzero(low) < low.size:
        return None
    lows, normals = (np.bincount(group.ravel(), part, steps.size).cumsum()[:-1] for part in (low, ~low))
    youden = lows / np.count_nonzero(low) - normals / np.count_nonzero(~low)
    best = int(np.argmax(youden))
    return Cut(float((steps[best] + steps[best + 1]) / 2), float(threshold_sbr), float(youden[best]))


def _check_threshold(threshold_sbr: float) -> None:
    if not np.isfinite(threshold_sbr):
        raise ConfigError(f"a threshold of {threshold_sbr}", "an SBR on the cohort's own scale")


# -- Readings -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Readings:
    """Findings of visits; both sides.

    Attributes:
        findings: ``(n, 2)`` of ``present``, ``absent``, ``unsure``, ``n/a``, right first.
    """

    findings: npt.NDArray[np.str_]

    def __post_init__(self) -> None:
        known = (*HYPERINTENSITY, MISSING)
        if self.findings.ndim != 2 or self.findings.shape[1] != 2 or not np.isin(self.findings, known).all():
            raise CohortError(
                f"readings {sorted(set(self.findings.ravel().tolist()))} of shape {self.findings.shape}",
                f"(n, 2) of {', '.join(known)}",
            )

    def __len__(self) -> int:
        return len(self.findings)

    def count(self, finding: str) -> tuple[int, int]:
        """How many sides have this finding: right, left."""
        right, left = np.count_nonzero(self.findings == finding, axis=0).tolist()
        return right, left

    def absent(self, unsure: Unsure = "left-out") -> tuple[Bools, Bools]:
        """Which sides are positive, and which count at all; ``(n, 2)`` each.

        Args:
            unsure: what an unsure reading is taken for.

        Raises:
            ConfigError: none of the three.
        """
        if unsure not in get_args(Unsure):
            raise ConfigError(f"unsure readings as '{unsure}'", ", ".join(get_args(Unsure)))
        taken = np.where(self.findings == _UNSURE, MISSING if unsure == "left-out" else unsure, self.findings)
        return taken == _ABSENT, taken != MISSING


def observer_readings(participants: Sequence[Participant]) -> Readings | None:
    """The readings in the columns ``hyperintensity_right`` and ``hyperintensity_left``; None where nobody has read."""
    findings = np.array(
        [[p.hyperintensity_right or MISSING, p.hyperintensity_left or MISSING] for p in participants], dtype=np.str_
    ).reshape(-1, 2)
    return Readings(findings) if (findings != MISSING).any() else None


def index_readings(index: npt.ArrayLike, cut: Cut) -> Readings:
    """An index ``(n, 2)`` read as present (at or above the cut) or absent; ``n/a`` where it is no number."""
    values = np.asarray(index, dtype=np.float64)
    findings = np.where(values >= cut.value, _PRESENT, _ABSENT)
    return Readings(np.where(np.isnan(values), MISSING, findings))


@dataclass(frozen=True)
class ReadingAgreement:
    """How readings agree with a reference, side by side.

    Attributes:
        reference: in words, what counts as positive.
        right, left: the fourfold tables; positive is the low SBR or the disease, and the absent hyperintensity.
        unsure: how unsure readings were counted.
        n_unsure: how many of them there were, right and left, whatever was done with them.
        n_unread: sides without a reading, right and left.
        n_without_reference: sides with a reading but without the reference, right and left.
    """

    reference: str
    right: BinaryAgreement
    left: BinaryAgreement
    unsure: Unsure
    n_unsure: tuple[int, int]
    n_unread: tuple[int, int]
    n_without_reference: tuple[int, int]

    def __getitem__(self, side: Side) -> BinaryAgreement:
        return self.right if side is Side.RIGHT else self.left


def agreement_with_sbr(
    readings: Readings, sbr: npt.ArrayLike, threshold_sbr: float, unsure: Unsure = "left-out"
) -> ReadingAgreement:
    """Readings against ``SBR < threshold_sbr`` of the same side.

    Args:
        readings: of ``n`` visits.
        sbr: ``(n, 2)``, right first; NaN where there is none.
        threshold_sbr: on the cohort's own SBR scale; no default, because 2.56 (Bae 2021: the SBR that tells a lost
            hyperintensity best) holds on the scale of that group alone.
        unsure: what an unsure reading is taken for.

    Raises:
        CohortError: another number of visits.
        ConfigError: an unknown ``unsure``, or a threshold that is no number.
    """
    _check_threshold(threshold_sbr)
    labels = np.asarray(sbr, dtype=np.float64)
    return _agreement(readings, labels < threshold_sbr, ~np.isnan(labels), f"SBR below {threshold_sbr:g}", unsure)


def agreement_with_diagnosis(
    readings: Readings,
    participants: Sequence[Participant],
    disease: Collection[str],
    controls: Collection[str] | None = None,
    unsure: Unsure = "left-out",
) -> ReadingAgreement | None:
    """Each side's reading against the patient's diagnosis.

    So the paper's row "Observation" (Bae 2021) must have been made: its accuracy, sensitivity and specificity give a
    share of .79 positive cases, which are the 109 patients among 138, and not an SBR below a threshold.

    Args:
        readings: of ``n`` visits.
        participants: of the same visits.
        disease: what the column ``diagnosis`` says of the positive cases, for example ``["PD"]``; upper and lower case
            are the same.
        controls: what it says of the negative ones; by default every other diagnosis.
        unsure: what an unsure reading is taken for.

    Returns:
        None where nobody has a diagnosis.

    Raises:
        CohortError: another number of visits.
        ConfigError: a diagnosis on both lists, an unknown ``unsure``, or nobody has a diagnosis of ``disease``.
    """
    given = [p.diagnosis.casefold() if p.diagnosis else "" for p in participants]
    ill = {name.casefold() for name in disease}
    well = set(given) - ill - {""} if controls is None else {name.casefold() for name in controls}
    if ill & well:
        raise ConfigError(f"the diagnosis {sorted(ill & well)[0]!r} as disease and as control", "one of the two")
    if not any(given):
        return None
    if not ill & set(given):
        raise ConfigError(
            f"nobody has the diagnosis {', '.join(sorted(disease)) or 'of an empty list'}",
            f"one of those in the table: {', '.join(sorted({p.diagnosis for p in participants if p.diagnosis}))}",
        )
    both = (len(given), 2)
    positive = np.broadcast_to(np.array([name in ill for name in given])[:, None], both)
    known = np.broadcast_to(np.array([name in ill | well for name in given])[:, None], both)
    return _agreement(readings, positive, known, f"diagnosis {' or '.join(sorted(disease))}", unsure)


def _agreement(readings: Readings, positive: Bools, known: Bools, reference: str, unsure: Unsure) -> ReadingAgreement:
    absent, counted = readings.absent(unsure)
    if positive.shape != absent.shape:
        raise CohortError(f"readings of {len(readings)} visits for a reference of shape {positive.shape}", "(n, 2)")

    def tables() -> Iterator[BinaryAgreement]:
        for side in Side:
            used = (counted & known)[:, side.index]
            yield agreement_with_finding(positive[used, side.index], absent[used, side.index])

    right, left = tables()
    without = np.count_nonzero(counted & ~known, axis=0).tolist()
    return ReadingAgreement(
        reference=reference,
        right=right,
        left=left,
        unsure=unsure,
        n_unsure=readings.count(_UNSURE),
        n_unread=readings.count(MISSING),
        n_without_reference=(without[0], without[1]),
    )


@dataclass(frozen=True)
class ReadingMeans:
    """A reading as a prediction: the mean SBR of the training sides that were read alike.

    Attributes:
        mean_sbr: by finding; only findings that occur among the training sides.
        sides: how many training sides had it.
    """

    mean_sbr: dict[str, float]
    sides: dict[str, int]

    @classmethod
    def fit(cls, readings: Readings, sbr: npt.ArrayLike) -> ReadingMeans:
        """Both sides of the training patients together; unsure is a category of its own.

        Args:
            readings: of ``n`` training visits.
            sbr: ``(n, 2)``.

        Raises:
            CohortError: another number of visits, or labels that are not finite.
        """
        labels = np.asarray(sbr, dtype=np.float64)
        if labels.shape != readings.findings.shape or not np.isfinite(labels).all():
            raise CohortError(f"SBR of shape {labels.shape} for {len(readings)} visits", "(n, 2), finite values")
        groups = {name: labels[readings.findings == name] for name in HYPERINTENSITY}
        met = {name: values for name, values in groups.items() if values.size}
        return cls({name: float(v.mean()) for name, v in met.items()}, {name: v.size for name, v in met.items()})

    def predict(self, readings: Readings) -> Array:
        """SBR ``(n, 2)``; NaN where there is no reading, or one that no training side had."""
        out = np.full(readings.findings.shape, np.nan)
        for name, mean in self.mean_sbr.items():
            out[readings.findings == name] = mean
        return out
