"""Points travel through ITK as through our matrices."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from nigradat.itk import LPS, get_matrix, set_matrix, to_itk
from nigradat.volume import Volume

sitk = pytest.importorskip("SimpleITK")


def placed(seed: int, *, spacing=(1.0, 1.0, 1.0)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    affine[:3, :3] = Rotation.random(random_state=seed).as_matrix() * spacing
    affine[:3, 3] = rng.uniform(-80, 80, 3)
    return affine


@pytest.mark.parametrize("seed", range(4))
def test_a_voxel_lies_where_the_affine_says(seed):
    affine = placed(seed, spacing=(0.5, 1.25, 3.0))
    data = np.random.default_rng(seed).normal(size=(7, 5, 4)).astype(np.float32)
    image = to_itk(Volume(data, affine))
    for index in ((0, 0, 0), (6, 1, 3), (2, 4, 0)):
        expected = affine[:3, :3] @ index + affine[:3, 3]
        assert LPS @ image.TransformIndexToPhysicalPoint(index) == pytest.approx(expected, abs=1e-9)
        assert image.GetPixel(*index) == data[index]


@pytest.mark.parametrize("seed", range(4))
def test_a_map_moves_points_as_its_matrix_does_and_comes_back(seed):
    matrix, point = placed(seed, spacing=(0.9, 1.1, 1.2)), np.array([12.0, -7.0, 31.0])
    transform = sitk.AffineTransform(3)
    set_matrix(transform, matrix, np.array([3.0, -20.0, 5.0]))
    moved = LPS @ transform.TransformPoint((LPS @ point).tolist())
    assert moved == pytest.approx(matrix[:3, :3] @ point + matrix[:3, 3], abs=1e-9)
    assert get_matrix(transform) == pytest.approx(matrix, abs=1e-9)
