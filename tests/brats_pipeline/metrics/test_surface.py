"""HD95, ASSD and NSD against surface-distance, MedPy and brute force, against geometry, and against drawings."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cdist

from brats_pipeline.metrics import assd_mm, hd95_mm, nsd, robust_hausdorff_mm, surface_distances
from brats_pipeline.metrics.distances import SurfaceDistances, surface_pair


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


@pytest.mark.parametrize("n", [20, 40, 60, 100])
def test_a_share_that_is_just_the_percentile_takes_its_own_distance(n):
    way = np.arange(1.0, n + 1), np.ones(n)
    assert robust_hausdorff_mm(SurfaceDistances(*way, *way), percentile=95) == 95 * n // 100


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


def surface_distance_says(
    prediction: np.ndarray, reference: np.ndarray, spacing: tuple[float, ...]
) -> dict[str, float]:
    """ASSD and NSD by the surface-distance package."""
    from surface_distance import metrics

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        found = metrics.compute_surface_distances(reference, prediction, spacing)
    areas = found["surfel_areas_gt"].sum(), found["surfel_areas_pred"].sum()
    return {
        "assd": float(np.average(metrics.compute_average_surface_distance(found), weights=areas)),
        **{f"nsd {at}": float(metrics.compute_surface_dice_at_tolerance(found, at)) for at in (0.5, 1, 2)},
    }


@pytest.mark.parametrize("spacing", [(1, 1, 1), (0.5, 1.25, 3.0), (0.9, 0.9, 1.5)])
@pytest.mark.parametrize("density", [0.05, 0.4])
def test_average_distance_and_surface_dice_are_those_of_surface_distance(spacing, density):
    random = np.random.default_rng(1)
    prediction, reference = (random.random((9, 12, 8)) < density for _ in range(2))
    expected = surface_distance_says(prediction, reference, spacing)
    assert assd_mm(prediction, reference, spacing_mm=spacing) == pytest.approx(expected["assd"], abs=1e-9)
    for at in (0.5, 1, 2):
        ours = nsd(prediction, reference, spacing_mm=spacing, tolerance_mm=at)
        assert ours == pytest.approx(expected[f"nsd {at}"], abs=1e-9)


@pytest.mark.parametrize("spacing", [(1, 1, 1), (0.5, 1.25, 3.0)])
@pytest.mark.parametrize("density", [0.03, 0.3, 0.8])
def test_border_voxels_give_what_medpy_gives(spacing, density):
    from medpy.metric import binary

    random = np.random.default_rng(2)
    prediction, reference = (random.random((11, 9, 8)) < density for _ in range(2))
    voxels = {"spacing_mm": spacing, "definition": "voxels"}
    assert hd95_mm(prediction, reference, **voxels) == pytest.approx(binary.hd95(prediction, reference, spacing))
    assert assd_mm(prediction, reference, **voxels) == pytest.approx(binary.assd(prediction, reference, spacing))
    # Both directed distance lists of MedPy within the tolerance: the surface Dice of nnU-Net v1.
    both = [
        binary.__dict__["__surface_distances"](one, other, spacing, 1)
        for one, other in ((prediction, reference), (reference, prediction))
    ]
    for at in (0.5, 1.0, 2.0):
        shares = [np.mean(way <= at) for way in both]
        expected = sum(shares) / (2 + 1e-8)
        assert nsd(prediction, reference, tolerance_mm=at, **voxels) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), spacing=st.tuples(*[st.floats(0.3, 4)] * 3), density=st.floats(0.02, 0.9))
def test_border_voxels_are_measured_as_brute_force_measures_them(seed, spacing, density):
    random = np.random.default_rng(seed)
    masks = [random.random((6, 5, 7)) < density for _ in range(2)]
    points = []
    for mask in masks:
        mask[tuple(random.integers(0, 5, 3))] = True
        padded = np.pad(mask, 1)
        neighbours = [np.roll(padded, step, axis)[1:-1, 1:-1, 1:-1] for axis in range(3) for step in (-1, 1)]
        points.append(np.argwhere(mask & ~np.all(neighbours, axis=0)) * np.array(spacing))
    table = cdist(*points)
    found = surface_distances(*masks, spacing_mm=spacing, definition="voxels")
    np.testing.assert_allclose(found.from_prediction_mm, np.sort(table.min(axis=1)), atol=1e-9)
    np.testing.assert_allclose(found.from_reference_mm, np.sort(table.min(axis=0)), atol=1e-9)
    hundred = robust_hausdorff_mm(found, percentile=100, definition="voxels")
    assert hundred == pytest.approx(max(table.min(axis=0).max(), table.min(axis=1).max()))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), spacing=st.tuples(*[st.floats(0.3, 4)] * 3), density=st.floats(0.02, 0.9))
def test_surface_elements_lie_where_brute_force_finds_them(seed, spacing, density):
    random = np.random.default_rng(seed)
    masks = [random.random((5, 6, 4)) < density for _ in range(2)]
    points = []
    for mask in masks:
        mask[0, 0, 0] = True
        padded = np.pad(mask, 1)
        corners = [
            corner
            for corner in np.ndindex(*(side - 1 for side in padded.shape))
            if 0 < padded[tuple(slice(place, place + 2) for place in corner)].sum() < 8
        ]
        points.append(np.array(corners) * np.array(spacing))
    table = cdist(*points)
    found = surface_distances(*masks, spacing_mm=spacing)
    np.testing.assert_allclose(found.from_prediction_mm, np.sort(table.min(axis=1)), atol=1e-9)
    np.testing.assert_allclose(found.from_reference_mm, np.sort(table.min(axis=0)), atol=1e-9)


smooth_pairs = st.builds(
    lambda seed, level: [
        field > level * field.std()
        for field in (
            gaussian_filter(np.random.default_rng([seed, side]).normal(size=(12, 11, 10)), 1.2) for side in range(2)
        )
    ],
    st.integers(0, 2**32 - 1),
    st.floats(-0.5, 0.8),
)
spacings = st.tuples(*[st.floats(0.3, 4)] * 3)
definitions = st.sampled_from(["elements", "voxels"])


@settings(max_examples=30, deadline=None)
@given(masks=smooth_pairs, spacing=spacings, definition=definitions)
def test_it_does_not_matter_which_mask_is_the_prediction(masks, spacing, definition):
    how = {"spacing_mm": spacing, "definition": definition}
    one, other = masks
    assert hd95_mm(one, other, **how) == pytest.approx(hd95_mm(other, one, **how))
    assert assd_mm(one, other, **how) == pytest.approx(assd_mm(other, one, **how))
    assert nsd(one, other, tolerance_mm=1, **how) == pytest.approx(nsd(other, one, tolerance_mm=1, **how))


@settings(max_examples=30, deadline=None)
@given(masks=smooth_pairs, spacing=spacings, definition=definitions)
def test_a_mask_lies_on_itself(masks, spacing, definition):
    how = {"spacing_mm": spacing, "definition": definition}
    assert hd95_mm(masks[0], masks[0], **how) == 0
    assert assd_mm(masks[0], masks[0], **how) == 0
    assert nsd(masks[0], masks[0], tolerance_mm=0.5, **how) == pytest.approx(1)


@settings(max_examples=30, deadline=None)
@given(masks=smooth_pairs, spacing=spacings, definition=definitions, factor=st.sampled_from([0.5, 2.0, 4.0]))
def test_distances_grow_with_the_voxels(masks, spacing, definition, factor):
    larger = tuple(side * factor for side in spacing)
    for measure in (hd95_mm, assd_mm):
        small = measure(*masks, spacing_mm=spacing, definition=definition)
        assert measure(*masks, spacing_mm=larger, definition=definition) == pytest.approx(factor * small)


@settings(max_examples=40, deadline=None)
@given(
    sides=st.tuples(*[st.integers(1, 6)] * 3),
    move=st.tuples(*[st.integers(-5, 5)] * 3),
    spacing=spacings,
    definition=definitions,
)
def test_a_translated_box_is_as_far_away_at_most_as_it_was_moved(sides, move, spacing, definition):
    # The Hausdorff distance of a convex body to its translate is the length of the translation.
    start = (8, 8, 8)
    fixed = box((24, 24, 24), start, tuple(a + b for a, b in zip(start, sides, strict=True)))
    moved = np.roll(fixed, move, axis=(0, 1, 2))
    length = math.hypot(*(step * side for step, side in zip(move, spacing, strict=True)))
    found = surface_distances(moved, fixed, spacing_mm=spacing, definition=definition)
    farthest = max(found.from_prediction_mm.max(), found.from_reference_mm.max())
    # A box inside the other's hollow border would be nearer; boxes this small have no room for that along the move.
    assert farthest <= length + 1e-9
    if definition == "elements" and any(abs(step) > side for step, side in zip(move, sides, strict=True)):
        assert farthest == pytest.approx(length)


@pytest.mark.parametrize("spacing", [(1, 1, 1), (1, 1, 2), (0.5, 1, 1)])
def test_concentric_balls_lie_apart_by_the_difference_of_their_radii_on_average(spacing):
    inner, outer = ball(61, 10, spacing), ball(61, 14, spacing)
    # Elements lie around a surface on both sides, and the nearest ones face the other: up to a voxel too near.
    assert 4 - max(spacing) < assd_mm(inner, outer, spacing_mm=spacing) <= 4
    assert nsd(inner, outer, spacing_mm=spacing, tolerance_mm=1) == 0
    assert nsd(inner, outer, spacing_mm=spacing, tolerance_mm=4 + max(spacing)) == 1


def test_a_slab_that_moved_has_the_surface_dice_that_a_person_counts():
    fixed = box((30, 30, 30), (10, 5, 5), (14, 25, 25))
    moved = np.roll(fixed, 2, axis=0)
    # Four layers of 20 x 20 voxels: the outer two are border, of the inner two a ring of 76 voxels each. Of the layers
    # in turn 0, 76, 76 and 400 border voxels lie within 1 mm of the other slab's first layer or its rings.
    near = nsd(moved, fixed, spacing_mm=(1, 1, 1), tolerance_mm=1, definition="voxels")
    assert near == pytest.approx((76 + 76 + 400) / (400 + 76 + 76 + 400), abs=1e-8)
    assert nsd(moved, fixed, spacing_mm=(1, 1, 1), tolerance_mm=2) == 1
    assert hd95_mm(moved, fixed, spacing_mm=(1, 1, 1), definition="voxels") == 2


def test_empty_masks_have_no_average_and_no_common_surface():
    empty, full = np.zeros((3, 3, 3), bool), np.ones((3, 3, 3), bool)
    for definition in ("elements", "voxels"):
        how = {"spacing_mm": (1, 1, 1), "definition": definition}
        assert math.isinf(hd95_mm(empty, full, **how))
        assert math.isinf(assd_mm(full, empty, **how))
        assert nsd(empty, full, tolerance_mm=99, **how) == 0
        assert all(map(math.isnan, (hd95_mm(empty, empty, **how), assd_mm(empty, empty, **how))))
        assert math.isnan(nsd(empty, empty, tolerance_mm=1, **how))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), definition=definitions, spacing=spacings)
def test_a_part_is_measured_as_if_the_rest_were_not_there(seed, definition, spacing):
    random = np.random.default_rng(seed)
    labels = [random.choice([0, 0, 0, 1, 2, 3], (3, 3, 3)).astype(np.int32) for _ in range(2)]
    # Two steps apart, so that parts do not touch.
    labels = [np.kron(each, np.pad(np.ones((1, 1, 1), np.int32), ((0, 1),) * 3)) for each in labels]
    pair = surface_pair(
        labels[0] > 0,
        labels[1] > 0,
        spacing_mm=spacing,
        definition=definition,
        prediction_labels=labels[0],
        reference_labels=labels[1],
    )
    chosen = [random.random(4) < 0.5 for _ in range(2)]
    for part in chosen:
        part[0] = False
    parts = [part[each] for part, each in zip(chosen, labels, strict=True)]
    alone = surface_distances(*parts, spacing_mm=spacing, definition=definition)
    found = pair.between(chosen[1], chosen[0])
    for name in ("from_reference_mm", "reference_mm2", "from_prediction_mm", "prediction_mm2"):
        np.testing.assert_allclose(getattr(found, name), getattr(alone, name))
