"""Tissue geometry of one digital nigra and what it is made of: proton density, R2* and susceptibility.

Coordinates are millimetres (anterior, lateral, inferior) in the LEFT view with the nigrosome-1 centroid at the origin.
The other side is made from the same geometry and mirrored by :func:`nigradat.anatomy.mirror` in the renderer.

Sizes, places and tissue values are our reconstruction, from published values (Nam 2017: nigrosome-1 minus nigra -.037
ppm; Damier 1999: nigrosome-1 in the dorsal, caudal and lateral nigra; QSM of nigra and red nucleus at 3 T) and from
measurements on the one published patch pair. Nothing is copied from an image: every structure is a formula.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.float32]
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
SUBTHALAMIC: Final = Tissue(1.0, 31.0, 0.050)
IRON_R2STAR_HZ_PER_PPM: Final = 110.0


@dataclass(frozen=True)
class Ellipsoid:
    """Centre and semi-axes in mm along the anatomical axes."""

    centre_mm: tuple[float, float, float]
    semi_mm: tuple[float, float, float]


RED_NUCLEUS: Final = Ellipsoid((0.9, -4.9, -4.4), (4.5, 4.9, 3.9))

# The nigra: an oblique slab, a superellipsoid in axes of its own (long, descending, thickness).
SN_CENTRE_MM: Final = (3.9, 1.0, -3.0)
SN_SEMI_MM: Final = (7.6, 8.4, 2.5)
SN_POWER: Final = 2.6
SN_ANGLE_DEG: Final = 38.0
SN_DESCENT: Final = (-0.69, -0.16, 0.70)

N1_CENTRE_MM: Final = (-0.2, 0.3, 0.3)
N1_SEMI_MM: Final = (3.4, 2.8, 0.85)


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
        fine: about 1 mm: tissue texture.
        iron: about 1 mm: clusters of iron in nigra and red nucleus.
    """

    coarse: Field
    fine: Field
    iron: Field


@dataclass(frozen=True)
class SideAnatomy:
    """How this side differs from the average one.

    Attributes:
        degeneration: d in [0, 1].
        iron_ppm: added to the susceptibility of nigra and red nucleus.
        sn_angle_deg: added to the angle of the nigra's long axis.
        midline_mm: added to the lateral coordinate of the midline.
        stripe_phase: of the pontine fibres, radians.
        veins: tubes around the brainstem.
    """

    degeneration: float
    iron_ppm: float = 0.0
    sn_angle_deg: float = 0.0
    midline_mm: float = 0.0
    stripe_phase: float = 0.0
    veins: tuple[Vein, ...] = ()


@dataclass(frozen=True, eq=False)
class TissueMaps:
    """Maps ``(na, nl, ns)`` float32: ``m0`` (1), ``r2star_hz`` (1/s), ``chi_ppm`` (ppm); soft shapes of the structures."""

    m0: Field
    r2star_hz: Field
    chi_ppm: Field
    shapes: dict[int, tuple[Box, Field]]


def sn_axes(angle_deg: float) -> npt.NDArray[np.float64]:
    """Rows: long axis (medial-anterior to lateral-posterior), descending axis, thickness (towards anterior): unit vectors."""
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
    _pons(maps, grid, side)
    _cisterns(maps, grid, texture, side)
    _red_nucleus(maps, grid, texture, side)
    _nigra(maps, grid, texture, side)
    for vein in side.veins:
        _vein(maps, grid, vein)
    return maps


def _background(maps: TissueMaps, grid: Grid, texture: Texture, side: SideAnatomy) -> None:
    """Tegmentum and peduncle, the brighter lateral tegmentum, the darker subthalamic region at the top."""
    m0 = maps.m0
    m0 += 0.035 * texture.coarse
    m0 += 0.030 * texture.fine
    a, lat, s = grid.anterior, grid.lateral, grid.inferior
    lateral_tegmentum = _ramp((lat - 0.7 * a - 3.5) / 5.0)
    lateral_tegmentum *= _ramp((2.5 - a) / 6.0)
    lateral_tegmentum *= _ramp((s + 7.0) / 6.0)
    m0 += 0.22 * lateral_tegmentum
    box = grid.box((8.5, 3.0, -10.5), (6.0, 9.5, 2.5))
    a, lat, s = grid.at(box)
    subthalamic = _ramp((a - 1.0 - 0.15 * lat) / 6.0) * _ramp((-6.6 - s) / 2.0) * _ramp((lat + 6.0) / 3.0)
    _paint(maps, box, subthalamic * (0.75 + 0.2 * texture.iron[box]), SUBTHALAMIC)


def _pons(maps: TissueMaps, grid: Grid, side: SideAnatomy) -> None:
    """Transverse fibres, and the corticospinal tract as a darker patch; below 4 mm inferior."""
    box = grid.box((0.0, 0.0, 9.0), (16.0, 16.0, 5.5))
    a, lat, s = grid.at(box)
    depth = _ramp((s - 3.0) / 3.0)
    from_midline = lat - np.float32(MIDLINE_MM + side.midline_mm)
    # fibres bow around the tegmentum: lines of constant a + curvature * distance^2
    bowed = a + 0.018 * from_midline**2
    stripes = np.sin((2.0 * np.pi / 2.3) * bowed + 0.5 * s + np.float32(side.stripe_phase))
    maps.r2star_hz[box] += depth * (0.6 + 1.2 * stripes * _ramp((a + 6.0) / 4.0))
    tract = Ellipsoid((8.0, -1.0, 7.5), (5.0, 4.5, 6.5))
    weight = _ellipsoid(grid, box, tract, 3.0) * depth
    maps.r2star_hz[box] += 5.0 * weight
    lemniscus = Ellipsoid((-8.0, -8.0, 8.5), (1.6, 3.0, 3.0))
    maps.r2star_hz[box] += 9.0 * _ellipsoid(grid, box, lemniscus, 1.0)


def _cisterns(maps: TissueMaps, grid: Grid, texture: Texture, side: SideAnatomy) -> None:
    """Third ventricle and aqueduct, interpeduncular fossa, and the cistern around the brainstem."""
    midline = np.float32(MIDLINE_MM + side.midline_mm)

    # third ventricle, closing downwards into the aqueduct
    box = grid.box((-4.0, midline, -9.0), (13.0, 7.0, 5.0))
    a, lat, s = grid.at(box)
    aside = np.abs(lat - midline)
    half_width = np.maximum(5.4 - 0.95 * (s + 9.5) - 0.10 * (a + 8.0), 0.0)
    full = _ramp((2.0 - a - 1.6 * (s + 9.5)) / 12.0 + 0.25) * _ramp((7.0 - a) / 3.0)
    _paint(maps, box, _ramp((half_width - aside) / 1.6) * full, CSF)

    # interpeduncular fossa: a wedge that opens forwards, crossed by vessels and nerves, so never pure CSF
    box = grid.box((9.0, midline, -1.0), (7.0, 8.0, 6.0))
    a, lat, s = grid.at(box)
    aside = np.abs(lat - midline)
    apex = 3.6 - 0.35 * s
    wedge = _ramp((0.75 * (a - apex) - aside) / 1.4 + 0.6) * _ramp((a - apex) / 1.5)
    wedge *= _ramp((s + 6.5) / 2.0) * _ramp((4.0 - s) / 1.5)
    _paint(maps, box, wedge * _ramp(0.42 + 0.22 * texture.coarse[box] + 0.15 * texture.fine[box]), CSF)

    # around the brainstem: an ellipse about the midline, wider at the peduncles than at the pons
    box = grid.box((0.0, 7.0, 3.5), (16.0, 12.0, 9.0))
    a, lat, s = grid.at(box)
    low = _ramp((s - 0.5) / 4.0)
    width = 22.3 - 3.2 * low + 0.8 * texture.coarse[box]
    depth = 12.0 + 6.5 * low
    radius = np.sqrt(((lat - midline) / width) ** 2 + ((a - 3.0) / depth) ** 2)
    outside = (radius - 1.0) * width * 0.85  # about mm beyond the surface
    open_above = _ramp((s + 4.0) / 2.0) * _ramp((a + 11.0 - 0.0 * s) / 6.0 + low)
    thickness = 3.4 - 2.2 * low
    band = _ramp(outside / 0.8) * _ramp((thickness - outside) / 1.0)
    band *= open_above
    fullness = _ramp(0.62 - 0.18 * low + 0.22 * texture.coarse[box])
    beyond = _ramp((outside - thickness) / 1.0) * open_above
    _paint(maps, box, beyond * (0.5 + 0.2 * texture.coarse[box]), Tissue(0.92, 23.0, 0.005))
    _paint(maps, box, band * fullness, CSF)
    # a vein runs along the pons in the cistern
    vein = _ramp(1.0 - np.abs(outside - thickness - 0.5) / 0.7) * _ramp((s - 3.0) / 1.5)
    _paint(maps, box, 0.22 * vein, VEIN)


def _red_nucleus(maps: TissueMaps, grid: Grid, texture: Texture, side: SideAnatomy) -> None:
    box = grid.box(RED_NUCLEUS.centre_mm, RED_NUCLEUS.semi_mm)
    weight = _ellipsoid(grid, box, RED_NUCLEUS, 1.0)
    iron = 1.3 * side.iron_ppm + 0.012 * texture.iron[box]
    _mix(maps.m0, box, weight, 1.0)
    _mix(maps.r2star_hz, box, weight, 44.0 + IRON_R2STAR_HZ_PER_PPM * iron)
    _mix(maps.chi_ppm, box, weight, 0.125 + iron)
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
    sn = _ramp((1.0 - radius) * np.float32(semi[2] / 0.9) + 0.5)

    # the compact part is the posterior layer and holds less iron than the reticular part
    compact = _ramp(0.5 - 1.2 * thick)
    clusters = 0.030 * texture.iron[box]
    iron = side.iron_ppm + clusters
    chi = 0.098 + 0.030 * d + iron - 0.015 * compact
    r2star = 37.0 + 9.0 * d + IRON_R2STAR_HZ_PER_PPM * iron - 4.0 * compact

    n1_semi = np.array(N1_SEMI_MM) * (1.0 - 0.55 * d)
    x, y, z = _own_axes(grid, box, N1_CENTRE_MM, axes, n1_semi)
    n1 = _ramp((1.0 - np.sqrt(x**2 + y**2 + z**2)) * np.float32(n1_semi[2] / 0.5) + 0.5)
    n1 *= sn
    chi -= 0.037 * (1.0 - d) * n1
    r2star -= 8.0 * (1.0 - d) * n1

    _mix(maps.m0, box, sn, 1.0)
    _mix(maps.r2star_hz, box, sn, r2star)
    _mix(maps.chi_ppm, box, sn, chi)
    maps.shapes[SN_BIT] = (box, sn)
    maps.shapes[N1_BIT] = (box, n1)


def _own_axes(
    grid: Grid, box: Box, centre_mm: tuple[float, float, float], axes: npt.NDArray[np.float64], semi: npt.NDArray[np.float64]
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
    weight = _ramp((vein.radius_mm - np.sqrt(np.maximum(distance2, 0.0))) / 0.3 + 0.5)
    _paint(maps, (slice(None), slice(None), slice(None)), weight, VEIN)
