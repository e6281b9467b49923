"""Archives: scans are read from them; bombs, climbing names, links and damage are refused, and nothing is left."""

from __future__ import annotations

import gc
import gzip
import io
import os
import tarfile
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from made_dicom import made, write_classic
from nigradat.cli import main
from nigradat.errors import ImageError
from nigradat.io import archive
from nigradat.io.archive import find_files
from nigradat.io.gre import read_image, read_scan


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path, monkeypatch):
    """Where archives are unpacked; empty at the end of every test."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    gc.collect()
    assert list(folder.iterdir()) == []


@pytest.fixture
def scan(tmp_path) -> Path:
    write_classic(tmp_path / "scan", made())
    return tmp_path / "scan"


def tar_of(path: Path, entries, mode="w:xz") -> Path:
    with tarfile.open(path, mode) as packed:
        for name, content in entries:
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                packed.addfile(member)
            else:
                member.size = len(content)
                packed.addfile(member, io.BytesIO(content))
    return path


def zip_of(path: Path, entries) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in entries:
            packed.writestr(name, content)
    return path


def test_a_scan_is_the_same_from_any_archive(tmp_path, scan):
    plain = read_image(scan)
    files = [(f"inner/{path.name}", path.read_bytes()) for path in scan.iterdir()]
    archives = [zip_of(tmp_path / "a.zip", files), tar_of(tmp_path / "a.tar.xz", files)]
    archives += [tar_of(tmp_path / "a.tgz", files, "w:gz"), tar_of(tmp_path / "a.tar", files, "w")]
    archives.append(tar_of(tmp_path / "dotted.tar.xz", [(f"./{name}", content) for name, content in files]))
    for path in archives:
        volume = read_image(path)
        assert np.array_equal(volume.data, plain.data)
        assert volume.source.files == plain.source.files


def test_one_packed_file(tmp_path):
    (path,) = write_classic(tmp_path / "one", made((4, 4, 1)))
    packed = tmp_path / "scan.dcm.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert np.array_equal(read_image(packed).data, read_image(path).data)


def test_an_unpacked_series_lives_as_long_as_it_is_used(tmp_path, scan, own_temporary_folder):
    packed = zip_of(tmp_path / "a.zip", [(path.name, path.read_bytes()) for path in scan.iterdir()])
    (series,) = read_scan(packed)
    gc.collect()
    assert len(list(own_temporary_folder.iterdir())) == 1
    assert series.read([0]).shape == (1, 7, 6, 5)
    del series


@pytest.mark.parametrize("name", ["../out.dcm", "/out.dcm", "a/../../out.dcm", "..\\out.dcm", "C:\\out.dcm", "C:out"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_name_that_climbs_out_is_refused_and_not_quoted(tmp_path, name, kind):
    make = zip_of if kind == "zip" else tar_of
    path = make(tmp_path / ("a.zip" if kind == "zip" else "a.tar.xz"), [("fine.txt", b"x"), (name, b"y")])
    with pytest.raises(ImageError, match=r"entry 2.* leads out of the archive's own folder") as raised:
        find_files(path)
    assert "out.dcm" not in str(raised.value)
    assert not list(tmp_path.rglob("out*"))


@pytest.mark.parametrize("target", ["/etc/passwd", "fine.txt", "../up"])
def test_links_and_devices_are_refused(tmp_path, target):
    with pytest.raises(ImageError, match="entry 1 is a link or a device"):
        find_files(tar_of(tmp_path / "a.tar.xz", [("link", target)]))
    packed = tmp_path / "a.zip"
    with zipfile.ZipFile(packed, "w") as out:
        info = zipfile.ZipInfo("link")
        info.external_attr = 0o120777 << 16
        out.writestr(info, target)
    with pytest.raises(ImageError, match="entry 1 of 1 is a link"):
        find_files(packed)


@pytest.mark.parametrize("name", ["a.zip", "a.tar.xz", "a.tar.gz", "a.dcm.gz"])
def test_a_bomb_is_refused_before_it_fills_the_disk(tmp_path, name, own_temporary_folder, monkeypatch):
    monkeypatch.setattr(archive, "FREE_BYTES", 2**20)
    zeros, path = bytes(16 * 2**20), tmp_path / name
    if name == "a.zip":
        zip_of(path, [("a", zeros)])
    elif name == "a.dcm.gz":
        path.write_bytes(gzip.compress(zeros, 9))
    else:
        tar_of(path, [("a", zeros)], "w:xz" if name.endswith("xz") else "w:gz")
    assert path.stat().st_size * archive.MAX_RATIO < len(zeros)
    with pytest.raises(ImageError, match=r"unpacks to more than \d+ MB"):
        find_files(path)
    gc.collect()
    assert list(own_temporary_folder.iterdir()) == []


def test_a_zip_that_lies_about_its_size_is_stopped_while_it_unpacks(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "FREE_BYTES", 2**20)
    path = zip_of(tmp_path / "a.zip", [("a", bytes(3 * 2**20))])
    content = path.read_bytes()
    true, claimed = (3 * 2**20).to_bytes(4, "little"), (2**10).to_bytes(4, "little")
    path.write_bytes(content.replace(true, claimed))
    with pytest.raises(ImageError, match=r"unpacks to more than|damaged"):
        find_files(path)


def test_too_many_files_are_refused(tmp_path, monkeypatch, scan):
    monkeypatch.setattr(archive, "MAX_MEMBERS", 3)
    with pytest.raises(ImageError, match="more than 3 files"):
        find_files(zip_of(tmp_path / "a.zip", [(str(i), b"x") for i in range(5)]))
    with pytest.raises(ImageError, match="more than 3 files"):
        find_files(tar_of(tmp_path / "a.tar.xz", [(str(i), b"x") for i in range(5)]))
    with pytest.raises(ImageError, match="holds 5 files"):
        find_files(scan)


@pytest.mark.parametrize("name", ["a.zip", "a.tar.xz", "a.tar.gz", "a.dcm.gz"])
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_a_damaged_archive_is_refused(tmp_path, scan, name, keep):
    files = [(path.name, path.read_bytes()) for path in scan.iterdir()]
    path = tmp_path / name
    if name == "a.zip":
        zip_of(path, files)
    elif name == "a.dcm.gz":
        path.write_bytes(gzip.compress(files[0][1]))
    else:
        tar_of(path, files, "w:xz" if name.endswith("xz") else "w:gz")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(ImageError):
        read_image(path)


def test_doubled_names_and_encryption_are_refused(tmp_path):
    with pytest.raises(ImageError, match="two entries of one name"):
        find_files(tar_of(tmp_path / "a.tar.xz", [("a", b"1"), ("a", b"2")]))
    path = zip_of(tmp_path / "a.zip", [("a", b"1" * 100)])
    content = bytearray(path.read_bytes())
    content[6] |= 1  # the bit that says encrypted, in both headers
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(ImageError, match="encrypted"):
        find_files(path)


def test_nothing_there(tmp_path, capsys):
    def refused(path, *words):
        assert main(["inspect", str(path)]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        for word in words:
            assert word in said.err

    (tmp_path / "empty").mkdir()
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "a.txt").write_text("no scan", encoding="utf-8")
    (tmp_path / "a.txt").write_text("no scan", encoding="utf-8")
    zip_of(tmp_path / "empty.zip", [])
    refused(tmp_path / "none", "does not exist")
    refused(tmp_path / "empty", "is empty")
    refused(tmp_path / "empty.zip", "is empty")
    refused(tmp_path / "words", "no image in 1 file", "DICOM images or NIfTI")
    refused(tmp_path / "a.txt", "no image in 1 file")


def test_hidden_files_are_passed_over_and_links_of_other_kinds(tmp_path, scan):
    (scan / "._Mustermann.dcm").write_bytes(b"\0" * 200)
    (scan / ".DS_Store").write_bytes(b"\0" * 200)
    os.symlink(tmp_path / "nowhere", scan / "readme.txt")
    assert read_image(scan).data.shape == (7, 6, 5)


@pytest.mark.parametrize("name", ["Mustermann.dcm", "Mustermann.nii.gz", "Mustermann.json", "Mustermann"])
def test_a_file_that_was_not_fetched_is_no_missing_slice(tmp_path, scan, name):
    """git-annex leaves a link to nothing in its place."""
    os.symlink(tmp_path / "nowhere", scan / name)
    with pytest.raises(ImageError, match=r"1 of \d+ files are links to nothing.*datalad get") as raised:
        read_image(scan)
    assert "Mustermann" not in str(raised.value)


def test_a_folder_that_may_not_be_listed_is_not_passed_over(tmp_path, scan, monkeypatch):
    write_classic(scan / "Mustermann", made())
    real = os.scandir

    def denied(path):
        if Path(path).name == "Mustermann":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(ImageError, match=r"scan, or something in it, cannot be read \(Permission denied\)") as raised:
        read_image(scan)
    assert "Mustermann" not in str(raised.value)


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "scan.dcm.gz"])
def test_an_archive_that_may_not_be_read_is_named(tmp_path, name, monkeypatch):
    archived = tmp_path / name
    archived.write_bytes(b"")

    def denying(real):
        def denied(file, *args, **kwargs):
            if str(file) == str(archived):
                raise PermissionError(13, "Permission denied", str(file))
            return real(file, *args, **kwargs)

        return denied

    for module in ("builtins.open", "io.open", "os.open"):  # gzip, zipfile and tarfile each take another
        monkeypatch.setattr(module, denying(open if module != "os.open" else os.open))
    with pytest.raises(ImageError, match=r"cannot be read \(Permission denied\)"):
        read_image(archived)
