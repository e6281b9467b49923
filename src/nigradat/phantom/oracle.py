"""What can be known at best: closed forms on the phantom's latents, and the way to a phantom cohort's truth.

Given ``m``, what the image could show, the label is log-normal. With ``S`` the covariance of ``(m_own, m_other)`` and
``c`` its covariance with ``z_own``, the weights are ``w = S^-1 c`` and the residual variance ``1 - c' S^-1 c``, so

    log SBR | m  ~  N(log_mean + log_sd * w'm,  log_sd^2 * (1 - c' S^-1 c)).

The truncation of the labels to the published range, which the closed form leaves out, changes the scores by less than
1 %. A network sees an image of ``m``, not ``m``: its own ceiling is lower by what the image loses.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from nigradat.anatomy import Side
from nigradat.errors import CohortError, ConfigError
from nigradat.phantom.latents import Array, Latents, Preset, get_preset, sample_latents

SBR_SCALE: Final = 6.84  # largest SBR of the paper's cohort, the denominator of its Sharpness
Sides = Literal["single", "pair"]

_CEILING_PATIENTS: Final = 200_000
_CEILING_SEED: Final = 20251015

TRUTH_FOLDER: Final = "truth"
LATENTS_FILE: Final = "latents.tsv"
MASKS_FILE: Final = "masks.npy"
TRUTH_FILE: Final = "truth.json"
_PAIRED: Final = ("u", "m", "d", "z", "sbr")
LATENT_COLUMNS: Final = tuple(f"{name}_{side.value}" for name in _PAIRED for side in Side)


@dataclass(frozen=True)
class Ceiling:
    """The best that a predictor can do on average, from one side's ``m`` or from both.

    Attributes:
        weight_own, weight_other: weights of ``m`` of the same and of the other side in the mean of ``z``.
        log_sd: conditional SD of log SBR; the error is proportional to the SBR.
        r, rmse: of the conditional mean, over both sides; ``rmse`` in SBR.
        mae: of the conditional mean, in SBR.
        mae_median: of the conditional median, the least that is possible, in SBR.
        sharpness: ``1 - mean(half-width) / 6.84`` of the central 95 % interval of the log-normal.
        coverage: share of the labels in that interval (a little above .95, because of the truncation).
    """

    weight_own: float
    weight_other: float
    log_sd: float
    r: float
    rmse: float
    mae: float
    mae_median: float
    sharpness: float
    coverage: float


@dataclass(frozen=True)
class Ceilings:
    """Ceilings of a preset: ``single`` sees its own side only, ``pair`` both."""

    preset: Preset
    single: Ceiling
    pair: Ceiling

    def __getitem__(self, sides: Sides) -> Ceiling:
        return self.single if sides == "single" else self.pair


@dataclass(frozen=True, eq=False)
class OraclePrediction:
    """The oracle's answer for given patients; every array ``(n, 2)``, SBR, right first.

    Attributes:
        mean: conditional mean, the best point prediction in squared error.
        median: conditional median, the best one in absolute error.
        lower, upper: central interval of ``level``, not clipped to the range of the labels.
        log_sd: conditional SD of log SBR, one number for all.
        level: nominal level of the interval.
    """

    mean: Array
    median: Array
    lower: Array
    upper: Array
    log_sd: float
    level: float


@dataclass(frozen=True, eq=False)
class Truth:
    """The truth of a phantom cohort. For tests and evaluation only: training never opens it.

    Attributes:
        preset: the generative model.
        seed: of the cohort.
        participant_id: in row order of the cohort.
        latents: of every patient.
        masks: ``(n, 2, 50, 50, 20)`` uint8, memory-mapped, native view, bits of :mod:`nigradat.phantom.anatomy`.
    """

    preset: Preset
    seed: int
    participant_id: tuple[str, ...]
    latents: Latents
    masks: npt.NDArray[np.uint8]


def regression_weights(preset: str | Preset, sides: Sides = "single") -> tuple[float, float, float]:
    """Weight of the own ``m``, of the other side's ``m``, and the residual variance of ``z``: closed form.

    Raises:
        ConfigError: unknown preset, or ``sides`` neither ``single`` nor ``pair``.
    """
    p = get_preset(preset)
    own, cross = 1.0 + p.tau2, p.rho_u + p.rho_eta * p.tau2
    c = np.sqrt(p.rel) * np.array([1.0, p.rho_u])
    if sides == "single":
        return float(c[0] / own), 0.0, float(1.0 - c[0] ** 2 / own)
    if sides == "pair":
        w = np.linalg.solve(np.array([[own, cross], [cross, own]]), c)
        return float(w[0]), float(w[1]), float(1.0 - c @ w)
    raise ConfigError(f"sides '{sides}'", "'single' or 'pair'")


def oracle_predict(
    m: npt.ArrayLike, preset: str | Preset, sides: Sides = "single", level: float = 0.95
) -> OraclePrediction:
    """The best prediction for given patients by someone who sees ``m`` itself.

    Args:
        m: ``(n, 2)``, right first, from :class:`~nigradat.phantom.latents.Latents`.
        preset: the one that the patients were drawn from.
        sides: from the own side only (``single``) or from both (``pair``).
        level: of the central interval, in (0, 1).

    Raises:
        ConfigError: unknown preset or ``sides``, a level outside (0, 1), or ``m`` of another shape.
    """
    p = get_preset(preset)
    values = np.asarray(m, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != 2:
        raise ConfigError(f"m of shape {values.shape}", "(n, 2), right first")
    if not 0.0 < level < 1.0:
        raise ConfigError(f"level {level}", "a number between 0 and 1")
    own, other, residual = regression_weights(p, sides)
    mu = p.log_mean + p.log_sd * (own * values + other * values[:, ::-1])
    sd = p.log_sd * float(np.sqrt(residual))
    half = float(ndtri(0.5 + level / 2.0)) * sd
    return OraclePrediction(np.exp(mu + sd**2 / 2.0), np.exp(mu), np.exp(mu - half), np.exp(mu + half), sd, level)


@lru_cache(maxsize=16)
def _ceilings(preset: Preset) -> Ceilings:
    latents = sample_latents(_CEILING_PATIENTS, preset, _CEILING_SEED)
    return Ceilings(preset, _score(latents, preset, "single"), _score(latents, preset, "pair"))


def ceilings(preset: str | Preset) -> Ceilings:
    """Ceilings of a preset: weights and spread in closed form, scores on 200,000 seeded patients (a second; cached).

    Raises:
        ConfigError: no preset of that name.
    """
    return _ceilings(get_preset(preset))


def _score(latents: Latents, preset: Preset, sides: Sides) -> Ceiling:
    own, other, _ = regression_weights(preset, sides)
    best = oracle_predict(latents.m, preset, sides)
    y = latents.sbr
    return Ceiling(
        weight_own=own,
        weight_other=other,
        log_sd=best.log_sd,
        r=float(np.corrcoef(best.mean.ravel(), y.ravel())[0, 1]),
        rmse=float(np.sqrt(np.mean((best.mean - y) ** 2))),
        mae=float(np.mean(np.abs(best.mean - y))),
        mae_median=float(np.mean(np.abs(best.median - y))),
        sharpness=float(1.0 - np.mean((best.upper - best.lower) / 2.0) / SBR_SCALE),
        coverage=float(np.mean((best.lower <= y) & (y <= best.upper))),
    )


def read_truth(cohort: str | Path) -> Truth:
    """Open the truth of a phantom cohort.

    Args:
        cohort: folder that :func:`nigradat.phantom.simulate` wrote.

    Raises:
        CohortError: no truth there (not a phantom, or its truth was taken away), or it is damaged.
    """
    folder = Path(cohort) / TRUTH_FOLDER
    try:
        description = json.loads((folder / TRUTH_FILE).read_text(encoding="utf-8"))
        header, *lines = (folder / LATENTS_FILE).read_text(encoding="utf-8").splitlines()
        table = dict(zip(header.split("\t"), zip(*(line.split("\t") for line in lines), strict=True), strict=True))
        columns = {name: np.array(table[name], dtype=np.float64) for name in (*LATENT_COLUMNS, "age")}
        u, m, d, z, sbr = (np.stack([columns[f"{name}_right"], columns[f"{name}_left"]], axis=1) for name in _PAIRED)
        masks = np.load(folder / MASKS_FILE, mmap_mode="r", allow_pickle=False)
        preset, seed = Preset(**description["preset"]), int(description["seed"])
        latents = Latents(u, m, d, z, sbr, columns["age"], np.array(table["sex"]))
    except OSError as error:
        raise CohortError(
            f"{folder}: no truth of a phantom ({error})",
            "a cohort made by 'nigradat simulate', with its folder truth/",
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise CohortError(f"{folder} is damaged ({error})", todo="Simulate the cohort again") from error
    if masks.shape[:2] != (len(latents), 2):
        raise CohortError(f"{folder}: masks of shape {masks.shape} for {len(latents)} patients", "one row a patient")
    return Truth(preset, seed, tuple(table["participant_id"]), latents, masks)


def read_masks(cohort: Path, rows: npt.NDArray[np.int_] | None = None) -> npt.NDArray[np.uint8] | None:
    """Masks ``(n, 2, 50, 50, 20)`` of some rows of a phantom cohort, native view; None where its truth is not there.

    Raises:
        CohortError: a damaged truth.
    """
    if not (cohort / TRUTH_FOLDER).is_dir():
        return None
    masks = read_truth(cohort).masks
    return np.asarray(masks if rows is None else masks[rows])
