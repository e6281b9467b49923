"""Spoilt on purpose: what the flags find of known faults, and what withholding answers saves, on phantom patients.

Every fault is made of the same patients as the ordinary images, with one thing changed: the image itself where that is
enough (mirrored, exchanged, turned), or the patient rendered again with another nuisance or recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from nigradat.anatomy import Side, mirror, mirror_pair
from nigradat.errors import CalibrationError, CohortError, ConfigError
from nigradat.io.pack import PHANTOM
from nigradat.metrics.binary import Auc, clustered_auc, wilson
from nigradat.metrics.resampling import RESAMPLES, Estimate, Indices, bca, bca_many
from nigradat.models.weights import LoadedModel
from nigradat.phantom.cohort import patient_nuisance
from nigradat.phantom.latents import Latents, Preset, get_preset, sample_latents
from nigradat.phantom.rendering import Nuisance, Recipe, RenderedPair, SideNuisance, render_pair
from nigradat.quality.measures import NAMES
from nigradat.quality.reference import Quality
from nigradat.uncertainty.mc_dropout import draw_predictions, has_spread, predict_sbr

Array = npt.NDArray[np.float64]
Patches = npt.NDArray[np.float32]
Progress = Callable[[int, int], None]

COMBINED: Final = "combined"
SPREAD: Final = "spread"
ORDINARY: Final = "ordinary"
ALARMS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
FAULTY: Final = 0.1  # share of faulty visits in the mixture that a policy is judged on
_SHIFTS_MM: Final = (2, 3, 4)
_AXES: Final = ("anterior-posterior", "lateral", "up-down")
_STREAM: Final = 0x73
_SAMPLES: Final = 100
_BATCH: Final = 8  # patients


@dataclass(frozen=True)
class Fault:
    """One way to spoil a pair.

    Attributes:
        name: in files.
        title: in tables.
        detectable: False where the image cannot show it.
    """

    name: str
    title: str
    detectable: bool = True


FAULTS: Final = (
    Fault("missing-mirror", "One patch mirrored"),
    Fault("exchanged", "Patches in each other's place"),
    *(Fault(f"shift-{axis}-{mm}mm", f"One centre {mm} mm off, {axis}") for mm in _SHIFTS_MM for axis in _AXES),
    Fault("blur", "Blurred (point spread twice as wide)"),
    Fault("noise", "Noise tripled"),
    Fault("upside-down", "Turned upside down (head and feet)"),
    Fault("back-to-front", "Front and back exchanged"),
    Fault("turned", "Turned by 90 degrees in plane"),
    Fault("magnitude", "Magnitude only, no SMWI"),
    Fault("threshold-0.5", "SMWI threshold 0.5 ppm instead of 1"),
    Fault("threshold-2", "SMWI threshold 2 ppm instead of 1"),
    Fault("ghost-0.1", "Motion ghost, amplitude 0.1"),
    Fault("ghost-0.2", "Motion ghost, amplitude 0.2"),
    Fault("constant", "Constant image (noise of 0.1 %)"),
    Fault("flipped-head", "Whole head mirrored, consistently", detectable=False),
)


def spoil(seed: int, patient: int, latents: Latents) -> dict[str, Patches]:
    """One phantom patient as it is (``ordinary``) and with each of :data:`FAULTS`, ``(2, 50, 50, 20)`` each, native.

    Args:
        seed: of the cohort; the ordinary pair is that of :func:`nigradat.phantom.cohort.simulate` bit for bit.
        patient: row, from 0.
        latents: of the cohort.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, _STREAM, patient]))
    side = Side.RIGHT if rng.integers(2) else Side.LEFT
    nuisance = patient_nuisance(seed, patient, float(latents.age[patient]))

    def rendered_pair(changed: Nuisance = nuisance, recipe: Recipe | None = None) -> RenderedPair:
        d_right, d_left = map(float, latents.d[patient])
        return render_pair(d_right, d_left, changed, recipe)

    def rendered(changed: Nuisance = nuisance, recipe: Recipe | None = None) -> Patches:
        return np.asarray(rendered_pair(changed, recipe).patches, dtype=np.float32)

    def one_side(changed: Patches) -> Patches:
        out = ordinary.copy()
        out[side.index] = changed[side.index]
        return out

    plain = rendered_pair()
    ordinary = np.asarray(plain.patches, dtype=np.float32)
    flat = np.broadcast_to(ordinary.mean(axis=(1, 2, 3), keepdims=True), ordinary.shape)
    out = {
        ORDINARY: ordinary,
        "missing-mirror": one_side(np.asarray(mirror(ordinary))),
        "exchanged": ordinary[::-1],
        "blur": rendered(recipe=Recipe(blur=2.0)),
        "noise": rendered(replace(nuisance, snr=nuisance.snr / 3)),
        "upside-down": ordinary[..., ::-1],
        "back-to-front": ordinary[:, ::-1],
        "turned": np.rot90(ordinary, axes=(1, 2)),
        "magnitude": np.asarray(plain.magnitude, dtype=np.float32),
        "threshold-0.5": rendered(recipe=Recipe(chi_threshold_ppm=0.5)),
        "threshold-2": rendered(recipe=Recipe(chi_threshold_ppm=2.0)),
        "ghost-0.1": rendered(replace(nuisance, ghost_amplitude=0.1)),
        "ghost-0.2": rendered(replace(nuisance, ghost_amplitude=0.2)),
        "constant": flat * (1 + 0.001 * rng.standard_normal(ordinary.shape)).astype(np.float32),
        "flipped-head": np.asarray(mirror_pair(ordinary)),
    }
    for i, axis in enumerate(_AXES):
        sign = rng.choice((-1.0, 1.0))
        for mm in _SHIFTS_MM:
            out[f"shift-{axis}-{mm}mm"] = one_side(rendered(_shifted(nuisance, i, float(sign) * mm)))
    return {name: np.ascontiguousarray(out[name]) for name in (ORDINARY, *(fault.name for fault in FAULTS))}


def _shifted(nuisance: Nuisance, axis: int, mm: float) -> Nuisance:
    """Both centres moved along one anatomical axis."""

    def moved(own: SideNuisance) -> SideNuisance:
        anterior, lateral, inferior = np.asarray(own.centring_mm) + mm * np.eye(3)[axis]
        return replace(own, centring_mm=(float(anterior), float(lateral), float(inferior)))

    return replace(nuisance, right=moved(nuisance.right), left=moved(nuisance.left))


@dataclass(frozen=True, eq=False)
class SuiteScores:
    """What was measured on each patient as it is and with each fault.

    Attributes:
        names: ``ordinary`` and the faults, F + 1.
        scores: by name of the score (``combined``, the measures, ``spread``), ``(F + 1, n)``; higher is more unusual.
        p_values: of the combined score, ``(F + 1, n)``.
        squared_error: mean over the sides that the model answers for, in SBR squared, ``(F + 1, n)``.
        alarm, held_out: of the quality reference.
        fitted_on: kind of cohort that the reference comes from.
        preset, seed: of the fresh patients.
        model_title: whose.
    """

    names: tuple[str, ...]
    scores: Mapping[str, Array]
    p_values: Array
    squared_error: Array
    alarm: float
    held_out: int
    fitted_on: str
    preset: str
    seed: int
    model_title: str

    @property
    def patients(self) -> int:
        """How many fresh patients."""
        return int(self.p_values.shape[1])


def run_suite(
    loaded: LoadedModel,
    quality: Quality,
    *,
    patients: int = 100,
    preset: str | Preset = "paper",
    seed: int,
    progress: Progress | None = None,
) -> SuiteScores:
    """Render fresh phantom patients, spoil them in every way, and measure them all.

    Args:
        loaded: model with a quality reference.
        quality: that reference.
        patients: at least 10.
        preset, seed: of the fresh phantom; not those of the training cohort.
        progress: called with (patients done, patients in all).

    Raises:
        ConfigError: too few patients, or an unknown preset.
        CohortError: the seed of the cohort that trained the model, whatever its preset.
        CalibrationError: a reference that was fitted on patients, for whom a phantom is unusual in every way.
    """
    if patients < 10:
        raise ConfigError(f"{patients} patients", "at least 10")
    if quality.kind != PHANTOM:
        raise CalibrationError(
            "a quality reference fitted on patients, tested on the digital phantom",
            "a reference fitted on phantoms, which are all that the suite can spoil",
            "Use 'nigradat check' on patients",
        )
    chosen = get_preset(preset)
    if loaded.card.get("training", {}).get("provenance", {}).get("seed") == seed:
        # presets share their random numbers: with one seed they show the same patients, more or less ill
        raise CohortError(f"seed {seed}, which drew the patients that trained the model", "another seed")
    latents = sample_latents(patients, chosen, seed)
    names = (ORDINARY, *(fault.name for fault in FAULTS))
    values, spreads, errors = [], [], []
    for i in range(patients):
        images = np.stack([*spoil(seed, i, latents).values()])
        point, spread, features = _answers(loaded, images)
        values.append(quality.measure(loaded, images, features))
        errors.append(np.nanmean((point - latents.sbr[i]) ** 2, axis=1))
        spreads.append(spread)
        if progress is not None:
            progress(i + 1, patients)
    deviations = quality.deviations(np.stack(values, axis=1))  # (F + 1, n, 2, M)
    by_measure = np.where(np.isnan(deviations), -np.inf, deviations).max(axis=2)
    combined = by_measure.max(axis=2)
    scores = {COMBINED: combined} | {name: by_measure[..., j] for j, name in enumerate(NAMES)}
    if has_spread(loaded.model):
        scores[SPREAD] = np.stack(spreads, axis=1)
    return SuiteScores(
        names,
        scores,
        quality.p_values(combined),
        np.stack(errors, axis=1),
        quality.alarm,
        quality.patients,
        quality.kind,
        chosen.name,
        seed,
        loaded.title,
    )


def _answers(loaded: LoadedModel, images: Patches) -> tuple[Array, Array, Patches | None]:
    """Predictions ``(m, 2)``, the larger spread of the sides ``(m,)``, and the features where they fall off.

    The spread is NaN for a model without one.
    """
    if not has_spread(loaded.model):
        return predict_sbr(loaded.model, images, _BATCH), np.full(len(images), np.nan), None
    drawn = draw_predictions(loaded.model, images, samples=_SAMPLES, seed=0, chunk=_BATCH, keep_features=True)
    variance = drawn.samples.var(axis=0) + (0.0 if drawn.noise_sd is None else drawn.noise_sd**2)
    return drawn.point, np.nanmax(np.sqrt(variance), axis=1), drawn.features


@dataclass(frozen=True)
class Detection:
    """How well one score tells one fault from the ordinary.

    Attributes:
        auc: patients as clusters: each is there with and without the fault.
        fpr95: share of ordinary pairs above the value that 95 % of the faulty ones reach.
    """

    auc: Auc
    fpr95: Estimate


def fpr_at_95(ordinary: Array, faulty: Array) -> Array:
    """Share of ordinary scores ``(..., n)`` at or above the value that 95 % of the faulty ones reach, ``(...)``."""
    n = faulty.shape[-1]
    reached = np.sort(faulty, axis=-1)[..., n - int(np.ceil(0.95 * n - 1e-9))]
    out: Array = np.mean(ordinary >= reached[..., None], axis=-1)
    return out


def separation(found: SuiteScores, fault: str, score: str = COMBINED) -> Auc:
    """AUROC of one score for one fault; each patient is there with and without it, a cluster of two."""
    pairs = found.scores[score][[0, found.names.index(fault)]].T
    return clustered_auc(np.tile([False, True], (found.patients, 1)), pairs)


def detection(
    found: SuiteScores, fault: str, score: str = COMBINED, *, seed: int = 0, resamples: int = RESAMPLES
) -> Detection:
    """AUROC and FPR at 95 % of one score for one fault, with intervals.

    Args:
        found: of :func:`run_suite`.
        fault: name of a fault.
        score: name of a score.
        seed, resamples: of the bootstrap of patients for the FPR.
    """
    ordinary, faulty = found.scores[score][[0, found.names.index(fault)]]
    fpr95 = bca(lambda i: fpr_at_95(ordinary[i], faulty[i]), found.patients, seed=seed, resamples=resamples)
    return Detection(separation(found, fault, score), fpr95)


def flagged_share(found: SuiteScores, name: str) -> tuple[float, float, float]:
    """Share of a fault's pairs (or of the ordinary ones) that are called unusual, with Wilson's interval."""
    unusual = found.p_values[found.names.index(name)] <= found.alarm + 1e-12
    count = int(np.count_nonzero(unusual))
    return (count / found.patients, *wilson(count, found.patients))


@dataclass(frozen=True)
class PolicyResult:
    """What a policy does to a mixture of ordinary and faulty visits.

    Attributes:
        alarm: share of ordinary pairs that it may withhold; None for no withholding.
        answered: share of the visits with an answer.
        answered_ordinary, answered_faulty: the same of either kind.
        rmse: of the answers, in SBR.
    """

    alarm: float | None
    answered: Estimate
    answered_ordinary: Estimate
    answered_faulty: Estimate
    rmse: Estimate


def policies(
    found: SuiteScores, *, faulty: float = FAULTY, seed: int = 0, resamples: int = RESAMPLES
) -> list[PolicyResult]:
    """Yield and error of the policies on visits of which a share ``faulty`` has one of the faults, all equally often.

    Only alarms that the held-out patients can promise are there. The fault that no image shows is one of them.

    Raises:
        ConfigError: a share outside 0..1.
    """
    if not 0 < faulty < 1:
        raise ConfigError(f"a share of {faulty} faulty visits", "a number between 0 and 1")
    weight = np.array([1 - faulty, *[faulty / (len(found.names) - 1)] * (len(found.names) - 1)])[:, None]
    reachable = sorted({found.alarm, *(a for a in ALARMS if a * (found.held_out + 1) >= 1)})
    return [_policy(found, alarm, weight, seed, resamples) for alarm in (None, *reachable)]


def _policy(found: SuiteScores, alarm: float | None, weight: Array, seed: int, resamples: int) -> PolicyResult:
    kept = np.ones_like(found.p_values) if alarm is None else (found.p_values > alarm + 1e-12).astype(np.float64)
    ordinary = kept[0]
    of_faults = kept[1:].mean(axis=0)
    total = (weight * kept).sum(axis=0)
    error = (weight * kept * found.squared_error).sum(axis=0)

    def statistics(index: Indices) -> dict[str, Array]:
        with np.errstate(invalid="ignore", divide="ignore"):
            rmse = np.sqrt(error[index].mean(axis=-1) / total[index].mean(axis=-1))
        means = {name: part[index].mean(axis=-1) for name, part in (("all", total), ("o", ordinary), ("f", of_faults))}
        return {**means, "rmse": np.asarray(rmse)}

    done = bca_many(statistics, found.patients, seed=seed, resamples=resamples)
    return PolicyResult(alarm, done["all"], done["o"], done["f"], done["rmse"])
