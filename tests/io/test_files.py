"""Results are whole or absent."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from nigradat.errors import ImageError, OutputError
from nigradat.io.files import new_file, new_folder, sha256_of, to_json, write_json, write_text


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_a_folder_appears_only_at_the_end(tmp_path):
    out = tmp_path / "deep" / "out"
    with new_folder(out) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "a.txt").write_text("a")
        assert not out.exists()
        assert folder.name.startswith(".")
    assert (out / "sub" / "a.txt").read_text() == "a"
    assert names(tmp_path / "deep") == ["out"]


def test_a_folder_has_the_users_usual_rights(tmp_path):
    with new_folder(tmp_path / "out"):
        pass
    (tmp_path / "usual").mkdir()
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == stat.S_IMODE((tmp_path / "usual").stat().st_mode)


@pytest.mark.parametrize("fault", [RuntimeError, KeyboardInterrupt, SystemExit, ImageError])
def test_nothing_is_left_after_any_exception(tmp_path, fault):
    def write_half():
        with new_folder(tmp_path / "out") as folder:
            (folder / "half").write_text("x")
            raise fault("stop")

    with pytest.raises(fault):
        write_half()
    assert names(tmp_path) == []


def test_an_empty_folder_may_be_filled_and_a_used_one_not(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with new_folder(out) as folder:
        (folder / "report.html").write_text("x")
    with pytest.raises(OutputError, match=r"already holds report\.html"), new_folder(out):
        pytest.fail("the block must not be entered")
    assert names(out) == ["report.html"]
    assert names(tmp_path) == ["out"]


def test_a_folder_that_was_filled_meanwhile_is_not_overwritten(tmp_path):
    out = tmp_path / "out"

    def write_while_another_does():
        with new_folder(out):
            out.mkdir()
            (out / "theirs").write_text("x")

    with pytest.raises(OutputError, match="theirs"):
        write_while_another_does()
    assert names(tmp_path) == ["out"]
    assert names(out) == ["theirs"]


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    for out in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(OutputError, match="file"), new_folder(out):
            pytest.fail("the block must not be entered")
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_named_with_the_free_space(tmp_path, code):
    with pytest.raises(OutputError, match=r"MB were free"), new_folder(tmp_path / "out"):
        raise OSError(code, os.strerror(code))
    with pytest.raises(OutputError, match=r"MB were free"), new_file(tmp_path / "f.txt"):
        raise OSError("1000 requested and 12 written")  # as NumPy says it
    assert names(tmp_path) == []


def test_faults_of_an_input_pass_unchanged(tmp_path):
    with pytest.raises(PermissionError), new_folder(tmp_path / "a" / "out"):
        raise PermissionError(errno.EACCES, "Permission denied", "/elsewhere/input.nii")
    with pytest.raises(FileNotFoundError), new_folder(tmp_path / "a" / "out"):
        (tmp_path / "missing").read_text()


def test_a_place_that_may_not_be_written_is_named(tmp_path):
    place = str(tmp_path / ".out.x.partial" / "f")
    with pytest.raises(OutputError, match="may not be written"), new_folder(tmp_path / "out"):
        raise PermissionError(errno.EACCES, "Permission denied", place)


_FILL = """
import resource, sys
from nigradat.errors import OutputError
from nigradat.io.files import new_folder
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    with new_folder(sys.argv[1]) as folder:
        (folder / "small").write_bytes(b"x" * 1000)
        (folder / "big").write_bytes(b"x" * 200_000)
except OutputError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of file sizes on this system")
def test_a_limit_of_the_system_is_met_without_leaving_anything(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", _FILL, str(tmp_path / "out")], capture_output=True, text=True, check=True
    )
    assert "the disk did not take the result" in done.stdout
    assert names(tmp_path) == []


def test_a_file_is_replaced_at_once_or_not_at_all(tmp_path):
    path = tmp_path / "table.tsv"
    write_text(path, "a\tb\n")

    def fail_in_between():
        with new_file(path) as hidden:
            assert hidden.suffix == ".tsv"
            hidden.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_in_between()
    assert path.read_bytes() == b"a\tb\n"
    write_text(path, "ü\n")
    assert path.read_bytes() == "ü\n".encode()
    assert names(tmp_path) == ["table.tsv"]


def test_json_holds_plain_values_only(tmp_path):
    @dataclass(frozen=True)
    class Card:
        name: str
        values: tuple[float, ...]

    data = {
        "card": Card("ä", (1.5, math.nan, -math.inf)),
        "array": np.arange(3),
        "scalar": np.float32(0.5),
        "count": np.int64(3),
        "flag": np.bool_(True),
        "path": Path("a/b"),
        1: None,
    }
    write_json(tmp_path / "card.json", data)
    assert json.loads((tmp_path / "card.json").read_text(encoding="utf-8")) == {
        "card": {"name": "ä", "values": [1.5, None, None]},
        "array": [0, 1, 2],
        "scalar": 0.5,
        "count": 3,
        "flag": True,
        "path": "a/b",
        "1": None,
    }
    with pytest.raises(TypeError):
        to_json({"what": object()})


def test_sha256(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"abc" * 100_000)
    assert sha256_of(path) == hashlib.sha256(b"abc" * 100_000).hexdigest()
