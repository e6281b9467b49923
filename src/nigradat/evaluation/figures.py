"""Publication figures from arrays: agreement, limits, the sharpness-CP curve, training.

Every function returns a matplotlib ``Figure`` that belongs to no window and no global state; :func:`figure_svg` and
:func:`figure_png` turn it into bytes that are the same in every run. The patient's right is blue with circles, the
left vermilion with triangles, everywhere; methods differ in colour and in dash. ``label`` says on the figure itself
what the data are ("digital phantom, preset paper"): give it whenever they are not patients.

Needs the extra ``report``.
"""

from __future__ import annotations

import hashlib
import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from nigradat.anatomy import Side
from nigradat.errors import CohortError, ConfigError, MissingExtraError
from nigradat.metrics.agreement import bland_altman_clustered
from nigradat.metrics.cases import Array, PerSide, cases
from nigradat.metrics.error import pearson_r, rmse
from nigradat.metrics.intervals import (
    Criterion,
    SharpnessCurve,
    coverage,
    optimal_point,
    sharpness_at_cp,
)
from nigradat.metrics.resampling import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by colour-blind readers; the marker says the same in grey.
SIDE_COLOUR: Final = {Side.RIGHT: "#0072B2", Side.LEFT: "#D55E00"}
SIDE_MARKER: Final = {Side.RIGHT: "o", Side.LEFT: "^"}
METHOD_STYLE: Final = (
    ("#000000", "-"),
    ("#009E73", (0, (6, 1.5))),
    ("#CC79A7", (0, (3, 1.5, 1, 1.5))),
    ("#E69F00", (0, (2, 1))),
    ("#56B4E9", (0, (8, 2, 1, 2, 1, 2))),
)
GREY: Final = "#6e6e6e"
_LINE_DASHES: Final = ((0, (4, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
_DARK: Final = "#202020"
_MANY: Final = 1000  # points: above it they are drawn as one picture, or an SVG grows to megabytes
_MOST_BARS: Final = 200  # patients: above it their interval bars would cover everything

_STYLE: Final[Any] = {  # (matplotlib types its keys as literals, by version)
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica"],
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.framealpha": 0.85,
    "legend.edgecolor": "none",
    "legend.fancybox": False,
    "lines.linewidth": 1.6,
    "figure.titlesize": 11,
    "savefig.dpi": 200,
    "svg.fonttype": "none",  # text stays text: it can be searched and read aloud
    "svg.hashsalt": "nigradat",
}


# -- Figures ------------------------------------------------------------------------------------------------------


def scatter_figure(
    truth: npt.ArrayLike,
    predicted: npt.ArrayLike,
    lower: npt.ArrayLike | None = None,
    upper: npt.ArrayLike | None = None,
    *,
    title: str = "Predicted against reference SBR",
    label: str = "",
) -> Figure:
    """Predicted against reference SBR, one panel a side, with the line of identity, R, RMSE and any intervals.

    Intervals that miss the reference are drawn dark, the others faint; in a large cohort the bars would hide all else,
    and only the points of the missed cases are dark.

    Args:
        truth, predicted: shape ``(n, 2)``, right first, SBR.
        lower, upper: ends of the intervals, same shape, or neither.
        title, label: headline; what the data are.

    Raises:
        CohortError: shapes that do not fit, or one end without the other.
        MissingExtraError: matplotlib is not installed.
    """
    if (lower is None) != (upper is None):
        raise CohortError("one end of the intervals without the other", "both or neither")
    y, p = _both_sides(truth, predicted)
    ends = None if lower is None or upper is None else _both_sides(lower, upper, y)[:2]
    with styled():
        figure = new_figure(7.2, 3.9, title, label)
        panels = figure.subplots(1, 2, sharex=True, sharey=True)
        top = 1.05 * float(max(y.max(), p.max()))
        bottom = min(0.0, float(p.min()) - 0.1)
        for side, axes in zip(Side, panels, strict=True):
            ys, ps = y[:, side.index], p[:, side.index]
            axes.plot([bottom, top], [bottom, top], color=GREY, lw=0.9, zorder=1)
            summary = f"R = {float(pearson_r(ys, ps)):.2f}, RMSE = {float(rmse(ys, ps)):.2f}, n = {len(ys)}"
            _points(axes, ys, ps, side)
            if ends is not None:
                low, high = (end[:, side.index] for end in ends)
                covered = float(coverage(low, high, ys))
                _intervals(axes, side, ys, ps, low, high)
                summary += f"\nintervals cover {100 * covered:.1f} %, dark: missed"
            axes.set_title(side.value.capitalize(), loc="left")
            axes.set_title(summary, loc="right", fontsize=8, fontweight="normal")
            axes.set(xlim=(bottom, top), xlabel="Reference SBR", aspect="equal")
        panels[0].set(ylim=(bottom, top), ylabel="Predicted SBR")
        return figure


def bland_altman_figure(
    truth: npt.ArrayLike,
    predicted: npt.ArrayLike,
    *,
    level: float = 0.95,
    title: str = "Bland-Altman: predicted against reference SBR",
    label: str = "",
) -> Figure:
    """Difference against mean for both sides, with bias and limits of agreement and their intervals as bands.

    The limits respect that two sides belong to one patient
    (:func:`nigradat.metrics.agreement.bland_altman_clustered`); the broken line is the proportional bias.

    Args:
        truth, predicted: shape ``(n, 2)``, right first, SBR, ``n >= 3``.
        level: confidence level of the bands.
        title, label: headline; what the data are.

    Raises:
        CohortError: shapes that do not fit or too few patients.
        MissingExtraError: matplotlib is not installed.
    """
    y, p = _both_sides(truth, predicted)
    found = bland_altman_clustered(y, p, level)
    mean, difference = (y + p) / 2, p - y
    with styled():
        figure = new_figure(6.6, 4.1, title, label)
        axes = figure.subplots()
        for value, interval, name, dash in (
            (found.upper, found.upper_ci, "bias + 1.96 SD", (0, (6, 2))),
            (found.bias, found.bias_ci, "bias", "-"),
            (found.lower, found.lower_ci, "bias \N{MINUS SIGN} 1.96 SD", (0, (6, 2))),
        ):
            axes.axhspan(*interval, color="#8f8f8f", alpha=0.22, lw=0, zorder=1)
            axes.axhline(value, color=_DARK, lw=1.2, ls=dash, zorder=2)
            axes.annotate(
                f"{name}\n{_signed(value)} ({_signed(interval[0])} to {_signed(interval[1])})",
                (1.01, value),
                xycoords=("axes fraction", "data"),
                va="center",
                fontsize=8,
            )
        axes.axhline(0, color=GREY, lw=0.7, zorder=1)
        if np.isfinite(found.slope):
            ends = np.array([mean.min(), mean.max()])
            line = found.bias + found.slope * (ends - mean.mean())
            axes.plot(ends, line, color=_DARK, lw=1, ls=(0, (1, 1.5)), zorder=2)
        for side in Side:
            _points(axes, mean[:, side.index], difference[:, side.index], side, name=side.value)
        drawn = [difference.min(), difference.max(), found.lower_ci[0], found.upper_ci[1]]
        margin = 0.06 * (max(drawn) - min(drawn)) or 1.0
        axes.set(
            ylim=(min(drawn) - margin, max(drawn) + margin),
            xlabel="Mean of predicted and reference SBR",
            ylabel="Predicted \N{MINUS SIGN} reference SBR",
        )
        axes.legend(
            loc="lower left",
            ncols=2,
            handletextpad=0.1,
            title=f"{found.n_patients} patients; bands: {100 * level:g} % intervals; dotted: slope "
            f"{_signed(found.slope)} ({_signed(found.slope_ci[0])} to {_signed(found.slope_ci[1])})",
            title_fontsize=8,
            alignment="left",
            bbox_to_anchor=(0, 1.0),
        )
        return figure


def sharpness_cp_figure(
    curves: Mapping[str, tuple[SharpnessCurve, SharpnessCurve]],
    *,
    cp: float = 0.95,
    criterion: Criterion = "ideal_distance",
    title: str = "Sharpness against coverage",
    label: str = "",
) -> Figure:
    """The sharpness-CP curves of several methods, one panel a side, with two points marked on each.

    The star is the optimum over both sides (:func:`nigradat.metrics.intervals.optimal_point`), the dot is
    "Sharpness @ CP" (left out where no width reaches it). Further up and further right is better.

    Args:
        curves: by method, at most five: the curves of right and left, ``(n + 1,)`` each.
        cp: where the dot stands.
        criterion: of the optimum.
        title, label: headline; what the data are.

    Raises:
        ConfigError: no curves, too many, or ``cp`` outside 0..1.
        MissingExtraError: matplotlib is not installed.
    """
    if not 1 <= len(curves) <= len(METHOD_STYLE):
        raise ConfigError(f"curves of {len(curves)} methods", f"1 to {len(METHOD_STYLE)} in one figure")
    with styled():
        figure = new_figure(7.2, 3.6 + 0.2 * len(curves), title, label)
        grid = figure.add_gridspec(2, 2, height_ratios=[15, len(curves)])
        first = figure.add_subplot(grid[0, 0])
        panels = (first, figure.add_subplot(grid[0, 1], sharex=first, sharey=first))
        panels[1].tick_params(labelleft=False)
        optimum = {name: optimal_point(*both, criterion=criterion).sides for name, both in curves.items()}
        lowest = 1.0
        for side, axes in zip(Side, panels, strict=True):
            axes.axvline(cp, color=GREY, lw=0.9, ls=(0, (2, 2)), zorder=1)
            for (name, both), (colour, dash) in zip(curves.items(), METHOD_STYLE, strict=False):
                curve = both[side.index]
                finite = np.isfinite(curve.k)
                axes.plot(curve.cp[finite], curve.sharpness[finite], color=colour, ls=dash, lw=1.4)
                best, there = optimum[name][side], float(sharpness_at_cp(curve, cp))
                axes.plot(best.cp, best.sharpness, "*", ms=11, mfc=colour, mec="white", mew=0.8, zorder=4)
                lowest = min(lowest, best.sharpness)
                if np.isfinite(there):
                    axes.plot(cp, there, "o", ms=6, mfc=colour, mec="white", mew=0.8, zorder=4)
                    lowest = min(lowest, there)
            axes.set(title=f"{side.value.capitalize()} striatum", xlabel="CP (share of patients inside)")
        # what lies far beyond the marked points is not what the figure is about
        panels[0].set(
            xlim=(0.4, 1.01), ylim=(lowest - 0.1, 1.0), ylabel="Sharpness (1 \N{MINUS SIGN} half-width / scale)"
        )
        _method_key(figure.add_subplot(grid[1, :]), curves, optimum, cp)
        return figure


def training_figure(
    epoch: npt.ArrayLike,
    panels: Mapping[str, Mapping[str, npt.ArrayLike]],
    *,
    best_epoch: float | None = None,
    title: str = "Training",
    label: str = "",
) -> Figure:
    """Curves over the epochs, one panel for each quantity.

    Args:
        epoch: shape ``(n,)``.
        panels: by the quantity's name (the axis label, with its unit): named series of shape ``(n,)``; nan where an
            epoch has no value.
        best_epoch: whose weights were kept; marked by a vertical line.
        title, label: headline; what the data are.

    Raises:
        ConfigError: no panel.
        CohortError: a series whose shape is not that of ``epoch``.
        MissingExtraError: matplotlib is not installed.
    """
    if not panels:
        raise ConfigError("no quantity to draw", "at least one panel")
    with styled():
        figure = new_figure(0.6 + 3.3 * len(panels), 3.2, title, label)
        for axes, (quantity, series) in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
        ):
            for (name, values), (colour, dash) in zip(series.items(), METHOD_STYLE, strict=False):
                x, v = cases(epoch, values)
                drawn = np.isfinite(v)
                # a lone point between epochs without value would be invisible as a line
                axes.plot(x[drawn], v[drawn], color=colour, ls=dash, label=name, marker="." if drawn.sum() < 3 else "")
            if best_epoch is not None:
                axes.axvline(best_epoch, color=GREY, lw=0.9, ls=(0, (2, 2)), label=f"kept: epoch {best_epoch:g}")
            axes.set(xlabel="Epoch", ylabel=quantity)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.legend()
        return figure


@dataclass(frozen=True)
class Convergence:
    """The course of one training.

    Attributes:
        epoch: ``(n,)``, from 1.
        train_rmse: ``(n,)`` SBR that the training loss amounts to.
        stop_rmse: ``(n,)`` SBR on the stopping patients; nan where an epoch has none.
        best_epoch: whose weights were kept; None where it is not known.
    """

    epoch: npt.ArrayLike
    train_rmse: npt.ArrayLike
    stop_rmse: npt.ArrayLike
    best_epoch: float | None = None


def forest_figure(
    panels: Mapping[str, Mapping[str, Estimate]],
    *,
    lines: Mapping[str, Mapping[str, float]] | None = None,
    stacked: bool = False,
    title: str = "Methods with their intervals",
    label: str = "",
) -> Figure:
    """Estimates with their intervals, one line a name and one panel a quantity.

    Args:
        panels: by quantity (axis label): estimates by name, in order of first appearance.
        lines: by quantity: vertical lines by name, for example a bound or no difference.
        stacked: panels one below another, each with its own names; else side by side with the names in common, where a
            name without an estimate of a quantity has no mark in its panel.
        title, label: headline; what the data are.

    Raises:
        ConfigError: no panel, or no estimate in any.
        MissingExtraError: matplotlib is not installed.
    """
    names = list(dict.fromkeys(name for panel in panels.values() for name in panel))
    if not names:
        raise ConfigError("no estimate to draw", "at least one")
    with styled():
        if stacked:
            rows = [len(panel) + 1 for panel in panels.values()]
            figure = new_figure(8.4, 0.4 + 0.24 * sum(rows) + 0.6 * len(panels), title, label)
            drawn = figure.subplots(len(panels), 1, squeeze=False, height_ratios=rows)[:, 0]
        else:
            width = 1.2 + 0.065 * max(map(len, names)) + 2.3 * len(panels)
            figure = new_figure(width, 1.3 + 0.24 * len(names), title, label)
            drawn = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (quantity, estimates) in zip(drawn, panels.items(), strict=True):
            _forest(axes, list(estimates) if stacked else names, estimates, (lines or {}).get(quantity, {}))
            axes.set_xlabel(quantity)
        return figure


def convergence_figure(
    courses: Mapping[str, Sequence[Convergence]], *, title: str = "Convergence of every fit", label: str = ""
) -> Figure:
    """Training and stopping RMSE of every fit, one panel a method; a dot marks the epoch that was kept.

    Args:
        courses: by method.
        title, label: headline; what the data are.

    Raises:
        ConfigError: nothing to draw.
        CohortError: a series whose shape is not that of its epochs.
        MissingExtraError: matplotlib is not installed.
    """
    if not any(courses.values()):
        raise ConfigError("no training to draw", "at least one")
    across = min(3, len(courses))
    down = -(-len(courses) // across)
    with styled():
        figure = new_figure(0.6 + 2.5 * across, 0.9 + 1.9 * down, title, label)
        panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
        heights: list[Array] = []
        for axes, (name, fits) in zip(panels.flat, courses.items(), strict=False):
            faint = float(np.clip(2.5 / np.sqrt(max(len(fits), 1)), 0.15, 0.9))
            for i, fit in enumerate(fits):
                epoch, train, stop = cases(fit.epoch, fit.train_rmse, fit.stop_rmse)
                seen = np.isfinite(stop)
                key = {"label": "training loss"} if i == 0 else {}
                axes.plot(epoch, train, color=GREY, lw=0.8, ls=(0, (2, 1)), alpha=faint, **key)
                key = {"label": "stopping patients"} if i == 0 else {}
                axes.plot(epoch[seen], stop[seen], color=SIDE_COLOUR[Side.RIGHT], lw=1.0, alpha=faint, **key)
                heights += [train[np.isfinite(train)], stop[seen]]
                kept = epoch == fit.best_epoch
                axes.plot(epoch[kept], stop[kept], "o", ms=3.5, color=SIDE_COLOUR[Side.LEFT], zorder=4)
            axes.set_title(
                textwrap.fill(f"{name}, n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{len(fits)}", 30), loc="left", fontsize=8
            )
        values = np.concatenate(heights)
        # a first epoch far off would press all others to the floor
        panels[0, 0].set_ylim(0, 1.1 * float(np.percentile(values, 98)) if values.size else 1)
        panels[0, 0].xaxis.get_major_locator().set_params(integer=True)
        panels[0, 0].legend(loc="lower left", fontsize=7, borderaxespad=0.2)
        for axes in panels.flat[len(courses) :]:
            axes.set_axis_off()
        figure.supylabel("RMSE (SBR)", fontsize=9)
        for axes in panels.flat[max(0, len(courses) - across) : len(courses)]:
            axes.set_xlabel("Epoch")
            axes.tick_params(labelbottom=True)
        return figure


# -- Output -------------------------------------------------------------------------------------------------------


def sweep_figure(
    values: Sequence[str],
    panels: Mapping[str, Sequence[Estimate | None]],
    *,
    parameter: str,
    default: int | None = None,
    title: str = "Dependency on a hyper-parameter",
    label: str = "",
) -> Figure:
    """Estimates with their intervals over the values of one hyper-parameter, one panel a quantity.

    Args:
        values: as they are typed, in order, evenly spaced on the axis.
        panels: by the quantity's name (axis label): one estimate a value; None where there is none.
        parameter: name of the axis.
        default: position of the recipe's own value, drawn filled; the others are hollow.
        title, label: headline; what the data are.

    Raises:
        ConfigError: no panel.
        CohortError: a panel without an estimate, or None, for each value.
        MissingExtraError: matplotlib is not installed.
    """
    if not panels:
        raise ConfigError("no quantity to draw", "at least one panel")
    if any(len(found) != len(values) for found in panels.values()):
        raise CohortError(f"panels of other lengths than {len(values)} values", "an estimate, or None, for each value")
    with styled():
        figure = new_figure(0.6 + 2.4 * len(panels), 3.0, title, label)
        for axes, (quantity, found) in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
        ):
            x = np.array([i for i, e in enumerate(found) if e is not None])
            y, low, high = (np.array([getattr(e, k) for e in found if e is not None]) for k in ("value", "low", "high"))
            axes.plot(x, y, color=GREY, lw=0.9, zorder=1)
            axes.errorbar(x, y, np.abs([y - low, high - y]), fmt="o", color=_DARK, mfc="white", capsize=2, zorder=2)
            own = x == default
            axes.plot(x[own], y[own], "o", color=_DARK, zorder=3)
            axes.set(xlabel=parameter, ylabel=quantity, xlim=(-0.5, len(values) - 0.5))
            axes.set_xticks(range(len(values)), values, rotation=45 if max(map(len, values)) > 5 else 0)
        return figure


def figure_svg(figure: Figure, description: str = "") -> str:
    """A figure as SVG text for inlining in HTML: no prolog, no date, and ids that no other inline SVG has.

    The same figure gives the same text in every run. ``description`` becomes the SVG's title, which a screen reader
    speaks.
    """
    buffer = io.StringIO()
    metadata = {"Date": None, "Creator": None} | ({"Title": description} if description else {})
    with styled():
        figure.savefig(buffer, format="svg", metadata=metadata)
    text = buffer.getvalue()
    svg = text[text.index("<svg") :]
    prefix = f"n{hashlib.sha256(svg.encode()).hexdigest()[:10]}-"
    svg = re.sub(r'(\sid=")([^"]+")', rf"\g<1>{prefix}\g<2>", svg)
    return re.sub(r'(url\(#|href="#)', rf"\g<1>{prefix}", svg)


def figure_png(figure: Figure, dpi: int = 200) -> bytes:
    """A figure as PNG; the same figure gives the same bytes in every run of one matplotlib."""
    buffer = io.BytesIO()
    with styled():
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


# -- Parts --------------------------------------------------------------------------------------------------------


def styled() -> Any:
    """The house's look as a context manager. Raises :class:`~nigradat.errors.MissingExtraError` without matplotlib."""
    try:
        from matplotlib import rc_context
    except ImportError as error:
        raise MissingExtraError("matplotlib", "report") from error
    return rc_context(_STYLE)


def new_figure(width_in: float, height_in: float, title: str, label: str) -> Figure:
    """An empty figure with its headline and, in red, what the data are. Inside :func:`styled`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    if label:
        figure.supxlabel(label, x=0.01, ha="left", fontsize=8, color="#9c1c1c")
    return figure


def _points(axes: Axes, x: Array, y: Array, side: Side, name: str | None = None) -> None:
    many = x.size > _MANY
    axes.scatter(
        x,
        y,
        s=9 if many else 22,
        marker=SIDE_MARKER[side],
        facecolor=SIDE_COLOUR[side],
        edgecolor="none" if many else "white",
        linewidth=0.5,
        alpha=float(np.clip(14 / np.sqrt(x.size), 0.25, 0.9)),
        zorder=3,
        label=name,
        rasterized=many,
    )


def _intervals(axes: Axes, side: Side, x: Array, y: Array, low: Array, high: Array) -> None:
    missed = (x < low) | (x > high)
    if x.size <= _MOST_BARS:
        axes.vlines(x[~missed], low[~missed], high[~missed], color=SIDE_COLOUR[side], lw=0.8, alpha=0.25, zorder=2)
        axes.vlines(x[missed], low[missed], high[missed], color=_DARK, lw=1.1, zorder=2.5)
    else:
        many = x.size > _MANY
        axes.plot(
            x[missed],
            y[missed],
            SIDE_MARKER[side],
            ms=3 if many else 4.7,
            mfc=_DARK,
            mec="white",
            mew=0.3,
            ls="",
            zorder=3.5,
            rasterized=many,
        )


def _forest(axes: Axes, names: Sequence[str], estimates: Mapping[str, Estimate], lines: Mapping[str, float]) -> None:
    for (name, value), dash in zip(lines.items(), _LINE_DASHES, strict=False):
        axes.axvline(value, color=GREY, lw=1, ls=dash, zorder=1, label=name)
    for row, name in enumerate(names):
        estimate = estimates.get(name)
        if estimate is None or not np.isfinite(estimate.value):
            continue
        if np.isfinite(estimate.low) and np.isfinite(estimate.high):
            axes.plot([estimate.low, estimate.high], [row, row], color=_DARK, lw=1.3, zorder=2)
        axes.plot(estimate.value, row, "s", ms=4.5, color=SIDE_COLOUR[Side.RIGHT], zorder=3)
    axes.set(ylim=(len(names) - 0.4, -0.6), yticks=range(len(names)), yticklabels=names)
    axes.tick_params(axis="y", length=0)
    axes.locator_params(axis="x", nbins=5)
    if lines:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0.2, handlelength=1.6)


def _method_key(
    axes: Axes,
    curves: Mapping[str, tuple[SharpnessCurve, SharpnessCurve]],
    optimum: Mapping[str, PerSide[Any]],
    cp: float,
) -> None:
    from matplotlib.lines import Line2D

    handles = []
    for (name, both), (colour, dash) in zip(curves.items(), METHOD_STYLE, strict=False):
        best = optimum[name].average
        there = float(np.mean([sharpness_at_cp(curve, cp) for curve in both]))
        reached = f"{there:.3f} at CP {cp:g}" if np.isfinite(there) else f"not reached at CP {cp:g}"
        text = f"{name}: optimum {best.sharpness:.3f} at CP {best.cp:.3f}; {reached} (averages)"
        handles.append(Line2D([], [], color=colour, ls=dash, lw=1.4, marker="*", ms=8, mec="white", label=text))
    axes.axis("off")
    axes.legend(handles=handles, loc="upper left", handlelength=4, borderaxespad=0)


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "\N{MINUS SIGN}")


def _both_sides(*arrays: npt.ArrayLike) -> tuple[Array, ...]:
    checked = cases(*arrays)
    if checked[0].ndim != 2 or checked[0].shape[1] != 2:
        raise CohortError(f"arrays of shape {checked[0].shape}", "shape (n, 2), right first")
    return checked
