"""Heads made from CIT168, from susceptibility to DICOM and back: the maps against what the heads were made of.

Fields come from the closed form of a uniformly magnetised cuboid (:mod:`forward_model`), not from the package's kernel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from heads import TE_MS, make_head, maps, slab_grid
from scipy import ndimage

from forward_model import AIR_PPM, field_of_map, signals, sphere_field
from made_dicom import multi_echo, write_classic
from nigradat.io.gre import read_gre
from nigradat.smwi.chain import make_smwi
from nigradat.smwi.weighting import susceptibility_weight

pytest.importorskip("pydicom")

SPACING = np.array((1.0, 1.0, 1.5))


@dataclass(frozen=True)
class Found:
    """Mean susceptibility (ppm) of nigra and red nucleus, true and found; voxel by voxel around them r and slope, and
    the RMSE of the weight inside them, of ours and of the magnitude alone, whose weight is 1."""

    true_ppm: tuple[float, float]
    found_ppm: tuple[float, float]
    r: float
    slope: float
    weight_rmse: float
    unweighted_rmse: float


def scanned(data, seed, folder, maker):
    """The truth of a head, and its echoes as a reader finds them in the maker's DICOM files."""
    head, rng = make_head(data, seed), np.random.default_rng([20268, seed])
    shape, affine = slab_grid(head, (180, 200, 44), SPACING)
    truth = maps(head, shape, affine, *rng.uniform(0.06, 0.18, 2))
    along = (affine[:3, :3] / SPACING).T @ (0.0, 0.0, 1.0)  # the main field in the slab's axes
    x, y, z = (np.linspace(-1, 1, n).reshape([-1 if i == j else 1 for j in range(3)]) for i, n in enumerate(shape))
    field = field_of_map(truth["chi_ppm"].astype(float), SPACING, along)
    field = field + 0.4 * x - 0.5 * y + 0.6 * (x**2 - y**2) + 0.3 * z  # what shimming leaves
    field = field + sphere_field(shape, SPACING, (3.0, 85.0, -40.0), 14.0, AIR_PPM, along)  # a sinus
    echoes = signals(
        field,
        truth["m0"],
        truth["r2star_hz"],
        times_ms=TE_MS,
        offset=0.8 + 0.9 * np.sin(1.5 * x + y) + 0.4 * z,
        snr=30,
        seed=seed,
    )
    assert np.ptp(field[truth["inside"] > 0.5]) * 1e-6 * 3 * 42.577e6 * TE_MS[-1] / 1000 > 3  # turns of the phase
    write_classic(folder, *multi_echo(maker, np.angle(echoes), 1000 * np.abs(echoes), affine, TE_MS))
    return truth, affine, read_gre(folder)


def measured(truth, affine, gre) -> Found:
    np.testing.assert_allclose(gre.affine @ (0, 0, 0, 1), affine @ (0, 0, 0, 1), atol=1e-3)
    made = make_smwi(gre)
    known = made.mask.data > 0
    true = truth["chi_ppm"] - truth["chi_ppm"][known].mean()  # both relative to the mean over the mask
    found = made.chi.data
    parts = [truth[name] > 0.8 for name in ("nigra", "red")]
    nuclei = (truth["nigra"] + truth["red"]) > 0.5
    assert (known & nuclei).sum() > 0.95 * nuclei.sum()
    near = ndimage.binary_dilation(nuclei, iterations=3) & known
    weights = [susceptibility_weight(chi)[nuclei] for chi in (true, found)]
    return Found(
        tuple(float(true[part].mean()) for part in parts),
        tuple(float(found[part].mean()) for part in parts),
        float(np.corrcoef(true[near], found[near])[0, 1]),
        float(np.polyfit(true[near], found[near], 1)[0]),
        float(np.sqrt(np.mean((weights[1] - weights[0]) ** 2))),
        float(np.sqrt(np.mean((1 - weights[0]) ** 2))),
    )


@pytest.mark.timeout(600)
def test_a_head_through_dicom(shared_data, tmp_path):
    found = measured(*scanned(shared_data, 0, tmp_path / "dicom", "Siemens"))
    assert found.r > 0.95
    assert 0.75 < found.slope < 1.15
    assert found.weight_rmse < found.unweighted_rmse / 2


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_deep_nuclei_of_many_heads(shared_data, tmp_path, capsys):
    """Nigra and red nucleus of .06 to .18 ppm, each drawn anew in each head; three makers in turn."""
    every = []
    for seed in range(12):
        maker = ("Siemens", "Philips", "GE")[seed % 3]
        every.append(measured(*scanned(shared_data, seed, tmp_path / str(seed), maker)))
        with capsys.disabled():
            print(seed, maker, every[-1])
    true, found = (np.ravel([getattr(one, name) for one in every]) for name in ("true_ppm", "found_ppm"))
    r, slope = np.corrcoef(true, found)[0, 1], np.polyfit(true, found, 1)[0]
    with capsys.disabled():
        print(f"{true.size} nuclei: r {r:.3f}, slope {slope:.3f}")
    assert r >= 0.9
    assert 0.85 <= slope <= 1.15
    for one in every:
        assert one.r >= 0.9
        assert one.weight_rmse <= one.unweighted_rmse / 2
