"""The checkpoint reader, on bundles that the tests write themselves and damage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle_writer import VALUE, entry, header, index_bytes, masked_crc, write_bundle
from nigradat.errors import WeightsError
from nigradat.io.tensorflow_bundle import crc32c, mask_crc, read_bundle


def tensors():
    rng = np.random.default_rng(0)
    return {
        "layer_with_weights-0/bias" + VALUE: rng.normal(size=4).astype(np.float32),
        "layer_with_weights-0/kernel" + VALUE: rng.normal(size=(3, 3, 3, 1, 4)).astype(np.float32),
        "layer_with_weights-1/bias" + VALUE: rng.normal(size=1),
        "save_counter" + VALUE: np.array(7, dtype=np.int64),
        "step" + VALUE: np.array([1, -2], dtype=np.int32),
        "zero" + VALUE: np.zeros((0, 3), np.float32),
    } | {f"many/variable_{i:03d}{VALUE}": np.full((2,), i, np.float32) for i in range(40)}


@pytest.fixture
def prefix(tmp_path):
    return write_bundle(tmp_path / "variables", tensors())


def index_of(prefix):
    return prefix.with_name("variables.index")


def data_of(prefix):
    return prefix.with_name("variables.data-00000-of-00001")


@pytest.mark.parametrize(
    ("content", "crc"),
    [
        (b"", 0x00000000),
        (b"a", 0xC1D04330),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_crc_of_published_examples(content, crc):
    """RFC 3720, appendix B.4, and the CRC catalogue's check value."""
    assert crc32c(content) == crc


@given(st.integers(0, 40_000), st.integers(0, 2**32 - 1))
def test_crc_in_lanes_equals_crc_byte_by_byte(size, seed):
    content = np.random.default_rng(seed).bytes(size)
    assert mask_crc(crc32c(content)) == masked_crc(content)


def test_every_tensor_arrives_with_its_type_and_shape(prefix):
    found = read_bundle(prefix)
    assert list(found) == sorted(tensors())
    for key, expected in tensors().items():
        assert found[key].dtype == expected.dtype
        assert found[key].shape == expected.shape
        assert np.array_equal(found[key], expected)


def test_only_keys_of_a_suffix_are_read(prefix):
    assert [key.split("/")[0] for key in read_bundle(prefix, "counter" + VALUE)] == ["save_counter"]


def test_tensors_of_other_types_are_left_out(tmp_path):
    prefix = write_bundle(tmp_path / "variables", tensors(), {"_GRAPH": entry((), 0, 5, 0, dtype=7)})
    assert "_GRAPH" not in read_bundle(prefix)


@pytest.mark.parametrize("which", [index_of, data_of])
def test_a_missing_file_is_named(prefix, which):
    which(prefix).unlink()
    with pytest.raises(WeightsError, match=which(prefix).name):
        read_bundle(prefix)


@given(keep=st.floats(0, 0.9999))
def test_a_truncated_index_is_refused_wherever_it_ends(tmp_path_factory, keep):
    prefix = write_bundle(tmp_path_factory.mktemp("cut") / "variables", tensors())
    whole = index_of(prefix).read_bytes()
    index_of(prefix).write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(WeightsError, match="the index"):
        read_bundle(prefix)


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_truncated_data_is_refused(prefix, keep):
    whole = data_of(prefix).read_bytes()
    data_of(prefix).write_bytes(whole[:keep])
    with pytest.raises(WeightsError, match="should lie at bytes"):
        read_bundle(prefix)


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 7))
def test_a_flipped_bit_of_the_data_is_found(tmp_path_factory, where, bit):
    prefix = write_bundle(tmp_path_factory.mktemp("bit") / "variables", tensors())
    content = bytearray(data_of(prefix).read_bytes())
    content[int(where * len(content))] ^= 1 << bit
    data_of(prefix).write_bytes(content)
    with pytest.raises(WeightsError, match=r"VARIABLE_VALUE: the checksum does not fit"):
        read_bundle(prefix)


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 7))
def test_a_flipped_bit_of_the_index_is_found_or_harmless(tmp_path_factory, where, bit):
    prefix = write_bundle(tmp_path_factory.mktemp("bit") / "variables", tensors())
    content = bytearray(index_of(prefix).read_bytes())
    content[int(where * len(content))] ^= 1 << bit
    index_of(prefix).write_bytes(content)
    try:
        found = read_bundle(prefix)
    except WeightsError:
        return
    # the empty meta index and the padding of the footer are not read
    assert all(np.array_equal(found[key], expected) for key, expected in tensors().items())


@given(st.binary(max_size=300))
def test_foreign_bytes_are_refused(tmp_path_factory, content):
    prefix = write_bundle(tmp_path_factory.mktemp("foreign") / "variables", {"a": np.zeros(2, np.float32)})
    index_of(prefix).write_bytes(content)
    with pytest.raises(WeightsError):
        read_bundle(prefix)


@given(st.binary(max_size=60))
def test_a_table_whose_entries_are_nonsense_is_refused_without_a_crash(tmp_path_factory, value):
    """The checksums fit here: only the checks of the messages themselves stand between the bytes and the memory."""
    prefix = write_bundle(tmp_path_factory.mktemp("wild") / "variables", {"a": np.zeros(2, np.float32)}, {"a": value})
    try:
        found = read_bundle(prefix)
    except WeightsError:
        return
    assert sum(array.nbytes for array in found.values()) <= 8


SIZE = 16
GOOD = {"shape": (4,), "offset": 0, "size": SIZE, "crc": masked_crc(bytes(SIZE))}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"offset": 1}, "should lie at bytes 1 to 17, but there are only 16"),
        ({"offset": 2**63}, "should lie at bytes"),
        ({"offset": 2**64 - 1}, "should lie at bytes"),
        ({"size": 2**62}, "which needs 16"),
        ({"shape": (2**62,)}, "16 bytes for shape"),
        ({"shape": (2**62,), "size": 2**64}, "longer than 64 bits"),
        ({"shape": (2**31, 2**31, 2**31)}, "16 bytes for shape"),
        ({"shape": (2**64 - 1,)}, "a dimension of unknown size"),
        ({"shape": (2, 3)}, "which needs 24"),
        ({"crc": 1}, "checksum"),
        ({"shard": 1}, "lies in data file 1 of 1"),
        ({"extra": b"\x3a\x00"}, "sliced tensors"),
        ({"extra": b"\x3b"}, "wire type 3"),
        ({"extra": b"\x12\x7f"}, "a field should lie"),
        ({"extra": b"\x20" + b"\xff" * 11}, "longer than 64 bits"),
    ],
)
def test_absurd_entries_are_refused(tmp_path, change, message):
    prefix = write_bundle(tmp_path / "variables", {"a": np.zeros(4, np.float32)}, {"a": entry(**GOOD)})
    assert np.array_equal(read_bundle(prefix)["a"], np.zeros(4))
    write_bundle(tmp_path / "variables", {"a": np.zeros(4, np.float32)}, {"a": entry(**GOOD | change)})
    with pytest.raises(WeightsError, match=message):
        read_bundle(prefix)


@pytest.mark.parametrize(
    ("value", "message"), [(header(shards=2), "2 data files"), (header(endianness=1), "big-endian")]
)
def test_checkpoints_of_another_making_are_refused(tmp_path, value, message):
    prefix = write_bundle(tmp_path / "variables", {"a": np.zeros(4, np.float32)}, {"": value})
    with pytest.raises(WeightsError, match=message):
        read_bundle(prefix)


def test_a_compressed_index_is_refused_by_name(prefix):
    index_of(prefix).write_bytes(index_bytes({"": header(), "a": entry(**GOOD)}, kind=1))
    with pytest.raises(WeightsError, match="compressed"):
        read_bundle(prefix)


def test_an_index_without_tensors_is_refused(prefix):
    index_of(prefix).write_bytes(index_bytes({"": header()}))
    with pytest.raises(WeightsError, match="names no tensor"):
        read_bundle(prefix)
