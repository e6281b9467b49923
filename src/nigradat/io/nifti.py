"""NIfTI volumes in and out. A volume without a usable orientation is refused: a side is never guessed."""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import os
import struct
import zlib
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Final, Literal

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.arrayproxy import ArrayProxy

from nigradat.anatomy import Array, axis_codes, check_affine
from nigradat.errors import ConfigError, ImageError, OrientationError
from nigradat.io.archive import MAX_RATIO
from nigradat.io.files import new_file

AffineChoice = Literal["auto", "sform", "qform"]
AFFINE_CHOICES: Final = ("auto", "sform", "qform")
MAX_FORM_DISTANCE_MM: Final = 0.5
_NIFTI2_HEADER_BYTES: Final = 540  # the first field of the file
_SLACK_BYTES: Final = 16 * 2**20  # for header extensions
_MOST_BYTES: Final = 8 * 2**30
_FREE_BYTES: Final = 2**30  # so much may unpack whatever its ratio, as an empty mask of many echoes does
_GZIP_MAGIC: Final = b"\x1f\x8b"


def read_volume(path: str | os.PathLike[str], affine: AffineChoice = "auto") -> tuple[npt.NDArray[np.float32], Array]:
    """Read a three-dimensional NIfTI volume with the header's intensity scaling applied.

    Args:
        path: ``.nii`` or ``.nii.gz`` (NIfTI-1 or -2); trailing axes of length 1 are dropped.
        affine: which of the header's two orientations to take. With ``auto`` either one alone, or both if they agree
            within 0.5 mm at every corner of the volume and have the same axis codes.

    Returns:
        The voxels, float32, in storage order, and the affine ``(4, 4)`` from voxel index to RAS+ mm.

    Raises:
        ImageError: no file, no image, truncated or damaged, or not three-dimensional.
        OrientationError: no orientation, an unusable one, or two that contradict each other.
    """
    if affine not in AFFINE_CHOICES:
        raise ConfigError(f"affine {affine!r}", f"one of {', '.join(AFFINE_CHOICES)}")
    source = Path(path)
    header, stored = _parse(source, _read_bytes(source))
    shape = stored.shape
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3 or 0 in shape:
        raise ImageError(f"{source}: an image of shape {stored.shape}", "a 3D volume")
    if stored.dtype.kind not in "iuf":
        raise ImageError(f"{source}: voxels of type {stored.dtype}", "real numbers")
    try:
        voxels = np.asarray(stored, dtype=np.float32).reshape(shape)
    except (OSError, ValueError, OverflowError, MemoryError) as error:
        raise ImageError(
            f"{source}: truncated, its voxels are not all there ({error})", f"{shape} voxels", "Copy or export it again"
        ) from error
    return voxels, _choose_affine(source, header, shape, affine)


@dataclass(frozen=True, eq=False)
class RawImage:
    """A NIfTI's stored numbers beside its scaling, for the rare header whose scaling is wrong.

    Attributes:
        stored: ``(X, Y, Z, volumes)``, as in the file.
        slope, inter: the header's scaling, 1 and 0 where it has none.
        affine: ``(4, 4)`` from voxel index to RAS+ mm.
        digest: SHA-256 of the uncompressed file.
    """

    stored: npt.NDArray[Any]
    slope: float
    inter: float
    affine: Array
    digest: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one volume."""
        x, y, z = self.stored.shape[:3]
        return x, y, z

    @property
    def volumes(self) -> int:
        """Along the fourth axis."""
        return int(self.stored.shape[3])

    @property
    def is_float(self) -> bool:
        """Whether the numbers are stored as such, and not as integers to be scaled."""
        return self.stored.dtype.kind == "f"

    @property
    def stored_range(self) -> tuple[float, float]:
        """Smallest and largest stored number."""
        return float(self.stored.min()), float(self.stored.max())

    def volume(self, index: int, *, scaled: bool = True) -> npt.NDArray[np.float32]:
        """One volume, ``(X, Y, Z)`` float32, with the header's scaling or without."""
        voxels = self.stored[..., index]
        return np.asarray(voxels * self.slope + self.inter if scaled else voxels, dtype=np.float32)

    def same_grid(self, other: RawImage) -> bool:
        """Whether both have one shape and, within a hundredth of a voxel, one place."""
        corners = np.array(list(product(*((0, n) for n in self.shape))))
        change = self.affine - other.affine
        apart = np.abs(corners @ change[:3, :3].T + change[:3, 3]).max()
        return self.shape == other.shape and bool(apart < 0.01 * np.linalg.norm(self.affine[:3, :3], axis=0).min())


def read_raw(path: str | os.PathLike[str], affine: AffineChoice = "auto", *, name: str = "") -> RawImage:
    """Read a NIfTI of one or several volumes as it is stored.

    Args:
        path: ``.nii`` or ``.nii.gz``, three or four axes.
        affine: as for :func:`read_volume`.
        name: how to call the file in a message, where its own name must not appear; default the path.

    Raises:
        ImageError, OrientationError: as :func:`read_volume` does.
    """
    source = Path(path)
    called: Any = name or source
    content = _read_bytes(source, called)
    header, proxy = _parse(called, content)
    shape = proxy.shape
    while len(shape) > 4 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) not in (3, 4) or 0 in shape:
        raise ImageError(f"{called}: an image of shape {proxy.shape}", "three axes, or four with echoes along the last")
    if proxy.dtype.kind not in "iuf":
        raise ImageError(f"{called}: voxels of type {proxy.dtype}", "real numbers")
    try:
        stored = np.asarray(proxy.get_unscaled()).reshape((*shape, 1)[:4])
    except (OSError, ValueError, OverflowError, MemoryError) as error:
        raise ImageError(f"{called}: truncated, its voxels are not all there", f"{shape} voxels") from error
    slope, inter = header.get_slope_inter()
    matrix = _choose_affine(called, header, shape[:3], affine)
    digest = hashlib.sha256(content).hexdigest()
    return RawImage(stored, 1.0 if slope is None else float(slope), float(inter or 0.0), matrix, digest)


def write_volume(path: str | os.PathLike[str], array: npt.NDArray[np.generic], affine: npt.ArrayLike) -> None:
    """Write a NIfTI-1 volume whose sform and qform both carry ``affine``; equal input gives equal bytes.

    Raises:
        ImageError: the name ends neither in ``.nii`` nor in ``.nii.gz``.
        OrientationError: an unusable affine.
        OutputError: the disk does not take it.
    """
    target = Path(path)
    if not target.name.endswith((".nii", ".nii.gz")):
        raise ImageError(f"the file name {target.name}", "one that ends in .nii or .nii.gz")
    a = check_affine(affine)
    make_image: Any = nib.Nifti1Image
    image = make_image(np.asarray(array), a)
    image.set_sform(a, code=1)
    image.set_qform(a, code=1)
    image.header.set_xyzt_units("mm")
    content = image.to_bytes()
    with new_file(target) as hidden:
        hidden.write_bytes(gzip.compress(content, 6, mtime=0) if target.suffix == ".gz" else content)


def _read_bytes(path: Path, name: Path | str = "") -> bytes:
    """The whole file, uncompressed. Read to the end, so that gzip's own checksum is verified."""
    name = name or path
    if not path.name.endswith((".nii", ".nii.gz")):
        raise ImageError(f"{name}: not a NIfTI file name", ".nii or .nii.gz", "Convert it, for example with dcm2niix")
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ImageError(f"{name}: cannot be read ({error.strerror})", "a NIfTI file") from error
    if not raw.startswith(_GZIP_MAGIC):
        return raw
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(raw)) as stream:
            start = stream.read(_NIFTI2_HEADER_BYTES + 4)
            stated = _stated_bytes(start)
            _refuse_too_much(stated, len(raw), name)
            content = start + stream.read(max(0, stated + _SLACK_BYTES - len(start)))
            too_much = bool(stream.read(1))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ImageError(
            f"{name}: truncated or damaged, it cannot be decompressed ({error})", "", "Copy or export it again"
        ) from error
    if too_much:
        raise ImageError(
            f"{name}: it unpacks to more than the {stated:,} bytes that its header states",
            "the voxels of its header",
            "Ask where it comes from; do not unpack it",
        )
    return content


def _refuse_too_much(stated: int, packed: int, name: Path | str) -> None:
    """A header may lie as well, or speak the truth of a bomb: what it states is held against the packed bytes."""
    most = min(_MOST_BYTES, max(_FREE_BYTES, MAX_RATIO * packed))
    if stated > most:
        raise ImageError(
            f"{name}: by its header it unpacks to {stated:,} bytes",
            f"at most {most:,}, for {packed:,} packed ones",
            "If it is a scan, unpack it yourself",
        )


def _stated_bytes(start: bytes) -> int:
    """How long a NIfTI must be by its own header; 0 for what is none, which is then refused for that."""
    try:
        header, _ = _parse("", start)
        voxels = math.prod(max(1, int(n)) for n in header.get_data_shape())
        return int(header["vox_offset"]) + voxels * int(header.get_data_dtype().itemsize)
    except (ImageError, ValueError, OverflowError):
        return 0


def _parse(path: Path | str, content: bytes) -> tuple[Any, Any]:
    """Header and, still to be read, the voxels. Not nibabel's image, which fails where only one of two forms does."""
    is_version_2 = content[:4] in (struct.pack("<i", _NIFTI2_HEADER_BYTES), struct.pack(">i", _NIFTI2_HEADER_BYTES))
    kind: Any = nib.Nifti2Header if is_version_2 else nib.Nifti1Header
    proxy: Any = ArrayProxy
    stream = io.BytesIO(content)
    try:
        header = kind.from_fileobj(stream)
        return header, proxy(stream, header)
    except Exception as error:  # nibabel's header checks raise many kinds, all with the same meaning here
        raise ImageError(
            f"{path}: not a NIfTI image ({error})", "a NIfTI file", "Convert or export it again"
        ) from error


def _choose_affine(path: Path | str, header: Any, shape: tuple[int, ...], choice: AffineChoice) -> Array:
    forms, reasons = {}, {}
    for name in ("sform", "qform"):
        try:
            matrix, code = getattr(header, f"get_{name}")(coded=True)
            if code == 0:
                reasons[name] = "not set (code 0)"
                continue
            axis_codes(matrix)
            forms[name] = check_affine(matrix)
        except OrientationError as error:
            reasons[name] = error.found
        except ValueError as error:  # a quaternion that is none
            reasons[name] = f"unusable ({error})"
    if choice != "auto":
        if choice not in forms:
            raise OrientationError(f"{path}: its {choice} is {reasons[choice]}", f"a usable {choice}")
        return forms[choice]
    if not forms:
        raise OrientationError(
            f"{path}: no usable orientation: sform {reasons['sform']}, qform {reasons['qform']}",
            "an orientation in the header",
            "Convert the image again from its DICOM source; a side is never guessed",
        )
    if len(forms) == 1:
        ((name, matrix),) = forms.items()
        ((other, reason),) = reasons.items()
        if not reason.startswith("not set"):
            raise OrientationError(
                f"{path}: its {other} is {reason}, its {name} is usable",
                "two orientations that agree, or one",
                f"If the {name} is right, say --affine {name}",
            )
        return matrix
    _refuse_conflict(path, forms["sform"], forms["qform"], shape)
    return forms["sform"]


def _refuse_conflict(path: Path | str, sform: Array, qform: Array, shape: tuple[int, ...]) -> None:
    # the difference of two affine maps is largest at a corner
    corners = np.array(list(product(*((0, n - 1) for n in shape))))
    distance = np.linalg.norm(corners @ (sform - qform)[:3, :3].T + (sform - qform)[:3, 3], axis=1).max()
    codes = ["".join(axis_codes(form)) for form in (sform, qform)]
    if distance > MAX_FORM_DISTANCE_MM or codes[0] != codes[1]:
        raise OrientationError(
            f"{path}: sform and qform contradict each other by up to {distance:.1f} mm "
            f"(axis codes {codes[0]} and {codes[1]})",
            f"at most {MAX_FORM_DISTANCE_MM:g} mm and the same axis codes",
            "Find out which is right and say --affine sform or --affine qform",
        )
