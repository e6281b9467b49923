"""Maps as figures and files: one patient's, and the averages over a cohort.

Every figure shows three planes through the place where nigrosome-1 is expected, seen as radiologists do: the patient's
right is on the left of axial and coronal planes. All panels of a figure share one signed colour scale in SBR. The
outline is nigrosome-1 as the digital phantom has it on average, not the patient's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from nigradat.anatomy import PATCH_SHAPE, PATCH_SPACING_MM, Side, mirror, nominal_affine
from nigradat.errors import ConfigError
from nigradat.evaluation.figures import figure_png, figure_svg, new_figure, styled
from nigradat.explain.attribution import Attribution
from nigradat.explain.average import AverageMap, AverageMaps
from nigradat.explain.hirescam import layer_in_words
from nigradat.io.files import new_folder, write_json
from nigradat.io.nifti import write_volume
from nigradat.models.weights import LoadedModel
from nigradat.pair import NigralPair
from nigradat.phantom.anatomy import N1_BIT, standard_shapes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = npt.NDArray[np.float64]

RESEARCH_ONLY: Final = "Research only, not for diagnosis."
COLOURS: Final = "RdBu_r"  # red adds, blue takes away; both can be told apart by colour-blind readers
OUTLINE: Final = "#f2c800"
_MOST_OPAQUE: Final = 0.8
_SPANNED: Final = 0.999  # share of the shown values that the colour scale spans
_SHOWN_RESIDUAL: Final = 0.005  # what rounds to 0.00 is not worth a line
_OUTLINED: Final = "where nigrosome-1 is expected (the digital phantom's average)"
_EDGES: Final[Any] = (  # left, right, top, bottom
    (0.03, 0.5, "left", "center"),
    (0.97, 0.5, "right", "center"),
    (0.5, 0.97, "center", "top"),
    (0.5, 0.03, "center", "bottom"),
)
_LETTER: Final[Any] = {
    "color": "white",
    "fontsize": 8,
    "fontweight": "bold",
    "bbox": {"facecolor": "black", "alpha": 0.45, "pad": 1, "edgecolor": "none"},
}


@dataclass(frozen=True)
class Plane:
    """How a plane of the patch is shown: the axis that it is cut across, and what its edges are.

    Attributes:
        name: of the plane.
        across: patch axis.
        edges: letters at the left, right, top and bottom edge.
    """

    name: str
    across: int
    edges: tuple[str, str, str, str]

    def cut(self, volume: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Mean of the two middle slices, between which the patch's centre lies; rows from the top, columns from the
        left of the picture."""
        middle = volume.shape[self.across] // 2
        two = np.take(volume, (middle - 1, middle), axis=self.across).mean(axis=self.across)
        if self.across == 2:
            return np.asarray(two[::-1])  # anterior up, the patient's right on the left
        if self.across == 0:
            return np.asarray(two.T)  # superior up
        return np.asarray(two[::-1].T)  # superior up, anterior on the left

    @property
    def extent_mm(self) -> tuple[float, float, float, float]:
        """Left, right, bottom and top edge in mm from the patch's centre."""
        wide = (1, 0, 1)[self.across]
        high = (2, 2, 0)[self.across]
        x, y = (PATCH_SHAPE[axis] * PATCH_SPACING_MM[axis] / 2 for axis in (wide, high))
        return -x, x, -y, y


PLANES: Final = (
    Plane("axial", 2, ("R", "L", "A", "P")),
    Plane("coronal", 0, ("R", "L", "S", "I")),
    Plane("sagittal", 1, ("A", "P", "S", "I")),
)


# -- One patient --------------------------------------------------------------------------------------------------


def attribution_figure(maps: Sequence[Attribution], pair: NigralPair, where: str, label: str) -> Figure:
    """Maps of one patient by one method at one layer: a row a side, on that side's own patch in native view.

    Args:
        maps: one or both sides'.
        pair: what they explain.
        where: the layer in words.
        label: what the data are; empty for patients.
    """
    with styled():
        title = f"What moves the prediction: {METHOD_TITLE[maps[0].method]}, {where}"
        figure = _new_figure(len(maps), title, _caption(label))
        panels = figure.subplots(len(maps), 3, squeeze=False)
        grids = [m.grid(pair.affines[m.side.index]) for m in maps]
        shown = [grid.shown(m.values) for m, grid in zip(maps, grids, strict=True)]
        limit = _limit(shown)
        outline = standard_shapes()[N1_BIT]
        for row, m, values in zip(panels, maps, shown, strict=True):
            n1 = outline if m.side is Side.LEFT else mirror(outline)
            _planes(row, pair.patch(m.side), values, n1, limit)
            row[0].set_ylabel(f"{m.side.value}\nSBR {m.prediction:.2f} =\n{_sum_in_words(m)}", **_ROW)
        _finish(figure, panels, limit, _size_mm(grids[0].step))
        return figure


METHOD_TITLE: Final = {
    "hirescam": "HiResCAM",
    "gradient": "Input x gradient",
    "deepshap": "DeepSHAP",
    "expected-gradients": "Expected gradients",
}
_ROW: Final[Any] = {"rotation": 0, "ha": "right", "va": "center", "fontsize": 8, "labelpad": 14}


def write_attributions(
    out: Path, maps: Sequence[Attribution], pair: NigralPair, loaded: LoadedModel, label: str
) -> dict[str, Any]:
    """Maps of one patient as a new folder: a NIfTI each, a PNG for each layer, and ``maps.json``.

    The NIfTI has the patch's own grid and affine, and SBR per voxel; ``nan`` nowhere, 0 where no cell lies.

    Returns:
        What ``maps.json`` holds.

    Raises:
        OutputError: the folder is in use, or the disk does not take it.
    """
    if not maps:
        raise ConfigError("no map to write", "at least one")
    listed = []
    with new_folder(out) as hidden:
        for m in maps:
            affine = pair.affines[m.side.index]
            name = f"{m.side.value}_{_file_name(m.method, m.layer)}.nii.gz"
            write_volume(hidden / name, m.on_voxels(affine).astype(np.float32), affine)
            listed.append(_described(m, m.grid(affine).step) | {"file": name})
        for layer in dict.fromkeys(m.layer for m in maps):
            same = [m for m in maps if m.layer == layer]
            where = layer_in_words(loaded.spec.tower, layer)
            png = figure_png(attribution_figure(same, pair, where, label))
            (hidden / f"{_file_name(same[0].method, layer)}.png").write_bytes(png)
        data = {
            "patient": pair.participant_id,
            "session": pair.session_id,
            "model": {"title": loaded.title, "sha256": loaded.card.get("sha256", {})},
            "unit": "SBR; in the NIfTI files SBR per voxel",
            "affine_is_nominal": pair.affine_is_nominal,
            "label": label,
            "use": RESEARCH_ONLY,
            "maps": listed,
        }
        write_json(hidden / "maps.json", data)
    return data


def _described(m: Attribution, step: Sequence[float]) -> dict[str, Any]:
    return {
        "side": m.side.value,
        "method": m.method,
        "layer": m.layer,
        "prediction": m.prediction,
        "baseline": m.baseline,
        "sum": float(m.values.sum()),
        "residual": m.residual,
        "cells": list(m.values.shape),
        "cell_mm": _size_mm(step),
        "cells_affine": m.affine,
    }


def _file_name(method: str, layer: str | None) -> str:
    return method if layer is None else f"{method}_{layer.replace('.', '-')}"


def _sum_in_words(m: Attribution) -> str:
    return _in_words(m.baseline, float(m.values.sum()), m.residual)


def _in_words(baseline: float, total: float, residual: float) -> str:
    lines = [f"{baseline:.2f} (baseline)", f"{total:+.2f} (map)"]
    if abs(residual) >= _SHOWN_RESIDUAL:
        lines.append(f"{residual:+.2f} (residual)")
    return "\n".join(lines)


# -- A cohort -----------------------------------------------------------------------------------------------------


def average_figure(found: AverageMaps, average: AverageMap, where: str, label: str) -> Figure:
    """The mean map of each third, on the mean patch of those sides; lowest SBR on top.

    Args:
        found: all averages.
        average: the layer to draw.
        where: that layer in words.
        label: what the data are; empty for patients.
    """
    with styled():
        one_side = np.isnan(found.baseline).any()
        caption = _caption(label, "" if one_side else "Right sides are mirrored to look like left ones")
        figure = _new_figure(3, f"Average map by SBR: HiResCAM, {where}", caption)
        panels = figure.subplots(3, 3)
        limit = _limit(list(average.cells))
        outline = standard_shapes()[N1_BIT]
        for row, group, image, values, total, residual in zip(
            panels, found.groups, found.image, average.cells, average.total, average.residual, strict=True
        ):
            _planes(row, image, values, outline, limit)
            words = (
                f"{group.name} third: {group.sides} sides,\nSBR {group.lowest:.2f} to {group.highest:.2f}\n\n"
                f"predicted {group.predicted:.2f} =\n"
                + _in_words(group.predicted - float(total) - float(residual), float(total), float(residual))
            )
            row[0].set_ylabel(words, **_ROW)
        _finish(figure, panels, limit, average.cell_mm)
        return figure


def write_average_maps(out: Path, found: AverageMaps, loaded: LoadedModel, label: str) -> dict[str, Any]:
    """Average maps as a new folder: a NIfTI for each group and layer, a PNG and an SVG a layer, and ``maps.json``.

    The NIfTI files hold SBR per voxel in the canonical view. Their affine places a left patch nominally: an average
    over patients has no place of its own.

    Returns:
        What ``maps.json`` holds.

    Raises:
        OutputError: the folder is in use, or the disk does not take it.
    """
    layers = []
    affine = nominal_affine(Side.LEFT)
    with new_folder(out) as hidden:
        for g, group in enumerate(found.groups):
            write_volume(hidden / f"{group.name}_image.nii.gz", found.image[g].astype(np.float32), affine)
        for average in found.maps:
            name = _file_name("hirescam", average.layer)
            for g, group in enumerate(found.groups):
                values = average.on_voxels[g].astype(np.float32)
                write_volume(hidden / f"{group.name}_{name}.nii.gz", values, affine)
            where = layer_in_words(loaded.spec.tower, average.layer)
            figure = average_figure(found, average, where, label)
            (hidden / f"{name}.png").write_bytes(figure_png(figure))
            described = f"Mean HiResCAM map ({where}) of the sides with low, middle and high SBR"
            (hidden / f"{name}.svg").write_text(figure_svg(figure, described), encoding="utf-8")
            layers.append(
                {
                    "layer": average.layer,
                    "cell_mm": average.cell_mm,
                    "sum": average.total,
                    "residual": average.residual,
                    "files": [f"{group.name}_{name}.nii.gz" for group in found.groups],
                }
            )
        data = {
            "model": {"title": loaded.title, "sha256": loaded.card.get("sha256", {})},
            "view": "canonical: right sides mirrored to look like left ones",
            "unit": "SBR; in the NIfTI files SBR per voxel",
            "subset": found.subset,
            "visits": found.visits,
            "groups": found.groups,
            "baseline": dict(zip((side.value for side in Side), found.baseline, strict=True)),
            "label": label,
            "use": RESEARCH_ONLY,
            "layers": layers,
        }
        write_json(hidden / "maps.json", data)
    return data


# -- Parts --------------------------------------------------------------------------------------------------------


def _caption(*sentences: str) -> str:
    return ". ".join((*(sentence for sentence in sentences if sentence), RESEARCH_ONLY))


def _new_figure(rows: int, title: str, caption: str) -> Figure:
    figure = new_figure(7.2, 1.0 + (1.6 if rows < 3 else 1.5) * rows, title, f"{caption}\n")  # a line for the legend
    figure.set_layout_engine("compressed")  # panels of fixed shape side by side, without gaps
    return figure


def _size_mm(step: Sequence[float]) -> tuple[float, float, float]:
    i, j, k = (round(s * mm, 6) for s, mm in zip(step, PATCH_SPACING_MM, strict=True))
    return i, j, k


def _limit(shown: Sequence[Array]) -> float:
    """End of a figure's colour scale: all but the few strongest of the values in its planes lie inside."""
    values = np.concatenate([np.abs(plane.cut(v)).ravel() for v in shown for plane in PLANES])
    return float(np.quantile(values[values > 0], _SPANNED)) if (values > 0).any() else 1.0


def _planes(
    row: Sequence[Axes], image: npt.NDArray[Any], values: Array, outline: npt.NDArray[Any], limit: float
) -> None:
    """The three planes of one patch: the image, the map over it (weak values let the image through), the outline."""
    dark, bright = np.percentile(image, [0.5, 99.5])
    for axes, plane in zip(row, PLANES, strict=True):
        extent = plane.extent_mm
        axes.imshow(plane.cut(image), cmap="gray", vmin=dark, vmax=bright, extent=extent, interpolation="bilinear")
        cut = plane.cut(values)
        alpha = _MOST_OPAQUE * np.sqrt(np.clip(np.abs(cut) / limit, 0, 1))
        axes.imshow(cut, cmap=COLOURS, vmin=-limit, vmax=limit, alpha=alpha, extent=extent, interpolation="nearest")
        axes.contour(plane.cut(outline), [0.5], colors=OUTLINE, linewidths=1.2, extent=extent, origin="upper")
        axes.set(xticks=[], yticks=[])
        axes.grid(False)
        axes.spines[:].set_visible(False)
        for letter, (x, y, horizontal, vertical) in zip(plane.edges, _EDGES, strict=True):
            axes.text(x, y, letter, transform=axes.transAxes, ha=horizontal, va=vertical, **_LETTER)


def _finish(figure: Figure, panels: Any, limit: float, cell_mm: Sequence[float]) -> None:
    """Names of the planes, one colour scale for all panels, and what the outline is."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.lines import Line2D

    for axes, plane in zip(panels[0], PLANES, strict=True):
        axes.set_title(plane.name, loc="center", fontsize=8, fontweight="normal")
    figure.legend(
        [Line2D([], [], color=OUTLINE)], [_OUTLINED], loc="outside lower left", frameon=False, borderaxespad=0.1
    )
    bar = figure.colorbar(ScalarMappable(Normalize(-limit, limit), COLOURS), ax=panels, shrink=0.85, aspect=30)
    size = " x ".join(f"{mm:g}" for mm in cell_mm)
    bar.set_label(f"SBR that {size} mm\ntake away (blue) or add (red)")
    bar.outline.set_visible(False)
