"""The picture of a label map without a reference, as pixels show it."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from brats_pipeline.report.prediction import WIDTH, preview_figure

ORANGE = np.array([0xE6, 0x9F, 0x00])
BLUE = np.array([0x56, 0xB4, 0xE9])


def drawn(masks: dict[str, np.ndarray], affine: np.ndarray, **more: Any) -> np.ndarray:
    image = np.zeros((24, 24, 24), np.float32)
    image[2:22, 2:22, 2:22] = 100
    png = preview_figure({"t1c": image}, masks, affine=affine, case_id="a", **more)
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def near(pixels: np.ndarray, colour: np.ndarray) -> np.ndarray:
    return (np.abs(pixels - colour) < 30).all(axis=-1)


def test_an_empty_label_map_is_said_to_be_empty_in_a_colour_of_its_own() -> None:
    nothing, block = np.zeros((24,) * 3, bool), np.zeros((24,) * 3, bool)
    block[8:12, 8:12, 8:12] = True
    empty, found = drawn({"WT": nothing}, np.eye(4)), drawn({"WT": block}, np.eye(4))
    assert near(empty, ORANGE).sum() > 100
    assert near(found, ORANGE).sum() == 0


def test_a_long_warning_is_shown_whole_and_makes_the_picture_taller() -> None:
    block = np.zeros((24,) * 3, bool)
    block[8:12, 8:12, 8:12] = True
    sentence = "unlike the training: " + "a long reason " * 20
    plain, warned = drawn({"WT": block}, np.eye(4)), drawn({"WT": block}, np.eye(4), warnings=[sentence])
    lines = -(-len(sentence) // WIDTH)
    assert warned.shape[0] - plain.shape[0] == pytest.approx(0.2 * 130 * lines, abs=2)


@pytest.mark.parametrize("thick", [1.0, 3.0])
def test_a_cube_of_voxels_is_as_tall_as_its_millimetres_on_the_patients_side(thick: float) -> None:
    """In LPS, low x is the patient's right, which hangs on the left."""
    block = np.zeros((24,) * 3, bool)
    block[4:8, 10:14, 10:14] = True
    pixels = drawn({"WT": block}, np.diag([-1.0, -1.0, thick, 1.0]))
    third = pixels.shape[1] // 3
    blue = near(pixels, BLUE)
    blue[int(0.8 * len(blue)) :] = False  # the legend
    rows, columns = np.nonzero(blue[:, third : 2 * third])  # the coronal plane
    assert columns.mean() < third / 2
    assert np.ptp(rows) / np.ptp(columns) == pytest.approx(thick, rel=0.1)
