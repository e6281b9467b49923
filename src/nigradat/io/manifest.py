"""The manifest: one line a visit, with the two patches (or one image and two centres) and what is known of the patient.

A manifest is a TSV file (UTF-8, one header line, ``n/a`` for what is missing). It is checked as a whole: every fault of
every line is listed at once.
"""

from __future__ import annotations

import dataclasses
import difflib
import logging
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from nigradat.anatomy import Side
from nigradat.errors import CohortError, ManifestError
from nigradat.io.files import write_text

log = logging.getLogger(__name__)

MISSING: Final = "n/a"
SEXES: Final = ("M", "F", "O")
HYPERINTENSITY: Final = ("present", "absent", "unsure")
NIFTI_SUFFIXES: Final = (".nii", ".nii.gz")
IMAGE_SUFFIXES: Final = (*NIFTI_SUFFIXES, ".mat")
MAX_AGE_YEARS: Final = 130.0


@dataclass(frozen=True)
class Participant:
    """One visit of one patient, without the images. ``None`` is what the table calls ``n/a``.

    Attributes:
        participant_id: the patient; several visits share it.
        session_id: the visit, ``n/a`` where there is only one.
        sbr_right, sbr_left: striatal binding ratio, a plain ratio >= 0; both or neither.
        age: years.
        sex: M, F or O.
        diagnosis, scanner: free text.
        mri_spect_days: days from the MRI to the SPECT.
        tracer, spect_device, spect_software: where the SBR comes from. Ratios of different software are not comparable.
        hyperintensity_right, hyperintensity_left: a reader's finding (present, absent, unsure).
        spect_reconstruction, sbr_method: how the SPECT was reconstructed, and the SBR measured in it.
    """

    participant_id: str
    session_id: str = MISSING
    sbr_right: float | None = None
    sbr_left: float | None = None
    age: float | None = None
    sex: str | None = None
    diagnosis: str | None = None
    scanner: str | None = None
    mri_spect_days: float | None = None
    tracer: str | None = None
    spect_device: str | None = None
    spect_software: str | None = None
    hyperintensity_right: str | None = None
    hyperintensity_left: str | None = None
    spect_reconstruction: str | None = None
    sbr_method: str | None = None

    @property
    def visit_id(self) -> str:
        """``participant`` or ``participant_session``."""
        return self.participant_id if self.session_id == MISSING else f"{self.participant_id}_{self.session_id}"

    @property
    def has_sbr(self) -> bool:
        """Both sides are labelled."""
        return self.sbr_right is not None and self.sbr_left is not None


PARTICIPANT_COLUMNS: Final = tuple(f.name for f in dataclasses.fields(Participant))
_LATER_COLUMNS: Final = ("spect_reconstruction", "sbr_method")  # a table without them is whole, too
_NUMBERS: Final = ("sbr_right", "sbr_left", "age", "mri_spect_days")
_TEXTS: Final = ("diagnosis", "scanner", "tracer", "spect_device", "spect_software", *_LATER_COLUMNS)
_CHOICES: Final = {"sex": SEXES, "hyperintensity_right": HYPERINTENSITY, "hyperintensity_left": HYPERINTENSITY}
CENTRE_COLUMNS: Final = tuple(f"{side.value}_{axis}" for side in Side for axis in "xyz")  # RAS+ mm
_PATCH_COLUMNS: Final = tuple(side.value for side in Side)
_IMAGE_COLUMNS: Final = ("image", *CENTRE_COLUMNS)
_KNOWN: Final = (*PARTICIPANT_COLUMNS, *_PATCH_COLUMNS, *_IMAGE_COLUMNS, "spect")
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_LOOKS_MISSING: Final = {"", MISSING, "na", "n.a.", "nan", "none", "null", "-", "--", "?", "missing"}


Centres = tuple[tuple[float, float, float], tuple[float, float, float]]


@dataclass(frozen=True)
class ManifestRow:
    """One line of a manifest.

    Attributes:
        participant: the visit.
        right, left: where its two patches lie; twice the same path for a ``.mat``, and for an image to be cut.
        line: its number in the file.
        spect: where its DaT-SPECT lies.
        centres_mm: where to cut the image: ``(x, y, z)`` of the right and of the left nigrosome-1, RAS+ mm; None where
            the patches are there.
    """

    participant: Participant
    right: Path
    left: Path
    line: int
    spect: Path | None = None
    centres_mm: Centres | None = None


@dataclass(frozen=True)
class ManifestScan:
    """A manifest as far as it could be understood.

    Attributes:
        rows: the lines without a fault.
        faults: ``(line, message)`` of all the others; line 1 is the header, 0 the file as a whole.
    """

    rows: tuple[ManifestRow, ...]
    faults: tuple[tuple[int, str], ...]


def read_manifest(path: str | os.PathLike[str], require_labels: bool = True) -> list[ManifestRow]:
    """Read and check a manifest.

    Needed columns are ``participant_id``; ``right`` and ``left`` (patches), or ``image`` and the two centres in RAS+ mm
    as ``right_x``, ``right_y``, ``right_z``, ``left_x``, ``left_y``, ``left_z`` (a line gives one or the other); and
    with ``require_labels`` also ``sbr_right`` and ``sbr_left``; the other fields of :class:`Participant` are optional.
    Image paths are relative to the manifest. Where both SBR are ``n/a``, a column ``spect`` may give the DaT-SPECT (a
    NIfTI, a DICOM file or folder) to measure them in.
    A column that looks like a misspelt known one is a fault; any other extra column is ignored and logged.

    Args:
        path: the TSV file; a byte order mark and Windows line ends are tolerated.
        require_labels: every visit needs the SBR of both sides.

    Raises:
        ManifestError: every fault of every line.
    """
    scan = scan_manifest(path, require_labels)
    if scan.faults:
        raise ManifestError(str(path), format_faults(scan.faults))
    return list(scan.rows)


def format_faults(faults: Iterable[tuple[int, str]]) -> list[str]:
    """``(line, message)`` pairs as text, in the order of the lines."""
    return [f"line {line}: {message}" if line else message for line, message in sorted(faults, key=lambda f: f[0])]


def scan_manifest(path: str | os.PathLike[str], require_labels: bool = True) -> ManifestScan:
    """As :func:`read_manifest`, but the faults are returned, so that faults of the images can join them."""
    source = Path(path)
    try:
        table = read_table(source)
    except ManifestError as error:
        return ManifestScan((), tuple((0, fault) for fault in error.faults))
    typed = require_labels and "spect" not in table.columns
    needed = ["participant_id", *_where_columns(table.columns), *(("sbr_right", "sbr_left") if typed else ())]
    faults = _header_faults(table.columns, needed)
    ignored = [c for c in table.columns if c not in _KNOWN]
    if faults:
        return ManifestScan((), tuple((1, fault) for fault in faults))
    if ignored:
        log.warning("%s: columns that are not used: %s", source, ", ".join(ignored))

    rows: list[ManifestRow] = []
    all_faults: list[tuple[int, str]] = []
    visits: dict[tuple[str, str], int] = {}
    images: dict[Path, int] = {}
    spects: dict[Path, tuple[str, int]] = {}
    for line, cells in table.lines:
        if len(cells) != len(table.columns):
            all_faults.append((line, f"{len(cells)} fields, but the header has {len(table.columns)}"))
            continue
        record = dict(zip(table.columns, cells, strict=True))
        participant, found = parse_participant(record)
        spect, spect_faults = _parse_spect(record, source.parent)
        found += spect_faults
        unlabelled = record.get("sbr_right", MISSING) == record.get("sbr_left", MISSING) == MISSING
        if require_labels and unlabelled and spect is None and not spect_faults:
            found.append("no SBR: both sides are n/a, but labels are needed here")
        if spect is not None:
            patient, first = spects.setdefault(spect, (participant.participant_id, line))
            if patient != participant.participant_id:
                found.append(f"the SPECT {spect.name} is already that of line {first}, of another patient")
        cut = record.get("image", MISSING) != MISSING
        paths, path_faults = (_parse_image if cut else _parse_paths)(record, source.parent)
        centres, centre_faults = _parse_centres(record) if cut else (None, [])
        found += path_faults + centre_faults
        visit = (participant.participant_id, participant.session_id)
        if visit[0] and (first := visits.setdefault(visit, line)) != line:
            found.append(f"participant {visit[0]}, session {visit[1]} stands already in line {first}")
        for image in set(paths) if not path_faults else ():
            if (first := images.setdefault(image, line)) != line:
                found.append(f"the image {image.name} is already that of line {first}")
        all_faults += [(line, fault) for fault in found]
        if not found:
            rows.append(ManifestRow(participant, *paths, line, spect, centres))
    if not table.lines:
        all_faults.append((0, "a header but no line below it"))
    return ManifestScan(tuple(rows), tuple(all_faults))


def participant_faults(participant: Participant) -> list[str]:
    """What is wrong with a participant's values; an empty list if nothing."""
    faults = []
    for name in ("participant_id", "session_id"):
        value = getattr(participant, name)
        if (name, value) != ("session_id", MISSING) and not re.fullmatch(r"[^\s/\\]+", value):
            faults.append(f"{name} {value!r} is empty or holds a blank or a slash")
    for name in _NUMBERS:
        value = getattr(participant, name)
        if value is not None and not math.isfinite(value):
            faults.append(f"{name} {value} is no finite number")
        elif value is not None and value < 0 and name != "mri_spect_days":
            faults.append(f"{name} {value:g} is negative")
    if participant.age is not None and MAX_AGE_YEARS < participant.age < math.inf:
        faults.append(f"age {participant.age:g} is over {MAX_AGE_YEARS:g} years")
    if (participant.sbr_right is None) != (participant.sbr_left is None):
        faults.append("SBR of only one side (give both, or n/a for both)")
    for name, allowed in _CHOICES.items():
        value = getattr(participant, name)
        if value is not None and value not in allowed:
            faults.append(f"{name} {value!r} is none of {', '.join(allowed)}, n/a")
    for name in _TEXTS:
        value = getattr(participant, name)
        if value is not None and (value != value.strip() or re.search(r"[\t\r\n]", value) or _looks_missing(value)):
            faults.append(f"{name} {value!r} would not survive a table (None stands for what is missing)")
    return faults


def read_participants(path: str | os.PathLike[str]) -> tuple[Participant, ...]:
    """Read a ``participants.tsv`` as :func:`write_participants` writes it.

    Raises:
        ManifestError: every fault of every line.
    """
    table = read_table(Path(path))
    needed = [name for name in PARTICIPANT_COLUMNS if name not in _LATER_COLUMNS]
    faults = [(1, fault) for fault in _header_faults(table.columns, needed)]
    participants = []
    for line, cells in table.lines if not faults else ():
        if len(cells) != len(table.columns):
            faults.append((line, f"{len(cells)} fields, but the header has {len(table.columns)}"))
            continue
        participant, found = parse_participant(dict(zip(table.columns, cells, strict=True)))
        faults += [(line, fault) for fault in found]
        participants.append(participant)
    if faults:
        raise ManifestError(str(path), format_faults(faults))
    return tuple(participants)


def write_participants(path: str | os.PathLike[str], participants: Sequence[Participant]) -> None:
    """Write participants as TSV, in order; numbers keep their full precision.

    Every column is written, ``spect_reconstruction`` and ``sbr_method`` only where somebody has a value there.

    Raises:
        CohortError: a participant that could not be read back, or the same visit twice.
        OutputError: the disk does not take it.
    """
    faults = [f"{p.visit_id} (row {i}): {f}" for i, p in enumerate(participants) for f in participant_faults(p)]
    counts = Counter((p.participant_id, p.session_id) for p in participants)
    faults += [f"participant {visit[0]}, session {visit[1]} is there {n} times" for visit, n in counts.items() if n > 1]
    if faults:
        more = f" (and {len(faults) - 10} more)" if len(faults) > 10 else ""
        raise CohortError("participants that do not fit: " + "; ".join(faults[:10]) + more)
    unused = {name for name in _LATER_COLUMNS if all(getattr(p, name) is None for p in participants)}
    columns = [name for name in PARTICIPANT_COLUMNS if name not in unused]
    lines = ["\t".join(columns)]
    lines += ["\t".join(_cell(getattr(p, name)) for name in columns) for p in participants]
    write_text(path, "\n".join(lines) + "\n")


def _looks_missing(cell: str) -> bool:
    return cell.lower() in _LOOKS_MISSING


def _cell(value: str | float | None) -> str:
    if value is None:
        return MISSING
    return value if isinstance(value, str) else repr(float(value))


@dataclass(frozen=True)
class ManifestTable:
    """A TSV as it stands: its header, and ``(line number, cells)`` of the lines below it."""

    columns: list[str]
    lines: list[tuple[int, list[str]]]


def read_table(path: Path) -> ManifestTable:
    """Header and lines of a TSV file, cells stripped, blank lines dropped.

    Raises:
        ManifestError: unreadable, no UTF-8 text, empty, or not separated by tabs.
    """

    def refusal(fault: str) -> ManifestError:
        return ManifestError(str(path), [fault])

    try:
        raw = path.read_bytes()
    except OSError as error:
        raise refusal(f"cannot be read ({error.strerror})") from error
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in raw:
        raise refusal("is no UTF-8 text (UTF-16 or binary); save it as 'Text (tab delimited), UTF-8'")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise refusal(f"is no UTF-8 text (line {line}); save it as 'Text (tab delimited), UTF-8'") from error
    # not str.splitlines, which would also split at form feeds and Unicode separators inside a cell
    numbered = enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), start=1)
    lines = [(number, [cell.strip() for cell in line.split("\t")]) for number, line in numbered if line.strip()]
    if not lines:
        raise refusal("is empty; a header line with participant_id, right, left, ... is needed")
    header = lines[0][1]
    if len(header) == 1:
        for mark, name in ((",", "commas"), (";", "semicolons")):
            if mark in header[0]:
                raise refusal(f"its fields are separated by {name}; a manifest is separated by tabs (TSV)")
    return ManifestTable(header, lines[1:])


def _where_columns(columns: Sequence[str]) -> tuple[str, ...]:
    """The columns that must be there to say where the patches are: two patches, an image with centres, or both."""
    cut = _IMAGE_COLUMNS if set(_IMAGE_COLUMNS) & set(columns) else ()
    return cut + (_PATCH_COLUMNS if not cut or set(_PATCH_COLUMNS) & set(columns) else ())


def _header_faults(columns: Sequence[str], needed: Sequence[str]) -> list[str]:
    faults = [f"the column {name!r} stands there {n} times" for name, n in Counter(columns).items() if n > 1]
    faults += ["a column without a name"] * ("" in columns)
    unused = [name for name in _KNOWN if name not in columns]
    for name in columns:
        if name and name not in _KNOWN and (near := difflib.get_close_matches(name.lower(), unused, n=1, cutoff=0.8)):
            faults.append(f"the column {name!r} is unknown: is {near[0]!r} meant?")
    faults += [f"the column {name!r} is missing" for name in needed if name not in columns]
    return faults


def parse_participant(record: dict[str, str]) -> tuple[Participant, list[str]]:
    """One line's cells by column as a participant, and what is wrong with them; unknown columns are passed over."""
    values: dict[str, Any] = {}
    faults = []
    for name in PARTICIPANT_COLUMNS:
        cell = record.get(name, MISSING)
        if cell == MISSING:
            continue
        if not cell:
            faults.append(f"{name} is empty (write n/a for what is missing)")
        elif _looks_missing(cell):
            faults.append(f"{name} is {cell!r} (write n/a for what is missing)")
        elif name not in _NUMBERS:
            values[name] = cell
        elif _NUMBER.fullmatch(cell):
            values[name] = float(cell)
        else:
            faults.append(f"{name} {cell!r} is no number" + (" (the decimal mark is a point)" if "," in cell else ""))
    if "participant_id" not in values and record["participant_id"] == MISSING:
        faults.append("participant_id is n/a")
    unread = bool(faults)
    participant = Participant(participant_id=values.pop("participant_id", ""), **values)
    # a cell that could not be read is not reported a second time as missing
    echoes = ("participant_id ''", "SBR of only one side") if unread else ()
    faults += [fault for fault in participant_faults(participant) if not fault.startswith(echoes)]
    return participant, faults


def _parse_spect(record: dict[str, str], base: Path) -> tuple[Path | None, list[str]]:
    cell = record.get("spect", MISSING)
    if cell == MISSING:
        return None, []
    if not cell:
        return None, ["spect is empty (write n/a for what is missing)"]
    path = base / cell
    return (path, []) if path.exists() else (None, [f"spect {cell!r} does not exist"])


def _parse_paths(record: dict[str, str], base: Path) -> tuple[tuple[Path, Path], list[str]]:
    faults = []
    paths = []
    for side in Side:
        cell = record.get(side.value, MISSING)
        path = base / cell
        paths.append(path)
        if cell in ("", MISSING):
            faults.append(f"{side.value} has no image")
        elif not cell.endswith(IMAGE_SUFFIXES):
            faults.append(f"{side.value} {cell!r} is none of {', '.join(IMAGE_SUFFIXES)}")
        elif not path.is_file():
            faults.append(f"{side.value} {cell!r} does not exist")
    if not faults:
        mats = [path.suffix == ".mat" for path in paths]
        if any(mats) and paths[0] != paths[1]:
            faults.append("a .mat holds both sides: give the same path twice")
        elif not any(mats) and paths[0] == paths[1]:
            faults.append("right and left are the same image")
    return (paths[0], paths[1]), faults


def _parse_image(record: dict[str, str], base: Path) -> tuple[tuple[Path, Path], list[str]]:
    """The image of a line that is to be cut, twice."""
    cell = record["image"]
    path = base / cell
    patches = [side.value for side in Side if record.get(side.value, MISSING) != MISSING]
    faults = [f"{' and '.join(patches)} beside an image: give one or the other"] if patches else []
    if not cell.endswith(NIFTI_SUFFIXES):
        faults.append(f"image {cell!r} is none of {', '.join(NIFTI_SUFFIXES)}")
    elif not path.is_file():
        faults.append(f"image {cell!r} does not exist")
    return (path, path), faults


def _parse_centres(record: dict[str, str]) -> tuple[Centres | None, list[str]]:
    cells = {name: record[name] for name in CENTRE_COLUMNS}
    faults = [f"{name} {cell!r} is no number (RAS+ mm)" for name, cell in cells.items() if not _NUMBER.fullmatch(cell)]
    if faults:
        return None, faults
    a, b, c, d, e, f = map(float, cells.values())
    if not a > d:
        faults.append(f"right_x {a:g} is not larger than left_x {d:g} (RAS+: x rises towards the patient's right)")
    return ((a, b, c), (d, e, f)), faults
