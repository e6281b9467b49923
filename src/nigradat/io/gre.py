"""Scans as values: what lies in a file, a folder or an archive, as series; of these one as echoes or as an image."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from nigradat.errors import ConfigError, ImageError, NigradatError
from nigradat.io.archive import ScanFiles, find_files
from nigradat.io.dicom import read_dicom
from nigradat.io.files import sha256_of
from nigradat.io.nifti import AFFINE_CHOICES, AffineChoice, read_volume
from nigradat.io.nifti_series import read_nifti
from nigradat.io.phase import PhaseSign, from_complex, is_reversed, phase_scale, to_radians
from nigradat.io.series import BODY_PARTS, SHOWABLE, Part, ScanImage, ScanSeries, listed, token_of
from nigradat.volume import MultiEchoGre, Source, Volume

Float32 = npt.NDArray[np.float32]
Path = str | os.PathLike[str]
Purpose = Literal["smwi", "image", "refuse"]

_MIN_ECHOES: Final = 2
_NOT_PHASE: Final[dict[Part, str]] = {
    "field map": "a field map in Hz: it is computed from phases of several echoes, and their wraps and noise are lost",
    "filtered phase": "a phase that the scanner has high-pass filtered for SWI: the field of large structures is gone",
    "phase difference": "the difference of two echoes' phases, of which neither is there by itself",
}


@dataclass(frozen=True)
class Use:
    """What can be made of a series.

    Attributes:
        purpose: ``smwi`` (echoes with phase), ``image`` (something to look at, to localise in or to measure) or
            ``refuse``.
        because: why not more, as errors; the first is the one that a reader raises.
        steps: for ``smwi`` how :func:`read_gre` would make radians of the phase, in words.
    """

    purpose: Purpose
    because: tuple[NigradatError, ...] = ()
    steps: tuple[str, ...] = ()


def read_scan(path: Path, *, affine: AffineChoice = "auto") -> tuple[ScanSeries, ...]:
    """Everything that is understood in a file, a folder (searched through) or an archive.

    All voxels are read once, so that a damaged file shows here; they are not kept.

    Args:
        path: DICOM (classic or enhanced MR, NM, PET; any common compression), NIfTI with BIDS sidecars, or an archive
            of these (``.zip``, ``.tar``, ``.tar.gz``, ``.tar.xz``, ``.dcm.gz``).
        affine: which of a NIfTI's two orientations decides where they conflict.

    Returns:
        The series, DICOM first, numbered from 1 by their ``label``. One with ``problems`` cannot be used.

    Raises:
        ImageError: nothing there, no image at all, a damaged DICOM file, an archive that is not safe to unpack.
        MissingExtraError: DICOM without the extra ``dicom``.

    Example:
        >>> [str(image) for image in nigradat.read_scan("dicom-folder")[0].images]  # doctest: +SKIP
        ['magnitude at 14 ms', 'magnitude at 27 ms', 'phase at 14 ms', 'phase at 27 ms']
    """
    return tuple(series.with_ranges() for series in _list_series(path, affine))


def use_of(series: ScanSeries) -> Use:
    """What a series of :func:`read_scan` can be made into, and why not into more."""
    refusals = (*series.problems, *_wrong_body(series))
    if refusals:
        return Use("refuse", refusals)
    because = _why_no_gre(series)
    if not because:
        return Use("smwi", steps=(*_phase_steps(series), *_lacking(series)))
    return Use("image" if _showable(series.images) else "refuse", because)


def read_gre(
    path: Path,
    *,
    series: str | None = None,
    phase_sign: PhaseSign = "auto",
    echo_times_ms: Sequence[float] | None = None,
    field_strength_t: float | None = None,
    affine: AffineChoice = "auto",
    any_body_part: bool = False,
    trust_phase: bool = False,
) -> MultiEchoGre:
    """The echoes of a gradient-echo scan, magnitude and phase.

    Args:
        path: as for :func:`read_scan`; among what lies there exactly one series must be usable.
        series: the label of the one to take, as ``nigradat inspect`` numbers them.
        phase_sign: ``auto`` (turned for makers whose phase falls where the field is stronger), ``as-stored`` or
            ``reversed``.
        echo_times_ms: where the files do not say; one for each echo, rising.
        field_strength_t: where the files do not say.
        affine: which of a NIfTI's two orientations decides where they conflict.
        any_body_part: take the header's word for another body part as a mistake.
        trust_phase: take a phase that its header says is filtered as it is. Only for scans whose raw phase was exported
            under the name of a sequence that usually filters.

    Returns:
        Echoes by rising time; ``source.steps`` says how parts, units and sign were found.

    Raises:
        ImageError: no usable series, or several, with the candidates; one echo; no phase; a field map, a filtered
            phase or a phase difference; phase in no unit that can be told; a body part without a midbrain.
        OrientationError: a series without a usable position.
        ConfigError: a series or a sign that does not exist.

    Example:
        >>> nigradat.read_gre("dicom-folder").magnitude.shape  # doctest: +SKIP
        (3, 384, 384, 64)
    """
    is_reversed("", phase_sign)
    every = tuple(_with_echo_times(one, echo_times_ms) for one in _list_series(path, affine))
    if trust_phase:
        every = tuple(map(_trusted, every))
    chosen = _choose(
        path, every, series, lambda one: (*_refusals(one, any_body_part), *_why_no_gre(one)), "a multi-echo scan"
    )
    assert chosen.read is not None
    assert chosen.affine is not None
    steps: list[str] = []
    if chosen.places("phase"):
        magnitude = chosen.read(chosen.places("magnitude"))
        phase, statement = _radians(chosen)
        steps.append(statement)
    else:
        real, imaginary = (chosen.read(chosen.places(part)) for part in ("real", "imaginary"))
        magnitude, phase, statement = from_complex(real, imaginary)
        steps.append(statement)
    if not np.isfinite(magnitude).all():
        raise ImageError(f"{os.fspath(path)}: magnitude with voxels that are no number", "finite values")
    reverse, statement = is_reversed(str(chosen.attributes.get("Manufacturer", "")), phase_sign)
    steps.append(statement)
    return MultiEchoGre(
        magnitude=magnitude,
        phase=-phase if reverse else phase,
        echo_times_ms=np.array(_echo_times(chosen), dtype=np.float64),
        field_strength_t=_field_strength(chosen, field_strength_t),
        affine=chosen.affine,
        source=chosen.source(*steps),
    )


def read_image(
    path: Path,
    *,
    series: str | None = None,
    part: Part | None = None,
    echo_time_ms: float | None = None,
    affine: AffineChoice = "auto",
    any_body_part: bool = False,
) -> Volume:
    """One image of a scan: a T1w, an SMWI, the magnitude of one echo, a reconstructed SPECT.

    Args:
        path: as for :func:`read_scan`; exactly one image must fit.
        series: the label of the series to take, as ``nigradat inspect`` numbers them.
        part: for example ``magnitude``; default whatever can be shown.
        echo_time_ms: of the echo to take, to 0.01 ms.
        affine: which of a NIfTI's two orientations decides where they conflict.
        any_body_part: take the header's word for another body part as a mistake.

    Raises:
        ImageError: no usable image, or several, with the candidates; a body part without a midbrain.
        OrientationError: no usable position.
        ConfigError: a series that does not exist.

    Example:
        >>> nigradat.read_image("t1w.nii.gz").spacing_mm  # doctest: +SKIP
        array([1., 1., 1.])
    """

    def fitting(one: ScanSeries) -> list[int]:
        return [
            i
            for i, image in enumerate(one.images)
            if (image.part == part if part else image.part in SHOWABLE)
            and (echo_time_ms is None or abs((image.echo_time_ms or 0) - echo_time_ms) < 0.01)
        ]

    def faults(one: ScanSeries) -> tuple[NigradatError, ...]:
        none = ImageError(f"no image among {one.holds}", f"{part or 'one that can be shown'}")
        return _refusals(one, any_body_part) or (() if fitting(one) else (none,))

    chosen = _choose(path, _list_series(path, affine), series, faults, "an image")
    places = fitting(chosen)
    if len(places) > 1:
        raise ImageError(
            f"{os.fspath(path)}: {len(places)} images: {listed([chosen.images[i] for i in places])}",
            "one",
            "Say which with --part or --echo-time; of repetitions keep one",
        )
    assert chosen.read is not None
    assert chosen.affine is not None
    image = chosen.images[places[0]]
    (voxels,) = chosen.read(places)
    if not np.isfinite(voxels).all():
        raise ImageError(f"{os.fspath(path)}: voxels that are no number", "finite values")
    source = chosen.source(f"read as {image}")
    if image.echo_time_ms is not None:
        source = replace(source, attributes={**source.attributes, "EchoTime": image.echo_time_ms})
    return Volume(voxels, chosen.affine, source)


def read_magnitude(
    path: Path,
    *,
    series: str | None = None,
    echo_times_ms: Sequence[float] | None = None,
    field_strength_t: float | None = None,
    affine: AffineChoice = "auto",
    any_body_part: bool = False,
    trust_phase: bool = False,
    phase_sign: PhaseSign = "auto",
) -> MultiEchoGre | Volume:
    """What a given susceptibility map weighs: the echoes of a scan, or one image where it holds no phases.

    Args:
        path, series, echo_times_ms, field_strength_t, affine, any_body_part, trust_phase, phase_sign: as for
            :func:`read_gre`.

    Raises:
        ImageError, OrientationError, ConfigError: as :func:`read_gre`, where there is no single image either.
    """
    try:
        return read_gre(
            path,
            series=series,
            phase_sign=phase_sign,
            echo_times_ms=echo_times_ms,
            field_strength_t=field_strength_t,
            affine=affine,
            any_body_part=any_body_part,
            trust_phase=trust_phase,
        )
    except ImageError as no_echoes:
        try:
            return read_image(path, series=series, affine=affine, any_body_part=any_body_part)
        except ImageError:
            raise no_echoes from None


def read_map(path: Path, *, affine: AffineChoice = "auto") -> Volume:
    """A susceptibility map or a mask (NIfTI) as it is: unlike an image it may hold voxels that are no number.

    Raises:
        ImageError, OrientationError: no usable NIfTI.
    """
    voxels, where = read_volume(path, affine)
    return Volume(voxels, np.asarray(where, dtype=np.float64), Source((token_of(sha256_of(path)),), "nifti"))


# -- Finding ------------------------------------------------------------------------------------------------------


def _list_series(path: Path, affine: AffineChoice) -> tuple[ScanSeries, ...]:
    if affine not in AFFINE_CHOICES:
        raise ConfigError(f"affine {affine!r}", f"one of {', '.join(AFFINE_CHOICES)}")
    files = find_files(path)
    found = (*_read_dicom(files), *read_nifti(files, affine))
    if not found:
        n = len(files.paths)
        raise ImageError(
            f"{files.given}: no image in {n} file{'s' if n > 1 else ''}", "DICOM images or NIfTI files (.nii, .nii.gz)"
        )
    return tuple(replace(one, label=str(i)) for i, one in enumerate(found, start=1))


def _read_dicom(files: ScanFiles) -> tuple[ScanSeries, ...]:
    from nigradat.io.dicom_frames import is_dicom

    if not any(is_dicom(path, files.name(path)) for path in files.paths):
        return ()
    try:
        import pydicom  # noqa: F401 - named here, before any work
    except ImportError as error:
        from nigradat.errors import MissingExtraError

        raise MissingExtraError("pydicom", "dicom") from error
    return read_dicom(files)


def _choose(
    path: Path,
    every: Sequence[ScanSeries],
    label: str | None,
    faults: Callable[[ScanSeries], tuple[NigradatError, ...]],
    what: str,
) -> ScanSeries:
    """The one series without faults; an error that says of each why it is none, or that several fit."""
    given = os.fspath(path)
    if label is not None:
        named = [one for one in every if one.label == label]
        if not named:
            raise ConfigError(f"series {label} of {given}", f"one of {', '.join(one.label for one in every)}")
        every = named
    fitting = [one for one in every if not faults(one)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        shown = "; ".join(f"{one.label}: {one.holds}" for one in fitting)
        raise ImageError(f"{given}: {len(fitting)} series that could be {what} ({shown})", "one", "Say which series")
    if len(every) == 1:
        first = faults(every[0])[0]
        raise type(first)(f"{given}: {first.found}", first.expected, first.todo)
    reasons = "; ".join(f"{one.label}: {faults(one)[0].found}" for one in every)
    raise ImageError(f"{given}: none of {len(every)} series is {what} ({reasons})", what)


# -- Judging ------------------------------------------------------------------------------------------------------


def _wrong_body(series: ScanSeries) -> tuple[NigradatError, ...]:
    body = series.attributes.get("BodyPartExamined")
    if body is None or body in BODY_PARTS:
        return ()
    return (ImageError(f"a scan of the body part {body}", "the head", "If the header is wrong, say --any-body-part"),)


def _refusals(series: ScanSeries, any_body_part: bool) -> tuple[NigradatError, ...]:
    return (*series.problems, *(() if any_body_part else _wrong_body(series)))


def _showable(images: Sequence[ScanImage]) -> bool:
    return any(image.part in SHOWABLE for image in images)


def _why_no_gre(series: ScanSeries) -> tuple[NigradatError, ...]:
    """What a series lacks to become SMWI; empty if nothing."""
    parts = {image.part for image in series.images}
    refused = [
        ImageError(_NOT_PHASE[part], "the phase of each echo, as scanned")
        for part in dict.fromkeys(image.part for image in series.images)
        if part in _NOT_PHASE
    ]
    is_complex = "phase" not in parts and "real" in parts
    pair: tuple[Part, Part] = ("real", "imaginary") if is_complex else ("magnitude", "phase")
    missing = [part for part in pair if part not in parts]
    if missing:
        has = series.holds
        lacking = ImageError(f"{has} without {missing[0]}", f"{pair[0]} and {pair[1]} of every echo")
        return (*series.hazards, *refused, lacking)
    faults: list[NigradatError] = [*series.hazards]
    first, second = (series.echo_times_ms(part) for part in pair)
    if first != second:
        faults.append(ImageError(f"echoes that differ: {series.holds}", "the same echoes of both parts"))
    if len(first) < _MIN_ECHOES:
        faults.append(ImageError(f"one echo: {series.holds}", "two or more", "Take a multi-echo scan"))
    elif any(time is None for time in first):
        faults.append(
            ImageError(f"{len(first)} echoes without echo times", "a time for each", "Give them in ms (--echo-times)")
        )
    elif len(set(first)) < len(first):
        faults.append(ImageError(f"echoes of the same time: {series.holds}", "echo times that differ"))
    if series.repetitions > 1:
        faults.append(ImageError(f"{series.repetitions} repetitions", "one", "Name a folder with one of them"))
    if not faults:
        faults += _unit_faults(series) if pair[1] == "phase" else ()
        ranges = [series.images[i].value_range for part in pair for i in series.places(part)]
        if not all(np.isfinite(r).all() for r in ranges if r is not None) and not faults:
            faults.append(ImageError(f"{' or '.join(pair)} with voxels that are no number", "finite values"))
    return tuple(faults)


def _unit_faults(series: ScanSeries) -> tuple[NigradatError, ...]:
    """Where ranges are known already: whether they make sense as phase."""
    images = [series.images[i] for i in series.places("phase")]
    ranges = [image.value_range for image in images if image.value_range is not None]
    if len(ranges) < len(images):
        return ()
    try:
        phase_scale(ranges, images[0].unit)
    except NigradatError as error:
        return (error,)
    return ()


def _phase_steps(series: ScanSeries) -> tuple[str, ...]:
    _, sign = is_reversed(str(series.attributes.get("Manufacturer", "")), "auto")
    images = [series.images[i] for i in series.places("phase")]
    if not images:
        return ("magnitude and phase computed from real and imaginary images", sign)
    ranges = [image.value_range for image in images if image.value_range is not None]
    return (phase_scale(ranges, images[0].unit).statement, sign) if ranges else (sign,)


def _lacking(series: ScanSeries) -> tuple[str, ...]:
    if "MagneticFieldStrength" in series.attributes:
        return ()
    return ("the field strength is not stated: give it in tesla (--field-strength)",)


# -- Making -------------------------------------------------------------------------------------------------------


def _with_echo_times(series: ScanSeries, times: Sequence[float] | None) -> ScanSeries:
    """Echo times that the user gives, where the files have as many echoes and do not say."""
    if times is None:
        return series
    images = list(series.images)
    for part in {image.part for image in images}:
        places = series.places(part)
        if len(places) == len(times) and all(images[i].echo_time_ms is None for i in places):
            for i, time in zip(places, times, strict=True):
                images[i] = replace(images[i], echo_time_ms=float(time))
    return replace(series, images=tuple(images))


def _trusted(series: ScanSeries) -> ScanSeries:
    """A filtered phase taken for a raw one, with a note."""
    if not series.places("filtered phase"):
        return series
    images = tuple(replace(i, part="phase") if i.part == "filtered phase" else i for i in series.images)
    return replace(
        series, images=images, notes=(*series.notes, "a phase said to be filtered was trusted, as asked for")
    )


def _echo_times(series: ScanSeries) -> list[float]:
    times = series.echo_times_ms("magnitude") or series.echo_times_ms("real")
    return [time for time in times if time is not None]


def _radians(series: ScanSeries) -> tuple[Float32, str]:
    assert series.read is not None
    places = series.places("phase")
    values = series.read(places)
    ranges = [(float(echo.min()), float(echo.max())) for echo in values]
    scale = phase_scale(ranges, series.images[places[0]].unit)
    return to_radians(values, scale), scale.statement


def _field_strength(series: ScanSeries, given: float | None) -> float:
    stated = series.attributes.get("MagneticFieldStrength")
    if given is not None:
        if isinstance(stated, float) and abs(stated - given) > 0.5:
            raise ConfigError(f"a field strength of {given:g} T for a scan at {stated:g} T", "the scanner's own")
        return given
    if not isinstance(stated, float):
        raise ImageError(
            "no field strength in the files", "a stated Magnetic Field Strength", "Give it in tesla (--field-strength)"
        )
    return stated
