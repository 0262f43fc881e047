"""Label maps of whole numbers: what a header's scaling left beside them is put right, by every reader alike."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from brats_pipeline.cases import Case, count_label
from brats_pipeline.cases.case import Source
from brats_pipeline.errors import PipelineError
from brats_pipeline.predictions import read_labels
from transforms.reader import LoadCased
from transforms.whole_numbers import whole_numbers


def test_whole_numbers_stay_and_what_lies_beside_them_is_rounded():
    labels = np.array([0, 1, 4], np.uint8)
    assert whole_numbers(labels, "it") is labels
    for kind in (np.float32, np.float64):
        found = whole_numbers(np.array([1e-4, 0.9999, 2.0000000298, -0.0009, 255.0005], kind), "it")
        np.testing.assert_array_equal(found, [0, 1, 2, 0, 255])
        assert found.dtype == kind


@pytest.mark.parametrize("odd", [0.5, 1.25, 2.0039215, -3.9, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_other_values_are_refused_with_all_their_digits(odd, kind):
    with pytest.raises(PipelineError, match=r"^it holds the value .*, which is no whole .*scl_slope") as refused:
        whole_numbers(np.array([0, 1, odd], kind), "it")
    told = float(str(refused.value).split()[4].rstrip(","))
    np.testing.assert_array_equal(kind(told), kind(odd))


def test_what_is_no_number_is_refused():
    with pytest.raises(PipelineError, match="it holds values of type complex64; whole numbers are needed"):
        whole_numbers(np.zeros(3, np.complex64), "it")


def scale(path, slope):
    """Values as the header makes them: those stored, divided by the slope before."""
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[112:120] = struct.pack("<2f", slope, 0.0)
    path.write_bytes(gzip.compress(bytes(content)))


def readings(item):
    """What finding, scoring and training each make of a label map: its values, or None where it is refused."""
    path = Path(item["label"])
    case = Case("a", "a", {}, Source((path,)), "plain", "brats2021")
    readers = (
        lambda: {0, *count_label(case).voxels},
        lambda: np.unique(read_labels(path, "a", "reference")[0]).tolist(),
        lambda: np.unique(LoadCased(["image", "label"])(item)["label"]).tolist(),
    )
    for read in readers:
        try:
            yield sorted(map(int, read()))
        except PipelineError:
            yield None


@pytest.mark.parametrize(
    ("stored", "slope", "expected"),
    [(10, 0.1, [0, 1, 2, 4]), (5, 0.2, [0, 1, 2, 4]), (51, 1 / 50.8, None), (10, 0.15, None)],
)
def test_a_scaled_label_map_is_read_alike_or_refused_alike_by_all(head, write_case, stored, slope, expected):
    images, labels = head()
    item = write_case(images, labels * np.uint8(stored))
    scale(Path(item["label"]), slope)
    assert list(readings(item)) == [expected] * 3
