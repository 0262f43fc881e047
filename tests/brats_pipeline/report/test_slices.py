"""Strips of slices: which are chosen, and whether they lie as they are stored."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from brats_pipeline.report.strips import MOST, chosen_slices, strip_figure


def areas(*sizes: int) -> np.ndarray:
    """A mask with a row of so many pixels in each slice."""
    mask = np.zeros((12, 3, len(sizes)), bool)
    for number, size in enumerate(sizes):
        mask[:size, 1, number] = True
    return mask


@pytest.mark.parametrize(
    ("reference", "prediction", "slices"),
    [
        # Few tumour slices: all of them.
        (areas(0, 2, 3, 0, 1), None, [1, 2, 4]),
        # Many: spread from end to end, the largest among them.
        (areas(1, 1, 1, 1, 1, 1, 1, 9, 1, 1, 1), None, [0, 2, 4, 7, 8, 10]),
        # The worst false alarm joins them, wherever it is.
        (areas(0, 2, 2, 0, 0, 0), areas(0, 2, 2, 0, 5, 3), [1, 2, 4]),
        # A healthy patient: what was predicted; nothing at all: the middle.
        (areas(0, 0, 0, 0), areas(0, 3, 0, 1), [1, 3]),
        (areas(0, 0, 0, 0), areas(0, 0, 0, 0), [2]),
    ],
)
def test_the_slices_worth_a_picture_are_chosen(reference, prediction, slices):
    assert chosen_slices(reference, prediction) == slices


def test_never_more_slices_than_fit_and_the_worst_and_largest_are_always_there():
    random = np.random.default_rng(0)
    for _ in range(200):
        count = int(random.integers(1, 40))
        reference = areas(*random.integers(0, 6, count).tolist())
        prediction = areas(*random.integers(0, 6, count).tolist())
        shown = chosen_slices(reference, prediction)
        assert 1 <= len(shown) <= MOST
        assert shown == sorted(set(shown))
        size, false = reference.sum(axis=(0, 1)), (prediction & ~reference).sum(axis=(0, 1))
        assert size[shown].max() == size.max()
        assert false[shown].max() == false.max()


SIDE = 60


def strip(reference: np.ndarray, prediction: np.ndarray | None) -> np.ndarray:
    """A strip of one slice with a bright spot at the top left; its first column, as RGB."""
    image = np.full((SIDE, SIDE, 1), 90, np.uint8)
    image[5:20, 5:15, 0] = 255  # columns 5 to 20, rows 5 to 15
    jpeg = strip_figure(image, reference, prediction, region="WT", names=["TCGA_ZA_9001_19990101_7"])
    array = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"), float)
    return array[:, : array.shape[1] // MOST]


def test_a_slice_is_neither_turned_nor_mirrored():
    empty = np.zeros((SIDE, SIDE, 1), bool)
    column = strip(empty, empty)
    title = column.shape[0] - 3 * column.shape[1]  # three squares stand below it
    first = column[title : title + column.shape[1]].mean(axis=2)
    down, across = np.median(np.argwhere(first > 245), axis=0) / first.shape
    assert across == pytest.approx(12.5 / SIDE, abs=0.02)
    assert down == pytest.approx(10 / SIDE, abs=0.02)


def blue(part: np.ndarray) -> int:
    """Pixels in the colour of the predicted whole tumour."""
    return int(((part[..., 2] - part[..., 0] > 80) & (part[..., 2] > 150)).sum())


def test_the_reference_stands_in_the_second_row_and_the_prediction_in_the_third():
    reference, prediction = np.zeros((2, SIDE, SIDE, 1), bool)
    reference[30:50, 30:40] = True
    prediction[28:44, 32:44] = True
    parts = np.array_split(strip(reference, prediction), 3)
    plain = np.array_split(strip(np.zeros_like(reference), np.zeros_like(reference)), 3)
    white = [int((part.min(axis=2) > 235).sum()) for part in parts]
    white_plain = [int((part.min(axis=2) > 235).sum()) for part in plain]
    assert white[1] > white_plain[1] + 100
    assert white[0] == pytest.approx(white_plain[0], abs=60)  # the title differs
    assert [blue(part) > 100 for part in parts] == [False, False, True]


def test_without_a_prediction_the_third_row_has_no_contour():
    reference = np.zeros((SIDE, SIDE, 1), bool)
    reference[30:50, 30:40] = True
    assert blue(strip(reference, None)) == 0
