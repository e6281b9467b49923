"""The whole way: echoes -> mask -> field -> local field -> susceptibility -> SMWI. It may begin later."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nigradat.errors import ImageError
from nigradat.smwi.background import VSharp
from nigradat.smwi.field import FieldMap, check_phases, fit_field, phase_coherence
from nigradat.smwi.inversion import dipole_field, field_direction, tkd, tv
from nigradat.smwi.masking import Mask, bounding_box, check_mask, largest_part, tissue_mask
from nigradat.smwi.recipe import DEFAULT_RECIPE, OF_UNKNOWN_ORIGIN, SmwiRecipe
from nigradat.smwi.weighting import smwi
from nigradat.volume import Float32, MultiEchoGre, Volume

Say = Callable[[str], None]
MAX_AFFINE_DISTANCE_MM: Final = 0.5
MAX_CHI_PPM: Final = 100.0
_MIN_COHERENCE = 0.3  # a phase that runs by a quarter of a cycle from voxel to voxel; noise has less
_CSF_R2STAR_PER_S = 8.0
_MIN_CSF_ML = 0.2


@dataclass(frozen=True, eq=False)
class SmwiResult:
    """An SMWI and what it was made of, all on one grid.

    Attributes:
        smwi: in the unit of the magnitude; where no susceptibility is known it is the magnitude itself.
        recipe: how it was made, as it goes into sidecars.
        diamagnetic: the twin that darkens diamagnetic tissue, or None where the SMWI was given.
        chi: susceptibility in ppm relative to the recipe's reference, 0 outside ``mask``; None with a given SMWI.
        field: local field in ppm, 0 outside ``mask``; None where the chain began later.
        mask: 1 where the susceptibility is known; None where the chain began later.
    """

    smwi: Volume
    recipe: Mapping[str, Any]
    diamagnetic: Volume | None = None
    chi: Volume | None = None
    field: Volume | None = None
    mask: Volume | None = None


def make_smwi(
    gre: MultiEchoGre,
    recipe: SmwiRecipe = DEFAULT_RECIPE,
    *,
    mask: npt.NDArray[np.generic] | None = None,
    say: Say | None = None,
) -> SmwiResult:
    """Susceptibility map-weighted image of a multi-echo gradient-echo series.

    Args:
        gre: magnitude and phase of two echoes or more.
        recipe: how; the default is that of Nam et al. for the weight.
        mask: ``(X, Y, Z)``, not 0 in the tissue; default :func:`~nigradat.smwi.masking.tissue_mask`. Voxels whose phase
            cannot be followed, and what they cut off from the largest part, are taken out of it.
        say: told in words which step begins.

    Raises:
        ImageError: no phase, a single echo, no tissue, or a mask that does not fit.

    Example:
        >>> gre = read_gre("sub-01/gre")                                                        # doctest: +SKIP
        >>> make_smwi(gre).smwi.data.shape                                                      # doctest: +SKIP
    """
    tell = say or (lambda words: None)
    check_phases(gre)
    tell("mask")
    inside = _usable(gre, mask)
    box = bounding_box(inside)
    part = _cut(gre, box)
    tell("field of all echoes")
    total = fit_field(part, inside[box])
    local, chi, known = _local_and_chi(part, total, inside[box], recipe, tell)
    chi = np.where(known, chi - _zero_of(chi, known, part, recipe), np.float32(0))
    tell("weighting")
    whole = _spread(chi, box, inside.shape)
    plain, twin = (_weighted(gre.magnitude, whole, recipe, diamagnetic) for diamagnetic in (False, True))
    step = f"SMWI, {_in_words(recipe, len(gre.magnitude))}"

    def volume(data: npt.NDArray[Any], made: str) -> Volume:
        return Volume(data.astype(np.float32, copy=False), gre.affine, gre.source.then(made))

    return SmwiResult(
        volume(plain, step),
        recipe.to_json(),
        volume(twin, f"diamagnetic {step}"),
        volume(whole, f"susceptibility by {recipe.inversion}, reference {recipe.reference}"),
        volume(_spread(local, box, inside.shape), "local field by V-SHARP"),
        volume(_spread(known.astype(np.float32), box, inside.shape), "mask of known susceptibility"),
    )


def smwi_from_chi(magnitude: MultiEchoGre | Volume, chi: Volume, recipe: SmwiRecipe = DEFAULT_RECIPE) -> SmwiResult:
    """SMWI of a susceptibility map that was made elsewhere.

    Args:
        magnitude: the echoes, or one image, already combined; phases are not needed.
        chi: in ppm on the same grid. Where it is no number the weight is 0; outside its mask such maps are usually 0,
            which leaves the magnitude as it is.
        recipe: threshold, power and combination count; the rest is unknown here and not written down.

    Raises:
        ImageError: another grid, or values that cannot be ppm (beyond 100, all 0, none a number).

    Example:
        >>> import numpy as np
        >>> magnitude, chi = (Volume(np.full((2, 2, 2), value), np.eye(4)) for value in (100.0, 0.1))
        >>> round(float(smwi_from_chi(magnitude, chi).smwi.data.max()), 2)
        65.61
    """
    echoes = magnitude.magnitude if isinstance(magnitude, MultiEchoGre) else magnitude.data[None]
    check_same_grid(chi, echoes.shape[1:], magnitude.affine, "the susceptibility map")
    finite = chi.data[np.isfinite(chi.data)]
    if not finite.size or not finite.any() or np.abs(finite).max() > MAX_CHI_PPM:
        found = f"values up to {np.abs(finite).max():g}" if finite.size else "no number at all"
        raise ImageError(f"the susceptibility map: {found}", "ppm", "Convert it (1 ppm = 1000 ppb = 1e-6)")
    step = f"weighted by a given susceptibility map, {_in_words(recipe, len(echoes))}"
    plain, twin = (_weighted(echoes, chi.data, recipe, diamagnetic) for diamagnetic in (False, True))
    return SmwiResult(
        Volume(plain, magnitude.affine, magnitude.source.then(f"SMWI, {step}")),
        recipe.weighting_json() | {"inversion": OF_UNKNOWN_ORIGIN},
        Volume(twin, magnitude.affine, magnitude.source.then(f"diamagnetic SMWI, {step}")),
        chi,
    )


def smwi_as_given(volume: Volume, recipe: Mapping[str, Any] | None = None) -> SmwiResult:
    """A scanner's own SMWI, taken as it is; ``recipe`` holds what its maker states, or nothing."""
    return SmwiResult(Volume(volume.data, volume.affine, volume.source.then("taken as SMWI")), dict(recipe or {}))


def check_same_grid(volume: Volume, shape: tuple[int, ...], affine: npt.ArrayLike, what: str) -> None:
    """Refuse an image that lies elsewhere than another. Raises :class:`~nigradat.errors.ImageError`."""
    if volume.data.shape != shape:
        raise ImageError(f"{what} of shape {volume.data.shape}", f"that of the images, {shape}")
    corners = np.array([(*corner, 1) for corner in product(*((0, n - 1) for n in shape))])
    difference = volume.affine - np.asarray(affine, dtype=np.float64)
    distance = float(np.linalg.norm(corners @ difference.T, axis=1).max())
    if distance > MAX_AFFINE_DISTANCE_MM:
        raise ImageError(
            f"{what} lies up to {distance:.1f} mm beside the images",
            f"at most {MAX_AFFINE_DISTANCE_MM:g} mm",
            "Resample it to the images' grid, or mend its header",
        )


def _local_and_chi(
    gre: MultiEchoGre, total: FieldMap, mask: Mask, recipe: SmwiRecipe, tell: Say
) -> tuple[Float32, Float32, Mask]:
    """Local field, susceptibility, and where both are known.

    Background removal takes a little of the local field with it, near the border most. So it is done again with the
    field that the map already explains taken off, of which nothing can be lost then.
    """
    spacing, direction = gre.spacing_mm, field_direction(gre.affine, gre.b0_direction)
    sharp = VSharp.within(mask, spacing, radius_mm=recipe.sharp_radius_mm, threshold=recipe.sharp_threshold)
    known = sharp.known
    explained = chi = np.zeros_like(total.field_ppm)
    for i in range(recipe.rounds):
        tell(f"background and inversion, round {i + 1} of {recipe.rounds}")
        local = np.where(known, explained + sharp.local(total.field_ppm - explained), np.float32(0))
        if recipe.inversion == "tkd":
            chi = tkd(local, known, spacing, direction, threshold=recipe.tkd_threshold)
        else:
            chi = tv(
                local,
                known,
                total.weight,
                spacing,
                direction,
                lambda_ppm_mm=recipe.tv_lambda_ppm_mm,
                iterations=recipe.tv_iterations,
                start=chi,
            )
        if i + 1 < recipe.rounds:
            explained = dipole_field(chi, spacing, direction)
    return local, chi, known


def _usable(gre: MultiEchoGre, given: npt.NDArray[np.generic] | None) -> Mask:
    """Tissue with signal in all echoes whose phase can be followed from voxel to voxel."""
    trusted = (phase_coherence(gre) > _MIN_COHERENCE) & (gre.magnitude > 0).all(axis=0)
    if given is None:
        return tissue_mask(gre.magnitude[0], gre.spacing_mm, trusted)
    inside = largest_part(check_mask(given, trusted.shape) & trusted)
    if not inside.any():
        raise ImageError("a mask without any usable phase", "tissue", "Look at the mask and at the images")
    return inside


def _in_words(recipe: SmwiRecipe, echoes: int) -> str:
    return f"chi_th {recipe.chi_th_ppm:g} ppm, m {recipe.m:g}, {recipe.combination} of {echoes} echoes"


def _weighted(magnitude: Float32, chi: Float32, recipe: SmwiRecipe, diamagnetic: bool) -> Float32:
    return smwi(
        magnitude,
        chi,
        chi_th_ppm=recipe.chi_th_ppm,
        m=recipe.m,
        combination=recipe.combination,
        diamagnetic=diamagnetic,
    )


def _cut(gre: MultiEchoGre, box: tuple[slice, slice, slice]) -> MultiEchoGre:
    assert gre.phase is not None
    every = (slice(None), *box)
    return MultiEchoGre(
        gre.magnitude[every],
        gre.phase[every],
        gre.echo_times_ms,
        gre.field_strength_t,
        gre.affine,  # of the whole: only its directions and spacing are used
        gre.b0_direction,
        gre.source,
    )


def _spread(part: Float32, box: tuple[slice, slice, slice], shape: tuple[int, ...]) -> Float32:
    whole = np.zeros(shape, dtype=np.float32)
    whole[box] = part
    return whole


def _zero_of(chi: Float32, known: Mask, gre: MultiEchoGre, recipe: SmwiRecipe) -> np.float32:
    """The susceptibility that the recipe calls 0."""
    from scipy import ndimage

    if recipe.reference == "none":
        return np.float32(0)
    if recipe.reference == "mask":
        return np.float32(chi[known].mean(dtype=np.float64))
    # opened, so that a noisy voxel alone is no fluid
    csf = ndimage.binary_opening(known & (_r2star_per_s(gre) < _CSF_R2STAR_PER_S))
    millilitres = float(csf.sum() * gre.spacing_mm.prod() / 1000)
    if millilitres < _MIN_CSF_ML:
        raise ImageError(
            f"{millilitres:.2g} ml of cerebrospinal fluid (R2* below {_CSF_R2STAR_PER_S:g} per s) in the mask",
            f"at least {_MIN_CSF_ML:g} ml to refer to",
            "Take the mean over the mask as reference (--reference mask)",
        )
    return np.float32(np.median(chi[csf]))


def _r2star_per_s(gre: MultiEchoGre) -> Float32:
    """Rate of decay by a straight line through the logarithms, weighted by magnitude squared."""
    times = (gre.echo_times_ms / 1000).astype(np.float32)[:, None, None, None]
    weight = gre.magnitude**2
    total = np.maximum(weight.sum(axis=0), np.finfo(np.float32).tiny)
    logs = np.log(np.maximum(gre.magnitude, np.finfo(np.float32).tiny))
    mean_time, mean_log = (weight * times).sum(axis=0) / total, (weight * logs).sum(axis=0) / total
    spread = (weight * (times - mean_time) ** 2).sum(axis=0)
    rate: Float32 = -(weight * (times - mean_time) * (logs - mean_log)).sum(axis=0) / np.maximum(
        spread, np.finfo(np.float32).tiny
    )
    return rate
