"""The command line called in this process, and small files to call it with."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nibabel import orientations
from scipy.io import savemat

from nigradat.anatomy import Side, nominal_affine
from nigradat.cli import main
from nigradat.io.nifti import write_volume
from nigradat.pair import NigralPair


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def refused(self, *words: str) -> None:
        """Exit code 2 with a message of our own that says all of this, and nothing on standard output."""
        assert (self.code, self.out) == (2, ""), self
        assert self.err.splitlines()[-1].endswith((".", "?")), self.err
        assert "error: " in self.err, self.err
        assert "Traceback" not in self.err, self.err
        for word in words:
            assert word in self.err, f"{word!r} is not in: {self.err}"

    def done(self) -> Answer:
        assert self.code == 0, self
        return self


Call = Callable[..., Answer]


def call_main(*arguments: object) -> Answer:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main([str(a) for a in arguments])
    return Answer(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def call() -> Call:
    """``call("predict", path, "--model", run)`` gives exit code, standard output and standard error."""
    return call_main


WritePair = Callable[..., tuple[Path, Path]]


@pytest.fixture(scope="session")
def write_pair() -> WritePair:
    """Write a pair as two NIfTI patches whose axes are stored in the given order; the content is the same patient."""

    def write(pair: NigralPair, folder: Path, codes: str = "ALI", name: str = "p", suffix: str = ".nii") -> Any:
        paths = []
        for side in Side:
            affine = nominal_affine(side)
            ours = orientations.axcodes2ornt(("A", "L", "I"))
            change = orientations.ornt_transform(ours, orientations.axcodes2ornt(tuple(codes)))
            stored = orientations.apply_orientation(pair.patch(side), change)
            path = folder / f"{name}_{side.value}{suffix}"
            write_volume(path, stored, affine @ orientations.inv_ornt_aff(change, pair.patch(side).shape))
            paths.append(path)
        return tuple(paths)

    return write


@pytest.fixture
def mat_file(random_pair: NigralPair, tmp_path: Path) -> Path:
    """The random pair in the published layout."""
    path = tmp_path / "patient.mat"
    right, left = (np.array(random_pair.patch(side)) for side in Side)
    savemat(path, {"right_patch": right, "left_patch": left})
    return path


Manifest = Callable[..., Path]


@pytest.fixture
def manifest(tmp_path: Path, write_pair: WritePair) -> Manifest:
    """Write a manifest of two patients; a keyword changes a column, for all lines or (a list) one by one."""

    def write(**columns: str | list[str]) -> Path:
        rows: dict[str, list[str]] = {"participant_id": ["sub-1", "sub-2"], "right": [], "left": []}
        for i in (1, 2):
            right, left = np.random.default_rng(i).uniform(0.5, 1.5, (2, 50, 50, 20))
            paths = write_pair(NigralPair.from_arrays(right, left), tmp_path, name=f"sub-{i}")
            rows["right"].append(paths[0].name)
            rows["left"].append(paths[1].name)
        rows |= {"sbr_right": ["2.1", "3.0"], "sbr_left": ["1.9", "3.1"]}
        rows |= {name: [v, v] if isinstance(v, str) else v for name, v in columns.items()}
        lines = ["\t".join(rows), *("\t".join(cells) for cells in zip(*rows.values(), strict=True))]
        path = tmp_path / "manifest.tsv"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write
