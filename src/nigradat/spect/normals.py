"""How far an SBR lies from that of healthy persons of the same age, measured in the same way."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from nigradat.anatomy import Side
from nigradat.errors import ConfigError, ImageError
from nigradat.spect.sbr import SbrMeasurement
from nigradat.spect.volumes_of_interest import PARTS, Part

Float64 = npt.NDArray[np.float64]

FEWEST: Final = 10
AGE_MARGIN_YEARS: Final = 5.0  # beyond the youngest and the oldest healthy person the line is not followed


@dataclass(frozen=True, eq=False)
class Normals:
    """SBR of healthy persons.

    Attributes:
        age: years, ``(n,)``.
        sbr: of parts and sides, ``(n,)`` each.
        scale: how they were measured, in the words of :meth:`~nigradat.spect.sbr.SbrRecipe.describe`.
    """

    age: Float64
    sbr: Mapping[tuple[Part, Side], Float64]
    scale: str

    def z_score(self, part: Part, side: Side, sbr: float, age: float) -> float | None:
        """Distance from the line of SBR over age, in standard deviations of a new healthy person about that line.

        Ordinary least squares; the deviation is that of a prediction, so few healthy persons make small scores.

        Returns:
            The score, negative for less uptake; None for a part that the table does not have.

        Raises:
            ConfigError: an age more than 5 years beyond theirs.
        """
        if not self.age.min() - AGE_MARGIN_YEARS <= age <= self.age.max() + AGE_MARGIN_YEARS:
            raise ConfigError(
                f"an age of {age:g} years for healthy persons of {self.age.min():g} to {self.age.max():g}",
                "one in their range",
                "Add healthy persons of that age, or leave the z-score out",
            )
        if (part, side) not in self.sbr:
            return None
        y, n = self.sbr[part, side], self.age.size
        centred = self.age - self.age.mean()
        slope = float(centred @ y / (centred @ centred))
        residual = y - y.mean() - slope * centred
        off = age - self.age.mean()
        spread = np.sqrt(residual @ residual / (n - 2) * (1 + 1 / n + off**2 / (centred @ centred)))
        return float((sbr - y.mean() - slope * off) / spread)


def read_normals(path: str | os.PathLike[str]) -> Normals:
    """Read a table of healthy persons.

    Args:
        path: tab-separated text, one line a person, with the columns ``age``, ``scale`` (the same words in every line,
            as ``nigradat sbr`` writes them) and any of ``striatum_right``, ``striatum_left``, ``caudate_right``, ... ,
            ``posterior_putamen_left``.

    Raises:
        ImageError: it cannot be read, or a value is no number.
        ConfigError: fewer than 10 persons, all of one age, or several scales.
    """
    source = Path(path)
    try:
        with source.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t"))
        age = np.array([float(row["age"]) for row in rows])
        scales = {row["scale"].strip() for row in rows}
        columns: dict[tuple[Part, Side], Float64] = {}
        for part in PARTS:
            for side in Side:
                name = f"{part.replace(' ', '_')}_{side.value}"
                if rows and name in rows[0]:
                    columns[part, side] = np.array([float(row[name]) for row in rows])
    except (OSError, KeyError, ValueError, TypeError, AttributeError, csv.Error) as error:
        raise ImageError(
            f"{source}: missing, or no table of healthy persons ({type(error).__name__}: {error})",
            "tab-separated text with the columns age, scale, striatum_right, striatum_left, ...",
        ) from error
    if not all(np.isfinite(values).all() for values in (age, *columns.values())):
        raise ImageError(f"{source}: a value that is no finite number", "a number in every cell")
    if len(rows) < FEWEST or not np.ptp(age) > 0 or not columns:
        raise ConfigError(
            f"{source}: {len(rows)} healthy persons, {len(columns)} columns of SBR",
            f"at least {FEWEST} of different ages, and one column",
        )
    if len(scales) != 1:
        raise ConfigError(f"{source}: SBR on {len(scales)} scales ({'; '.join(sorted(scales))})", "one")
    return Normals(age, columns, scales.pop())


def z_scores(found: SbrMeasurement, normals: Normals, age: float) -> dict[Part, tuple[float | None, float | None]]:
    """Right and left z-scores of every part.

    Raises:
        ConfigError: measured in another way than the healthy persons, or an age beyond theirs.
    """
    if found.recipe.describe() != normals.scale:
        raise ConfigError(
            f"an SBR by '{found.recipe.describe()}' and healthy persons by '{normals.scale}'",
            "one scale",
            "Measure both in the same way",
        )
    return {
        here.part: (
            normals.z_score(here.part, Side.RIGHT, here.right, age),
            normals.z_score(here.part, Side.LEFT, here.left, age),
        )
        for here in found.parts
    }
