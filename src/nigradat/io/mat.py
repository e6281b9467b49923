"""The published ``.mat`` layout: one patch pair, axes fixed by definition, position unknown."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from nigradat.anatomy import PATCH_SHAPE, Side, nominal_affine
from nigradat.errors import ImageError
from nigradat.pair import NigralPair

_VARIABLES: Final = {Side.RIGHT: "right_patch", Side.LEFT: "left_patch"}
_HEADER_BYTES: Final = 128
_ENDIAN_MARKS: Final = {b"\x00\x01IM", b"\x01\x00MI"}  # version 1.0 and byte order of a MATLAB 5 file


def read_mat_pair(
    path: str | os.PathLike[str], participant_id: str | None = None, session_id: str = "n/a"
) -> NigralPair:
    """Read a patch pair in the layout of the published release (github awjibon/mri_dat).

    The file holds ``right_patch`` and ``left_patch``, each ``(50, 50, 20)``, already on the A-L-I grid: axis 0 rises
    towards anterior, axis 1 towards the patient's left, axis 2 towards inferior. Positions are not stored, so the
    affines are nominal. The published ``true_sbr`` is not read: its two values are not labelled with a side.

    Args:
        path: a MATLAB 5 file (not 7.3).
        participant_id: the file's stem if not given.
        session_id: carried along.

    Raises:
        ImageError: not such a file, truncated, or patches that are no measurement.
    """
    source = Path(path)
    patches = [_patch(source, values, name) for name, values in _load(source).items()]
    try:
        return NigralPair(
            patches=np.stack(patches),
            affines=np.stack([nominal_affine(side) for side in Side]),
            participant_id=participant_id or source.stem,
            session_id=session_id,
            affine_is_nominal=True,
        )
    except ImageError as error:
        raise ImageError(f"{source}: {error.found}", error.expected, error.todo) from error


def _load(path: Path) -> dict[str, object]:
    """The two variables in side order; nothing else of the file is decoded."""
    from scipy.io import loadmat

    try:
        with path.open("rb") as stream:
            header = stream.read(_HEADER_BYTES)
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror})", "a MATLAB 5 file") from error
    if header.startswith(b"MATLAB 7.3"):
        raise ImageError(f"{path}: a MATLAB 7.3 file (HDF5)", "a MATLAB 5 file", "Save it with save(..., '-v7')")
    if header[124:] not in _ENDIAN_MARKS:
        raise ImageError(f"{path}: not a MATLAB file", "a MATLAB 5 file with right_patch and left_patch")
    names = list(_VARIABLES.values())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # SciPy only warns of an unreadable or doubled variable
            content = loadmat(path, variable_names=names)
    except Exception as error:  # a damaged file makes SciPy raise almost anything
        raise ImageError(
            f"{path}: truncated or damaged ({type(error).__name__}: {error})", "a whole MATLAB 5 file", "Copy it again"
        ) from error
    missing = [name for name in names if name not in content]
    if missing:
        raise ImageError(f"{path}: no variable {' and no '.join(missing)}", "right_patch and left_patch")
    return {name: content[name] for name in names}


def _patch(path: Path, values: object, name: str) -> npt.NDArray[np.float32]:
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "iuf":
        raise ImageError(f"{path}: {name} is no array of real numbers", f"{PATCH_SHAPE} numbers")
    if values.shape != PATCH_SHAPE:
        raise ImageError(f"{path}: {name} has shape {values.shape}", f"{PATCH_SHAPE}")
    return values.astype(np.float32)
