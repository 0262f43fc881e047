"""Voxel grids of SimpleITK images: as numbers, as NIfTI affines, and the grid that a case is brought to.

SimpleITK counts millimetres towards Left, Posterior, Superior; NIfTI towards Right, Anterior, Superior.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from brats_pipeline.errors import PipelineError
from transforms.nifti import describe_grid

FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Turns millimetres of SimpleITK into those of NIfTI, and back."""

LONGEST = 1024
"""More voxels than this along one side mean that the header's voxel size is wrong."""


@dataclass(frozen=True)
class Grid:
    """A voxel grid as SimpleITK describes it.

    Args:
        size: voxels along each axis.
        spacing_mm: voxel sides.
        origin: centre of the first voxel, LPS millimetres.
        direction: ``(3, 3)`` in rows, one after the other; each column is the direction of an axis.
    """

    size: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]

    @classmethod
    def of(cls, image: sitk.Image) -> Grid:
        """The grid of an image."""
        return cls(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Grid:
        """The grid that :meth:`to_json` wrote."""
        return cls(*(tuple(told[name]) for name in ("size", "spacing_mm", "origin", "direction")))

    def to_json(self) -> dict[str, Any]:
        """As JSON can hold it; the numbers come back to the bit."""
        return asdict(self)

    @property
    def affine(self) -> npt.NDArray[np.float64]:
        """``(4, 4)``, voxel to RAS millimetres, as NIfTI has it."""
        affine = np.eye(4)
        affine[:3, :3] = np.reshape(self.direction, (3, 3)) * self.spacing_mm
        affine[:3, 3] = self.origin
        turned: npt.NDArray[np.float64] = FLIP @ affine
        return turned

    def describe(self) -> str:
        """In words, as every message of the pipeline describes a grid."""
        return describe_grid(self.size, self.affine)

    def resample(
        self,
        image: sitk.Image,
        transform: sitk.Transform | None = None,
        *,
        interpolator: int = sitk.sitkLinear,
        outside: float = 0.0,
    ) -> sitk.Image:
        """Sample an image on this grid, through a transform that takes points of this grid to points of the image."""
        return sitk.Resample(
            image,
            self.size,
            transform or sitk.Transform(3, sitk.sitkIdentity),
            interpolator,
            self.origin,
            self.spacing_mm,
            self.direction,
            outside,
            image.GetPixelID(),
        )


def lps_grid(image: sitk.Image) -> Grid:
    """The very voxels of an image, their axes in the order and the direction nearest to Left, Posterior, Superior."""
    return Grid.of(sitk.DICOMOrient(image, "LPS"))


def isotropic_grid(image: sitk.Image, side_mm: float) -> Grid:
    """Cubic voxels over the field of view of an image, along its own axes in LPS order.

    Raises:
        PipelineError: the field of view would need more than 1024 voxels along an axis.
    """
    old = lps_grid(image)
    fields_mm = [count * step for count, step in zip(old.size, old.spacing_mm, strict=True)]
    size = tuple(max(1, math.ceil(field / side_mm - 1e-6)) for field in fields_mm)
    if max(size) > LONGEST:
        raise PipelineError(
            f"a field of view of {'x'.join(f'{field:.4g}' for field in fields_mm)} mm would take {max(size)} voxels of "
            f"{side_mm:g} mm along one axis; the voxel size in the header is wrong ({old.describe()}): correct it, or "
            "keep the grid with --grid reference"
        )
    axes = np.reshape(old.direction, (3, 3))
    middle = old.origin + axes @ (np.subtract(old.size, 1) / 2 * old.spacing_mm)
    origin = middle - axes @ (np.subtract(size, 1) / 2 * side_mm)
    return Grid(size, (side_mm,) * 3, tuple(origin.tolist()), old.direction)
