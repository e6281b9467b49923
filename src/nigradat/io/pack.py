"""The packed cohort: all patches of all visits in one memory-mapped array, with the table that belongs to it.

A folder with

* ``patches.npy``: ``(n, 2, 50, 50, 20)`` float32, right first, native view (not mirrored), not normalised;
* ``affines.npy``: ``(n, 2, 4, 4)`` float64, patch index to RAS+ mm; NaN where the position is only nominal;
* ``participants.tsv``: the visits in the same order;
* ``cohort.json``: format version, provenance, the labels' scale, the SMWI recipe where it is known, size and SHA-256 of
  the other files.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from nigradat.anatomy import PATCH_SHAPE, Side, nominal_affine
from nigradat.errors import CohortError, ManifestError, MissingExtraError, NigradatError
from nigradat.io.files import new_folder, sha256_of, write_json
from nigradat.io.manifest import (
    MISSING,
    ManifestRow,
    Participant,
    format_faults,
    read_participants,
    scan_manifest,
    write_participants,
)
from nigradat.io.nifti import AffineChoice
from nigradat.io.pairs import read_row
from nigradat.pair import NigralPair
from nigradat.smwi.recipe import recipe_differences

FORMAT_VERSION: Final = 1
PHANTOM: Final = "phantom"
PATIENTS: Final = "patients"
_PATCHES, _AFFINES, _TABLE, _CARD = "patches.npy", "affines.npy", "participants.tsv", "cohort.json"
_SCALE_COLUMNS: Final = ("tracer", "spect_device", "spect_software")
_LATER_SCALE_COLUMNS: Final = ("spect_reconstruction", "sbr_method")  # told where somebody has them
_ROW_SHAPE: Final = (2, *PATCH_SHAPE)
Progress = Callable[[int, int], None]
Labeller = Callable[[Participant, Path], Participant]


@dataclass(frozen=True, eq=False)
class PackedCohort:
    """A cohort on disk. Opening it reads the table only; patches are read row by row.

    Attributes:
        folder: where it lies.
        patches: ``(n, 2, 50, 50, 20)`` float32, read-only memory map; to sweep over a large cohort prefer :meth:`read`.
        affines: ``(n, 2, 4, 4)`` float64, read-only memory map; NaN where nominal.
        participants: the visits, in row order.
        provenance: where it comes from; ``kind`` is ``phantom`` or ``patients``.
        sbr_scale: the ``tracer``, ``spect_device`` and ``spect_software`` met (lists), the labels' ``min`` and ``max``.
        card: the whole of ``cohort.json``.
    """

    folder: Path
    patches: np.memmap[Any, np.dtype[np.float32]]
    affines: np.memmap[Any, np.dtype[np.float64]]
    participants: tuple[Participant, ...]
    provenance: Mapping[str, Any]
    sbr_scale: Mapping[str, Any]
    card: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.participants)

    def __reduce__(self) -> tuple[Callable[[Path], PackedCohort], tuple[Path]]:
        # a worker process opens the folder itself; a memory map would be sent voxel by voxel
        return load_cohort, (self.folder,)

    @property
    def sbr(self) -> npt.NDArray[np.float64]:
        """Labels ``(n, 2)``, right first, a plain ratio; NaN where a visit has none."""
        labels = [(p.sbr_right, p.sbr_left) for p in self.participants]
        return np.array(labels, dtype=np.float64).reshape(-1, 2)

    @property
    def patient_ids(self) -> tuple[str, ...]:
        """The patient of each row; visits of one patient share it."""
        return tuple(p.participant_id for p in self.participants)

    @property
    def visit_ids(self) -> tuple[str, ...]:
        """A name of its own for each row: ``participant`` or ``participant_session``."""
        return tuple(p.visit_id for p in self.participants)

    @property
    def sha256(self) -> str:
        """Identity of the cohort: a hash over the hashes of its files."""
        text = json.dumps({name: entry["sha256"] for name, entry in sorted(self.card["files"].items())})
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def smwi_recipe(self) -> Mapping[str, Any] | None:
        """How the images were made, None where it is not known; see :class:`~nigradat.smwi.recipe.SmwiRecipe`."""
        recipe: Mapping[str, Any] | None = self.card.get("smwi_recipe")
        return recipe

    @property
    def is_phantom(self) -> bool:
        """The patches are simulated."""
        return bool(self.provenance["kind"] == PHANTOM)

    def read(self, row: int) -> npt.NDArray[np.float32]:
        """A copy of one row, ``(2, 50, 50, 20)``, read from the file without mapping it.

        Memory stays flat however many rows are read, and a file that was cut off meanwhile is an error, not a crash.

        Raises:
            CohortError: the row is no longer there.
        """
        index = range(len(self))[row]
        path = self.folder / _PATCHES
        offset = self.patches.offset + index * self.patches.strides[0]
        values = np.fromfile(path, dtype=np.float32, count=math.prod(_ROW_SHAPE), offset=offset)
        if values.size != math.prod(_ROW_SHAPE):
            raise CohortError(f"{path} ends before the end of row {index}", f"{len(self)} rows", "Restore the folder")
        return values.reshape(_ROW_SHAPE)

    def pair(self, row: int) -> NigralPair:
        """One visit as a checked :class:`~nigradat.pair.NigralPair`."""
        participant, affines = self.participants[row], np.array(self.affines[row])
        nominal = not np.isfinite(affines).all()
        return NigralPair(
            patches=self.read(row),
            affines=np.stack([nominal_affine(side) for side in Side]) if nominal else affines,
            participant_id=participant.participant_id,
            session_id=participant.session_id,
            affine_is_nominal=nominal,
            smwi_recipe=self.smwi_recipe,
        )


class CohortWriter:
    """Write a packed cohort row by row.

    It appears at ``out`` when the block ends after :meth:`finish`, whole or not at all.
    The room on the disk is reserved at the start, so that a full disk is an error then and not a crash in between.

    Attributes:
        folder: the temporary folder being filled; further files may be put there.
        memmap_path: its ``patches.npy``, which worker processes may open with ``np.load(..., mmap_mode="r+")``.
        patches: ``(n, 2, 50, 50, 20)`` float32, writable; zero until written.
        affines: ``(n, 2, 4, 4)`` float64, writable; NaN (nominal) until written.

    Example:
        >>> with CohortWriter(out, patients=1, provenance={"kind": "phantom"}) as writer:  # doctest: +SKIP
        ...     writer.patches[0] = pair.patches
        ...     writer.finish([Participant("sub-0001", sbr_right=2.0, sbr_left=2.5)])
    """

    folder: Path
    memmap_path: Path
    patches: np.memmap[Any, np.dtype[np.float32]]
    affines: npt.NDArray[np.float64]

    def __init__(
        self,
        out: str | os.PathLike[str],
        patients: int,
        provenance: Mapping[str, Any],
        sbr_scale: Mapping[str, Any] | None = None,
    ) -> None:
        """Nothing is touched before the block is entered.

        Args:
            out: a folder that does not exist yet or is empty.
            patients: number of rows (visits).
            provenance: where the cohort comes from; ``kind`` must be ``phantom`` or ``patients``.
            sbr_scale: added to, or put in place of, what the participants say about the labels.

        Raises:
            CohortError: no rows, or an unknown kind.
        """
        if patients < 1:
            raise CohortError(f"a cohort of {patients} visits", "at least one")
        if provenance.get("kind") not in (PHANTOM, PATIENTS):
            raise CohortError(f"provenance of kind {provenance.get('kind')!r}", f"{PHANTOM!r} or {PATIENTS!r}")
        self._out, self._rows = out, patients
        self._provenance, self._sbr_scale = dict(provenance), dict(sbr_scale or {})
        self._finished = False
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.folder = stack.enter_context(new_folder(self._out))
            self.memmap_path = self.folder / _PATCHES
            self.patches = _reserve(self.memmap_path, (self._rows, *_ROW_SHAPE))
            self.affines = np.full((self._rows, 2, 4, 4), np.nan)
            self._stack = stack.pop_all()
        return self

    def finish(self, participants: Sequence[Participant], smwi_recipe: Mapping[str, Any] | None = None) -> None:
        """Write table and card; call it once, last.

        Args:
            participants: one a row.
            smwi_recipe: how all the images were made, where it is known.

        Raises:
            CohortError: as many participants as rows are needed, all valid.
        """
        if len(participants) != self._rows:
            raise CohortError(f"{len(participants)} participants for {self._rows} rows", "one a row")
        self.patches.flush()
        np.save(self.folder / _AFFINES, self.affines, allow_pickle=False)
        write_participants(self.folder / _TABLE, participants)
        files = {
            name: {"bytes": (self.folder / name).stat().st_size, "sha256": sha256_of(self.folder / name)}
            for name in (_PATCHES, _AFFINES, _TABLE)
        }
        card = {
            "format": "nigradat packed cohort",
            "version": FORMAT_VERSION,
            "rows": self._rows,
            "provenance": self._provenance,
            "sbr_scale": describe_scale(participants) | self._sbr_scale,
            **({} if smwi_recipe is None else {"smwi_recipe": dict(smwi_recipe)}),
            "files": files,
            "nigradat": metadata.version("nigradat"),
        }
        write_json(self.folder / _CARD, card)
        self._finished = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self.patches  # closes the map, without which the folder could not be renamed on Windows
        if kind is None and not self._finished:
            unfinished = CohortError("the cohort was not finished", "a call of finish(participants)")
            self._stack.__exit__(type(unfinished), unfinished, None)
            raise unfinished
        self._stack.__exit__(kind, error, trace)


def describe_scale(participants: Sequence[Participant]) -> dict[str, Any]:
    """What the SBR labels of a cohort are: the distinct tracers, devices and software, and the labels' range."""
    labels = [value for p in participants for value in (p.sbr_right, p.sbr_left) if value is not None]
    told = [name for name in _LATER_SCALE_COLUMNS if any(getattr(p, name) is not None for p in participants)]
    origin = {name: sorted({getattr(p, name) or MISSING for p in participants}) for name in (*_SCALE_COLUMNS, *told)}
    return origin | {"min": min(labels, default=None), "max": max(labels, default=None)}


def pack_cohort(
    manifest: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    affine: AffineChoice = "auto",
    allow_mixed: bool = False,
    label: Labeller | None = None,
    progress: Progress | None = None,
) -> PackedCohort:
    """Check a manifest with all its images and pack it.

    Args:
        manifest: see :func:`nigradat.io.manifest.read_manifest`.
        out: a new or empty folder.
        affine: see :func:`nigradat.io.nifti.read_volume`.
        allow_mixed: accept labels of several tracers or SPECT programs, and images of several SMWI recipes.
        label: gives a visit without SBR the labels that its SPECT says, ``label(visit, scan)``; see
            :func:`nigradat.spect.labels.labeller`.
        progress: called with (visits read, visits in all).

    Raises:
        ManifestError: every fault of every line and of every image; nothing is written then.
        OutputError: ``out`` is in use, or the disk is full.

    Example:
        >>> len(pack_cohort("manifest.tsv", "cohort"))                                          # doctest: +SKIP
    """
    source = Path(manifest)
    scan = scan_manifest(source)
    faults = list(scan.faults)
    if not scan.rows:
        raise ManifestError(str(source), format_faults(faults))
    provenance = {
        "kind": PATIENTS,
        "manifest": source.name,
        "manifest_sha256": sha256_of(source),
        "affine": affine,
        "allow_mixed": allow_mixed,
    }
    with CohortWriter(out, len(scan.rows), provenance) as writer:
        seen: dict[bytes, str] = {}
        recipes: list[Mapping[str, Any] | None] = []
        visits: list[Participant] = []
        for i, row in enumerate(scan.rows):
            try:
                visits.append(_labelled(row, label))
            except MissingExtraError:
                raise
            except NigradatError as error:
                faults.append((row.line, str(error)))
            try:
                pair = read_row(row, affine)
            except NigradatError as error:
                faults.append((row.line, str(error)))
            else:
                faults += [(row.line, fault) for fault in _copies(pair, row, seen)]
                recipes.append(pair.smwi_recipe)
                writer.patches[i] = pair.patches
                if not pair.affine_is_nominal:
                    writer.affines[i] = pair.affines
            if progress is not None:
                progress(i + 1, len(scan.rows))
        recipe, odd = _common_recipe(recipes)
        if odd and not allow_mixed:
            faults.append((0, f"the SMWI recipes are mixed: {odd}. Pack them apart, or say --allow-mixed"))
        faults += _label_faults(visits, allow_mixed)
        if faults:
            raise ManifestError(str(source), format_faults(faults))
        writer.finish(visits, recipe)
    return load_cohort(out)


def load_cohort(folder: str | os.PathLike[str]) -> PackedCohort:
    """Open a packed cohort. The patches are not read; :func:`verify` does that.

    Raises:
        CohortError: not a packed cohort, of an unknown version, or its files do not belong together.

    Example:
        >>> cohort = load_cohort("cohort")                                                      # doctest: +SKIP
        >>> cohort.sbr.mean(), cohort.pair(0).patches.shape                                     # doctest: +SKIP
    """
    base = Path(folder)
    card = _read_card(base)
    for name in (_AFFINES, _TABLE):
        _check_hash(base, card, name)
    participants = read_participants(base / _TABLE)
    rows = card["rows"]
    if len(participants) != rows:
        raise CohortError(f"{base}: {len(participants)} lines in {_TABLE}, {rows} in {_CARD}", "equal numbers")
    return PackedCohort(
        folder=base,
        patches=_map(base / _PATCHES, (rows, *_ROW_SHAPE), np.float32),
        affines=_map(base / _AFFINES, (rows, 2, 4, 4), np.float64),
        participants=participants,
        provenance=card["provenance"],
        sbr_scale=card["sbr_scale"],
        card=card,
    )


def verify(cohort: PackedCohort) -> None:
    """Read the patches through once and compare them with the hash in ``cohort.json``.

    Raises:
        CohortError: they were altered.
    """
    _check_hash(cohort.folder, cohort.card, _PATCHES)


def _labelled(row: ManifestRow, label: Labeller | None) -> Participant:
    """The visit of a line, labelled by its SPECT where it has no labels of its own."""
    if row.participant.has_sbr or row.spect is None:
        return row.participant
    if label is None:
        raise CohortError(
            "no SBR: both sides are n/a, and nothing was given that measures them in the SPECT",
            "labels, or pack_cohort(..., label=labeller(recipe)) of nigradat.spect.labels",
        )
    return label(row.participant, row.spect)


def _label_faults(participants: Sequence[Participant], allow_mixed: bool) -> list[tuple[int, str]]:
    """Faults that only the labels of all lines together show."""
    faults = []
    typed = [v for p in participants if p.sbr_method is None for v in (p.sbr_right, p.sbr_left) if v is not None]
    largest = max(typed, default=None)
    if largest is not None and largest < 1:
        faults.append(
            f"the largest SBR is {largest:g}: these labels look divided by a scale (6.84 in the published release); "
            "give the plain ratio"
        )
    for name in ("spect_software", "tracer", *_LATER_SCALE_COLUMNS) if not allow_mixed else ():
        counts = Counter(getattr(p, name) or MISSING for p in participants)
        if len(counts) > 1:
            listed = ", ".join(f"{value} ({n})" for value, n in sorted(counts.items()))
            faults.append(
                f"{name} is mixed: {listed}. Their SBR are not on one scale; pack them apart, "
                "or say --allow-mixed if they were harmonised"
            )
    return [(0, fault) for fault in faults]


def _common_recipe(recipes: Sequence[Mapping[str, Any] | None]) -> tuple[Mapping[str, Any] | None, str]:
    """The SMWI recipe of all visits, None where one states none; and in what two of them contradict each other."""
    stated = [recipe for recipe in recipes if recipe is not None]
    for other in stated[1:]:
        if odd := recipe_differences(stated[0], other):
            return None, "; ".join(odd)
    return (stated[0] if stated and len(stated) == len(recipes) else None), ""


def _copies(pair: NigralPair, row: ManifestRow, seen: dict[bytes, str]) -> list[str]:
    """Patches whose voxels were met before: a copying mistake that would leak test patients into training."""
    faults = []
    for side in Side:
        digest = hashlib.sha256(pair.patch(side).tobytes()).digest()
        here = f"the {side.value} patch of line {row.line}"
        if (first := seen.setdefault(digest, here)) != here:
            faults.append(f"its {side.value} patch has the same voxels as {first}")
    return faults


def _reserve(path: Path, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[np.float32]]:
    """A zero-filled .npy of that shape, mapped for writing, whose room on the disk is really there.

    Without the reservation a disk that runs full kills the process (SIGBUS) at a write to the map.
    """
    mapped = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as stream:
            os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
    return mapped


def _map(path: Path, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Any:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise CohortError(f"{path}: missing, truncated or no .npy file ({error})", f"shape {shape}") from error
    if array.shape != shape or array.dtype != dtype or not array.flags.c_contiguous:
        found = f"{path}: {array.dtype} of shape {array.shape}"
        raise CohortError(found, f"{np.dtype(dtype)} of shape {shape} in C order")
    return array


def _read_card(folder: Path) -> dict[str, Any]:
    path = folder / _CARD
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CohortError(
            f"{folder} is no packed cohort (no readable {_CARD})",
            "a folder made by 'nigradat cohort' or 'nigradat simulate'",
        ) from error
    except ValueError as error:
        raise CohortError(f"{path} is damaged ({error})", "JSON", "Pack the cohort again") from error
    if not isinstance(card, dict) or card.get("version") != FORMAT_VERSION:
        version = card.get("version") if isinstance(card, dict) else None
        raise CohortError(f"{path} has format version {version!r}", f"{FORMAT_VERSION}", "Pack the cohort again")
    expected = {"rows": int, "provenance": dict, "sbr_scale": dict, "files": dict}
    wrong = [key for key, kind in expected.items() if not isinstance(card.get(key), kind)]
    if wrong or card["provenance"].get("kind") not in (PHANTOM, PATIENTS):
        raise CohortError(f"{path}: {', '.join(wrong) or 'provenance'} is unusable", "", "Pack the cohort again")
    return card


def _check_hash(folder: Path, card: Mapping[str, Any], name: str) -> None:
    entry = card["files"].get(name)
    try:
        found = sha256_of(folder / name)
    except OSError as error:
        raise CohortError(f"{folder / name} cannot be read ({error.strerror})", "a whole cohort folder") from error
    if not isinstance(entry, dict) or found != entry.get("sha256"):
        raise CohortError(
            f"{folder / name} is not the file that {_CARD} describes (SHA-256 {found[:12]}...)",
            "unaltered files",
            "Restore the folder, or pack the cohort again",
        )
