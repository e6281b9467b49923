"""The digital nigra: phantom cohorts whose truth and whose best reachable error are known.

Everything here is simulated. The phantom is calibrated to the published cohort, and a network that is trained and
tested on it meets the same generator twice: it tests the pipeline, the statistics and the order of methods, and says
nothing about patients.
"""

from nigradat.phantom.cohort import render_patient, simulate
from nigradat.phantom.latents import PRESETS, Latents, Preset, get_preset, sample_latents
from nigradat.phantom.oracle import (
    Ceiling,
    Ceilings,
    OraclePrediction,
    Truth,
    ceilings,
    oracle_predict,
    read_truth,
)
from nigradat.phantom.rendering import (
    Nuisance,
    Recipe,
    RenderedPair,
    SideNuisance,
    render_pair,
    sample_nuisance,
)

__all__ = [
    "PRESETS",
    "Ceiling",
    "Ceilings",
    "Latents",
    "Nuisance",
    "OraclePrediction",
    "Preset",
    "Recipe",
    "RenderedPair",
    "SideNuisance",
    "Truth",
    "ceilings",
    "get_preset",
    "oracle_predict",
    "read_truth",
    "render_pair",
    "render_patient",
    "sample_latents",
    "sample_nuisance",
    "simulate",
]
