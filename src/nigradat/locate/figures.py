"""One picture to check a location by: both windows on the scan, marked R and L."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from nigradat.anatomy import PATCH_SHAPE, PATCH_SPACING_MM, Side, to_patch_axes
from nigradat.locate.registration import inverse, transform
from nigradat.volume import Volume, spacing_mm

Float64 = npt.NDArray[np.float64]

_COLOURS = {Side.RIGHT: "#1a85ff", Side.LEFT: "#e66100"}  # as everywhere, but brighter: for dark images
_REACH_MM = 40.0


def locate_png(volume: Volume, centres: Mapping[Side, Float64], title: str, notes: tuple[str, ...] = ()) -> bytes:
    """The scan through each centre along its own slices, from below: the patient's right is at the left of the page.

    Args:
        volume: the scan that the patches are cut from.
        centres: RAS+ mm.
        title: a line above.
        notes: lines below, for example the flags.

    Raises:
        OrientationError: tilted by more than 40 degrees.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    oriented, affine = to_patch_axes(volume.data, volume.affine)
    back = inverse(affine)
    index = {side: transform(back, centre) for side, centre in centres.items()}
    size = spacing_mm(affine)
    middle = np.mean(list(index.values()), axis=0)
    views = ((2, 0, 1, "axial"), (0, 2, 1, "coronal"))  # across which axis, down the page, along the page
    figure = Figure(figsize=(9.0, 8.6 + 0.22 * len(notes)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2, squeeze=False, gridspec_kw={"height_ratios": (1.0, 0.7)})
    window = _window(oriented, middle, size)
    for row, (across, down, along, name) in enumerate(views):
        for column, side in enumerate(Side):
            _view(axes[row][column], oriented, index, size, middle, (across, down, along), side, window)
            axes[row][column].set_title(f"{name} through the {side.value} centre", fontsize=9)
    figure.suptitle(title, fontsize=11)
    figure.supxlabel("\n".join((*notes, "R and L are the patient's. Research only, not for diagnosis.")), fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def _window(oriented: npt.NDArray[Any], middle: Float64, size: Float64) -> tuple[float, float]:
    reach = 25.0 / size
    lo = np.clip((middle - reach).astype(int), 0, np.array(oriented.shape) - 1)
    hi = np.clip((middle + reach).astype(int) + 1, lo + 1, oriented.shape)
    near = oriented[tuple(slice(i, j) for i, j in zip(lo, hi, strict=True))]
    low, high = np.percentile(near, (0.5, 99.5))
    return float(low), float(max(high, low + 1e-6))


def _view(
    ax: Any,
    oriented: npt.NDArray[Any],
    index: Mapping[Side, Float64],
    size: Float64,
    middle: Float64,
    order: tuple[int, int, int],
    through: Side,
    window: tuple[float, float],
) -> None:
    across, down, along = order
    place = int(np.clip(round(float(index[through][across])), 0, oriented.shape[across] - 1))
    # front of the head up in an axial view, top of the head up in a coronal one
    plane = np.take(oriented, place, axis=across)
    plane = plane if down < along else plane.T
    upwards = down == 0  # index 0 rises towards anterior, index 2 towards inferior
    extent = [
        -0.5 * size[along],
        (plane.shape[1] - 0.5) * size[along],
        -0.5 * size[down],
        (plane.shape[0] - 0.5) * size[down],
    ]
    ax.imshow(
        plane, cmap="gray", vmin=window[0], vmax=window[1], origin="lower", extent=extent, interpolation="nearest"
    )
    half = np.array(PATCH_SHAPE) * PATCH_SPACING_MM / 2
    for side, centre in index.items():
        x, y = centre[along] * size[along], centre[down] * size[down]
        style = "-" if side is through else ":"
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]]) * (half[along], half[down]) + (x, y)
        ax.plot(*corners.T, style, color=_COLOURS[side], linewidth=1.3)
        ax.plot(x, y, "+", color=_COLOURS[side], markersize=9)
        letter = "R" if side is Side.RIGHT else "L"
        outwards = -1 if side is Side.RIGHT else 1  # index 1 rises towards the patient's left
        ax.text(
            x + outwards * (half[along] + 2.5), y, letter, color=_COLOURS[side], fontsize=13, weight="bold",
            ha="center", va="center",
        )  # fmt: skip
    centre_x, centre_y = middle[along] * size[along], middle[down] * size[down]
    ax.set_xlim(centre_x - _REACH_MM, centre_x + _REACH_MM)
    reach = _REACH_MM if down == 0 else 0.62 * _REACH_MM
    ax.set_ylim(*(centre_y - reach, centre_y + reach)[:: 1 if upwards else -1])
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_facecolor("black")
    ax.set_aspect("equal")
