"""DICOM files as frames: one for each slice, whether it lies in a file of its own (classic) or in a functional group.

Only what is needed to place and to scale a slice is kept, and only for as long as a scan is read. Identifiers serve to
tell series apart, as hashes, and reach no output.

Sources: DICOM PS3.3 C.7.6.2 (image plane), C.7.6.16 (functional groups), C.8.4 (nuclear medicine), C.11.1 (rescale).
"""

from __future__ import annotations

import logging
import os
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

from nigradat.errors import ImageError
from nigradat.io.archive import FREE_BYTES, MAX_RATIO, readable
from nigradat.io.series import Part, Unit, as_number, maker_of, part_of, token_of, travelling, unit_of

Float64 = npt.NDArray[np.float64]

_PREAMBLE: Final = 128
_MAGIC: Final = b"DICM"
_BARE_START: Final = (b"\x08\x00", b"\x02\x00")  # group 8 or 2 first: DICOM without its preamble, as old exports are
_DEFLATED: Final = b"1.2.840.10008.1.2.1.99"
_META_LENGTH: Final = b"\x02\x00\x00\x00UL\x04\x00"
_CHUNK: Final = 2**20
_UNKNOWN_LENGTH: Final = 0xFFFFFFFF
_LONG_VR: Final = (b"OB", b"OW", b"UN", b"OF", b"OD", b"OL", b"OV")
_PHILIPS: Final = "Philips MR Imaging DD 001"
_GE: Final = "GEMS_PARM_01"
_GE_PARTS: Final[dict[int, Part]] = {0: "magnitude", 1: "phase", 2: "real", 3: "imaginary"}  # (0043,xx2F)
# What is read of a file: no name, no birth date, no institution. Descriptions are searched for a few words.
_WANTED: Final = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality"),
    *("Manufacturer", "BodyPartExamined", "ImageType", "ComplexImageComponent", "SeriesNumber", "SeriesDescription"),
    *("ProtocolName", "SequenceName", "PulseSequenceName", "MRAcquisitionType", "MagneticFieldStrength"),
    *("RepetitionTime", "EchoTime", "EchoNumbers", "FlipAngle", "PixelBandwidth", "SliceThickness"),
    *("SpacingBetweenSlices", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"),
    *("TemporalPositionIdentifier", "AcquisitionNumber", "AcquisitionTime", "Rows", "Columns", "NumberOfFrames"),
    *("SamplesPerPixel", "BitsAllocated", "BitsStored", "PixelRepresentation"),
    *("RescaleSlope", "RescaleIntercept", "RescaleType", "RealWorldValueMappingSequence"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "DetectorInformationSequence"),
    "SliceVector",
)
_IMAGE_KINDS: Final = {  # MR, Enhanced MR, NM, PET, CT Image Storage
    f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("4", "4.1", "20", "128", "2")
}
_DICOMDIR: Final = "1.2.840.10008.1.3.10"
_NAMES: Final = (".dcm", ".ima")
_PRIVATE: Final = (0x00430010, 0x0043102F, 0x20050010, 0x2005100D, 0x2005100E)


@dataclass(frozen=True)
class PlainPixels:
    """Uncompressed pixels of one frame: where they begin in the file, and how each is stored."""

    offset: int
    dtype: str


@dataclass(frozen=True)
class Frame:
    """One slice.

    Attributes:
        path, number: where its pixels are: file, and place in it from 0.
        plain: how to read them straight from the file; None where they are compressed.
        instance, series, study, world: hashes of the identifiers that tell instances, series, studies and frames of
            reference apart.
        rows, columns: of pixels.
        position_mm: centre of the first pixel, in the patient's coordinates of DICOM (LPS); None if missing.
        orientation: direction in which columns rise (three numbers), then rows (three); None if missing.
        pixel_mm: distance of rows, then of columns; None if missing.
        thickness_mm: distance of slices as stated, or their thickness; it counts for a single slice only.
        part, unit, echo_time_ms, echo_number: what it shows.
        slope, intercept: from stored to real value.
        stored_range: smallest and largest value that could be stored, after scaling.
        moments: what may tell repetitions apart, most telling first.
        attributes: the few that travel.
    """

    path: Path
    number: int
    plain: PlainPixels | None
    enhanced: bool
    instance: str
    series: str
    study: str
    world: str
    rows: int
    columns: int
    position_mm: tuple[float, float, float] | None
    orientation: tuple[float, ...] | None
    pixel_mm: tuple[float, float] | None
    thickness_mm: float | None
    part: Part
    unit: Unit
    echo_time_ms: float | None
    echo_number: int | None
    slope: float
    intercept: float
    stored_range: tuple[float, float]
    scaling: str
    moments: tuple[str, ...]
    attributes: dict[str, str | float]
    acquired: str


def is_dicom(path: Path, name: str = "a file of the scan") -> bool:
    """Whether a file is DICOM by its name or its start, with or without the preamble, or breaks off within that.

    Args:
        path: of the file.
        name: how to call it in a message.

    Raises:
        ImageError: it cannot be read. It is not passed over: a slice that is lost so would be missed by nobody.
    """
    if path.suffix.lower() in _NAMES:
        return True
    with _opened(path, name) as stream:
        head = stream.read(_PREAMBLE + len(_MAGIC))
    if len(head) < _PREAMBLE + len(_MAGIC):
        return len(head) > 0 and not any(head)
    return head[_PREAMBLE:] == _MAGIC or (head[:2] in _BARE_START and head[4:6].isalpha())


def read_frames(path: Path, name: str) -> tuple[Frame, ...]:
    """The slices of one DICOM file; none for an object without an image, such as a report or a DICOMDIR.

    Args:
        path: of the file.
        name: how to call it in a message.

    Raises:
        ImageError: truncated, no DICOM after all, or not to be read.
    """
    import pydicom

    tags: list[Any] = [*_WANTED, *_PRIVATE]
    with quietly(), _opened(path, name) as stream:
        try:
            refuse_bomb(stream, name)
            header = pydicom.dcmread(stream, stop_before_pixels=True, force=True, specific_tags=tags)
            if "Rows" not in header:
                _refuse_cut_header(header, name)
                return ()
            if not (header.Rows and header.get("Columns")):
                raise ImageError(f"{name}: an image without pixels", "rows and columns", "Export it again")
            offset = _check_length(header, stream, name)
            return tuple(_frames_of(header, path, name, _dtype(header) if offset else "", offset))
        except (ImageError, MemoryError):
            raise
        except Exception as error:  # whatever pydicom raises on damage; its words may quote a value, they stay behind
            if _is_the_systems(error):
                raise
            raise ImageError(f"{name}: damaged DICOM", "a readable header", "Export it again") from None


def read_pixels(frames: Sequence[Frame], name: str) -> npt.NDArray[np.generic]:
    """The stored pixels of frames of one DICOM file, decompressed, ``(frames, rows, columns)``.

    Args:
        frames: at least one, all of the same file.
        name: how to call the file in a message.

    Raises:
        ImageError: truncated or damaged, compressed in a way for which no decoder is installed, or not to be read.
    """
    first = frames[0]
    shape = first.rows, first.columns
    if first.plain is not None:
        return np.stack([_plain_pixels(frame, name) for frame in frames])
    import pydicom

    with quietly(), _opened(first.path, name) as stream:
        try:
            data = pydicom.dcmread(stream, force=True)
            if "TransferSyntaxUID" not in data.file_meta:  # a bare file is in the default syntax
                data.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
            return np.asarray(data.pixel_array).reshape(-1, *shape)[[frame.number for frame in frames]]
        except MemoryError:
            raise
        except Exception as error:  # as above
            if _is_the_systems(error):
                raise
            raise ImageError(
                f"{name}: its pixels cannot be read: truncated, or compressed in a way that no installed decoder knows",
                "whole pixel data",
                "Export it again, uncompressed if need be",
            ) from None


def _plain_pixels(frame: Frame, name: str) -> npt.NDArray[np.generic]:
    assert frame.plain is not None
    dtype = np.dtype(frame.plain.dtype)
    with _opened(frame.path, name) as stream:
        stream.seek(frame.plain.offset)
        content = stream.read(frame.rows * frame.columns * dtype.itemsize)
    try:
        return np.frombuffer(content, dtype).reshape(frame.rows, frame.columns)
    except ValueError:
        raise _cut(name, "some of its pixels are missing") from None


@contextmanager
def quietly() -> Iterator[None]:
    """pydicom's warnings quote header values; nothing of a header may reach the screen by that way."""
    logger = logging.getLogger("pydicom")
    before = logger.disabled
    logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before


def refuse_bomb(stream: BinaryIO, name: str) -> None:
    """pydicom inflates a deflated file whole to read its header, however much that is.

    Args:
        stream: at the file's start, where it is put back to.
        name: how to call the file in a message.

    Raises:
        ImageError: damaged, or it unpacks to more than a scan would.
    """
    head = stream.read(_CHUNK // 256)
    begin = _PREAMBLE + len(_MAGIC) + len(_META_LENGTH) + 4
    if _DEFLATED in head[: begin + 1024]:
        if head[begin - 4 - len(_META_LENGTH) : begin - 4] != _META_LENGTH:
            raise ImageError(f"{name}: damaged DICOM", "a readable header", "Export it again")
        begin += int.from_bytes(head[begin - 4 : begin], "little")
        most = max(FREE_BYTES, MAX_RATIO * (os.fstat(stream.fileno()).st_size - begin))
        inflating, total = zlib.decompressobj(-zlib.MAX_WBITS), 0
        stream.seek(begin)
        try:
            while total <= most and (packed := inflating.unconsumed_tail or stream.read(_CHUNK)):
                total += len(inflating.decompress(packed, _CHUNK))
        except zlib.error:
            raise ImageError(f"{name}: damaged DICOM", "deflated data that can be inflated", "Copy it again") from None
        if total > most:
            raise ImageError(
                f"{name}: deflated, it unpacks to more than {most:,} bytes",
                f"at most {MAX_RATIO} times its size",
                "Ask where it comes from; do not unpack it",
            )
    stream.seek(0)


# -- Whole or cut -------------------------------------------------------------------------------------------------


def _refuse_cut_header(header: Any, name: str) -> None:
    """Tell an object without an image, such as a report or a DICOMDIR, from an image that breaks off."""
    meta = getattr(header, "file_meta", None)
    if meta is not None and meta.get("MediaStorageSOPClassUID") == _DICOMDIR:
        return
    if "SOPInstanceUID" not in header or header.get("SOPClassUID") in _IMAGE_KINDS:
        raise _cut(name, "it ends within its header")


def _dtype(header: Any) -> str:
    """How plain pixels are stored, as NumPy spells it; empty where pydicom must decode them."""
    syntax = getattr(getattr(header, "file_meta", None), "TransferSyntaxUID", None)
    allocated, stored = int(header.get("BitsAllocated") or 0), int(header.get("BitsStored") or 0)
    signed = bool(header.get("PixelRepresentation"))
    if syntax is not None and (syntax.is_compressed or syntax.is_deflated):
        return ""
    if allocated not in (8, 16, 32) or (signed and stored != allocated) or int(header.get("SamplesPerPixel") or 1) != 1:
        return ""
    order = "<" if syntax is None or syntax.is_little_endian else ">"
    return f"{order}{'i' if signed else 'u'}{allocated // 8}"


def _check_length(header: Any, stream: BinaryIO, name: str) -> int:
    """Refuse a file that ends before its pixels do; else where plain whole numbers begin, or 0. They are not read."""
    end = os.fstat(stream.fileno()).st_size
    syntax = getattr(getattr(header, "file_meta", None), "TransferSyntaxUID", None)
    if syntax is not None and getattr(syntax, "is_deflated", False):
        return 0  # the header was read from an inflated copy; the pixels are checked when they are read
    tag = stream.read(4)
    vr = stream.read(2)
    if len(tag) < 4 or len(vr) < 2:
        raise _cut(name, "it has no pixels")
    little = syntax is None or syntax.is_little_endian
    order = "<" if little else ">"
    if vr in _LONG_VR:
        stream.read(2)
        length = int(np.frombuffer(stream.read(4), order + "u4")[0])
    else:  # implicit VR: the length follows the tag at once
        length = int(np.frombuffer(vr + stream.read(2), order + "u4")[0])
    if length == _UNKNOWN_LENGTH:  # encapsulated: a delimiter must close it
        stream.seek(max(stream.tell(), end - 4096))
        if b"\xfe\xff\xdd\xe0" not in stream.read():
            raise _cut(name, "its compressed pixels have no end")
        return 0
    begin, needed = stream.tell(), _pixel_bytes(header)
    present = min(length, end - begin)
    if present < length or present < needed:
        raise _cut(name, f"{present} of {max(length, needed)} bytes of its pixels are there")
    # Float Pixel Data and Double Float Pixel Data have tags of their own: pydicom decodes them
    return begin if tag[0:4] in (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10") else 0


@contextmanager
def _opened(path: Path, name: str) -> Iterator[BinaryIO]:
    with readable(name), path.open("rb") as stream:
        yield stream


def _is_the_systems(error: Exception) -> bool:
    """Whether the disk failed, and not the content: pydicom raises OSError too, but without a number."""
    return isinstance(error, OSError) and error.errno is not None


def _cut(name: str, why: str) -> ImageError:
    return ImageError(f"{name}: truncated DICOM, {why}", "a whole image", "Copy or export it again")


def _pixel_bytes(header: Any) -> int:
    frames = int(header.get("NumberOfFrames") or 1)
    samples = int(header.get("SamplesPerPixel") or 1)
    return int(header.Rows) * int(header.Columns) * frames * samples * int(header.get("BitsAllocated") or 16) // 8


# -- Frames -------------------------------------------------------------------------------------------------------


def _frames_of(header: Any, path: Path, name: str, dtype: str, offset: int) -> Iterator[Frame]:
    size = int(header.Rows) * int(header.Columns) * np.dtype(dtype).itemsize if dtype else 0
    for i, frame in enumerate(_place_frames(header, path, name)):
        yield replace(frame, plain=PlainPixels(offset + i * size, dtype)) if dtype else frame


def _place_frames(header: Any, path: Path, name: str) -> Iterator[Frame]:
    n = int(header.get("NumberOfFrames") or 1)
    per_frame = header.get("PerFrameFunctionalGroupsSequence")
    if per_frame:
        if len(per_frame) != n:
            raise ImageError(f"{name}: {len(per_frame)} functional groups for {n} frames", "one for each")
        shared = (header.get("SharedFunctionalGroupsSequence") or [None])[0]
        for i, group in enumerate(per_frame):
            yield _frame(header, path, i, (group, shared))
    elif n > 1 and header.get("DetectorInformationSequence"):
        yield from _nuclear_frames(header, path, n)
    else:
        for i in range(n):
            yield _frame(header, path, i, ())


def _nuclear_frames(header: Any, path: Path, n: int) -> Iterator[Frame]:
    """Slices of a reconstructed SPECT: the first has a position, the others follow at the stated spacing.

    The spacing's sign says on which side of the first the second lies (PS3.3 C.8.4.15); without a sign they follow the
    normal of the image plane.
    """
    detector = header.DetectorInformationSequence[0]
    first, along = _numbers(detector, "ImagePositionPatient", 3), _numbers(detector, "ImageOrientationPatient", 6)
    step = as_number(header.get("SpacingBetweenSlices")) or as_number(header.get("SliceThickness"))
    order = [int(i) for i in header.get("SliceVector") or range(1, n + 1)]
    for i in range(n):
        frame = _frame(header, path, i, ())
        place = None
        if first is not None and along is not None and step and len(order) == n:
            normal = np.cross(along[:3], along[3:])
            x, y, z = np.asarray(first) + normal * step * (order[i] - 1)
            place = (float(x), float(y), float(z))
        yield replace(frame, position_mm=place, orientation=along)


def _frame(header: Any, path: Path, number: int, groups: Sequence[Any]) -> Frame:
    find = _Finder(header, groups)
    maker = maker_of(header.get("Manufacturer"))
    philips = find.philips()
    unit = find.unit()
    image_type = [*find.words("FrameType"), *(find.words("ImageType") if not groups else ())]
    texts = [str(find.get(n) or "") for n in ("SequenceName", "PulseSequenceName", "SeriesDescription", "ProtocolName")]
    component = str(find.get("ComplexImageComponent") or "")
    part = part_of(image_type, component=component, texts=texts, unit=unit)
    if maker == "GE" and part in ("image", "magnitude"):
        part = find.ge_part() or part
    if int(header.get("SamplesPerPixel") or 1) != 1:
        part = "other"
    slope, intercept, scaling = find.scaling(part, philips)
    bits = int(header.get("BitsStored") or 16)
    signed = bool(header.get("PixelRepresentation"))
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    stored = (slope * low + intercept, slope * high + intercept)
    if part == "phase" and not unit and maker == "Siemens" and abs(stored[1] - stored[0] + slope - 8192) < 1e-3:
        unit = "4096"
    echo = as_number(find.get("EffectiveEchoTime")) if groups else as_number(find.get("EchoTime"))
    echo_number = as_number(find.get("EchoNumbers"))
    attributes = {k: find.get(k) for k in ("Modality", "Manufacturer", "BodyPartExamined", "MRAcquisitionType")}
    attributes |= {k: find.get(k) for k in ("MagneticFieldStrength", "RepetitionTime", "FlipAngle", "PixelBandwidth")}
    attributes |= {k: find.get(k) for k in ("SliceThickness", "SeriesNumber")}
    position, spacing = find.numbers("ImagePositionPatient", 3), find.numbers("PixelSpacing", 2)
    moments = [find.get(k) for k in ("TemporalPositionIndex", "TemporalPositionIdentifier", "AcquisitionNumber")]
    return Frame(
        path=path,
        number=number,
        plain=None,
        enhanced=bool(groups),
        instance=token_of(str(header.get("SOPInstanceUID", "")), str(number)),
        series=token_of(str(header.get("SeriesInstanceUID", ""))),
        study=token_of(str(header.get("StudyInstanceUID", ""))),
        world=token_of(str(header.get("FrameOfReferenceUID", ""))),
        rows=int(header.Rows),
        columns=int(header.Columns),
        position_mm=None if position is None else (position[0], position[1], position[2]),
        orientation=find.numbers("ImageOrientationPatient", 6),
        pixel_mm=None if spacing is None else (spacing[0], spacing[1]),
        thickness_mm=as_number(find.get("SpacingBetweenSlices")) or as_number(find.get("SliceThickness")),
        part=part,
        unit=unit,
        echo_time_ms=echo if echo is not None and echo > 0 else None,
        echo_number=None if echo_number is None else int(echo_number),
        slope=slope,
        intercept=intercept,
        stored_range=stored,
        scaling=scaling,
        moments=(*(str(moment or "") for moment in moments), str(find.get("AcquisitionTime") or "")),
        attributes=travelling(attributes),
        acquired=str(find.get("FrameReferenceDateTime") or find.get("AcquisitionTime") or ""),
    )


class _Finder:
    """Looks an attribute up in a frame's functional groups, then in those that all share, then in the header."""

    def __init__(self, header: Any, groups: Sequence[Any]) -> None:
        self.header = header
        macros = [element for group in groups if group is not None for element in group if _is_macro(element)]
        # a private group repeats public attributes, with other values (Philips' position is half a voxel off): last
        macros.sort(key=lambda element: bool(element.tag.is_private))
        self.places = [*(element.value[0] for element in macros), header]

    def get(self, keyword: str) -> Any:
        tag = _tag(keyword)
        return next((v for place in self.places if tag in place and (v := place[tag].value) not in (None, "")), None)

    def words(self, keyword: str) -> list[str]:
        value = self.get(keyword)
        values = [value] if isinstance(value, str) or value is None else list(value)
        return [str(word) for word in values[2:]]  # the first two say ORIGINAL or DERIVED, PRIMARY or SECONDARY

    def numbers(self, keyword: str, n: int) -> tuple[float, ...] | None:
        tag = _tag(keyword)
        found = (_numbers(place, keyword, n) for place in self.places if tag in place)
        return next((numbers for numbers in found if numbers is not None), None)

    def philips(self) -> Any:
        """Where Philips' private scaling is: the header, or a private item of the frame's group."""
        return next((place for place in self.places if _private(place, _PHILIPS, 0x0E) is not None), None)

    def ge_part(self) -> Part | None:
        value = as_number(_private(self.header, _GE, 0x2F))
        return None if value is None else _GE_PARTS.get(int(value))

    def unit(self) -> Unit:
        """From the first place that states one; of Philips' enhanced files the public Rescale Type always says US."""
        spelled: list[Any] = []
        for place in self.places:
            for item in (place, *(place.get("RealWorldValueMappingSequence") or ())):
                spelled += [code.get("CodeValue") for code in item.get("MeasurementUnitsCodeSequence") or ()]
            spelled.append(place.get("RescaleType"))
        return next((unit for text in spelled if (unit := unit_of(text))), "")

    def scaling(self, part: Part, philips: Any) -> tuple[float, float, str]:
        """Slope and intercept, and in words whose they are."""
        slope, intercept = as_number(self.get("RescaleSlope")), as_number(self.get("RescaleIntercept"))
        scale = as_number(_private(philips, _PHILIPS, 0x0E)) if philips is not None else None
        if part == "magnitude" and scale and slope and not intercept:
            # stored x slope / (slope x scale slope): comparable between echoes and scans, unlike the public scaling
            return 1 / scale, 0.0, "Philips' private scale slope"
        if slope is None or slope == 0:
            return 1.0, 0.0, "none"
        return slope, intercept or 0.0, "rescale slope and intercept"


@cache
def _tag(keyword: str) -> Any:
    import pydicom

    return pydicom.tag.Tag(keyword)


def _is_macro(element: Any) -> bool:
    return bool(element.VR == "SQ" and element.value)


def _private(place: Any, creator: str, offset: int) -> Any:
    group = 0x2005 if creator.startswith("Philips") else 0x0043
    try:
        return place.private_block(group, creator)[offset].value
    except KeyError:
        return None


def _numbers(place: Any, keyword: str, n: int) -> tuple[float, ...] | None:
    value = place.get(keyword)
    if value is None or isinstance(value, str) or not hasattr(value, "__len__") or len(value) != n:
        return None
    found = [as_number(item) for item in value]
    return None if any(item is None for item in found) else tuple(item for item in found if item is not None)
