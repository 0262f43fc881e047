"""Voxels without contrast, told in words."""

from __future__ import annotations

import numpy as np
import pytest

from transforms.contrast import image_defects


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([0, 1, 2], []),
        ([0, 0, 0], ["t1 is empty: every voxel is 0"]),
        ([7, 7, 7], ["t1 is constant: every voxel is 7"]),
        ([0, 7, 7], ["t1 is constant: every nonzero voxel is 7"]),
        ([np.nan, 1, 2], ["t1 holds 1 voxels that are NaN or infinite"]),
        ([np.inf, np.nan, 0], ["t1 holds 2 voxels that are NaN or infinite", "t1 is empty: every voxel is 0"]),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_what_has_no_contrast_is_a_defect(values: list[float], says: list[str], dtype: type) -> None:
    if not np.isfinite(values).all() and not np.issubdtype(dtype, np.floating):
        pytest.skip("whole numbers hold no NaN")
    defects, tissue = image_defects("t1", np.array(values, dtype=dtype))
    assert defects == says
    assert tissue.tolist() == [value for value in values if np.isfinite(value) and value]


def test_what_is_no_plain_number_is_a_defect() -> None:
    (defect,), tissue = image_defects("t1", np.array([1j]))
    assert "complex128" in defect
    assert not tissue.size
