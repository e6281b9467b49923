"""SimpleITK seen from here: volumes and maps are in RAS+ mm on our side, in LPS mm on its side. Extra ``locate``."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nigradat.errors import MissingExtraError
from nigradat.volume import Volume, spacing_mm

Float64 = npt.NDArray[np.float64]

LPS: Final = np.diag([-1.0, -1.0, 1.0])


def simple_itk() -> Any:
    """The package, untyped.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import SimpleITK
    except ImportError as error:
        raise MissingExtraError("SimpleITK", "locate") from error
    return SimpleITK


def to_itk(volume: Volume) -> Any:
    """A volume as an image of SimpleITK."""
    image = simple_itk().GetImageFromArray(np.ascontiguousarray(volume.data.T))
    size = spacing_mm(volume.affine)
    # ITK wants axes at right angles to more digits than a header in single precision has
    u, _, v = np.linalg.svd(LPS @ (volume.affine[:3, :3] / size))
    image.SetSpacing(size.tolist())
    image.SetOrigin((LPS @ volume.affine[:3, 3]).tolist())
    image.SetDirection((u @ v).ravel().tolist())
    return image


def set_matrix(target: Any, matrix: Float64, centre_mm: Float64) -> None:
    """Put a ``(4, 4)`` RAS+ map into an ITK transform that turns about a centre."""
    turn, centre = LPS @ matrix[:3, :3] @ LPS, LPS @ centre_mm
    target.SetCenter(centre.tolist())
    target.SetMatrix(turn.ravel().tolist())
    target.SetTranslation((LPS @ matrix[:3, 3] + turn @ centre - centre).tolist())


def get_matrix(source: Any) -> Float64:
    """The ``(4, 4)`` RAS+ map of an ITK transform."""
    turn, centre = np.array(source.GetMatrix()).reshape(3, 3), np.array(source.GetCenter())
    matrix = np.eye(4)
    matrix[:3, :3] = LPS @ turn @ LPS
    matrix[:3, 3] = LPS @ (np.array(source.GetTranslation()) + centre - turn @ centre)
    return matrix


def by_mutual_information(bins: int = 32) -> Any:
    """A registration by Mattes mutual information over every voxel of the fixed image."""
    sitk = simple_itk()
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(bins)
    method.SetMetricSamplingStrategy(method.NONE)
    method.SetInterpolator(sitk.sitkLinear)
    return method


def descend(method: Any, iterations: int) -> None:
    """Steps of 1 mm at first, shortened each time the direction turns, down to .01 mm."""
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=1.0,
        minStep=0.01,
        numberOfIterations=iterations,
        relaxationFactor=0.6,
        gradientMagnitudeTolerance=1e-8,
    )
    method.SetOptimizerScalesFromPhysicalShift()
