"""Files and folders that are either whole or absent.

Everything is written beside its destination under a hidden name and renamed at the end, so a crash, a full disk or
Ctrl-C never leaves something that could be taken for a result.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from nigradat.errors import NigradatError, OutputError

_NO_ROOM: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_ALLOWED: Final = {errno.EACCES, errno.EPERM, errno.EROFS}
_SHOWN_NAMES: Final = 5


def refuse_used_folder(out: Path) -> None:
    """Refuse an output folder that is a file or holds something already.

    Raises:
        OutputError: naming what lies there.
    """
    if not os.path.lexists(out):
        return
    if not out.is_dir():
        raise OutputError(f"{out} exists and is no folder", "a new folder", "Choose another name")
    names = sorted(entry.name for entry in out.iterdir())
    if names:
        more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
        raise OutputError(
            f"the output folder {out} already holds {', '.join(names[:_SHOWN_NAMES])}{more}",
            "a folder that is new or empty",
            "Choose another name, or remove that folder yourself if it is not needed",
        )


@contextmanager
def new_folder(out: str | os.PathLike[str]) -> Iterator[Path]:
    """A folder that appears at ``out`` only when the block ends well.

    Yields:
        The hidden temporary folder to write into, on the same disk as ``out``. On any exception, Ctrl-C included,
        it is removed and ``out`` is as it was.

    Raises:
        OutputError: ``out`` is in use, may not be written, or the disk is full (with the space that was free).

    Example:
        >>> with new_folder(tmp_path / "result") as folder:  # doctest: +SKIP
        ...     (folder / "table.tsv").write_text("a\\tb\\n")
    """
    target = Path(out).absolute()
    refuse_used_folder(target)
    with _disk_faults_named(target.parent):
        _make_folder(target.parent)
        hidden = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
        try:
            hidden.chmod(0o777 & ~_umask())  # mkdtemp makes it private; a result has the user's usual rights
            yield hidden
            for path in (*hidden.rglob("*"), hidden):
                _sync(path)
            refuse_used_folder(target)
            if target.is_dir():
                target.rmdir()
            os.rename(hidden, target)
            _sync(target.parent)
        except BaseException:
            shutil.rmtree(hidden, ignore_errors=True)
            raise


@contextmanager
def new_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A file that appears at ``path``, replacing an older one, only when the block ends well.

    Yields:
        The hidden temporary path to write to; it keeps the suffix of ``path``.

    Raises:
        OutputError: the place may not be written, or the disk is full.
    """
    target = Path(path).absolute()
    with _disk_faults_named(target.parent):
        _make_folder(target.parent)
        handle, name = tempfile.mkstemp(prefix=f".{target.stem}.", suffix=target.suffix, dir=target.parent)
        os.close(handle)
        hidden = Path(name)
        try:
            hidden.chmod(0o666 & ~_umask())
            yield hidden
            _sync(hidden)
            os.replace(hidden, target)
            _sync(target.parent)
        except BaseException:
            hidden.unlink(missing_ok=True)
            raise


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 text at once or not at all, with the line ends as given. Raises :class:`OutputError`."""
    with new_file(path) as hidden:
        hidden.write_bytes(text.encode("utf-8"))


def write_json(path: str | os.PathLike[str], data: object) -> None:
    """Write JSON at once or not at all; see :func:`to_json` for what becomes of values that JSON does not have."""
    write_text(path, to_json(data))


def to_json(data: object) -> str:
    """Indented JSON text ending in a line end.

    Dataclasses become objects, NumPy values plain ones, paths text; NaN and infinity, which JSON lacks, become null.
    """
    return json.dumps(_plain(data), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def sha256_of(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file as 64 hexadecimal digits, read as a stream."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as fault:
        raise OutputError(f"{fault.filename} is a file, not a folder", "a folder", "Choose another name") from fault


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _sync(path: Path) -> None:
    """Push a file or a folder entry to the disk; a delayed 'disk full' surfaces here and not after the rename."""
    if path.is_symlink() or (path.is_dir() and os.name == "nt"):
        return
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as fault:
        if fault.errno != errno.EINVAL:  # some network disks cannot sync a folder
            raise
    finally:
        os.close(descriptor)


@contextmanager
def _disk_faults_named(parent: Path) -> Iterator[None]:
    """Turn the disk's refusals into an OutputError; faults of anything else pass through unchanged."""
    try:
        yield
    except NigradatError:
        raise
    except Exception as fault:
        code = fault.errno if isinstance(fault, OSError) else None
        # NumPy reports a short write, and safetensors any, without an error number
        short_write = "No space left on device" in str(fault) or "requested and" in str(fault)
        if code in _NO_ROOM or (code is None and short_write):
            raise OutputError(
                f"the disk did not take the result at {parent} ({fault}); {_free_text(parent)}",
                "enough room for the whole result",
                "Free some space or choose another disk; nothing half-written was left",
            ) from fault
        if isinstance(fault, OSError) and code in _NOT_ALLOWED and _concerns(fault, parent):
            raise OutputError(
                f"{parent} may not be written ({fault.strerror})",
                "a folder of your own",
                "Choose another output folder",
            ) from fault
        raise


def _concerns(fault: OSError, parent: Path) -> bool:
    """Whether an error is about the place being written to and not about some input that was read meanwhile."""
    if not isinstance(fault.filename, str):
        return False
    named = Path(fault.filename).absolute()
    return named.is_relative_to(parent) or parent.is_relative_to(named)


def _free_text(folder: Path) -> str:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return f"{shutil.disk_usage(folder).free / 1e6:,.1f} MB were free"
