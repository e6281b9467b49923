"""The figures of a comparison of spreads: calibration, PIT, rejection. Needs the extra ``report``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nigradat.anatomy import Side
from nigradat.errors import ConfigError
from nigradat.evaluation.figures import GREY, METHOD_STYLE, SIDE_COLOUR, new_figure, styled
from nigradat.evaluation.result import Array
from nigradat.metrics.scores import BINS, LEVELS, error_rejection_curve, observed_coverage, pit_histogram

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def calibration_figure(
    pit: Mapping[str, Array], *, title: str = "Calibration of the distributions", label: str = ""
) -> Figure:
    """Observed against nominal coverage of central intervals, one panel a side; the diagonal is right.

    Args:
        pit: by method, at most five: PIT values ``(n, 2)``, right first.
        title, label: headline; what the data are.

    Raises:
        ConfigError: no method, or too many.
        MissingExtraError: matplotlib is not installed.
    """
    with styled():
        figure, panels, place = _panels(pit, title, label)
        for side, axes in zip(Side, panels, strict=True):
            axes.plot([0, 1], [0, 1], color=GREY, lw=0.9, zorder=1)
            for name, values, style in _styled(pit):
                observed = observed_coverage(values[:, side.index])
                axes.plot(LEVELS, observed, label=name, **style)
            axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="Nominal coverage")
        panels[0].set_ylabel("Observed coverage")
        _key(place, panels[0])
        return figure


def rejection_figure(
    error: Mapping[str, Array],
    width: Mapping[str, Array],
    *,
    title: str = "Error of those who are answered, narrowest intervals first",
    label: str = "",
) -> Figure:
    """Mean absolute error over the share of patients that is answered, one panel a side.

    A width that knows nothing of the error gives a level line.

    Args:
        error: by method, at most five: absolute errors ``(n, 2)`` SBR, right first.
        width: by method: widths ``(n, 2)`` SBR.
        title, label: headline; what the data are.

    Raises:
        ConfigError: no method, or too many.
        MissingExtraError: matplotlib is not installed.
    """
    with styled():
        figure, panels, place = _panels(error, title, label)
        for side, axes in zip(Side, panels, strict=True):
            for name, values, style in _styled(error):
                curve = error_rejection_curve(values[:, side.index], width[name][:, side.index])
                share = np.arange(1, curve.size + 1) / curve.size
                # the mean of a handful of patients says nothing, and would set the height of the panel
                seen = share >= min(0.05 + 5 / curve.size, 1)
                axes.plot(share[seen], curve[seen], label=name, **style)
            axes.set(xlim=(0, 1), xlabel="Share of patients answered")
        panels[0].set_ylim(bottom=0)
        panels[0].set_ylabel("Mean absolute error (SBR)")
        _key(place, panels[0])
        return figure


def pit_figure(
    pit: Mapping[str, Array], *, title: str = "Where the true SBR falls in its distribution", label: str = ""
) -> Figure:
    """Histograms of the PIT, one panel a method; level where the distributions are right.

    Args:
        pit: by method, at most five: PIT values ``(n, 2)``, right first.
        title, label: headline; what the data are.

    Raises:
        ConfigError: no method, or too many.
        MissingExtraError: matplotlib is not installed.
    """
    _check(pit)
    with styled():
        figure = new_figure(0.6 + 1.75 * len(pit), 2.7, title, label)
        panels = figure.subplots(1, len(pit), sharey=True, squeeze=False)[0]
        edges = np.linspace(0, 1, BINS + 1)
        for axes, (name, values) in zip(panels, pit.items(), strict=True):
            axes.axhline(1 / BINS, color=GREY, lw=0.9, ls=(0, (2, 2)))
            for side, dash in zip(Side, ("-", (0, (4, 1.5))), strict=True):
                shares = pit_histogram(values[:, side.index])
                axes.stairs(shares, edges, color=SIDE_COLOUR[side], ls=dash, lw=1.3, label=side.value)
            axes.set_title(_wrapped(name), loc="left", fontsize=8)
            axes.set(xlim=(0, 1), xlabel="PIT", xticks=(0, 0.5, 1))
        top = max(axes.get_ylim()[1] for axes in panels)
        panels[0].set(ylim=(0, 1.25 * top), ylabel="Share of patients")  # room for the key
        panels[0].legend(loc="upper left", ncols=2, fontsize=7, borderaxespad=0.2)
        return figure


def _check(methods: Mapping[str, npt.ArrayLike]) -> None:
    if not 1 <= len(methods) <= len(METHOD_STYLE):
        raise ConfigError(f"{len(methods)} methods", f"1 to {len(METHOD_STYLE)} in one figure")


def _panels(methods: Mapping[str, Array], title: str, label: str) -> tuple[Figure, list[Axes], Axes]:
    """A figure with a panel for each side, and below them a place for the key."""
    _check(methods)
    figure = new_figure(7.2, 3.6 + 0.2 * len(methods), title, label)
    grid = figure.add_gridspec(2, 2, height_ratios=[15, len(methods)])
    first = figure.add_subplot(grid[0, 0])
    panels = [first, figure.add_subplot(grid[0, 1], sharex=first, sharey=first)]
    panels[1].tick_params(labelleft=False)
    for side, axes in zip(Side, panels, strict=True):
        axes.set_title(f"{side.value.capitalize()} striatum")
    return figure, panels, figure.add_subplot(grid[1, :])


def _styled(methods: Mapping[str, Array]) -> Iterator[tuple[str, Array, dict[str, Any]]]:
    """Each method with the look of its line."""
    for (name, values), (colour, dash) in zip(methods.items(), METHOD_STYLE, strict=False):
        yield name, values, {"color": colour, "ls": dash, "lw": 1.4}


def _key(place: Axes, axes: Axes) -> None:
    place.axis("off")
    place.legend(*axes.get_legend_handles_labels(), loc="upper left", handlelength=4, borderaxespad=0)


def _wrapped(name: str) -> str:
    import textwrap

    return textwrap.fill(name, 24)
