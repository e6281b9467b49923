"""Latents and labels of the digital nigra phantom: who is ill, how much the MR shows of it, what the SPECT measures.

The generative model is our reconstruction. It was calibrated to what the paper states about its cohort (range of the
SBR, its spread, the share below 2.56, the correlation of right and left) and to the accuracy it reports:

* ``u``: nigrostriatal integrity of each side, standard normal, high is healthy, right and left correlated ``rho_u``;
* ``m = u + sqrt(tau2) * eta``: what the MR could show of it (iron and nigrosome variants decouple from terminals);
* ``d = Phi(-m / sqrt(1 + tau2))``: visible degeneration in (0, 1), the only disease input of the renderer;
* ``z = sqrt(rel) * u + sqrt(1 - rel) * e``: what the SPECT measures (test-retest, reference region, software);
* ``sbr = exp(log_mean + log_sd * z)``, the whole patient redrawn unless both sides lie in the published range.

Right and left come from one generator, so nothing that is learnt here says anything about patients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from nigradat.errors import ConfigError

Array = npt.NDArray[np.float64]

AGE_MEAN: Final = 65.0
AGE_SD: Final = 10.0

# Patients are drawn in blocks of this size, each with a generator of its own: see sample_latents.
_BLOCK: Final = 256
_LATENT_STREAM: Final = 1
_COLUMNS: Final = 9  # random numbers a patient


@dataclass(frozen=True)
class Preset:
    """How strongly image, uptake and the two sides are tied to one another.

    Attributes:
        name: as on the command line.
        rho_u: correlation of right and left integrity ``u``.
        tau2: variance of what decouples the MR from the integrity (``u`` has variance 1).
        rho_eta: right-left correlation of that part.
        rel: reliability of the SPECT label.
        rho_e: right-left correlation of the label noise.
        log_mean, log_sd: mean and SD of log SBR before truncation.
        sbr_min, sbr_max: a patient with a side outside is drawn again (range of the paper's cohort).
        age_effect: change of ``u`` per decade above 65 years.
        sex_effect: ``u`` of women minus ``u`` of men.
    """

    name: str
    rho_u: float = 0.94
    tau2: float = 0.50
    rho_eta: float = 0.10
    rel: float = 0.95
    rho_e: float = 0.70
    log_mean: float = 0.60
    log_sd: float = 0.55
    sbr_min: float = 0.43
    sbr_max: float = 6.84
    age_effect: float = -0.09
    sex_effect: float = 0.10

    def __post_init__(self) -> None:
        shared = self.covariate_variance
        if not (shared <= self.rho_u <= 1 and self.tau2 >= 0 and 0 < self.rel <= 1):
            raise ConfigError(
                f"preset '{self.name}' with rho_u={self.rho_u}, tau2={self.tau2}, rel={self.rel}",
                f"rho_u in [{shared:.4f}, 1] (age and sex act on both sides), tau2 >= 0 and rel in (0, 1]",
            )
        if not (0 <= self.rho_eta <= 1 and 0 <= self.rho_e <= 1 and 0 < self.sbr_min < self.sbr_max):
            raise ConfigError(
                f"preset '{self.name}' with rho_eta={self.rho_eta}, rho_e={self.rho_e}, "
                f"SBR range {self.sbr_min}..{self.sbr_max}",
                "correlations in [0, 1] and 0 < sbr_min < sbr_max",
            )

    @property
    def covariate_variance(self) -> float:
        """The part of the unit variance of ``u`` that age and sex explain."""
        return (self.age_effect * AGE_SD / 10.0) ** 2 + (self.sex_effect / 2.0) ** 2


PRESETS: Final[dict[str, Preset]] = {
    preset.name: preset
    for preset in (
        Preset("paper"),
        Preset("hard", tau2=0.62),
        Preset("easy", tau2=0.15, rel=0.97),
        Preset("uncoupled", rho_u=0.5, rho_eta=0.0, rho_e=0.0),
    )
}


def get_preset(preset: str | Preset) -> Preset:
    """The preset of that name; a :class:`Preset` of one's own is handed through.

    Raises:
        ConfigError: no preset of that name; the message lists those there are.
    """
    if isinstance(preset, Preset):
        return preset
    try:
        return PRESETS[preset]
    except KeyError:
        raise ConfigError(f"no preset is called '{preset}'", f"one of {', '.join(PRESETS)}") from None


@dataclass(frozen=True, eq=False)
class Latents:
    """The truth about ``n`` phantom patients. Arrays ``(n, 2)`` are right first.

    Attributes:
        u: nigrostriatal integrity, standard normal, high is healthy.
        m: what the MR could show of it.
        d: visible degeneration in (0, 1).
        z: standardised log uptake as the SPECT measures it.
        sbr: the label, a plain ratio, stored to .01 as in the paper's cohort.
        age: years, ``(n,)``.
        sex: ``"F"`` or ``"M"``, ``(n,)``.
    """

    u: Array
    m: Array
    d: Array
    z: Array
    sbr: Array
    age: Array
    sex: npt.NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.age)


def sample_latents(n: int, preset: str | Preset, seed: int) -> Latents:
    """Draw ``n`` phantom patients.

    Patient ``i`` of a seed and preset is the same whatever ``n``: patients are drawn in blocks of 256, each block
    always whole and from a generator seeded with (seed, block). Presets share the underlying normal numbers.

    Args:
        n: number of patients, at least 1.
        preset: name or :class:`Preset`.
        seed: non-negative integer.

    Raises:
        ConfigError: unknown preset, ``n`` < 1 or a negative seed.
    """
    chosen = get_preset(preset)
    if n < 1 or seed < 0:
        raise ConfigError(f"{n} patients with seed {seed}", "at least 1 patient and a seed >= 0")
    blocks = [_draw_block(chosen, seed, block) for block in range(-(-n // _BLOCK))]
    u, m, d, z, sbr, age, woman = (np.concatenate(parts)[:n] for parts in zip(*blocks, strict=True))
    return Latents(u, m, d, z, sbr, age, np.where(woman > 0, "F", "M"))


def _draw_block(preset: Preset, seed: int, block: int) -> tuple[Array, ...]:
    """One block of patients; a patient takes the first draw whose two labels both lie in the range."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, _LATENT_STREAM, block]))
    kept = _derive(preset, rng.standard_normal((_BLOCK, _COLUMNS)))
    while (again := ~_in_range(preset, kept[4])).any():
        # the whole block is drawn at every attempt, so that a patient's numbers do not depend on its neighbours' luck
        fresh = _derive(preset, rng.standard_normal((_BLOCK, _COLUMNS)))
        for old, new in zip(kept, fresh, strict=True):
            old[again] = new[again]
    return kept


def _in_range(preset: Preset, sbr: Array) -> npt.NDArray[np.bool_]:
    inside = (sbr >= preset.sbr_min) & (sbr <= preset.sbr_max)
    return np.asarray(inside.all(axis=1))


def _derive(preset: Preset, g: Array) -> tuple[Array, ...]:
    """``u, m, d, z, sbr, age, woman`` of the normal numbers ``g``, shape ``(n, 9)``."""
    # rounded before it acts, so that the stored age is the one that acted
    age = np.round(AGE_MEAN + AGE_SD * g[:, 0], 1)
    woman = np.where(g[:, 1] > 0, 1.0, -1.0)
    covariates = preset.age_effect * (age - AGE_MEAN) / 10.0 + preset.sex_effect / 2.0 * woman
    common = covariates + np.sqrt(preset.rho_u - preset.covariate_variance) * g[:, 2]
    u = common[:, None] + np.sqrt(1.0 - preset.rho_u) * g[:, 3:5]
    eta = _correlated(g[:, 5:7], preset.rho_eta)
    e = _correlated(g[:, 7:9], preset.rho_e)
    m = u + np.sqrt(preset.tau2) * eta
    d = ndtr(-m / np.sqrt(1.0 + preset.tau2))
    z = np.sqrt(preset.rel) * u + np.sqrt(1.0 - preset.rel) * e
    sbr = np.round(np.exp(preset.log_mean + preset.log_sd * z), 2)
    return u, m, d, z, sbr, age, woman


def _correlated(g: Array, rho: float) -> Array:
    """Two standard normal numbers of correlation ``rho`` from two independent ones, ``(n, 2)``."""
    return np.stack([g[:, 0], rho * g[:, 0] + np.sqrt(1.0 - rho**2) * g[:, 1]], axis=1)
