"""Variables of a TensorFlow checkpoint, read without TensorFlow.

A bundle is ``NAME.index`` beside ``NAME.data-00000-of-00001``. The index is a table in LevelDB's format (sorted keys,
prefix-compressed, in blocks with a masked CRC-32C each); its values are protocol buffers ``BundleHeaderProto`` (empty
key) and ``BundleEntryProto``, which say where in the data file a tensor lies, with a CRC-32C of its own.

References: LevelDB ``doc/table_format.md``; TensorFlow ``tensorflow/core/protobuf/tensor_bundle.proto``,
``tensor_shape.proto`` and ``types.proto``; RFC 3720, appendix B.4 (CRC-32C).

No length or offset of the file is trusted: every slice is checked against what is there.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nigradat.errors import WeightsError

_TABLE_MAGIC: Final = 0xDB4775248B80FB57
_FOOTER_BYTES: Final = 48
_BLOCK_TRAILER_BYTES: Final = 5  # compression type, masked CRC-32C
_CRC_MASK_DELTA: Final = 0xA282EAD8
_CRC_POLYNOMIAL: Final = 0x82F63B78  # Castagnoli, reflected
_CRC_LANE_BYTES: Final = 1024
_DTYPES: Final[dict[int, np.dtype[Any]]] = {  # the numbers are those of types.proto
    1: np.dtype("<f4"),
    2: np.dtype("<f8"),
    3: np.dtype("<i4"),
    9: np.dtype("<i8"),
}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types of a protocol buffer


@dataclass(frozen=True)
class BundleEntry:
    """Where one tensor lies: field names as in ``BundleEntryProto``; ``crc32c`` is stored masked."""

    dtype: int
    shape: tuple[int, ...]
    offset: int
    size: int
    crc32c: int


def read_bundle(prefix: Path, suffix: str = "") -> dict[str, npt.NDArray[np.generic]]:
    """Read the numeric tensors of a single-file bundle.

    Args:
        prefix: path without ``.index``, for example ``net/variables/variables``.
        suffix: only tensors whose key ends so, for example ``/.ATTRIBUTES/VARIABLE_VALUE``.

    Returns:
        Arrays by key, in the order of the keys. Tensors of other types (strings) are left out.

    Raises:
        WeightsError: a file that is missing, truncated, damaged (checksum) or of an unknown kind.
    """
    index_path = prefix.with_name(prefix.name + ".index")
    data_path = prefix.with_name(prefix.name + ".data-00000-of-00001")
    try:
        index, data = index_path.read_bytes(), data_path.read_bytes()
    except OSError as error:
        raise WeightsError(
            f"{error.filename}: cannot be read ({error.strerror})", f"{index_path.name} and {data_path.name}"
        ) from error
    try:
        return {
            key: _tensor(data, key, entry)
            for key, entry in _parse_index(index).items()
            if key.endswith(suffix) and entry.dtype in _DTYPES
        }
    except _Damaged as error:
        raise WeightsError(f"{prefix}: {error}", "a TensorFlow checkpoint", "Download or copy it again") from error


class _Damaged(Exception):
    """What is wrong with the bytes; the caller knows the file's name."""


def _parse_index(content: bytes) -> dict[str, BundleEntry]:
    """The entries of a ``.index`` file, without the header's."""
    entries: dict[str, BundleEntry] = {}
    for key, value in _table_items(content):
        if not key:
            _check_header(value)
            continue
        try:
            name = key.decode("utf-8")
        except UnicodeDecodeError as error:
            raise _Damaged("a tensor's key is no text") from error
        if name in entries:
            raise _Damaged(f"{name} is there twice")
        entries[name] = _parse_entry(value, name)
    if not entries:
        raise _Damaged("the index names no tensor")
    return entries


def _tensor(data: bytes, key: str, entry: BundleEntry) -> npt.NDArray[np.generic]:
    dtype = _DTYPES[entry.dtype]
    needed = math.prod(entry.shape) * dtype.itemsize
    if entry.size != needed:
        raise _Damaged(f"{key}: {entry.size} bytes for shape {entry.shape}, which needs {needed}")
    content = _slice(data, entry.offset, entry.size, key)
    if mask_crc(crc32c(content)) != entry.crc32c:
        raise _Damaged(f"{key}: the checksum does not fit; the data file is damaged")
    values: npt.NDArray[np.generic] = np.frombuffer(content, dtype).reshape(entry.shape)
    return values


# ---------------------------------------------------------------------------------------------- LevelDB table


def _table_items(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Key and value of every entry of a table, blocks in order."""
    if len(content) < _FOOTER_BYTES:
        raise _Damaged(f"the index is truncated ({len(content)} bytes)")
    footer = content[-_FOOTER_BYTES:]
    if struct.unpack("<Q", footer[-8:])[0] != _TABLE_MAGIC:
        raise _Damaged("the index does not end as a table does (truncated or foreign)")
    reader = _Reader(footer[:-8])
    reader.varint(), reader.varint()  # the meta index, which bundles leave empty
    for _, handle in _block_items(_block(content, reader.varint(), reader.varint())):
        block = _Reader(handle)
        yield from _block_items(_block(content, block.varint(), block.varint()))


def _block(content: bytes, offset: int, size: int) -> bytes:
    whole = _slice(content, offset, size + _BLOCK_TRAILER_BYTES, "a block of the index")
    kind, stored = struct.unpack("<BI", whole[size:])
    if mask_crc(crc32c(whole[: size + 1])) != stored:
        raise _Damaged("the checksum of a block of the index does not fit; the index is damaged")
    if kind != 0:
        raise _Damaged(f"the index is compressed (type {kind}), which TensorFlow does not do")
    return whole[:size]


def _block_items(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Entries of a block; each key repeats a number of leading bytes of the one before."""
    if len(block) < 4:
        raise _Damaged("a block of the index is too short")
    restarts = struct.unpack("<I", block[-4:])[0]
    end = len(block) - 4 * (restarts + 1)
    if end < 0:
        raise _Damaged("a block of the index has more restart points than room")
    reader, key = _Reader(block[:end]), b""
    while not reader.at_end:
        shared, fresh, length = reader.varint(), reader.varint(), reader.varint()
        if shared > len(key):
            raise _Damaged("a key of the index repeats more than there is")
        key = key[:shared] + reader.take(fresh)
        yield key, reader.take(length)


# ---------------------------------------------------------------------------------------------- protocol buffers


class _Reader:
    """A cursor over bytes that refuses to run over their end."""

    def __init__(self, content: bytes) -> None:
        self._content, self._at = content, 0

    @property
    def at_end(self) -> bool:
        return self._at >= len(self._content)

    def take(self, count: int) -> bytes:
        taken = _slice(self._content, self._at, count, "a field")
        self._at += count
        return taken

    def varint(self) -> int:
        """Seven bits a byte, least first; at most 64 bits."""
        value = 0
        for shift in range(0, 70, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80 and value < 2**64:
                return value
        raise _Damaged("a number in the index is longer than 64 bits")


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field number and raw value of every field of a message."""
    reader = _Reader(message)
    while not reader.at_end:
        tag = reader.varint()
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            yield number, reader.varint()
        elif wire == _BYTES:
            yield number, reader.take(reader.varint())
        elif wire == _FIXED32:
            yield number, struct.unpack("<I", reader.take(4))[0]
        elif wire == _FIXED64:
            yield number, struct.unpack("<Q", reader.take(8))[0]
        else:
            raise _Damaged(f"a message of the index has a field of wire type {wire}")


def _check_header(message: bytes) -> None:
    header = dict(_fields(message))
    if header.get(1, 0) != 1:
        raise _Damaged(f"the checkpoint has {header.get(1, 0)!r} data files; only a single one can be read")
    if header.get(2, 0) != 0:
        raise _Damaged("the checkpoint is big-endian, which cannot be read")


def _parse_entry(message: bytes, key: str) -> BundleEntry:
    numbers = {1: 0, 3: 0, 4: 0, 5: 0, 6: 0}  # dtype, shard, offset, size, crc32c
    shape: tuple[int, ...] = ()
    for number, value in _fields(message):
        if number in numbers and isinstance(value, int):
            numbers[number] = value
        elif number == 2 and isinstance(value, bytes):
            shape = tuple(_dimension(dim, key) for kind, dim in _fields(value) if kind == 2)
        else:
            raise _Damaged(f"{key}: an entry with field {number}, which cannot be read (sliced tensors are not)")
    if numbers[3] != 0:
        raise _Damaged(f"{key}: lies in data file {numbers[3]} of 1")
    return BundleEntry(dtype=numbers[1], shape=shape, offset=numbers[4], size=numbers[5], crc32c=numbers[6])


def _dimension(message: int | bytes, key: str) -> int:
    size = dict(_fields(message)).get(1, 0) if isinstance(message, bytes) else None
    if not isinstance(size, int) or size >= 2**63:
        raise _Damaged(f"{key}: a dimension of unknown size")
    return size


def _slice(content: bytes, offset: int, size: int, what: str) -> bytes:
    if offset + size > len(content):
        raise _Damaged(f"{what} should lie at bytes {offset} to {offset + size}, but there are only {len(content)}")
    return content[offset : offset + size]


# ---------------------------------------------------------------------------------------------- CRC-32C


def mask_crc(crc: int) -> int:
    """LevelDB's disguise of a checksum that is stored beside checksummed data."""
    return ((crc >> 15 | crc << 17) + _CRC_MASK_DELTA) & 0xFFFFFFFF


def crc32c(content: bytes) -> int:
    """CRC-32C (Castagnoli) of some bytes.

    Long ones are cut into lanes that are taken through the table side by side; neighbouring lanes are then joined in
    pairs until one is left. Joining works because the CRC without its initial value is linear over GF(2).
    """
    if len(content) < 4 * _CRC_LANE_BYTES:
        return _crc_byte_by_byte(content)
    # inverting the first four bytes does what the initial value does; leading zeros then change nothing
    lanes = 1 << (math.ceil(len(content) / _CRC_LANE_BYTES) - 1).bit_length()
    padded = np.zeros(lanes * _CRC_LANE_BYTES, dtype=np.uint8)
    padded[-len(content) :] = np.frombuffer(content, dtype=np.uint8)
    start = padded.size - len(content)
    padded[start : start + 4] ^= 0xFF
    crc = np.zeros(lanes, dtype=np.uint32)
    for column in padded.reshape(lanes, _CRC_LANE_BYTES).T.copy():
        crc = _CRC_TABLE[(crc ^ column) & 0xFF] ^ (crc >> 8)
    shift = _CRC_LANE_SHIFT
    while crc.size > 1:
        crc = _apply(shift, crc[0::2]) ^ crc[1::2]
        shift = _apply(shift, shift)
    return int(crc[0]) ^ 0xFFFFFFFF


def _crc_byte_by_byte(content: bytes) -> int:
    table = _CRC_TABLE.tolist()
    crc = 0xFFFFFFFF
    for byte in content:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _apply(operator: npt.NDArray[np.uint32], values: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """A linear map over GF(2), given as the images of the 32 single bits, applied to every value."""
    out = np.zeros_like(values)
    for bit in range(32):
        out ^= operator[bit] * (values >> np.uint32(bit) & np.uint32(1))
    return out


def _make_table() -> npt.NDArray[np.uint32]:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, table >> 1 ^ np.uint32(_CRC_POLYNOMIAL), table >> 1)
    return table


def _make_lane_shift() -> npt.NDArray[np.uint32]:
    """What a lane's worth of zero bytes makes of each single bit."""
    crc = np.uint32(1) << np.arange(32, dtype=np.uint32)
    for _ in range(_CRC_LANE_BYTES):
        crc = _CRC_TABLE[crc & 0xFF] ^ (crc >> 8)
    return crc


_CRC_TABLE: Final = _make_table()
_CRC_LANE_SHIFT: Final = _make_lane_shift()
