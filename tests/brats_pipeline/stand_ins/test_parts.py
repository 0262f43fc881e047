"""The parts of a volume by numpy alone: the numbers of cc3d, and those of scipy up to their order."""

from __future__ import annotations

from typing import Literal

import cc3d
import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from brats_pipeline.stand_ins.parts import connected_components


def winding() -> npt.NDArray[np.uint8]:
    """One line, a voxel wide, that fills a picture row by row, to and fro: the longest way there is."""
    picture = np.zeros((31, 31, 1), np.uint8)
    picture[::2] = 1
    picture[1::4, -1] = 1
    picture[3::4, 0] = 1
    return picture


@pytest.mark.parametrize("connectivity", [6, 26])
@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.6, 0.97])
@pytest.mark.parametrize("shape", [(17, 12, 9), (40, 33, 1), (1, 1, 50), (1, 1, 1)])
def test_the_numbers_are_those_of_cc3d(shape: tuple[int, int, int], share: float, connectivity: Literal[6, 26]) -> None:
    volume = (np.random.default_rng(len(shape)).random(shape) < share).astype(np.uint8)
    found = connected_components(volume, connectivity=connectivity, out_dtype=np.uint32)
    assert found.dtype == np.uint32
    assert np.array_equal(found, cc3d.connected_components(volume, connectivity=connectivity, out_dtype=np.uint32))


@pytest.mark.parametrize("connectivity", [6, 26])
def test_a_winding_line_is_one_part_and_scipy_agrees(connectivity: Literal[6, 26]) -> None:
    volume = winding()
    found = connected_components(volume, connectivity=connectivity, out_dtype=np.uint32)
    near = ndimage.generate_binary_structure(3, 1 if connectivity == 6 else 3)
    assert found.max() == ndimage.label(volume, near)[1] == 1
    assert np.array_equal(found != 0, volume != 0)
    volume[16, 15] = 0
    assert connected_components(volume, connectivity=connectivity, out_dtype=np.uint32).max() == 2


@pytest.mark.parametrize("value", [0, 1])
def test_nothing_and_everything(value: int) -> None:
    volume = np.full((4, 5, 6), value, np.uint8)
    assert np.array_equal(connected_components(volume, connectivity=6, out_dtype=np.uint32), volume)


def test_other_neighbourhoods_are_refused() -> None:
    with pytest.raises(ValueError, match="6 or 26, not 18"):
        connected_components(np.ones((2, 2, 2), np.uint8), connectivity=18, out_dtype=np.uint32)
