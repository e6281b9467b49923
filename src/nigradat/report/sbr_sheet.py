"""The sheet of one DaT-SPECT: its SBR as a table, the regions on the scan, and everything as JSON."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from nigradat.anatomy import Side
from nigradat.evaluation.figures import SIDE_COLOUR, figure_png, new_figure, styled
from nigradat.io.files import new_folder, write_json
from nigradat.spect.sbr import SbrMeasurement, regions_of
from nigradat.spect.volumes_of_interest import Atlas, Part, Region, own_atlas
from nigradat.volume import Volume

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Float64 = npt.NDArray[np.float64]
ZScores = Mapping[Part, tuple[float | None, float | None]]

RESEARCH_ONLY: Final = "Research use only: not for decisions about a patient."
_AXIAL_MM: Final = (-8.0, -2.0, 4.0, 10.0, 16.0)
_LOW_MM, _HIGH_MM = (-84.0, -116.0, -60.0), (84.0, 84.0, 84.0)
_STEP_MM: Final = 2.0
_REFERENCE_COLOUR: Final = "#009E73"


def sbr_rows(found: SbrMeasurement, scores: ZScores | None = None) -> tuple[list[str], list[list[str]]]:
    """Heading and lines of the table: a line for each part."""
    heading = ["part", "right", "left", "asymmetry (%)", *(["z right", "z left"] if scores else [])]
    rows = []
    for part in found.parts:
        z = [_number(value, "+.2f") for value in scores.get(part.part, (None, None))] if scores else []
        rows.append([part.part, f"{part.right:.3f}", f"{part.left:.3f}", _number(part.asymmetry_percent, ".1f"), *z])
    if (ratio := found.putamen_caudate_ratio) is not None:
        rows.append(
            ["putamen / caudate", *(_number(value, ".3f") for value in ratio), "", *(["", ""] if scores else [])]
        )
    return heading, rows


def sbr_figure(scan: Volume, found: SbrMeasurement, atlas: Atlas | None = None) -> Figure:
    """The regions on the scan: axial slices in MNI, the patient's right on the left, and R and L beside each.

    The scan is interpolated for this picture; the numbers come from its own voxels.

    Args:
        scan: that was measured.
        found: what was measured in it.
        atlas: the one it was measured with; default our own.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    image = _in_mni(scan, found.alignment.scan_from_mni)
    regions = regions_of(found.recipe, atlas or own_atlas())
    striatum = found["striatum"]
    title = f"SBR right {striatum.right:.2f}, left {striatum.left:.2f}  ({found.recipe.describe()})"
    notes = [
        *filter(None, [str(found.source.attributes.get("phantom", ""))]),
        *(note.rstrip(".") for note in found.alignment.notes),
        "Blue right, orange left, green reference",
        RESEARCH_ONLY,
    ]
    with styled():
        figure = new_figure(9.6, 3.3, title, ". ".join(notes))
        panels = figure.subplots(1, len(_AXIAL_MM) + 1, width_ratios=[1.0] * len(_AXIAL_MM) + [0.8])
        top = float(np.percentile(image, 99.9))
        for axes, height in zip(panels, _AXIAL_MM, strict=False):
            k = round((height - _LOW_MM[2]) / _STEP_MM)
            _slice(axes, image[:, :, k], 2, height, regions, top, f"z = {height:+.0f} mm")
        j = round((4.0 - _LOW_MM[1]) / _STEP_MM)
        _slice(panels[-1], image[:, j, :], 1, 4.0, regions, top, "y = +4 mm")
        return figure


def write_sbr(
    out: str | os.PathLike[str],
    scan: Volume,
    found: SbrMeasurement,
    *,
    atlas: Atlas | None = None,
    scores: ZScores | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Path:
    """Write ``sbr.tsv``, ``sbr.json`` and ``sbr.png`` into a new folder.

    Args:
        out: new or empty.
        scan, found, atlas: as for :func:`sbr_figure`.
        scores: z-scores by part.
        facts: added to the JSON, such as the tracer.

    Raises:
        OutputError: the folder is in use, or the disk does not take it.
        MissingExtraError: matplotlib is not installed.
    """
    heading, rows = sbr_rows(found, scores)
    picture = figure_png(sbr_figure(scan, found, atlas))
    target = Path(out)
    with new_folder(target) as folder:
        text = "".join("\t".join(cell or "n/a" for cell in line) + "\n" for line in (heading, *rows))
        (folder / "sbr.tsv").write_text(text, encoding="utf-8")
        write_json(folder / "sbr.json", sbr_facts(found, scores, facts))
        (folder / "sbr.png").write_bytes(picture)
    return target


def sbr_facts(
    found: SbrMeasurement, scores: ZScores | None = None, facts: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Everything about a measurement, for JSON."""
    from importlib import metadata

    shown = found.to_json() | dict(facts or {})
    if scores is not None:
        shown["z_scores"] = {part: {"right": z[0], "left": z[1]} for part, z in scores.items()}
    return shown | {"nigradat": metadata.version("nigradat"), "use": RESEARCH_ONLY}


def _number(value: float | None, form: str) -> str:
    return "n/a" if value is None or not np.isfinite(value) else format(value, form)


def _in_mni(scan: Volume, scan_from_mni: Float64) -> Float64:
    from scipy import ndimage

    shape = tuple(round((high - low) / _STEP_MM) + 1 for low, high in zip(_LOW_MM, _HIGH_MM, strict=True))
    to_index = np.linalg.inv(scan.affine) @ scan_from_mni @ _grid()
    seen: Float64 = ndimage.affine_transform(
        scan.data.astype(np.float64), to_index[:3, :3], to_index[:3, 3], output_shape=shape, order=1
    )
    return seen


def _grid() -> Float64:
    grid = np.diag([_STEP_MM] * 3 + [1.0])
    grid[:3, 3] = _LOW_MM
    return grid


def _slice(
    axes: Axes,
    image: Float64,
    axis: int,
    at_mm: float,
    regions: tuple[tuple[Region, Side | None], ...],
    top: float,
    name: str,
) -> None:
    """One slice across ``axis`` with the regions' outlines, the patient's right on the left, as radiologists look."""
    others = [i for i in range(3) if i != axis]
    ticks = [np.arange(_LOW_MM[i], _HIGH_MM[i] + _STEP_MM / 2, _STEP_MM) for i in others]
    fine = [np.arange(t[0], t[-1] + 0.25, 0.5) for t in ticks]
    extent = (ticks[0][0] - 1, ticks[0][-1] + 1, ticks[1][0] - 1, ticks[1][-1] + 1)
    axes.imshow(image.T, origin="lower", extent=extent, cmap="gray_r", vmin=0.0, vmax=top, interpolation="bilinear")
    u, v = np.meshgrid(*fine, indexing="xy")
    points = np.empty((u.size, 3))
    points[:, others[0]], points[:, others[1]], points[:, axis] = u.ravel(), v.ravel(), at_mm
    for region, side in reversed(regions):  # the reference below the sides
        inside = region.contains(points).reshape(u.shape)
        if inside.any():
            colour = _REFERENCE_COLOUR if side is None else SIDE_COLOUR[side]
            axes.contour(u, v, inside, levels=[0.5], colors=[colour], linewidths=1.0)
    axes.set(xlim=(extent[1], extent[0]), ylim=extent[2:], xticks=[], yticks=[], title=name)
    axes.title.set_fontsize(8)
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    for side, x, align in ((Side.RIGHT, 0.02, "left"), (Side.LEFT, 0.98, "right")):
        axes.text(
            x, 0.98, side.value[0].upper(), transform=axes.transAxes, ha=align, va="top",
            color=SIDE_COLOUR[side], fontweight="bold", fontsize=11,
        )  # fmt: skip
