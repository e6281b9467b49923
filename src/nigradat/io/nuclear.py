"""Reconstructed SPECT from a scanner: NM DICOM (one file of many frames) or NIfTI, as a volume with its orientation.

Of a DICOM header numbers and a few words of our own travel (:data:`TRAVELLING_ATTRIBUTES`), nothing else: no name, no
date, no description, and for the file's name a piece of a hash (of a NIfTI's bytes, of a DICOM's series).

Sources: DICOM PS3.3 C.8.4.9 (NM Multi-frame), C.8.4.11 (NM Detector), C.8.4.15 (NM Reconstruction: the sign of Spacing
Between Slices says on which side of the first slice the others lie).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from nigradat.errors import ImageError, MissingExtraError, OrientationError
from nigradat.io.archive import ScanFiles, find_files
from nigradat.io.dicom import sort_slices
from nigradat.io.dicom_frames import is_dicom, quietly, read_frames, read_pixels, refuse_bomb
from nigradat.io.files import sha256_of
from nigradat.io.nifti import AffineChoice, read_volume
from nigradat.io.nifti_series import read_sidecar
from nigradat.io.series import as_number, maker_of, token_of
from nigradat.volume import Source, Volume

# What may stand in an output about a scan, beside its grid: all words are ours, chosen by what the header says.
TRAVELLING_ATTRIBUTES: Final = {
    "tracer": "123I-FP-CIT, 123I-beta-CIT, 99mTc-TRODAT-1",
    "manufacturer": "one of the scanner makers that we know",
    "reconstruction": "FBP or OSEM, then the corrections made: attenuation, scatter, ...",
}
_TRACERS: Final = {
    "123I-FP-CIT": ("ioflupan", "joflupan", "fp-cit", "fpcit", "datscan", "dat scan"),
    "123I-beta-CIT": ("beta-cit", "b-cit", "iometopane", "dopascan"),
    "99mTc-TRODAT-1": ("trodat",),
}
_NUMBER: Final = re.compile(r"\d+")
_MASSES: Final = {"11", "18", "99", "123", "125", "131"}  # of carbon, fluorine, technetium, iodine; as text
_NOT_MADE: Final = re.compile(r"(no|none|not|false|n/a|0)\b")
_RECONSTRUCTIONS: Final = {
    "OSEM": ("osem", "3d-osem", "flash", "astonish", "evolution", "iterative", "mlem"),
    "FBP": ("fbp", "filtered back", "backprojection"),
}
# PS3.3 C.8.4.11.1.5 and C.8.9.1: defined terms of Corrected Image
_CORRECTIONS: Final = {"ATTN": "attenuation", "SCAT": "scatter", "MOTN": "motion", "DTIM": "dead time", "DECY": "decay"}
_TAGS: Final = (
    *("SOPClassUID", "Modality", "ImageType", "SeriesInstanceUID", "Manufacturer", "NumberOfFrames"),
    *("SpacingBetweenSlices", "SliceVector", "DetectorInformationSequence", "FrameIncrementPointer", "CorrectedImage"),
    *("ReconstructionMethod", "AttenuationCorrectionMethod", "ScatterCorrectionMethod"),
    "RadiopharmaceuticalInformationSequence",
)
_KINDS: Final = ("RECON TOMO",)
_SLICE_VECTOR: Final = 0x00540080


def read_spect(path: str | os.PathLike[str], affine: AffineChoice = "auto", *, tracer: str | None = None) -> Volume:
    """Read one reconstructed SPECT.

    Args:
        path: an NM DICOM file, a folder or archive that holds one, or a NIfTI.
        affine: for a NIfTI, see :func:`nigradat.io.nifti.read_volume`.
        tracer: what the user knows it to be; then the header's word for it does not matter.

    Returns:
        The scan with its rescaling applied, in storage order. ``source.attributes`` has ``tracer``, ``manufacturer``
        and ``reconstruction`` as far as a DICOM header, or a NIfTI's sidecar, tells them.

    Raises:
        ImageError: no such file, truncated or damaged; not one reconstructed SPECT (projections, gated or whole-body
            images, another modality, several scans), or one of a tracer that none of ours is known by.
        OrientationError: a header that does not say where the slices lie; a side is never guessed.
        MissingExtraError: pydicom is not installed.
    """
    given = Path(path)
    if given.name.lower().endswith((".nii", ".nii.gz")):
        data, matrix = read_volume(given, affine)
        sidecar = read_sidecar(given, find_files(given))
        said = _of_sidecar(sidecar)
        is_pet = sidecar.get("Modality") in ("PT", "PET") or given.name.split(".", 1)[0].endswith("_pet")
        if tracer is None:
            _refuse_other_tracers(given.name, "tracer" in said, sidecar.get("TracerName"), is_pet)
        return Volume(data, np.asarray(matrix, dtype=np.float64), Source((token_of(sha256_of(given)),), "nifti", said))
    files = find_files(given)
    scans = [file for file in files.paths if is_dicom(file)]
    if not scans:
        raise ImageError(f"{given}: neither DICOM nor NIfTI", "a reconstructed DaT-SPECT")
    _require_pydicom()
    with quietly():
        return _read_dicom(given, files, scans, tracer)


def _read_dicom(given: Path, files: ScanFiles, scans: Sequence[Path], tracer: str | None) -> Volume:
    headers = [(file, _header(file, files.name(file))) for file in scans]
    nuclear = [(file, header) for file, header in headers if "NumberOfFrames" in header]
    if len(nuclear) != 1:
        kinds = sorted({str(header.get("Modality") or "?")[:2] for _, header in headers})
        raise ImageError(
            f"{given}: {len(nuclear)} multi-frame images in {len(headers)} DICOM files (modality {', '.join(kinds)})",
            "one reconstructed SPECT",
            "Name the file itself",
        )
    file, header = nuclear[0]
    if tracer is None:
        _refuse_other_tracers(files.name(file), "tracer" in _travelling(header), _stated(header)[0])
    return _read(file, files.name(file), header)


def _read(path: Path, name: str, header: Any) -> Volume:
    try:
        _refuse_other_kinds(header, name)
        _refuse_unplaced(header, name)
    except (TypeError, ValueError, OverflowError):  # a number that is none
        raise ImageError(f"{name}: damaged DICOM header", "a readable header", "Export it again") from None
    frames, grid = sort_slices(read_frames(path, name))
    stored = read_pixels(frames, name)
    slopes = np.array([frame.slope for frame in frames])[:, None, None]
    offsets = np.array([frame.intercept for frame in frames])[:, None, None]
    data = np.ascontiguousarray((stored * slopes + offsets).astype(np.float32).transpose(2, 1, 0))
    token = token_of(str(header.get("SeriesInstanceUID", "")))
    return Volume(data, grid.affine, Source((token,), "dicom-classic", _travelling(header)))


def _header(path: Path, name: str) -> Any:
    import pydicom

    tags: list[Any] = list(_TAGS)
    try:
        with path.open("rb") as stream:
            refuse_bomb(stream, name)
            return pydicom.dcmread(stream, stop_before_pixels=True, force=True, specific_tags=tags)
    except (ImageError, MemoryError):
        raise
    except Exception:  # whatever pydicom raises on damage; its words may quote a value, so they stay behind
        raise ImageError(f"{name}: damaged DICOM", "a readable header", "Export it again") from None


def _refuse_other_kinds(header: Any, name: str) -> None:
    modality = str(header.get("Modality") or "")
    if modality != "NM":
        shown = modality if modality in ("MR", "CT", "PT", "OT", "SC") else "of another kind"
        raise ImageError(f"{name}: an image of modality {shown or '?'}", "NM, a reconstructed SPECT")
    kind = [str(word) for word in header.get("ImageType") or ()]
    if not any(word in _KINDS for word in kind):
        known = ("STATIC", "DYNAMIC", "GATED", "WHOLE BODY", "TOMO", "GATED TOMO", "RECON GATED TOMO")
        found = next((word for word in known if word in kind), "unknown")
        raise ImageError(
            f"{name}: an NM image of the kind {found}",
            "RECON TOMO",
            "These are not the reconstructed slices; export those" if "TOMO" in found else "",
        )
    pointer = header.get("FrameIncrementPointer")
    pointers = pointer if isinstance(pointer, Sequence) else [pointer]
    if pointer is not None and [int(tag) for tag in pointers] != [_SLICE_VECTOR]:
        raise ImageError(
            f"{name}: frames that differ in more than their slice (several detectors, energy windows or times)",
            "one frame a slice",
            "Export the sum, or the one energy window of the tracer",
        )


def _refuse_unplaced(header: Any, name: str) -> None:
    """Without the signed spacing nobody knows on which side of the first slice the others lie."""
    detectors = header.get("DetectorInformationSequence") or [{}]
    missing = [tag for tag in ("ImagePositionPatient", "ImageOrientationPatient") if not detectors[0].get(tag)]
    frames = int(header.get("NumberOfFrames") or 1)
    if frames > 1 and not as_number(header.get("SpacingBetweenSlices")):
        missing.append("SpacingBetweenSlices")
    if missing:
        raise OrientationError(
            f"{name}: its header lacks {', '.join(missing)}",
            "where the slices lie and in which order they are stacked",
            "Export it again, or convert it to NIfTI with a program that you trust; a side is never guessed",
        )
    vector = header.get("SliceVector")
    if vector is not None and sorted(int(i) for i in np.atleast_1d(vector)) != list(range(1, frames + 1)):
        raise ImageError(f"{name}: a slice vector that is no order of its {frames} frames", "each slice once")


def _refuse_other_tracers(name: str, known: bool, stated: object, is_pet: bool = False) -> None:
    """Any brain tracer has a ratio of striatum to cortex; only that of a transporter's tracer is a DaT label."""
    said = str(stated or "").strip().lower()
    if known or (not is_pet and said in ("", "n/a", "unknown", "none")):
        return
    raise ImageError(
        f"{name}: {'a PET' if is_pet else 'a scan'} whose tracer is none that we know, or has another nuclide",
        " or ".join(_TRACERS),
        "Say --tracer if it does bind to the dopamine transporter; its SBR has a scale of its own",
    )


def _stated(header: Any) -> tuple[object, object]:
    """The tracer in the header's own words: free text, and the meaning of its code."""
    radio = header.get("RadiopharmaceuticalInformationSequence") or [{}]
    codes = radio[0].get("RadiopharmaceuticalCodeSequence") or [{}]
    text, code = radio[0].get("Radiopharmaceutical"), codes[0].get("CodeMeaning")
    return text or code, code


def _travelling(header: Any) -> Mapping[str, str | float]:
    """The few attributes of a DICOM header that travel."""
    terms = {str(term) for term in np.atleast_1d(header.get("CorrectedImage") or [])}
    return _in_our_words(
        _stated(header),
        header.get("Manufacturer"),
        header.get("ReconstructionMethod"),
        [word for term, word in _CORRECTIONS.items() if term in terms],
    )


def _of_sidecar(sidecar: Mapping[str, Any]) -> Mapping[str, str | float]:
    """Of a JSON sidecar, whose keys are those of BIDS for PET, which SPECT borrows."""
    made = {
        "attenuation": sidecar.get("AttenuationCorrection"),
        "scatter": sidecar.get("ScatterCorrectionMethod"),
        "decay": sidecar.get("ImageDecayCorrected"),
    }
    return _in_our_words(
        (sidecar.get("TracerName"), sidecar.get("TracerRadionuclide")),
        sidecar.get("Manufacturer"),
        sidecar.get("ReconMethodName") or sidecar.get("ReconstructionMethod"),
        [word for word, said in made.items() if said and not _NOT_MADE.match(str(said).strip().lower())],
    )


def _in_our_words(
    tracer: Sequence[object], maker: object, reconstruction: object, corrections: Sequence[str]
) -> Mapping[str, str | float]:
    found: dict[str, str | float] = {}
    if name := _tracer(tracer):
        found["tracer"] = name
    if known := maker_of(maker):
        found["manufacturer"] = known
    words = [
        _word_for(_RECONSTRUCTIONS, reconstruction),
        f"corrected for {', '.join(corrections)}" if corrections else "",
    ]
    if any(words):
        found["reconstruction"] = "; ".join(word for word in words if word)
    return found


def _tracer(texts: Sequence[object]) -> str:
    """Our word; none for a namesake with another nuclide, such as 18F-FP-CIT, whose uptake is on a scale of its own."""
    ours = _word_for(_TRACERS, *texts)
    nuclides = {number for text in texts for number in _NUMBER.findall(str(text or ""))} & _MASSES
    return ours if not nuclides or any(ours.startswith(mass) for mass in nuclides) else ""


def _word_for(words: Mapping[str, Sequence[str]], *texts: object) -> str:
    """Our word for what a free text says, empty where it says nothing that we know."""
    said = " ".join(str(text or "").lower() for text in texts)
    return next((ours for ours, theirs in words.items() if any(mark in said for mark in theirs)), "")


def _require_pydicom() -> None:
    from importlib.util import find_spec

    if find_spec("pydicom") is None:
        raise MissingExtraError("pydicom", "dicom")
