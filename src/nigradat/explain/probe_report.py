"""What the probes found, as a table and a figure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from nigradat.anatomy import Side
from nigradat.evaluation.figures import GREY, SIDE_COLOUR, SIDE_MARKER, figure_png, figure_svg, new_figure, styled
from nigradat.evaluation.table import Cell, Column, Row, Table
from nigradat.explain.probes import DIRECTIONS, CentringResponse, DoseResponse
from nigradat.io.files import new_folder, write_json
from nigradat.metrics.resampling import bca
from nigradat.models.weights import LoadedModel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = npt.NDArray[np.float64]
_FEWEST: Final = 5  # patients from which on a mean has an interval


def data_label(loaded: LoadedModel, is_phantom: bool) -> str:
    """What must stand on a table or figure about the patients or about the model; empty for patients alone."""
    if is_phantom:
        return "digital phantom, not patients"
    return "model trained on a digital phantom" if loaded.is_phantom_trained else ""


def dose_table(response: DoseResponse, label: str, seed: int = 0) -> Table:
    """SBR at each painted level and the slope, beside those of the control; means where there are many patients."""
    rows = [_row("as it is", seed, response.plain, response.plain)]
    for i, level in enumerate(response.levels):
        rows.append(_row(f"painted {level:g}", seed, response.painted[:, i], response.control[:, i]))
    rows.append(_row("slope per unit", seed, response.slope(), response.slope(control=True)))
    return Table(
        "dose-response",
        "Predicted SBR after painting nigrosome-1",
        "Intensity (patch mean = 1)",
        tuple(Column(side.value, group) for group in ("nigrosome-1", "control, 8 mm posterior") for side in Side),
        tuple(rows),
        (
            "Painted: the average nigrosome-1 of the digital phantom, at the patch's centre. Control: the same shape "
            "where no nigra lies.",
            _who(len(response.plain)),
        ),
        label,
    )


def centring_table(response: CentringResponse, label: str, seed: int = 0) -> Table:
    """Absolute change of the SBR for each direction and size of a shift; means over patients where there are many."""
    change = np.abs(response.change())
    return Table(
        "mis-centring",
        "Absolute change of the predicted SBR when the centre is off",
        "Centre moved",
        tuple(Column(side.value, direction) for direction in DIRECTIONS for side in Side),
        tuple(
            Row(
                f"{shift:+g} mm" if shift else "0 mm",
                tuple(_cell(change[:, axis, i, side.index], seed, 2) for axis in range(3) for side in Side),
            )
            for i, shift in enumerate(response.shifts_mm)
        ),
        (
            "Lateral is away from the midline. What leaves the patch on one side comes in on the other.",
            _who(len(change)),
        ),
        label,
    )


def dose_figure(response: DoseResponse, label: str) -> Figure:
    """Predicted SBR over the painted intensity, nigrosome-1 and control, one panel a side."""
    with styled():
        answered = [side for side in Side if np.isfinite(response.plain[:, side.index]).all()]
        figure = new_figure(0.8 + 2.9 * len(answered), 3.1, "Does the answer follow nigrosome-1?", label)
        panels = figure.subplots(1, len(answered), sharey=True, squeeze=False)[0]
        for side, axes in zip(answered, panels, strict=True):
            colour, marker = SIDE_COLOUR[side], SIDE_MARKER[side]
            _course(axes, response.levels, response.painted[:, :, side.index], colour, marker, "nigrosome-1 painted")
            _course(axes, response.levels, response.control[:, :, side.index], GREY, "s", "control painted")
            axes.axhline(response.plain[:, side.index].mean(), color="#202020", lw=0.8, ls="--", label="as it is")
            axes.set_title(side.value, loc="left")
            axes.set_xlabel("Painted intensity (patch mean = 1)")
        panels[0].set_ylabel("Predicted SBR")
        panels[0].legend(loc="best", title=_band(len(response.plain)), title_fontsize=7)
        return figure


def centring_figure(response: CentringResponse, label: str) -> Figure:
    """Change of the SBR over the shift, one panel a direction."""
    change = response.change()
    with styled():
        figure = new_figure(7.2, 3.0, "What a wrong centre costs", label)
        panels = figure.subplots(1, 3, sharey=True)
        for axis, (direction, axes) in enumerate(zip(DIRECTIONS, panels, strict=True)):
            for side in Side:
                if np.isfinite(change[:, axis, :, side.index]).any():
                    course = change[:, axis, :, side.index]
                    _course(axes, response.shifts_mm, course, SIDE_COLOUR[side], SIDE_MARKER[side], side.value)
            axes.axhline(0, color=GREY, lw=0.8)
            axes.set_title(direction, loc="left")
            axes.set_xlabel("Centre moved (mm)")
        panels[0].set_ylabel("Change of predicted SBR")
        panels[0].legend(loc="best", title=_band(len(change)), title_fontsize=7)
        return figure


def write_probe(out: Path, table: Table, figure: Figure | None, description: str) -> Path:
    """Table and figure as a new folder: CSV, JSON, PNG and SVG.

    Raises:
        OutputError: the folder is in use, or the disk does not take it.
    """
    with new_folder(out) as hidden:
        (hidden / f"{table.name}.csv").write_text(table.to_csv(), encoding="utf-8")
        if figure is not None:
            (hidden / f"{table.name}.png").write_bytes(figure_png(figure))
            (hidden / f"{table.name}.svg").write_text(figure_svg(figure, description), encoding="utf-8")
        write_json(hidden / f"{table.name}.json", table)
    return out


def _row(name: str, seed: int, *groups: Array) -> Row:
    return Row(name, tuple(_cell(group[:, side.index], seed) for group in groups for side in Side))


def _cell(values: Array, seed: int, digits: int = 3) -> Cell:
    if not np.isfinite(values).all():
        return Cell()
    if len(values) < _FEWEST or np.ptp(values) == 0:
        return Cell(float(values.mean()), digits=digits)
    return Cell.of(bca(lambda i: values[i].mean(axis=-1), len(values), seed=seed), digits)


def _who(n: int) -> str:
    if n < _FEWEST:
        return "One pair: an illustration." if n == 1 else f"Mean of {n} pairs: an illustration."
    return f"Mean over {n} pairs with the 95 % bootstrap interval over them."


def _band(n: int) -> str:
    return "band: middle half of the pairs" if n >= _FEWEST else ""


def _course(axes: Axes, x: Array, y: Array, colour: str, marker: str, name: str) -> None:
    """Mean over patients, with the band of the middle half of them."""
    if not np.isfinite(y).any():
        return
    axes.plot(x, y.mean(axis=0), marker=marker, ms=4, color=colour, label=name)
    if len(y) >= _FEWEST:
        low, high = np.percentile(y, [25, 75], axis=0)
        axes.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)
