"""Tissue geometry of one digital nigra and what it is made of: proton density, R2* and susceptibility.

Coordinates are millimetres (anterior, lateral, inferior) in the LEFT view with the nigrosome-1 centroid at the origin.
The other side is made from the same geometry and mirrored by :func:`nigradat.anatomy.mirror` in the renderer.

Sizes, places and tissue values are our reconstruction, from published values (Nam 2017: nigrosome-1 minus nigra -.037
ppm; Damier 1999: nigrosome-1 in the dorsal, caudal and lateral nigra; QSM of nigra and red nucleus at 3 T) and from
measurements on the one published patch pair. Nothing is copied from an image: every structure is a formula.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nigradat.anatomy import PATCH_CENTRE, PATCH_SHAPE, PATCH_SPACING_MM

Field = npt.NDArray[np.floating[Any]]
Box = tuple[slice, slice, slice]

# Bits of the ground-truth masks. Nigrosome-1 lies inside the nigra: its voxels carry both bits.
SN_BIT: Final = 1
N1_BIT: Final = 2
RN_BIT: Final = 4

MIDLINE_MM: Final = -12.2  # lateral coordinate of the midline, 12.2 mm medial of nigrosome-1
_BOX_MARGIN_MM: Final = 1.6  # covers warp and soft edge


@dataclass(frozen=True)
class Tissue:
    """What a voxel is made of: proton density relative to brain tissue, R2* in 1/s, susceptibility in ppm."""

    m0: float
    r2star_hz: float
    chi_ppm: float


TISSUE: Final = Tissue(1.0, 19.5, -0.005)
CSF: Final = Tissue(1.28, 6.0, 0.0)
VEIN: Final = Tissue(1.0, 70.0, 0.30)
SUBTHALAMIC: Final = Tissue(1.0, 32.0, 0.060)
CORTEX: Final = Tissue(1.0, 22.5, 0.005)  # temporal lobe and cerebellum beyond the cistern
IRON_R2STAR_HZ_PER_PPM: Final = 110.0


@dataclass(frozen=True)
class Ellipsoid:
    """Centre and semi-axes in mm along the anatomical axes."""

    centre_mm: tuple[float, float, float]
    semi_mm: tuple[float, float, float]


RED_NUCLEUS: Final = Ellipsoid((0.6, -4.9, -4.2), (4.8, 5.0, 4.1))

# The nigra: an oblique slab, a superellipsoid in axes of its own (long, descending, thickness).
SN_CENTRE_MM: Final = (3.9, 1.0, -3.0)
SN_SEMI_MM: Final = (8.3, 9.1, 2.8)
SN_POWER: Final = 2.6
SN_ANGLE_DEG: Final = 38.0
SN_DESCENT: Final = (-0.69, -0.16, 0.70)

N1_CENTRE_MM: Final = (-0.2, 0.3, 0.3)
N1_SEMI_MM: Final = (3.4, 2.8, 0.95)


@dataclass(frozen=True, eq=False)
class Grid:
    """Anatomical coordinates of every (supersampled) voxel, ``(na, nl, ns)`` each, and how to find a box in them.

    Attributes:
        anterior, lateral, inferior: warped coordinates in mm.
        inverse: ``(3, 3)`` from anatomical to patch millimetres, without the warp.
        shift_mm: ``(3,)`` anatomical position of the patch centre.
        spacing_mm: of the supersampled grid.
    """

    anterior: Field
    lateral: Field
    inferior: Field
    inverse: npt.NDArray[np.float64]
    shift_mm: npt.NDArray[np.float64]
    spacing_mm: tuple[float, float, float]

    def box(self, centre_mm: npt.ArrayLike, half_mm: npt.ArrayLike) -> Box:
        """Index box that surely holds the anatomical cuboid ``centre +- half``."""
        centre = self.inverse @ (np.asarray(centre_mm, dtype=np.float64) - self.shift_mm)
        half = np.abs(self.inverse) @ np.asarray(half_mm, dtype=np.float64) + _BOX_MARGIN_MM
        spacing, shape = np.asarray(self.spacing_mm), np.asarray(self.anterior.shape)
        lo = np.clip(np.floor((centre - half) / spacing + (shape - 1) / 2), 0, shape).astype(int)
        hi = np.clip(np.ceil((centre + half) / spacing + (shape - 1) / 2) + 1, 0, shape).astype(int)
        return (slice(lo[0], hi[0]), slice(lo[1], hi[1]), slice(lo[2], hi[2]))

    def at(self, box: Box) -> tuple[Field, Field, Field]:
        """The three coordinates inside a box (views)."""
        return self.anterior[box], self.lateral[box], self.inferior[box]


@dataclass(frozen=True)
class Vein:
    """A straight tube: a point on it (mm), its direction (unit vector), its radius (mm)."""

    point_mm: tuple[float, float, float]
    direction: tuple[float, float, float]
    radius_mm: float


@dataclass(frozen=True, eq=False)
class Texture:
    """Unit-variance random fields on the grid's voxels.

    Attributes:
        coarse: some 4 mm across: proton density, irregular cisterns.
        medium: some 2 mm: tissue texture, irregular edges.
        fine: about a voxel: tissue texture.
        iron: about 1 mm: clusters of iron in nigra and red nucleus.
    """

    coarse: Field
    medium: Field
    fine: Field
    iron: Field


@dataclass(frozen=True)
class SideAnatomy:
    """How this side differs from the average one.

    Attributes:
        degeneration: d in [0, 1].
        iron_ppm: added to the susceptibility of nigra and red nucleus.
        sn_angle_deg: added to the angle of the nigra's long axis.
        n1_contrast: of nigrosome-1 relative to the average healthy one of the same degeneration.
        n1_size: of nigrosome-1 likewise.
        n1_offset_mm: of nigrosome-1 along its own three axes.
        midline_mm: added to the lateral coordinate of the midline.
        stripe_phase: of the pontine fibres, radians.
        veins: tubes around the brainstem.
    """

    degeneration: float
    iron_ppm: float = 0.0
    sn_angle_deg: float = 0.0
    n1_contrast: float = 1.0
    n1_size: float = 1.0
    n1_offset_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    midline_mm: float = 0.0
    stripe_phase: float = 0.0
    veins: tuple[Vein, ...] = ()


@dataclass(frozen=True, eq=False)
class TissueMaps:
    """Maps ``(na, nl, ns)`` float32.

    Attributes:
        m0: proton density relative to brain tissue.
        r2star_hz: in 1/s.
        chi_ppm: susceptibility.
        shapes: for each mask bit a box and the soft membership inside it.
    """

    m0: Field
    r2star_hz: Field
    chi_ppm: Field
    shapes: dict[int, tuple[Box, Field]]


def standard_shapes() -> dict[int, Field]:
    """The average healthy nigra on the patch grid: what an outline or a region of interest is drawn from.

    Returns:
        Soft memberships in [0, 1], each ``(50, 50, 20)`` in the canonical (left) view, under :data:`SN_BIT` (with
        nigrosome-1), :data:`N1_BIT` and :data:`RN_BIT`.
    """
    index = np.indices(PATCH_SHAPE, dtype=np.float64)
    a, lat, s = (((index[axis] - PATCH_CENTRE[axis]) * PATCH_SPACING_MM[axis]).astype(np.float32) for axis in range(3))
    grid = Grid(a, lat, s, np.eye(3), np.zeros(3), PATCH_SPACING_MM)
    plain = np.zeros(PATCH_SHAPE, dtype=np.float32)
    found: dict[int, Field] = {}
    for bit, (box, weight) in tissue_maps(grid, Texture(plain, plain, plain, plain), SideAnatomy(0.0)).shapes.items():
        found[bit] = plain.copy()
        found[bit][box] = weight
    return found


def sn_axes(angle_deg: float) -> npt.NDArray[np.float64]:
    """Unit vectors in rows: long axis (medial-anterior to lateral-posterior), descending axis, thickness (forwards)."""
    angle = np.deg2rad(angle_deg)
    long = np.array([-np.sin(angle), np.cos(angle), 0.0])
    down = np.array(SN_DESCENT)
    down = down - (down @ long) * long
    down /= np.linalg.norm(down)
    thick = np.cross(long, down)
    return np.stack([long, down, thick if thick[0] > 0 else -thick])


def _ramp(x: Field) -> Field:
    """0 below 0, 1 above 1, linear between: a soft edge, in place."""
    return np.clip(x, 0.0, 1.0, out=x)


def _ellipsoid(grid: Grid, box: Box, shape: Ellipsoid, edge_mm: float) -> Field:
    a, lat, s = grid.at(box)
    ca, cl, cs = shape.centre_mm
    ra, rl, rs = shape.semi_mm
    radius = np.sqrt(((a - ca) / ra) ** 2 + ((lat - cl) / rl) ** 2 + ((s - cs) / rs) ** 2)
    return _ramp((1.0 - radius) * (min(shape.semi_mm) / edge_mm) + 0.5)


def _mix(field: Field, box: Box, weight: Field, value: float | Field) -> None:
    inside = field[box]
    inside += weight * (value - inside)


def _paint(maps: TissueMaps, box: Box, weight: Field, tissue: Tissue) -> None:
    _mix(maps.m0, box, weight, tissue.m0)
    _mix(maps.r2star_hz, box, weight, tissue.r2star_hz)
    _mix(maps.chi_ppm, box, weight, tissue.chi_ppm)


def tissue_maps(grid: Grid, texture: Texture, side: SideAnatomy) -> TissueMaps:
    """What every voxel of one side is made of.

    Args:
        grid: coordinates.
        texture: random fields on the same voxels.
        side: degeneration and this side's own shape.

    Returns:
        The three maps and the soft shapes (box, membership in [0, 1]) under :data:`SN_BIT`, :data:`N1_BIT`,
        :data:`RN_BIT`.
    """
    shape = grid.anterior.shape
    maps = TissueMaps(
        m0=np.full(shape, TISSUE.m0, dtype=np.float32),
        r2star_hz=np.full(shape, TISSUE.r2star_hz, dtype=np.float32),
        chi_ppm=np.full(shape, TISSUE.chi_ppm, dtype=np.float32),
        shapes={},
    )
    _background(maps, grid, texture, side)
    _pons(maps, grid, texture, side)
    _cisterns(maps, grid, texture, side)
    _red_nucleus(maps, grid, texture, side)
    _nigra(maps, grid, texture, side)
    for vein in side.veins:
        _vein(maps, grid, vein)
    return maps


def _background(maps: TissueMaps, grid: Grid, texture: Texture, side: SideAnatomy) -> None:
    """Tegmentum and peduncle, the brighter lateral tegmentum, the darker subthalamic region at the top."""
    m0 = maps.m0
    m0 += 0.070 * texture.coarse
    m0 += 0.035 * texture.medium
    m0 += 0.056 * texture.fine
    a, lat, s = grid.anterior, grid.lateral, grid.inferior
    # lateral tegmentum and what lies behind it are brighter, most of all around the caudal nigra
    bright = _ramp((lat - 0.7 * a - 3.5) / 5.0)
    bright *= _ramp((1.0 - a) / 5.0)
    bright *= _ramp((s + 6.0) / 5.0)
    m0 += (0.30 + 0.08 * texture.coarse) * bright
    # grey matter around ventricle and aqueduct
    box = grid.box((0.0, MIDLINE_MM, -6.0), (14.0, 7.0, 6.0))
    a, lat, s = grid.at(box)
    aside = np.abs(lat - (MIDLINE_MM + side.midline_mm))
    m0[box] += 0.30 * _ramp((7.0 - aside) / 5.0) * _ramp((0.5 - s) / 4.0) * _ramp((14.0 - a) / 12.0)
    # zona incerta, subthalamic nucleus and the feet of the internal capsule, streaked with iron
    box = grid.box((6.5, 3.0, -10.5), (8.0, 9.5, 4.5))
    a, lat, s = grid.at(box)
    weight = _ramp((a - 1.5 - 0.1 * lat + 1.8 * texture.coarse[box]) / 9.0)
    weight *= _ramp((-6.8 - s) / 1.8) * _ramp((lat + 7.0) / 3.0)
    _paint(maps, box, weight * _ramp(0.70 + 0.25 * texture.medium[box] + 0.15 * texture.iron[box]), SUBTHALAMIC)


def _pons(maps: TissueMaps, grid: Grid, texture: Texture, side: SideAnatomy) -> None:
    """Transverse fibres, corticospinal tract and lemnisci; below 3 mm inferior."""
    box = grid.box((0.0, 0.0, 9.0), (18.0, 18.0, 7.0))
    a, lat, s = grid.at(box)
    r2star = maps.r2star_hz[box]
    depth = _ramp((s - 3.0) / 2.5)
    from_midline = lat - (MIDLINE_MM + side.midline_mm)
    # fibres bow around the tegmentum: lines of constant a + curvature * distance^2, frayed
    bowed = a + 0.018 * from_midline**2 + 0.25 * s + 0.5 * texture.coarse[box] + 0.35 * texture.medium[box]
    stripes = np.sin((2.0 * np.pi / 1.9) * bowed + side.stripe_phase)
    strength = _ramp(0.55 + 0.45 * texture.medium[box]) * _ramp((a + 7.0) / 4.0) * depth
    r2star += 2.5 * stripes * strength - 1.5 * depth
    r2star += 9.0 * depth * _ellipsoid(grid, box, Ellipsoid((8.5, -1.5, 7.5), (5.0, 4.5, 7.0)), 4.0)
    r2star += 13.0 * _ellipsoid(grid, box, Ellipsoid((-8.0, -8.0, 8.5), (1.4, 3.0, 3.0)), 1.2)
    r2star += 14.0 * _ellipsoid(grid, box, Ellipsoid((-5.5, -2.0, 5.0), (1.8, 1.4, 2.5)), 1.4)


def _cisterns(maps: TissueMaps, grid: Grid, texture: Texture, side: SideAnatomy) -> None:
    """Third ventricle and aqueduct, interpeduncular fossa, and the cistern around the brainstem."""
    midline = MIDLINE_MM + side.midline_mm

    # third ventricle, closing downwards into the aqueduct
    box = grid.box((-4.0, midline, -9.0), (13.0, 7.0, 5.0))
    a, lat, s = grid.at(box)
    aside = np.abs(lat - midline)
    half_width = 5.0 - 0.9 * (s + 9.5) - 0.10 * (a + 8.0) + 0.3 * texture.coarse[box]
    full = _ramp((1.0 - a - 1.2 * (s + 9.5)) / 14.0 + 0.25) * _ramp((9.0 - a) / 8.0)
    _paint(maps, box, _ramp((half_width - aside) / 2.2) * full, CSF)

    # interpeduncular fossa: a wedge that opens forwards, crossed by vessels and nerves, so never pure CSF
    box = grid.box((9.0, midline, -1.0), (7.0, 8.0, 6.0))
    a, lat, s = grid.at(box)
    aside = np.abs(lat - midline)
    ahead = a - (3.6 - 0.35 * s)
    wedge = _ramp((0.75 * ahead - aside) / 2.0 + 0.6) * _ramp(ahead / 2.0)
    wedge *= _ramp((s + 6.5) / 2.0) * _ramp((4.0 - s) / 1.5)
    crossed = 0.30 + 0.20 * texture.medium[box] + 0.12 * texture.fine[box]
    _paint(maps, box, wedge * _ramp(crossed), CSF)

    # around the brainstem: an ellipse about the midline, wider at the peduncles than at the pons
    box = grid.box((0.0, 5.0, 4.5), (18.0, 18.0, 10.0))
    a, lat, s = grid.at(box)
    coarse, medium = texture.coarse[box], texture.medium[box]
    low = _ramp((s - 1.5) / 3.5)
    width = 23.0 - 4.2 * low + 0.7 * coarse
    radius = np.sqrt(((lat - midline) / width) ** 2 + ((a - 3.0) / (13.0 + 5.5 * low)) ** 2)
    outside = (radius - 1.0) * (0.85 * width)  # about mm beyond the surface
    # above the pons the cistern is a wide corner in front of the peduncle; beside the pons a thin sheet
    corner = _ramp((s + 4.0) / 3.0) * _ramp((a - 1.0) / 5.0)
    shown = corner + (1.0 - corner) * low
    thickness = 5.0 - 3.7 * low
    sheet = _ramp(outside / 1.0) * _ramp((thickness - outside) / 1.0) * shown
    beyond = _ramp((outside - thickness) / 1.0) * shown * _ramp((a + 9.0) / 5.0)
    _paint(maps, box, beyond * _ramp(0.6 + 0.35 * medium), CORTEX)
    _paint(maps, box, sheet * _ramp(0.56 - 0.12 * low + 0.20 * coarse + 0.25 * medium), CSF)
    # a vein runs along the pons in the sheet, here and there
    along = _ramp(1.0 - np.abs(outside - thickness - 0.4) / 0.8) * _ramp((s - 3.0) / 1.5)
    _paint(maps, box, along * _ramp(0.06 + 0.16 * coarse), VEIN)


def _red_nucleus(maps: TissueMaps, grid: Grid, texture: Texture, side: SideAnatomy) -> None:
    box = grid.box(RED_NUCLEUS.centre_mm, RED_NUCLEUS.semi_mm)
    weight = _ellipsoid(grid, box, RED_NUCLEUS, 1.0)
    iron = 1.3 * side.iron_ppm + 0.012 * texture.iron[box]
    _mix(maps.m0, box, weight, 1.0)
    _mix(maps.r2star_hz, box, weight, 42.5 + IRON_R2STAR_HZ_PER_PPM * iron)
    _mix(maps.chi_ppm, box, weight, 0.120 + iron)
    maps.shapes[RN_BIT] = (box, weight)


def _nigra(maps: TissueMaps, grid: Grid, texture: Texture, side: SideAnatomy) -> None:
    """The nigra with its compact layer and nigrosome-1; the only structures that degeneration changes."""
    d = side.degeneration
    axes = sn_axes(SN_ANGLE_DEG + side.sn_angle_deg)
    semi = np.array(SN_SEMI_MM) * (1.0 - 0.10 * d)
    box = grid.box(SN_CENTRE_MM, np.abs(axes.T) @ semi)
    long, down, thick = _own_axes(grid, box, SN_CENTRE_MM, axes, semi)
    power = np.float32(SN_POWER)
    radius = (np.abs(long) ** power + np.abs(down) ** power + np.abs(thick) ** power) ** np.float32(1 / SN_POWER)
    # fibres of the peduncle and the tegmentum interdigitate with the nigra: a frayed edge
    radius += 0.06 * texture.medium[box] + 0.02 * texture.fine[box]
    sn = _ramp((1.0 - radius) * np.float32(semi[2] / 0.6) + 0.5)

    # the compact part is the posterior layer and holds less iron than the reticular part
    compact = _ramp(0.5 - 1.2 * thick)
    clusters = 0.014 * texture.iron[box]
    iron = side.iron_ppm + clusters
    chi = 0.092 + 0.030 * d + iron - 0.015 * compact
    r2star = 36.0 + 9.0 * d + IRON_R2STAR_HZ_PER_PPM * iron - 4.0 * compact + 3.5 * texture.fine[box]

    n1_semi = np.array(N1_SEMI_MM) * (side.n1_size * (1.0 - 0.55 * d))
    n1_centre = np.asarray(N1_CENTRE_MM) + np.asarray(side.n1_offset_mm) @ axes
    x, y, z = _own_axes(grid, box, n1_centre, axes, n1_semi)
    n1 = _ramp((1.0 - np.sqrt(x**2 + y**2 + z**2)) * np.float32(n1_semi[2] / 0.5) + 0.5)
    n1 *= sn
    # the layer is thinner than the point spread: more contrast than the -.037 ppm that is seen on the acquired grid
    chi -= 0.047 * side.n1_contrast * (1.0 - d) * n1
    r2star -= 8.0 * side.n1_contrast * (1.0 - d) * n1

    _mix(maps.m0, box, sn, 1.0)
    _mix(maps.r2star_hz, box, sn, r2star)
    _mix(maps.chi_ppm, box, sn, chi)
    maps.shapes[SN_BIT] = (box, sn)
    maps.shapes[N1_BIT] = (box, n1)


def _own_axes(
    grid: Grid, box: Box, centre_mm: npt.ArrayLike, axes: npt.NDArray[np.float64], semi: npt.NDArray[np.float64]
) -> list[Field]:
    """Coordinates along a structure's own axes, 1 at its surface."""
    a, lat, s = grid.at(box)
    out = []
    for axis, length in zip(axes, semi, strict=True):
        wa, wl, ws = (np.float32(v) for v in axis / length)
        offset = np.float32(axis @ np.asarray(centre_mm) / length)
        out.append(wa * a + wl * lat + ws * s - offset)
    return out


def _vein(maps: TissueMaps, grid: Grid, vein: Vein) -> None:
    a, lat, s = grid.anterior, grid.lateral, grid.inferior
    (pa, pl, ps), (va, vl, vs) = vein.point_mm, vein.direction
    along = (va * a + vl * lat + vs * s) - np.float32(va * pa + vl * pl + vs * ps)
    distance2 = (a - pa) ** 2 + (lat - pl) ** 2 + (s - ps) ** 2 - along**2
    weight = _ramp((vein.radius_mm - np.sqrt(np.maximum(distance2, 0.0))) / 0.5 + 0.5)
    _paint(maps, (slice(None), slice(None), slice(None)), weight, VEIN)
