"""A small writer of TensorFlow checkpoints for tests.

Written from the format's description, it shares no code with the reader: plain loops, one byte at a time.
"""

from __future__ import annotations

import struct
from functools import cache
from pathlib import Path

import numpy as np

DTYPE_NUMBERS = {"float32": 1, "float64": 2, "int32": 3, "int64": 9}
VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


def _crc_table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


TABLE = _crc_table()


@cache
def masked_crc(content):
    crc = 0xFFFFFFFF
    for byte in content:
        crc = TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def varint(number):
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def field(number, value):
    """One field of a protocol buffer: bytes or a varint."""
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    return varint(number << 3) + varint(value)


def header(shards=1, endianness=0):
    return field(1, shards) + (field(2, endianness) if endianness else b"") + field(3, field(1, 1))


def entry(shape, offset, size, crc, dtype=1, shard=0, extra=b""):
    dims = b"".join(field(2, field(1, n)) for n in shape)
    out = field(1, dtype) + field(2, dims)
    out += field(3, shard) if shard else b""
    out += (field(4, offset) if offset else b"") + field(5, size)
    return out + varint(6 << 3 | 5) + struct.pack("<I", crc) + extra


def block(items, restart_interval=16):
    out, restarts, previous = b"", [], b""
    for i, (key, value) in enumerate(items):
        shared = 0
        if i % restart_interval == 0:
            restarts.append(len(out))
        else:
            while shared < min(len(key), len(previous)) and key[shared] == previous[shared]:
                shared += 1
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        previous = key
    restarts = restarts or [0]
    return out + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))


def index_bytes(entries, block_items=7, kind=0):
    """A LevelDB table of ``{key: value}``, sorted, cut into blocks of a few entries."""
    items = sorted((key.encode(), value) for key, value in entries.items())
    out, handles = b"", []

    def append(content):
        nonlocal out
        handle = varint(len(out)) + varint(len(content))
        trailer = bytes([kind])
        out += content + trailer + struct.pack("<I", masked_crc(content + trailer))
        return handle

    for start in range(0, len(items), block_items):
        part = items[start : start + block_items]
        handles.append((part[-1][0], append(block(part))))
    meta = append(block([]))
    index = append(block(handles, 1))
    return out + (meta + index).ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


def write_bundle(prefix: Path, tensors, entries=None):
    """Write ``{key: array}``; ``entries`` puts other index values in place of single ones."""
    data, index = b"", {"": header()}
    for key, array in tensors.items():
        content = np.ascontiguousarray(array).tobytes()
        number = DTYPE_NUMBERS[str(array.dtype)]
        index[key] = entry(array.shape, len(data), len(content), masked_crc(content), number)
        data += content
    prefix.parent.mkdir(parents=True, exist_ok=True)
    prefix.with_name(prefix.name + ".data-00000-of-00001").write_bytes(data)
    prefix.with_name(prefix.name + ".index").write_bytes(index_bytes(index | (entries or {})))
    return prefix
