"""The earlier approaches, without a net: what a net must beat.

All are used in the same way, and fitted on training patients alone:

    >>> fitted = fit_baselines(cohort, train_rows)                                          # doctest: +SKIP
    >>> sbr = predict_baselines(fitted, cohort, test_rows)["n1-index"]                      # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from nigradat.anatomy import to_canonical
from nigradat.baselines.features import ALPHAS, FEATURE_NAMES, RidgeBaseline, hand_made_features
from nigradat.baselines.hyperintensity import (
    INDEX_NAMES,
    Cut,
    ReadingAgreement,
    ReadingMeans,
    Readings,
    agreement_with_diagnosis,
    agreement_with_sbr,
    index_readings,
    n1_index,
    observer_readings,
    youden_cut,
)
from nigradat.baselines.intensity import INTENSITY_NAMES, fit_line, nigral_intensity
from nigradat.errors import CohortError, ConfigError
from nigradat.io.pack import PackedCohort

__all__ = [
    "BASELINES",
    "FEATURE_NAMES",
    "Cut",
    "FeatureBaseline",
    "Fitted",
    "FittedFeatures",
    "FittedObserver",
    "ObserverBaseline",
    "ReadingAgreement",
    "ReadingMeans",
    "Readings",
    "RidgeBaseline",
    "agreement_with_diagnosis",
    "agreement_with_sbr",
    "fit_baselines",
    "fit_line",
    "hand_made_features",
    "index_readings",
    "n1_index",
    "nigral_intensity",
    "observer_readings",
    "predict_baselines",
    "read_features",
    "youden_cut",
]

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp] | Sequence[int]
Features = Mapping[str, Array]  # by baseline: (n, 2, p), right first


class Fitted(Protocol):
    """A baseline after training."""

    def predict(self, cohort: PackedCohort, rows: Rows, features: Features | None = None) -> Array:
        """SBR ``(n, 2)`` of these visits, right first; NaN where the baseline has no answer."""

    def describe(self) -> str:
        """What was fitted on whom, in a sentence."""


@dataclass(frozen=True)
class FittedFeatures:
    """A regression on features of the patches.

    Attributes:
        name: of the baseline.
        regression: SBR on its features.
        cut: where the n1-index is read as present; None for the others, and where no threshold was given.
    """

    name: str
    regression: RidgeBaseline
    cut: Cut | None = None

    def predict(self, cohort: PackedCohort, rows: Rows, features: Features | None = None) -> Array:
        """SBR ``(n, 2)``, not clipped.

        Args:
            cohort: any; its labels are not looked at.
            rows: visits, in the order of the answer.
            features: of these rows from :func:`read_features`; read here where they are not given.
        """
        return self.regression.predict(_of(self.name, cohort, rows, features))

    def readings(self, cohort: PackedCohort, rows: Rows, features: Features | None = None) -> Readings | None:
        """The n1-index read as present or absent; None without a cut."""
        if self.cut is None:
            return None
        return index_readings(_of(self.name, cohort, rows, features)[..., 0], self.cut)

    def describe(self) -> str:
        """Formula or penalty, training patients, error among them, and the cut."""
        r = self.regression
        if len(r.names) == 1:
            slope = r.coefficients[0] / r.sd[0]
            how = (
                f"SBR = {r.intercept - slope * r.mean[0]:.2f} {'-' if slope < 0 else '+'} {abs(slope):.2f} {r.names[0]}"
            )
        else:
            how = f"ridge regression on {len(r.names)} features, penalty {r.alpha:.3g}"
        text = f"{how}; {r.n_patients} training visits, leave-one-out RMSE {r.loo_rmse:.2f}"
        if self.cut is None:
            return text
        return (
            f"{text}; read as present from {self.cut.value:.2f} upwards "
            f"(Youden index {self.cut.youden:.2f} for SBR below {self.cut.threshold_sbr:g} among the training sides)"
        )


@dataclass(frozen=True)
class FittedObserver:
    """The mean SBR by a reader's finding."""

    means: ReadingMeans

    def predict(self, cohort: PackedCohort, rows: Rows, features: Features | None = None) -> Array:
        """SBR ``(n, 2)``; NaN for a side that nobody has read, or read as no training side was."""
        readings = observer_readings([cohort.participants[i] for i in rows])
        return np.full((len(rows), 2), np.nan) if readings is None else self.means.predict(readings)

    def describe(self) -> str:
        """Mean SBR and number of training sides of each finding."""
        parts = (f"{name} {mean:.2f} ({self.means.sides[name]} sides)" for name, mean in self.means.mean_sbr.items())
        return f"mean SBR among the training sides by reading: {', '.join(parts)}"


@dataclass(frozen=True)
class FeatureBaseline:
    """Features of each patch and a linear regression.

    Attributes:
        name, title: for programs and for people.
        source: whose approach it is.
        extract: canonical patches ``(..., 50, 50, 20)`` to features ``(..., p)``.
        columns: names of the features.
        alphas: penalties to choose from.
        reads: it can also be read as present or absent.
    """

    name: str
    title: str
    source: str
    extract: Callable[[npt.NDArray[np.floating[Any]]], Array]
    columns: tuple[str, ...]
    alphas: tuple[float, ...] = (0.0,)
    reads: bool = False

    def fit(
        self,
        cohort: PackedCohort,
        rows: Rows,
        *,
        threshold_sbr: float | None = None,
        features: Features | None = None,
    ) -> FittedFeatures:
        """Fit on these visits and no other.

        Args:
            cohort: labelled.
            rows: training visits.
            threshold_sbr: of a low SBR on the cohort's own scale, for the cut of the n1-index; without it, no cut.
            features: of these rows from :func:`read_features`; read here where they are not given.

        Raises:
            CohortError: a label is missing, or fewer than three visits.
        """
        x, sbr = _of(self.name, cohort, rows, features), cohort.sbr[rows]
        regression = RidgeBaseline.fit(x, sbr, self.columns, self.alphas)
        if not self.reads or threshold_sbr is None:
            return FittedFeatures(self.name, regression)
        return FittedFeatures(self.name, regression, youden_cut(x[..., 0], sbr, threshold_sbr))


@dataclass(frozen=True)
class ObserverBaseline:
    """A reader's finding from the cohort's table; no patch is looked at."""

    name: str
    title: str
    source: str

    def fit(
        self,
        cohort: PackedCohort,
        rows: Rows,
        *,
        threshold_sbr: float | None = None,
        features: Features | None = None,
    ) -> FittedObserver | None:
        """Mean SBR by finding among these visits; None where nobody has read any of them.

        Raises:
            CohortError: a label is missing.
        """
        readings = observer_readings([cohort.participants[i] for i in rows])
        return None if readings is None else FittedObserver(ReadingMeans.fit(readings, cohort.sbr[rows]))


BASELINES: Final[Mapping[str, FeatureBaseline | ObserverBaseline]] = {
    baseline.name: baseline
    for baseline in (
        FeatureBaseline("ridge", "Ridge, 6 hand-made features", "ours", hand_made_features, FEATURE_NAMES, ALPHAS),
        FeatureBaseline(
            "mean-intensity",
            "Mean nigral intensity",
            "Uchida 2020, our reading of it",
            nigral_intensity,
            INTENSITY_NAMES,
        ),
        FeatureBaseline(
            "n1-index",
            "Automatic hyperintensity index",
            "ours, in place of a reader",
            n1_index,
            INDEX_NAMES,
            reads=True,
        ),
        ObserverBaseline("observer", "Observer's reading", "Gao 2015, Reiter 2015, Bae 2016, Nam 2017, Bae 2021"),
    )
}


def read_features(cohort: PackedCohort, rows: Rows, names: Iterable[str] = tuple(BASELINES)) -> dict[str, Array]:
    """The features of several baselines in one pass over the patches, one visit in memory at a time.

    Args:
        cohort: may be larger than the memory.
        rows: visits.
        names: baselines; those that need no patch have no entry in the answer.

    Returns:
        By baseline: ``(n, 2, p)``, right first.

    Raises:
        ConfigError: no baseline of that name.
        ImageError: a patch whose mean is not a positive number.
    """
    wanted = {name: _get(name) for name in names}
    extractors = {name: b for name, b in wanted.items() if isinstance(b, FeatureBaseline)}
    out = {name: np.empty((len(rows), 2, len(b.columns))) for name, b in extractors.items()}
    for i, row in enumerate(rows if extractors else ()):
        canonical = np.asarray(to_canonical(cohort.read(int(row))), dtype=np.float32)
        for name, baseline in extractors.items():
            out[name][i] = baseline.extract(canonical)
    return out


def fit_baselines(
    cohort: PackedCohort,
    rows: Rows,
    names: Iterable[str] = tuple(BASELINES),
    *,
    threshold_sbr: float | None = None,
) -> dict[str, Fitted]:
    """Fit several baselines with one pass over the patches.

    Args:
        cohort: labelled.
        rows: training visits; nothing else decides anything.
        names: baselines.
        threshold_sbr: see :meth:`FeatureBaseline.fit`.

    Returns:
        By name; without the observer where nobody has read a training visit.

    Raises:
        ConfigError: no baseline of that name.
        CohortError: a label is missing, or fewer than three visits.
    """
    chosen = [_get(name) for name in names]
    features = read_features(cohort, rows, [b.name for b in chosen])
    fitted = {b.name: b.fit(cohort, rows, threshold_sbr=threshold_sbr, features=features) for b in chosen}
    return {name: one for name, one in fitted.items() if one is not None}


def predict_baselines(fitted: Mapping[str, Fitted], cohort: PackedCohort, rows: Rows) -> dict[str, Array]:
    """SBR ``(n, 2)`` by baseline, with one pass over the patches; see :meth:`Fitted.predict`."""
    features = read_features(cohort, rows, fitted)
    return {name: one.predict(cohort, rows, features) for name, one in fitted.items()}


def _get(name: str) -> FeatureBaseline | ObserverBaseline:
    if name not in BASELINES:
        raise ConfigError(f"no baseline is called '{name}'", ", ".join(BASELINES))
    return BASELINES[name]


def _of(name: str, cohort: PackedCohort, rows: Rows, features: Features | None) -> Array:
    """The features of one baseline, and of just these visits."""
    x = (read_features(cohort, rows, [name]) if features is None else features)[name]
    if len(x) != len(rows):
        raise CohortError(f"features of {len(x)} visits for {len(rows)} rows", "the features of these rows")
    return x
