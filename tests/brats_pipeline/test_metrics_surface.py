"""HD95 against the surface-distance package, against geometry, and against drawings."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brats_pipeline.metrics import hd95_mm, robust_hausdorff_mm, surface_distances


def oracle(prediction: np.ndarray, reference: np.ndarray, spacing: tuple[float, ...], percent: float = 95) -> float:
    """What the surface-distance package says; it still calls SciPy by names that SciPy warns about."""
    from surface_distance import metrics

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return float(
            metrics.compute_robust_hausdorff(metrics.compute_surface_distances(reference, prediction, spacing), percent)
        )


def box(shape: tuple[int, ...], start: tuple[int, ...], stop: tuple[int, ...]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = True
    return mask


def ball(side: int, radius_mm: float, spacing: tuple[float, ...]) -> np.ndarray:
    axes = [(np.arange(side) - (side - 1) / 2) * step for step in spacing]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    return x**2 + y**2 + z**2 <= radius_mm**2


@pytest.mark.parametrize("spacing", [(1, 1, 1), (0.5, 1.3, 3.0), (2, 1, 1)])
@pytest.mark.parametrize("density", [0.03, 0.3, 0.7])
@pytest.mark.parametrize("percent", [50, 95, 100])
def test_noise_gives_what_surface_distance_gives(spacing, density, percent):
    random = np.random.default_rng(int(density * 100))
    for shape in ((9, 11, 7), (1, 6, 5), (14, 14, 14)):
        prediction, reference = (random.random(shape) < density for _ in range(2))
        if not (prediction.any() and reference.any()):
            continue
        distances = surface_distances(prediction, reference, spacing_mm=spacing)
        ours = robust_hausdorff_mm(distances, percentile=percent)
        assert ours == pytest.approx(oracle(prediction, reference, spacing, percent), abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    spacing=st.tuples(*[st.floats(0.3, 5)] * 3),
    threshold=st.floats(-0.5, 0.5),
)
def test_smooth_shapes_give_what_surface_distance_gives(seed, spacing, threshold):
    from scipy.ndimage import gaussian_filter

    random = np.random.default_rng(seed)
    fields = [gaussian_filter(random.normal(size=(16, 13, 12)), 1.5) for _ in range(2)]
    prediction, reference = (field / field.std() > threshold for field in fields)
    expected = oracle(prediction, reference, spacing)
    assert hd95_mm(prediction, reference, spacing_mm=spacing) == pytest.approx(expected, abs=1e-6)


def test_every_neighbourhood_has_the_area_that_surface_distance_gives_it():
    from surface_distance.lookup_tables import create_table_neighbour_code_to_surface_area

    spacing = (0.7, 1.9, 3.1)
    table = create_table_neighbour_code_to_surface_area(spacing)
    kernel = np.array([[[128, 64], [32, 16]], [[8, 4], [2, 1]]])  # the package's own bit order
    for corners in np.ndindex(*(2,) * 8):
        mask = np.array(corners, bool).reshape(2, 2, 2)
        code = int(kernel[mask].sum())
        if code in (0, 255):
            continue
        # The block stands in emptiness: this code at its inner corner, simple ones at the 26 corners around it.
        padded = np.pad(mask, 1)
        expected = sum(
            table[int(kernel[padded[x : x + 2, y : y + 2, z : z + 2]].sum())] for x, y, z in np.ndindex(3, 3, 3)
        )
        ours = surface_distances(mask, mask, spacing_mm=spacing).reference_mm2.sum()
        assert ours == pytest.approx(expected, rel=1e-12)


def test_the_area_of_a_ball_is_near_that_of_geometry():
    spacing = (1.0, 1.0, 1.0)
    mask = ball(61, 25, spacing)
    area = surface_distances(mask, mask, spacing_mm=spacing).reference_mm2.sum()
    # Flat facets between voxel centres measure a smooth surface about a tenth too large.
    assert 1.0 < area / (4 * math.pi * 25**2) < 1.15


@pytest.mark.parametrize("spacing", [(1, 1, 1), (1, 1, 2)])
def test_concentric_balls_are_as_far_apart_as_their_radii(spacing):
    inner, outer = ball(61, 12, spacing), ball(61, 20, spacing)
    assert hd95_mm(inner, outer, spacing_mm=spacing) == pytest.approx(8, abs=max(spacing))


@pytest.mark.parametrize(("axis", "steps"), [(0, 1), (1, 3), (2, 4)])
def test_a_translated_slab_is_as_far_away_as_it_was_moved(axis, steps):
    spacing = (0.5, 1.25, 3.0)
    # Thin along the axis of the shift and wide across it: 95 % of the surface is its two large faces.
    shape, start, stop = [60, 60, 60], [5, 5, 5], [55, 55, 55]
    start[axis], stop[axis] = 20, 22
    fixed = box(tuple(shape), tuple(start), tuple(stop))
    moved = np.roll(fixed, steps, axis)
    distance = hd95_mm(moved, fixed, spacing_mm=spacing)
    assert distance == pytest.approx(steps * spacing[axis])
    assert distance == hd95_mm(fixed, moved, spacing_mm=spacing)


def test_identical_masks_touch_everywhere():
    mask = np.random.default_rng(0).random((8, 8, 8)) < 0.4
    assert hd95_mm(mask, mask, spacing_mm=(1, 2, 3)) == 0


def test_mirrored_copies_are_as_far_apart_as_the_originals():
    random = np.random.default_rng(3)
    prediction, reference = (random.random((9, 8, 7)) < 0.2 for _ in range(2))
    plain = hd95_mm(prediction, reference, spacing_mm=(1, 2, 3))
    assert hd95_mm(prediction[::-1, :, ::-1], reference[::-1, :, ::-1], spacing_mm=(1, 2, 3)) == pytest.approx(plain)


def test_a_mask_at_the_edge_of_the_image_has_a_surface_there():
    everything = np.ones((4, 4, 4), bool)
    centre = box((4, 4, 4), (1, 1, 1), (3, 3, 3))
    assert hd95_mm(centre, everything, spacing_mm=(1, 1, 1)) == pytest.approx(math.sqrt(2))


def test_one_far_voxel_beyond_the_percentile_does_not_count():
    reference = box((60, 60, 60), (10, 10, 10), (40, 40, 40))
    prediction = reference.copy()
    prediction[58, 58, 58] = True
    assert hd95_mm(prediction, reference, spacing_mm=(1, 1, 1)) == 0


def test_empty_masks_are_left_to_the_rule():
    empty, full = np.zeros((3, 3, 3), bool), np.ones((3, 3, 3), bool)
    assert math.isinf(hd95_mm(empty, full, spacing_mm=(1, 1, 1)))
    assert math.isinf(hd95_mm(full, empty, spacing_mm=(1, 1, 1)))
    assert math.isnan(hd95_mm(empty, empty, spacing_mm=(1, 1, 1)))


@pytest.mark.parametrize("spacing", [(1, 1), (1, 1, 0), (1, 1, math.nan), (1, -1, 1)])
def test_a_spacing_that_is_none_is_refused(spacing):
    mask = np.ones((2, 2, 2), bool)
    with pytest.raises(ValueError, match="spacing_mm"):
        hd95_mm(mask, mask, spacing_mm=spacing)


def test_masks_of_two_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 2, 2\) and \(2, 2, 3\)"):
        hd95_mm(np.ones((2, 2, 2), bool), np.ones((2, 2, 3), bool), spacing_mm=(1, 1, 1))
