"""What :mod:`nigradat.explain.faithfulness` found, as a table and a figure."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from nigradat.anatomy import Side
from nigradat.evaluation.figures import METHOD_STYLE, new_figure, styled
from nigradat.evaluation.table import Cell, Column, Row, Table
from nigradat.explain.faithfulness import BLUR_MM, DILATION_MM, FRACTIONS, POINTING_MM, Curves, Faithfulness
from nigradat.metrics.resampling import bca

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = npt.NDArray[np.float64]


def faithfulness_table(found: Faithfulness, label: str, seed: int = 0) -> Table:
    """Mass, pointing game, deletion and insertion of the maps, of random weights and of chance; means of both sides."""
    rows = [
        _row(
            f"mass in nigra and nigrosome-1 + {DILATION_MM:g} mm",
            seed,
            *(p.mass for p in (found.trained, found.randomised, found.chance)),
        ),
        _row(
            f"points within {POINTING_MM:g} mm of the nigra",
            seed,
            *(p.pointing for p in (found.trained, found.randomised, found.chance)),
        ),
    ]
    curves = [found.trained_curves, found.randomised_curves, found.chance_curves]
    if None not in curves:
        for which, better in (("deletion", "larger is better"), ("insertion", "smaller is better")):
            rows.append(_row(f"area of {which} ({better})", seed, *(c.area(which) for c in curves if c is not None)))
    n = len(found.trained.mass)
    return Table(
        "faithfulness",
        f"Faithfulness of the maps of {found.layer}",
        "Share or area",
        (Column("this model"), Column("random weights"), Column("chance")),
        tuple(rows),
        (
            f"Mean over {n} pair{'s' if n > 1 else ''}{_sides(found)}"
            + (", with the 95 % bootstrap interval over pairs." if n > 4 else ": an illustration."),
            "Chance: the same mass in every cell; any cell; voxels in the order of shuffled cells.",
            *([] if None in curves else [_CURVES]),
            f"The map and the last layer's bias add up to the prediction within {found.residual:.2g} SBR.",
            "The nigra is that of each pair." if found.own_masks else "The nigra is that of the average phantom.",
        ),
        label,
    )


def _sides(found: Faithfulness) -> str:
    answered = [side.value for side in Side if not np.isnan(found.trained.mass[:, side.index]).all()]
    return " and both sides" if len(answered) == 2 else f", {answered[0]} side"


_CURVES: Final = (
    f"Deletion and insertion: voxels in the order of the map go into, or come out of, a blur of {BLUR_MM:g} mm; area "
    "under the change of the SBR, 1 being the change of the whole blur."
)


def faithfulness_figure(found: Faithfulness, label: str) -> Figure | None:
    """Deletion and insertion curves; None where they were not followed."""
    curves = {"this model": found.trained_curves, "random weights": found.randomised_curves}
    every: dict[str, Curves] = {k: c for k, c in {**curves, "chance": found.chance_curves}.items() if c is not None}
    if not every:
        return None
    with styled():
        figure = new_figure(6.8, 3.1, "Do the voxels that the map names count?", label)
        for axes, which in zip(figure.subplots(1, 2, sharey=True), ("deletion", "insertion"), strict=True):
            for (name, curve), (colour, dash) in zip(every.items(), METHOD_STYLE, strict=False):
                mean = _nanmean(getattr(curve, which), (0, 1))
                axes.plot(FRACTIONS, mean, color=colour, ls=dash, marker="o", ms=3, label=name)
            axes.set_title(which, loc="left")
            axes.set_xlabel("Share of voxels, strongest first")
            axes.set_ylim(bottom=0)
        figure.axes[0].set_ylabel("Change of predicted SBR")
        figure.axes[1].legend(loc="best")
        return figure


def _row(name: str, seed: int, *groups: Array) -> Row:
    return Row(name, tuple(_cell(_nanmean(group, 1), seed) for group in groups))


def _cell(values: Array, seed: int) -> Cell:
    if not np.isfinite(values).all():
        return Cell()
    if len(values) < 5 or np.ptp(values) == 0:
        return Cell(float(values.mean()))
    return Cell.of(bca(lambda i: values[i].mean(axis=-1), len(values), seed=seed))


def _nanmean(values: Array, axis: int | tuple[int, ...]) -> Array:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a side without an answer
        mean: Array = np.nanmean(values, axis=axis)
    return mean
