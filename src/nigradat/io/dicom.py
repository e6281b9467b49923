"""DICOM series: slices gathered into volumes on one grid, in the order of their positions.

A slice's place in the stack comes from its position along the normal alone, never from its instance number or its
file's name. Uneven, missing or doubled slices, and slices of different grids, are refused by name.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from nigradat.anatomy import check_affine
from nigradat.errors import ImageError, NigradatError, OrientationError
from nigradat.io.archive import ScanFiles
from nigradat.io.dicom_frames import Frame, is_dicom, read_frames, read_pixels
from nigradat.io.series import ScanImage, ScanSeries, token_of

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Key = TypeVar("Key", bound=Hashable)

_TURN: Final = 1e-4  # a component of a direction may differ by so much within a series (headers round to 6 digits)
_GAP: Final = 0.05  # of the spacing: how far a slice may lie from its even place
_DECIMALS: Final = 9
_LPS_TO_RAS: Final = np.diag([-1.0, -1.0, 1.0, 1.0])
_ORDER: Final = ("magnitude", "phase", "real", "imaginary")  # the other parts follow by name


@dataclass(frozen=True)
class Stack:
    """The slices of one volume, sorted along the normal."""

    image: ScanImage
    frames: tuple[Frame, ...]


@dataclass(frozen=True, eq=False)
class Grid:
    """Where a stack lies: voxels along columns, rows, slices, and the affine to RAS+ mm."""

    shape: tuple[int, int, int]
    affine: Float64

    def same_as(self, other: Grid) -> bool:
        """Whether two stacks lie on one grid, within a hundredth of a voxel at every corner."""
        corners = np.array([(i, j, k, 1) for i in (0, 1) for j in (0, 1) for k in (0, 1)]) * [*self.shape, 1]
        apart = np.abs(corners @ (self.affine - other.affine).T).max()
        return self.shape == other.shape and bool(apart < 0.01 * np.linalg.norm(self.affine[:3, :3], axis=0).min())


def read_dicom(files: ScanFiles) -> tuple[ScanSeries, ...]:
    """Every series of DICOM images among some files, sorted by series number; files that are no DICOM are passed over.

    Magnitude and phase that were exported as two series, and echoes that were exported as one series each, are put
    together where study, frame of reference, grid, timing and echo times say that they are of one scan, and no other
    series could take their place.

    Raises:
        ImageError: a DICOM file that is truncated or damaged, or a file that cannot be read.
    """
    paths = [path for path in files.paths if is_dicom(path, files.name(path))]
    frames = [frame for path in paths for frame in read_frames(path, files.name(path))]
    scans = [_Scan.of(group) for group in _by(frames, lambda frame: frame.series).values()]
    scans = _join_parts(_join_echoes(scans))
    scans = sorted(_mark_differences(scans), key=lambda scan: (scan.number, scan.token))
    return tuple(scan.series(str(i), files) for i, scan in enumerate(scans, start=1))


# -- Geometry -----------------------------------------------------------------------------------------------------


def sort_slices(frames: Sequence[Frame]) -> tuple[tuple[Frame, ...], Grid]:
    """The slices of one volume in the order of their position along the normal, and their grid.

    Raises:
        OrientationError: position, orientation or pixel spacing is missing or makes no sense.
        ImageError: slices of different grids; doubled, missing or unevenly spaced ones.
    """
    rows, columns, along, pixel = _one_plane(frames)
    normal = np.cross(along[:3], along[3:])
    positions = np.array([frame.position_mm for frame in frames], dtype=np.float64)
    order = np.argsort(positions @ normal, kind="stable")
    ordered, places = tuple(frames[i] for i in order), positions[order]
    step = _even_step(ordered, places, normal)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = along[:3] * pixel[1], along[3:] * pixel[0], step
    affine[:3, 3] = places[0]
    # a header's decimals end there: classic and enhanced copies of a series differ in the digits beyond
    affine = np.round(_LPS_TO_RAS @ affine, _DECIMALS) + 0.0
    return ordered, Grid((columns, rows, len(ordered)), np.asarray(check_affine(affine), np.float64))


def _one_plane(frames: Sequence[Frame]) -> tuple[int, int, Float64, tuple[float, float]]:
    for what, value in (("position", "position_mm"), ("orientation", "orientation"), ("pixel spacing", "pixel_mm")):
        missing = sum(getattr(frame, value) is None for frame in frames)
        if missing:
            raise OrientationError(
                f"{missing} of {len(frames)} slices without {what}",
                "Image Position, Image Orientation and Pixel Spacing in every slice",
                "Export it again as original images; a side is never guessed",
            )
    first = frames[0]
    along = np.array(first.orientation, dtype=np.float64)
    pixel = first.pixel_mm
    assert pixel is not None
    lengths = np.linalg.norm(along.reshape(2, 3), axis=1)
    if np.abs(lengths - 1).max() > 1e-2 or abs(float(along[:3] @ along[3:])) > 1e-2 or min(pixel) <= 0:
        raise OrientationError(
            "an orientation that is no pair of perpendicular unit vectors, or a pixel of no size",
            "a usable Image Orientation and Pixel Spacing",
        )
    along = (along.reshape(2, 3) / lengths[:, None]).ravel()
    turned = sum(np.abs(np.array(frame.orientation) - first.orientation).max() > _TURN for frame in frames)
    if turned:
        raise ImageError(
            f"mixed grids: {turned} of {len(frames)} slices point another way than the first",
            "parallel slices",
            "A localizer has three planes; name the folder of the scan itself",
        )
    sizes = Counter((frame.rows, frame.columns, *(round(p, 4) for p in frame.pixel_mm or ())) for frame in frames)
    if len(sizes) > 1:
        shown = ", ".join(f"{c} x {r} pixels of {b:g} x {a:g} mm" for r, c, a, b in sizes)
        raise ImageError(f"mixed grids: slices of {shown}", "one matrix and one pixel size")
    return first.rows, first.columns, along, pixel


def _even_step(frames: Sequence[Frame], places: Float64, normal: Float64) -> Float64:
    """From each slice to the next, ``(3,)``; refuses what is not evenly spaced on one line."""
    if len(frames) == 1:
        if not frames[0].thickness_mm:
            raise OrientationError("one slice without a thickness", "a stated Slice Thickness")
        return normal * frames[0].thickness_mm
    heights = places @ normal
    gaps = np.diff(heights)
    usual = float(np.median(gaps))
    doubled = int((gaps < max(1e-3, _GAP * usual)).sum())
    if doubled:
        copies = len(frames) - len({frame.instance for frame in frames})
        why = ", copies of the same instances" if copies else ""
        raise ImageError(
            f"{doubled} doubled slices: {len(frames)} slices for {len(frames) - doubled} positions{why}",
            "one slice for each position",
            "Name a folder that holds the scan once",
        )
    steps = gaps / usual
    uneven = np.abs(steps - 1) > _GAP
    missing = np.round(steps[uneven]) - 1
    if uneven.any() and (missing >= 1).all() and (np.abs(steps[uneven] - missing - 1) < _GAP * (missing + 1)).all():
        where = ", ".join(f"after {i + 1}" for i in np.flatnonzero(uneven)[:5])
        raise ImageError(
            f"{int(missing.sum())} missing slices ({where} of {len(frames)}, {usual:g} mm apart)",
            "every slice of the scan",
            "Export the whole series",
        )
    if uneven.any():
        raise ImageError(
            f"uneven gaps between slices, {gaps.min():g} to {gaps.max():g} mm",
            "evenly spaced slices",
            "Resample it to even slices, or export the original",
        )
    step: Float64 = (places[-1] - places[0]) / (len(frames) - 1)
    off = np.abs(places - places[0] - np.arange(len(frames))[:, None] * step).max()
    if off > max(_GAP * usual, 1e-3):
        raise ImageError(f"slices that lie up to {off:.2g} mm off their common line", "a straight stack")
    return step


# -- Volumes ------------------------------------------------------------------------------------------------------


def _stacks(frames: Sequence[Frame]) -> list[Stack]:
    """Volumes by part, echo and repetition, not sorted yet within."""
    out = []
    for (part, _), images in _by(frames, lambda frame: (frame.part, _echo_key(frame))).items():
        unit = images[0].unit if all(frame.unit == images[0].unit for frame in images) else ""
        time = images[0].echo_time_ms
        for number, repeated in enumerate(_repetitions(images), start=1):
            out.append(Stack(ScanImage(part, time, number, unit), tuple(repeated)))
    known = {part: i for i, part in enumerate(_ORDER)}
    return sorted(
        out,
        key=lambda s: (
            s.image.repetition,
            known.get(s.image.part, len(known)),
            s.image.part,
            s.image.echo_time_ms or 0,
            s.frames[0].echo_number or 0,
        ),
    )


def _echo_key(frame: Frame) -> tuple[float, int]:
    """Echoes are told apart by their time; by their number only where no time is stated."""
    if frame.echo_time_ms is not None:
        return (round(frame.echo_time_ms, 3), 0)
    return (-1.0, frame.echo_number or 0)


def _repetitions(frames: list[Frame]) -> list[list[Frame]]:
    """The same positions taken several times, told apart by what the header says of time; else one stack."""
    places = Counter(_place(frame) for frame in frames)
    times = next(iter(places.values()))
    if times == 1 or set(places.values()) != {times} or len({f.instance for f in frames}) < len(frames):
        return [frames]
    for which in range(len(frames[0].moments)):
        split = _by(frames, lambda frame: frame.moments[which])  # noqa: B023 - used within this turn
        if len(split) == times and all(len({_place(f) for f in group}) == len(places) for group in split.values()):
            return [split[key] for key in sorted(split, key=lambda text: (len(text), text))]
    return [frames]


def _place(frame: Frame) -> tuple[float, ...]:
    return tuple(round(x, 3) for x in (*(frame.position_mm or ()), *(frame.orientation or ())))


@dataclass(frozen=True, eq=False)
class _Scan:
    """Frames of one series, or of several that belong together."""

    frames: tuple[Frame, ...]
    stacks: tuple[Stack, ...]
    grid: Grid | None
    problems: tuple[NigradatError, ...] = ()
    hazards: tuple[NigradatError, ...] = ()
    notes: tuple[str, ...] = ()

    @staticmethod
    def of(frames: Sequence[Frame], notes: tuple[str, ...] = ()) -> _Scan:
        sorted_stacks: list[Stack] = []
        grid: Grid | None = None
        try:
            for stack in _stacks(frames):
                ordered, here = sort_slices(stack.frames)
                if grid is not None and not grid.same_as(here):
                    raise ImageError(
                        f"mixed grids: the {stack.image} lies elsewhere than the {sorted_stacks[0].image}",
                        "one grid for every part and echo",
                        "A slice may be missing in one of them; export the whole series",
                    )
                grid = grid or here
                sorted_stacks.append(Stack(stack.image, ordered))
        except NigradatError as error:
            return _Scan(tuple(frames), tuple(_stacks(frames)), None, (error,), (), notes)
        return _Scan(tuple(frames), tuple(sorted_stacks), grid, (), (), notes)

    @property
    def parts(self) -> set[str]:
        return {stack.image.part for stack in self.stacks}

    @property
    def number(self) -> float:
        return min((float(f.attributes.get("SeriesNumber", np.inf)) for f in self.frames), default=np.inf)

    @property
    def token(self) -> str:
        return token_of(*{frame.series for frame in self.frames})

    def echoes(self, part: str) -> tuple[float | None, ...]:
        return tuple(s.image.echo_time_ms for s in self.stacks if s.image.part == part)

    def kin(self, other: _Scan) -> bool:
        """Whether both may be of one scan: the same study, frame of reference, grid, repetition time, flip angle."""
        mine, theirs = self.frames[0], other.frames[0]
        alike = all(mine.attributes.get(k) == theirs.attributes.get(k) for k in ("RepetitionTime", "FlipAngle"))
        if self.grid is None or other.grid is None or not alike:
            return False
        return (mine.study, mine.world) == (theirs.study, theirs.world) and self.grid.same_as(other.grid)

    def series(self, label: str, files: ScanFiles) -> ScanSeries:
        frame = self.frames[0]
        attributes = {key: value for key, value in frame.attributes.items() if key != "EchoTime"}
        return ScanSeries(
            label=label,
            kind="dicom-enhanced" if frame.enhanced else "dicom-classic",
            images=tuple(stack.image for stack in self.stacks),
            shape=None if self.grid is None else self.grid.shape,
            affine=None if self.grid is None else self.grid.affine,
            attributes=attributes,
            token=self.token,
            notes=(*self.notes, *_scaling_notes(self.stacks)),
            problems=self.problems,
            hazards=self.hazards,
            read=None if self.grid is None else _reader(self.stacks, files),
        )


def _scaling_notes(stacks: Iterable[Stack]) -> tuple[str, ...]:
    used = {stack.image.part: stack.frames[0].scaling for stack in stacks}
    return tuple(f"{part} scaled by {scaling}" for part, scaling in used.items() if scaling != "none")


# -- What belongs together ----------------------------------------------------------------------------------------


def _join_echoes(scans: list[_Scan]) -> list[_Scan]:
    """Series of one echo each become one, where their echoes differ and nothing else does."""
    out: list[_Scan] = []
    waiting = list(scans)
    while waiting:
        first = waiting.pop(0)
        single = [s for s in (first, *waiting) if _is_single_echo(s) and s.parts == first.parts and first.kin(s)]
        times = [echo for s in single for part in sorted(s.parts) for echo in s.echoes(part)]
        if first in single and len(single) > 1 and len(set(times)) * len(first.parts) == len(times):
            note = f"echoes put together from {len(single)} series of one scan"
            out.append(_Scan.of([frame for s in single for frame in s.frames], (note,)))
            waiting = [s for s in waiting if s not in single]
        else:
            out.append(first)
    return out


def _is_single_echo(scan: _Scan) -> bool:
    known = {"magnitude", "phase", "real", "imaginary"}
    return scan.parts <= known and all(
        len(scan.echoes(part)) == 1 and scan.echoes(part)[0] is not None for part in scan.parts
    )


def _join_parts(scans: list[_Scan]) -> list[_Scan]:
    """A magnitude series and the phase series of the same echoes become one, where each has only the other."""
    out = list(scans)
    for phase in [scan for scan in scans if scan.parts == {"phase"}]:
        partners = _partners(phase, scans, "magnitude")
        if len(partners) == 1 and len(_partners(partners[0], scans, "phase")) == 1:
            magnitude = partners[0]
            note = "magnitude and phase put together from two series of one scan"
            out[out.index(magnitude)] = _Scan.of([*magnitude.frames, *phase.frames], (*magnitude.notes, note))
            out.remove(phase)
        elif partners:
            error = ImageError(
                f"{len(partners)} magnitude series that this phase could belong to",
                "one",
                "Name a folder with the magnitude and the phase of one scan",
            )
            out[out.index(phase)] = replace(phase, hazards=(error,))
    return out


def _partners(scan: _Scan, scans: Iterable[_Scan], part: str) -> list[_Scan]:
    """Series of the other part with the same echoes; those taken at the same moments, where times tell them apart."""
    (own,) = scan.parts
    fitting = [s for s in scans if s.parts == {part} and s.kin(scan) and s.echoes(part) == scan.echoes(own)]
    moments = {frame.acquired for frame in scan.frames}
    together = [s for s in fitting if {frame.acquired for frame in s.frames} == moments]
    return together if len(fitting) > 1 and together else fitting


def _mark_differences(scans: list[_Scan]) -> list[_Scan]:
    """A phase of the last echo alone, beside magnitudes of several echoes, is the difference of two phases."""
    out = []
    for scan in scans:
        echoes = scan.echoes("phase")
        beside = [s for s in scans if s.parts == {"magnitude"} and s.kin(scan) and len(s.echoes("magnitude")) > 1]
        if scan.parts == {"phase"} and len(echoes) == 1 and any(s.echoes("magnitude")[-1] == echoes[0] for s in beside):
            stacks = tuple(Stack(replace(s.image, part="phase difference"), s.frames) for s in scan.stacks)
            scan = replace(scan, stacks=stacks, notes=(*scan.notes, "one phase beside magnitudes of several echoes"))
        out.append(scan)
    return out


# -- Voxels -------------------------------------------------------------------------------------------------------


def _reader(stacks: tuple[Stack, ...], files: ScanFiles) -> Callable[[Sequence[int]], Float32]:
    """Reads volumes of a series; each file is opened once, however many of its frames are wanted."""

    def read(places: Sequence[int]) -> Float32:
        wanted: dict[Path, list[tuple[int, int, Frame]]] = defaultdict(list)
        for out, place in enumerate(places):
            for k, frame in enumerate(stacks[place].frames):
                wanted[frame.path].append((out, k, frame))
        first = stacks[places[0]].frames
        values = np.empty((len(places), len(first), first[0].rows, first[0].columns), np.float32)
        for path, slices in wanted.items():
            pixels = read_pixels([frame for _, _, frame in slices], files.name(path))
            for (out, k, frame), slice_ in zip(slices, pixels, strict=True):
                values[out, k] = slice_ * np.float64(frame.slope) + frame.intercept
        return np.ascontiguousarray(values.transpose(0, 3, 2, 1))

    return read


def _by(frames: Iterable[Frame], key: Callable[[Frame], Key]) -> dict[Key, list[Frame]]:
    out: dict[Key, list[Frame]] = defaultdict(list)
    for frame in frames:
        out[key(frame)].append(frame)
    return out
