"""The files of a scan, wherever they lie: one file, a folder, or an archive that is unpacked with care.

An archive is unpacked into a private temporary folder that is removed with the value that stands for it. A name that
climbs out, a link, a device, or more bytes than a scan can have is refused before anything of it is kept.
"""

from __future__ import annotations

import gzip
import lzma
import os
import shutil
import tarfile
import tempfile
import weakref
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO, Final, cast

from nigradat.errors import NO_ROOM, ImageError

MAX_UNPACKED_BYTES: Final = 16 * 2**30
MAX_MEMBERS: Final = 200_000
MAX_RATIO: Final = 500  # of unpacked to packed bytes; scans shrink 2 to 20 times, empty ones with masks some 100
FREE_BYTES: Final = 64 * 2**20  # so much may unpack whatever its ratio
_CHUNK: Final = 2**20
_SCANNED: Final = (".nii", ".nii.gz", ".json", ".dcm", ".ima")  # of these, and of names without a dot, a scan is made
_ARCHIVES: Final = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2")


@dataclass(frozen=True, eq=False)
class ScanFiles:
    """Files of a scan.

    Attributes:
        given: what the user named.
        root: the folder they lie in.
        paths: all of them, sorted by name.
        keeper: holds an unpacked archive's folder, which lives as long as this does.
    """

    given: Path
    root: Path
    paths: tuple[Path, ...]
    keeper: object = field(default=None, repr=False)

    def name(self, path: Path) -> str:
        """How to call a file in a message: as the user did, or by its place, for names often carry a patient's."""
        if len(self.paths) == 1 and self.keeper is None and self.given == path:
            return str(self.given)
        return f"{self.given}: file {self._places[path]} of {len(self.paths)} (sorted by name)"

    @cached_property
    def _places(self) -> dict[Path, int]:
        return {path: i for i, path in enumerate(self.paths, start=1)}


class _Folder:
    """A temporary folder that goes when nobody needs it any more, at the latest when the program ends."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="nigradat-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


def find_files(path: str | os.PathLike[str]) -> ScanFiles:
    """The files of a scan.

    Args:
        path: a file, a folder (searched through), a ``.gz`` of one file, or an archive (``.zip``, ``.tar`` and its
            compressed kinds). An archive inside a folder or another archive is left packed.

    Raises:
        ImageError: nothing there, something that may not be read, links to files of a scan that are not there, an
            empty folder or archive, a damaged archive, one that holds a name that climbs out or a link, or that would
            unpack to more than :data:`MAX_UNPACKED_BYTES` or :data:`MAX_RATIO` times its size.
    """
    given = Path(path)
    with readable(f"{given}, or something in it,"):
        if not given.exists():
            raise ImageError(f"{given} does not exist", "a file, a folder or an archive with a scan")
        if given.is_dir():
            return _listed(given, given, None)
    lower = given.name.lower()
    if lower.endswith(_ARCHIVES) or (lower.endswith(".gz") and not lower.endswith(".nii.gz")):
        folder = _Folder()
        _unpack(given, folder.path)
        return _listed(given, folder.path, folder)
    return ScanFiles(given, given.parent, (given,))


@contextmanager
def readable(name: str) -> Iterator[None]:
    """What the system does not let us read becomes our error; a full disk is told elsewhere.

    Args:
        name: how to call in the message what is read; the system's own words would repeat a file's name.
    """
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM:
            raise
        raise unreadable(name, error) from None


def unreadable(name: str, error: OSError) -> ImageError:
    """The error of something that is there and cannot be read."""
    why = error.strerror or type(error).__name__
    return ImageError(f"{name} cannot be read ({why})", "files that can be", "Check permissions and disk")


def _listed(given: Path, root: Path, keeper: object) -> ScanFiles:
    def stop(error: OSError) -> None:
        raise error  # left alone, os.walk passes over a folder that it may not list, and a series is missed by nobody

    every = sorted(
        Path(folder) / name
        for folder, _, names in os.walk(root, onerror=stop)
        for name in names
        if not name.startswith(".")
    )
    # under git-annex a file that was not fetched is a link to nothing; without it a scan would be another, or shorter
    gone = [i for i, path in enumerate(every, start=1) if path.is_symlink() and _is_scanned(path) and not path.exists()]
    if gone:
        raise ImageError(
            f"{given}: {len(gone)} of {len(every)} files are links to nothing (sorted by name: "
            f"{', '.join(map(str, gone[:5]))}{', ...' if len(gone) > 5 else ''})",
            "files that are there",
            "Fetch them (datalad get, git annex get), or remove the links",
        )
    paths = [path for path in every if path.is_file()]
    if not paths:
        raise ImageError(f"{given} is empty", "the files of a scan")
    if len(paths) > MAX_MEMBERS:
        raise ImageError(f"{given} holds {len(paths)} files", f"at most {MAX_MEMBERS}", "Name the folder of one scan")
    return ScanFiles(given, root, tuple(paths), keeper)


def _is_scanned(path: Path) -> bool:
    return not path.suffix or path.name.lower().endswith(_SCANNED)


# -- Unpacking ----------------------------------------------------------------------------------------------------


def _unpack(archive: Path, folder: Path) -> None:
    lower = archive.name.lower()
    try:
        budget = _Budget(archive)
        if lower.endswith(".zip"):
            _unpack_zip(archive, folder, budget)
        elif lower.endswith(_ARCHIVES):
            _unpack_tar(archive, folder, budget)
        else:
            with gzip.open(archive) as stream:
                budget.copy(cast("IO[bytes]", stream), folder / "scan")
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, tarfile.TarError, zipfile.BadZipFile) as error:
        raise ImageError(f"{archive}: damaged, it cannot be unpacked", "a whole archive", "Copy it again") from error
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise ImageError(f"{archive}: two entries of one name", "a name for each file", "Unpack it yourself") from error
    except OSError as error:
        if error.errno in NO_ROOM:
            raise
        raise unreadable(str(archive), error) from None
    except (RuntimeError, NotImplementedError) as error:  # zipfile's, for passwords and rare methods
        raise ImageError(
            f"{archive}: encrypted, or packed in a way that cannot be read", "a plain archive", "Unpack it yourself"
        ) from error


def _unpack_zip(archive: Path, folder: Path, budget: _Budget) -> None:
    with zipfile.ZipFile(archive) as packed:
        members = [member for member in packed.infolist() if not member.is_dir()]
        budget.announce(len(members), sum(member.file_size for member in members))
        for i, member in enumerate(members):
            if (member.external_attr >> 16) & 0o170000 == 0o120000:
                raise _refused(archive, i, len(members), "is a link")
            target = _inside(archive, folder, member.filename, i, len(members))
            with packed.open(member) as stream:
                budget.copy(stream, target)


def _unpack_tar(archive: Path, folder: Path, budget: _Budget) -> None:
    with tarfile.open(archive, "r|*") as packed:  # as a stream: a bomb is noticed while it unfolds
        for i, member in enumerate(packed):
            if member.isdir():
                continue
            if not member.isfile():
                raise _refused(archive, i, None, "is a link or a device")
            target = _inside(archive, folder, member.name, i, None)
            budget.announce(i + 1, member.size)
            stream = packed.extractfile(member)
            assert stream is not None
            with stream:
                budget.copy(stream, target)


def _inside(archive: Path, folder: Path, name: str, i: int, of: int | None) -> Path:
    inner = PurePosixPath(name.replace("\\", "/"))
    if inner.is_absolute() or ".." in inner.parts or ":" in name or "\0" in name or not inner.parts:
        raise _refused(archive, i, of, "has a name that leads out of the archive's own folder")
    return folder.joinpath(*inner.parts)


def _refused(archive: Path, i: int, of: int | None, why: str) -> ImageError:
    place = f"entry {i + 1}" + (f" of {of}" if of is not None else "")
    return ImageError(
        f"{archive}: {place} {why}", "plain files below one folder", "Do not unpack it; ask who made it for another"
    )


class _Budget:
    """Counts what is unpacked, and stops long before a bomb fills the disk."""

    def __init__(self, archive: Path) -> None:
        self.archive = archive
        packed = archive.stat().st_size
        self.most = min(MAX_UNPACKED_BYTES, max(FREE_BYTES, packed * MAX_RATIO))
        self.left = self.most

    def announce(self, members: int, size: int) -> None:
        """Refuse what an archive itself says is too much."""
        if members > MAX_MEMBERS:
            raise ImageError(f"{self.archive}: more than {MAX_MEMBERS} files", "the files of a scan")
        if size > self.left:
            raise self._too_much()

    def copy(self, stream: IO[bytes], target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as out:
            for chunk in _chunks(stream):
                self.left -= len(chunk)
                if self.left < 0:
                    raise self._too_much()
                out.write(chunk)

    def _too_much(self) -> ImageError:
        return ImageError(
            f"{self.archive}: unpacks to more than {self.most / 2**20:,.0f} MB",
            f"at most {MAX_UNPACKED_BYTES // 2**30} GB and {MAX_RATIO} times the archive's own size",
            "If it is a scan, unpack it yourself and name the folder",
        )


def _chunks(stream: IO[bytes]) -> Iterator[bytes]:
    return iter(lambda: stream.read(_CHUNK), b"")


def with_suffix(paths: Iterable[Path], *suffixes: str) -> tuple[Path, ...]:
    """Of some files those whose names end so, whatever the case."""
    return tuple(path for path in paths if path.name.lower().endswith(suffixes))
