"""NIfTI files as series: BIDS names, dcm2niix names, or plain ones with "mag" and "phase" in them, and their sidecars.

A sidecar is read for the few attributes that travel and for the words that tell what an image shows; names of files do
not travel.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nigradat.errors import ImageError, NigradatError
from nigradat.io.archive import ScanFiles, with_suffix
from nigradat.io.nifti import AffineChoice, RawImage, read_raw
from nigradat.io.series import Part, ScanImage, ScanSeries, Unit, as_number, part_of, travelling, unit_of

Float32 = npt.NDArray[np.float32]

NIFTI: Final = (".nii", ".nii.gz")
_BIDS: Final = re.compile(r"^(?:[a-zA-Z0-9]+-[a-zA-Z0-9+]+_)+(?P<suffix>[a-zA-Z0-9]+)$")
_BIDS_PARTS: Final[dict[str, Part]] = {"mag": "magnitude", "phase": "phase", "real": "real", "imag": "imaginary"}
_WORDS: Final[dict[str, Part]] = {
    "mag": "magnitude",
    "magnitude": "magnitude",
    "phase": "phase",
    "pha": "phase",
    "ph": "phase",
    "real": "real",
    "imag": "imaginary",
    "imaginary": "imaginary",
    "fieldmap": "field map",
    "fieldmaphz": "field map",  # as dcm2niix calls Philips' maps
}
_SUFFIXES: Final[dict[str, Part]] = {  # of BIDS
    "fieldmap": "field map",
    "phasediff": "phase difference",
    "phase1": "phase",
    "phase2": "phase",
    "magnitude1": "magnitude",
    "magnitude2": "magnitude",
    "minIP": "projection",
}
_BIDS_DEPTH: Final = 5  # data set, subject, session, kind; and one for derivatives
_MAX_SIDECAR_BYTES: Final = 10 * 2**20


@dataclass(frozen=True)
class _Named:
    """What a file's name and sidecar say."""

    path: Path
    scan: str
    part: Part
    echo: int
    is_bids: bool
    sidecar: Mapping[str, Any]
    unit: Unit
    fault: ImageError | None = None


def read_nifti(files: ScanFiles, affine: AffineChoice = "auto") -> tuple[ScanSeries, ...]:
    """Every series among the NIfTI files of a scan, sorted by the files' names.

    A file with a damaged sidecar is a problem of its own series only.
    """
    scans: dict[str, list[_Named]] = defaultdict(list)
    for path in with_suffix(files.paths, *NIFTI):
        file = _name(path, files)
        scans[file.scan].append(file)
    return tuple(_series(str(i), group, files, affine) for i, group in enumerate(scans.values(), start=1))


# -- Names and sidecars -------------------------------------------------------------------------------------------


def _name(path: Path, files: ScanFiles) -> _Named:
    stem = stem_of(path)
    sidecar: dict[str, Any] = {}
    fault = None
    try:
        sidecar = read_sidecar(path, files)
    except ImageError as error:
        fault = error
    unit = unit_of(sidecar.get("Units"))
    stated = sidecar.get("ImageType")
    words = [str(word) for word in stated] if isinstance(stated, list) else []
    texts = [str(sidecar.get(key, "")) for key in ("SequenceName", "PulseSequenceName", "SeriesDescription")]
    matched = _BIDS.match(stem)
    if matched:
        pairs = [pair.split("-", 1) for pair in stem.split("_")[:-1]]
        entities, suffix = dict(pairs), matched["suffix"]
        part = _BIDS_PARTS.get(entities.get("part", ""), _SUFFIXES.get(suffix, "image"))
        rest = [f"{key}-{value}" for key, value in pairs if key not in ("part", "echo")]
        scan, echo = "_".join((*rest, re.sub(r"^(phase|magnitude)\d$", "fieldmap", suffix))), entities.get("echo", "")
    else:
        part, scan, echo = _plain_name(stem)
    by_header = part_of(words, texts=texts, unit=unit)
    # a name says phase or magnitude; only a header knows that a phase is filtered, or no phase at all
    if part == "image" or (part == "phase" and by_header in ("filtered phase", "phase difference", "field map")):
        part = by_header
    number = as_number(sidecar.get("EchoNumber")) or (float(echo) if echo.isdecimal() else 0)
    return _Named(path, f"{path.parent}/{scan}", part, int(number), bool(matched), sidecar, unit, fault)


def _plain_name(stem: str) -> tuple[Part, str, str]:
    """Of ``scan_e2_ph`` (dcm2niix) or ``Scan-Phase``: part, name of the scan, echo."""
    part: Part = "image"
    rest, echo = [], ""
    for word in re.split(r"[_\-. ]+", stem):
        if word.lower() in _WORDS:
            part = _WORDS[word.lower()]
        elif found := re.fullmatch(r"e(?:cho)?(\d+)", word.lower()):
            echo = found[1]
        else:
            rest.append(word)
    return part, "_".join(rest), echo


def stem_of(path: Path) -> str:
    """A file's name without ``.nii`` or ``.nii.gz``."""
    return re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)


def read_sidecar(path: Path, files: ScanFiles) -> dict[str, Any]:
    """The JSON beside a NIfTI, and for BIDS names those that it inherits from, nearest last; empty if there is none.

    Raises:
        ImageError: a sidecar that is no JSON object.
    """
    stem = stem_of(path)
    places = [path.with_name(f"{stem}.json")]
    if _BIDS.match(stem):
        *entities, suffix = stem.split("_")
        for folder in _inherited_from(path, files):
            candidates = sorted(folder.glob(f"*{suffix}.json"), key=lambda p: p.name.count("_"), reverse=True)
            places += [p for p in candidates if set(p.name[: -len(".json")].split("_")) <= {*entities, suffix}]
    out: dict[str, Any] = {}
    for place in reversed(places):
        out |= _load_json(place, f"{files.name(path)}: the sidecar {_among(place, files)}")
    return out


def _inherited_from(path: Path, files: ScanFiles) -> list[Path]:
    """The folders that may hold a file's sidecars: up to the data set's, or else to the one that the user named."""
    folders = [path.parent, *path.parent.parents][:_BIDS_DEPTH]
    for depth, folder in enumerate(folders, start=1):
        if (folder / "dataset_description.json").is_file():
            return folders[:depth]
    return folders[: folders.index(files.root) + 1] if files.root in folders else folders[:1]


def _among(sidecar: Path, files: ScanFiles) -> str:
    """How to call a sidecar: by its place among the files, for its name may carry a patient's; none outside them."""
    if sidecar in files.paths:
        return f"(file {files.paths.index(sidecar) + 1} of {len(files.paths)})"
    return "beside it" if len(files.paths) == 1 else "that it inherits"


def _load_json(path: Path, name: str) -> dict[str, Any]:
    try:
        if not path.is_file():
            return {}
        if path.stat().st_size > _MAX_SIDECAR_BYTES:
            raise ValueError
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # the last where brackets are nested thousands deep
        data = None
    if not isinstance(data, dict):
        raise ImageError(f"{name} is no JSON object", "one as dcm2niix writes", "Convert the scan again")
    return data


# -- Series -------------------------------------------------------------------------------------------------------


def _series(label: str, group: Sequence[_Named], files: ScanFiles, affine: AffineChoice) -> ScanSeries:
    group = sorted(group, key=lambda file: file.echo)  # by number: e10 comes after e2, and times may be given in order
    kind = "bids" if all(file.is_bids for file in group) else "nifti"
    attributes = _attributes(group[0].sidecar)
    places: list[tuple[ScanImage, Path, int]] = []
    notes: list[str] = []
    digest = hashlib.sha256()
    grid: RawImage | None = None
    hazards: list[NigradatError] = []
    try:
        for file in group:
            if file.fault:
                raise file.fault
            raw = read_raw(file.path, affine, name=files.name(file.path))
            digest.update(raw.digest.encode())
            if grid is None:
                grid = raw
            elif not grid.same_grid(raw):
                raise ImageError("mixed grids: files of one scan that lie elsewhere, or have another shape", "one grid")
            note = _scaling_note(file, raw)
            notes += [note] if note and note not in notes else []
            for volume, echo in enumerate(_echo_times(file, raw.volumes)):
                places.append((ScanImage(file.part, echo, 1, file.unit), file.path, volume))
        assert grid is not None
    except NigradatError as error:
        return ScanSeries(label, kind, tuple(_bare(file) for file in group), attributes=attributes, problems=(error,))
    places.sort(key=lambda place: _order(place[0]))
    token = "sha256:" + digest.hexdigest()[:12]
    images = tuple(image for image, _, _ in places)
    timeless = [(file.part, file.echo) for file in group if file.echo and file.sidecar.get("EchoTime") is None]
    is_timed = all(image.echo_time_ms is not None for image in images)
    if (is_timed and len(set(images)) < len(images)) or len(set(timeless)) < len(timeless):
        hazards.append(ImageError("several images of the same part and echo", "one of each"))
    return ScanSeries(
        label=label,
        kind=kind,
        images=images,
        shape=grid.shape,
        affine=np.asarray(grid.affine, np.float64),
        attributes=attributes,
        token=token,
        notes=tuple(notes),
        hazards=tuple(hazards),
        read=_reader(tuple((path, volume) for _, path, volume in places), group, files, affine),
    )


def _bare(file: _Named) -> ScanImage:
    return ScanImage(file.part, None, 1, file.unit)


def _order(image: ScanImage) -> tuple[int, str, float]:
    known = ("magnitude", "phase", "real", "imaginary")
    rank = known.index(image.part) if image.part in known else len(known)
    return rank, image.part, image.echo_time_ms or 0.0


def _attributes(sidecar: Mapping[str, Any]) -> dict[str, str | float]:
    in_dicom_units = dict(sidecar)
    for key in ("RepetitionTime", "EchoTime"):  # seconds in a sidecar
        value = as_number(sidecar.get(key))
        in_dicom_units[key] = None if value is None else value * 1000
    out = travelling(in_dicom_units)
    out.pop("EchoTime", None)
    return out


def _echo_times(file: _Named, volumes: int) -> list[float | None]:
    """Milliseconds for each volume of a file; None where the sidecar does not say."""
    stated = file.sidecar.get("EchoTime")
    values = stated if isinstance(stated, list) else [stated] * volumes if volumes == 1 else [None] * volumes
    numbers = [as_number(value) for value in values]
    if len(numbers) != volumes:
        numbers = [None] * volumes
    return [None if number is None else round(1000 * number, 6) for number in numbers]


def _takes_stored(file: _Named, raw: RawImage) -> bool:
    """Whether the stored numbers are radians already, and the header's slope only shrinks them."""
    if file.part != "phase" or (raw.slope, raw.inter) == (1.0, 0.0):
        return False
    low, high = raw.stored_range
    fills = max(-low, high) > 0.97 * np.pi
    return raw.is_float and fills and max(-low, high) < 1.003 * np.pi


def _scaling_note(file: _Named, raw: RawImage) -> str:
    if _takes_stored(file, raw):
        return f"scl_slope of {raw.slope:.4g} disregarded: the stored phase is in radians, it would shrink it"
    return ""


def _reader(
    places: tuple[tuple[Path, int], ...], group: Sequence[_Named], files: ScanFiles, affine: AffineChoice
) -> Callable[[Sequence[int]], Float32]:
    by_path = {file.path: file for file in group}

    def read(wanted: Sequence[int]) -> Float32:
        out: list[Float32 | None] = [None] * len(wanted)
        for path in dict.fromkeys(places[i][0] for i in wanted):
            raw = read_raw(path, affine, name=files.name(path))
            scaled = not _takes_stored(by_path[path], raw)
            for j, i in enumerate(wanted):
                if places[i][0] == path:
                    out[j] = raw.volume(places[i][1], scaled=scaled)
        return np.stack([volume for volume in out if volume is not None])

    return read
