"""Features of a cohort as tables, figures and files."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from nigradat.anatomy import Side
from nigradat.evaluation.figures import (
    GREY,
    METHOD_STYLE,
    SIDE_COLOUR,
    SIDE_MARKER,
    figure_png,
    figure_svg,
    new_figure,
    styled,
)
from nigradat.evaluation.table import Cell, Column, Row, Table
from nigradat.explain.embedding import SCORES, FeatureMap, FeatureMaps
from nigradat.io.files import new_folder, write_json, write_text
from nigradat.training.split import PARTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

COLOURS: Final = "viridis"
_MANY: Final = 1000  # points: above it they are drawn as one picture, or an SVG grows to megabytes
_ENDS: Final = ("right", "left", "average")
_PART_COLOUR: Final = dict(zip(PARTS, (colour for colour, _ in METHOD_STYLE[1:]), strict=True))


@dataclass(frozen=True, eq=False)
class _Colouring:
    """One column of a figure: which points, and by what they are coloured (``sbr``, ``side`` or ``part``)."""

    by: str
    title: str
    sides: tuple[Side, ...]


# -- Tables -------------------------------------------------------------------------------------------------------


def neighbour_table(found: FeatureMaps) -> Table:
    """How well neighbours in each model's feature space agree in SBR, for each side and their mean."""
    rows = []
    for model in found.models:
        for end in _ENDS:
            cells = [Cell.of(getattr(model.scores[name], end), 2) for name in SCORES]
            if any(cell.value is not None for cell in cells):
                rows.append(Row(f"{model.title}, {end}", tuple(cells)))
    for end in _ENDS:
        chance = (Cell(0.0, digits=2), Cell(), Cell(getattr(found.chance_mae, end), digits=2), Cell(), Cell())
        rows.append(Row(f"all other patients, {end}", chance, "baseline"))
    k = found.models[0].neighbours.k
    notes = [
        f"Neighbours: the {k} nearest of the same side of other patients, by Euclidean distance in the whole feature "
        "space. R and MAE of their mean SBR, and of the network's own answer, against the label.",
        "Agreement: 1 - (mean difference of the labels of neighbours) / (that of all other patients). Chance is 0.",
        f"{len(found.participants)} visits ({_which(found)}). Intervals: 95 % bootstrap over patients, the "
        "neighbours as they are.",
    ]
    return Table(
        "neighbours",
        "Do sides with alike features have alike SBR?",
        "Features of",
        (
            Column("agreement", "neighbours'"),
            Column("R", "neighbours'"),
            Column("MAE", "neighbours'"),
            Column("R", "network's"),
            Column("MAE", "network's"),
        ),
        tuple(rows),
        tuple(notes),
        found.label,
    )


def coordinates_tsv(found: FeatureMaps, model: FeatureMap) -> str:
    """One line a side: who, label, what the neighbours and the network say, and the place on both planes."""
    text = io.StringIO()
    out = csv.writer(text, delimiter="\t", lineterminator="\n")
    columns = ("tsne_1", "tsne_2", "pca_1", "pca_2")
    what = ("sbr", "sbr_predicted", "sbr_of_neighbours")
    out.writerow(["participant_id", "session_id", "side", "part", *what, *columns, "data"])
    for i, (person, part) in enumerate(zip(found.participants, found.parts, strict=True)):
        for side in Side:
            at = (i, side.index)
            if np.isfinite(model.tsne[at]).all():
                values = (found.sbr[at], model.predicted[at], model.neighbours.predicted[at])
                numbers = (f"{value:.6g}" for value in (*values, *model.tsne[at], *model.pca[at]))
                who = (person.participant_id, person.session_id, side.value, part)
                out.writerow([*who, *numbers, found.label or "patients"])
    return text.getvalue()


# -- Figures ------------------------------------------------------------------------------------------------------


def feature_figure(found: FeatureMaps, model: FeatureMap) -> Figure:
    """One model's features on both planes, coloured by SBR, by side and, where there are several, by part.

    A model with one network for each side has a plane for each, since their features have nothing in common.
    """
    columns = _colourings(found, model)
    with styled():
        norm = _sbr_range(found)
        figure = new_figure(0.9 + 2.5 * len(columns), 5.9, f"What the network sees alike: {model.title}", found.label)
        panels = figure.subplots(2, len(columns), squeeze=False)
        for row, (plane, coordinates) in enumerate((("t-SNE", model.tsne), ("PCA", model.pca))):
            for axes, column in zip(panels[row], columns, strict=True):
                _scatter(axes, found, coordinates, column, norm)
                _axis_names(axes, plane, model.explained[column.sides[0].index])
                if row == 0:
                    axes.set_title(column.title, loc="left")
                else:
                    _key(axes, column, found)
        by_sbr = [panels[:, i] for i, column in enumerate(columns) if column.by == "sbr"]
        _colour_bar(figure, np.concatenate(by_sbr).tolist(), norm)
        return figure


def comparison_figure(found: FeatureMaps) -> Figure:
    """The t-SNE planes of all models, one row a model, one column a side, coloured by SBR.

    Where a model has one network for both sides, the other side's points stand behind in grey.
    """
    with styled():
        norm = _sbr_range(found)
        figure = new_figure(
            6.6, 0.9 + 2.6 * len(found.models), "Features by t-SNE: neighbours' agreement in SBR", found.label
        )
        panels = figure.subplots(len(found.models), 2, squeeze=False)
        for row, model in zip(panels, found.models, strict=True):
            for side, axes in zip(Side, row, strict=True):
                if not np.isfinite(model.tsne[:, side.index]).all():
                    axes.set_axis_off()
                    axes.text(0.5, 0.5, f"{model.title} does not\nanswer for the {side.value} side", ha="center")
                    continue
                if model.joint:
                    _dots(axes, model.tsne[:, side.other.index], side.other, color="#d9d9d9")
                _scatter(axes, found, model.tsne, _Colouring("sbr", "", (side,)), norm)
                agreement = Cell.of(model.scores["agreement"][side], 2)
                axes.set_title(f"{model.title}, {side.value}", loc="left")
                axes.set_xlabel(f"agreement {agreement.text} {agreement.interval}, chance 0")
                axes.set(xticks=[], yticks=[])
        _colour_bar(figure, panels.ravel().tolist(), norm)
        return figure


# -- Files --------------------------------------------------------------------------------------------------------


def write_features(out: Path, found: FeatureMaps) -> Path:
    """Everything as a new folder: ``neighbours.csv`` and ``.json``; for each model ``coordinates-NAME.tsv`` and
    ``features-NAME.png`` and ``.svg``; with several models ``comparison.png`` and ``.svg``.

    Raises:
        OutputError: the folder is in use, or the disk does not take it.
        MissingExtraError: matplotlib is not installed.
    """
    table = neighbour_table(found)
    with new_folder(out) as hidden:
        write_text(hidden / "neighbours.csv", table.to_csv())
        write_json(hidden / "neighbours.json", summary(found))
        for model in found.models:
            write_text(hidden / f"coordinates-{model.name}.tsv", coordinates_tsv(found, model))
            _save(hidden / f"features-{model.name}", feature_figure(found, model), f"Features of {model.title}")
        if len(found.models) > 1:
            _save(hidden / "comparison", comparison_figure(found), "Features of several models by t-SNE")
    return out


def summary(found: FeatureMaps) -> dict[str, Any]:
    """The measures with all digits, and how they were made."""
    return {
        "label": found.label,
        "subset": found.subset,
        "visits": len(found.participants),
        "visits_available": found.available,
        "neighbours": found.models[0].neighbours.k,
        "perplexity": found.perplexity,
        "seed": found.seed,
        "models": [
            {
                "name": model.name,
                "title": model.title,
                "one_space_for_both_sides": model.joint,
                "pca_explained": {side.value: model.explained[side.index] for side in Side},
                "scores": model.scores,
            }
            for model in found.models
        ],
        "chance": {"agreement": 0.0, "mae": found.chance_mae},
    }


# -- Parts --------------------------------------------------------------------------------------------------------


def _which(found: FeatureMaps) -> str:
    part = "the whole cohort" if found.subset == "all" else f"the part '{found.subset}' of the cohort"
    return f"evenly spaced among the {found.available} of {part}" if found.available > len(found.participants) else part


def _save(place: Path, figure: Figure, description: str) -> None:
    place.with_name(f"{place.name}.png").write_bytes(figure_png(figure))
    write_text(place.with_name(f"{place.name}.svg"), figure_svg(figure, description))


def _colourings(found: FeatureMaps, model: FeatureMap) -> list[_Colouring]:
    sides = tuple(side for side in Side if np.isfinite(model.tsne[:, side.index]).all())
    several = len(set(found.parts)) > 1
    if model.joint:
        columns = [_Colouring("sbr", "by SBR", sides), _Colouring("side", "by side", sides)]
        return [*columns, _Colouring("part", "by part", sides)] if several else columns
    columns = [_Colouring("sbr", f"{side.value} network, by SBR", (side,)) for side in sides]
    return columns + [_Colouring("part", f"{side.value} network, by part", (side,)) for side in sides if several]


def _scatter(axes: Axes, found: FeatureMaps, coordinates: Array, column: _Colouring, norm: Normalize) -> None:
    parts = np.array(found.parts)
    for side in column.sides:
        places, labels = coordinates[:, side.index], found.sbr[:, side.index]
        if column.by == "sbr":
            _dots(axes, places, side, c=labels, cmap=COLOURS, norm=norm)
        elif column.by == "side":
            _dots(axes, places, side, color=SIDE_COLOUR[side])
        else:
            for part in dict.fromkeys(found.parts):
                _dots(axes, places[parts == part], side, color=_PART_COLOUR.get(part, GREY))


def _dots(axes: Axes, places: Array, side: Side, **how: Any) -> None:
    many = len(places) > _MANY
    axes.scatter(
        places[:, 0],
        places[:, 1],
        s=5 if many else 16,
        marker=SIDE_MARKER[side],
        edgecolor="none",
        alpha=0.8,
        rasterized=many,
        **how,
    )


def _axis_names(axes: Axes, plane: str, explained: Array) -> None:
    if plane == "t-SNE":  # its units mean nothing
        axes.set(xticks=[], yticks=[], xlabel="t-SNE 1", ylabel="t-SNE 2")
    else:
        first, second = (f"PCA {i} ({100 * share:.0f} %)" for i, share in enumerate(explained, start=1))
        axes.set(xlabel=first, ylabel=second)


def _key(axes: Axes, column: _Colouring, found: FeatureMaps) -> None:
    """The names of sides or parts below a panel."""
    if column.by == "side":
        names = [(side.value, SIDE_COLOUR[side], SIDE_MARKER[side]) for side in column.sides]
    elif column.by == "part":
        names = [(part, _PART_COLOUR.get(part, GREY), "s") for part in dict.fromkeys(found.parts)]
    else:
        return
    for name, colour, marker in names:
        axes.plot([], [], ls="", marker=marker, color=colour, label=name)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, handletextpad=0.1)


def _sbr_range(found: FeatureMaps) -> Normalize:
    """The middle 96 % of the labels: a few high ones would leave all others one colour."""
    from matplotlib.colors import Normalize

    low, high = np.percentile(found.sbr, (2, 98))
    return Normalize(float(low), float(high))


def _colour_bar(figure: Figure, panels: Sequence[Axes], norm: Normalize) -> None:
    from matplotlib.cm import ScalarMappable

    bar = figure.colorbar(
        ScalarMappable(norm, COLOURS), ax=panels, location="bottom", shrink=0.7, pad=0.02, aspect=30, extend="both"
    )
    bar.set_label("Reference SBR")
