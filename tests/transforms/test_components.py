"""Parts of masks and their holes, against drawings and against scipy.ndimage."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from brats_pipeline.metrics.lesions import components
from transforms.components import box_around, filled, find_components

Mask = npt.NDArray[np.bool_]
TOUCHING = np.ones((3, 3, 3), bool)


def drawn(*rows: str) -> Mask:
    return np.array([[sign == "#" for sign in row] for row in rows])


@st.composite
def masks(draw: st.DrawFn) -> Mask:
    """Masks of any density and shape, lines, lone slices and single voxels among them."""
    shape = draw(st.tuples(*[st.integers(1, 7)] * 3))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return generator.random(shape) < draw(st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.8, 1.0]))


def test_parts_that_meet_at_a_corner_are_one() -> None:
    parts = find_components(drawn("##....", "..#..#", ".....#"))
    assert parts.sizes.tolist() == [0, 3, 2]


def test_small_parts_are_dropped_and_those_of_the_limit_stay() -> None:
    parts = find_components(drawn("##..#.##", "##......"))
    assert np.array_equal(parts.mask(parts.kept(smallest=2)), drawn("##....##", "##......"))
    assert np.array_equal(parts.mask(parts.kept(smallest=3)), drawn("##......", "##......"))
    assert not parts.mask(parts.kept(smallest=5)).any()


def test_of_two_largest_parts_one_is_kept() -> None:
    parts = find_components(drawn("##.##", "....."))
    assert parts.mask(parts.kept(largest=True)).sum() == 2


def test_the_largest_part_may_still_be_too_small() -> None:
    parts = find_components(drawn("##.#"))
    assert not parts.mask(parts.kept(smallest=3, largest=True)).any()


def test_a_hole_is_filled_and_a_bay_is_not() -> None:
    ring = drawn("###.#", "#.#.#", "###.#", "....#")
    assert np.array_equal(filled(ring), drawn("###.#", "###.#", "###.#", "....#"))
    assert np.array_equal(filled(drawn("###", "#..", "###")), drawn("###", "#..", "###"))


def test_a_wall_that_holds_together_by_corners_encloses_a_hole() -> None:
    diamond = drawn(".#.", "#.#", ".#.")
    assert np.array_equal(filled(diamond), drawn(".#.", "###", ".#."))


def test_a_cavity_that_reaches_the_border_of_the_array_is_no_hole() -> None:
    cup = drawn("#.#", "#.#", "###")
    assert np.array_equal(filled(cup), cup)


def test_a_tunnel_through_a_volume_is_no_hole_and_one_slice_of_it_is() -> None:
    tube = np.stack([drawn("###", "#.#", "###")] * 3, axis=-1)
    assert np.array_equal(filled(tube), tube)
    assert filled(tube[..., :1]).all()


@given(masks(), st.permutations(range(3)), st.booleans())
@settings(deadline=None, max_examples=100)
def test_the_box_is_as_tight_however_the_mask_lies_in_memory(mask: Mask, order: list[int], mirrored: bool) -> None:
    laid = np.ascontiguousarray(mask.transpose(order)).transpose(np.argsort(order))
    laid = np.ascontiguousarray(laid[::-1])[::-1] if mirrored else laid
    assert np.array_equal(laid, mask)
    voxels = np.argwhere(mask)
    ends = zip(voxels.min(axis=0), voxels.max(axis=0) + 1, strict=True) if len(voxels) else [(0, 0)] * 3
    assert box_around(laid) == tuple(slice(start, stop) for start, stop in ends)


@given(masks())
@settings(deadline=None, max_examples=100)
def test_parts_are_those_of_scipy(mask: Mask) -> None:
    numbers, count = ndimage.label(mask, TOUCHING)
    sizes = np.bincount(numbers.ravel(), minlength=count + 1)[1:]
    parts = find_components(mask)
    assert sorted(parts.sizes[1:].tolist()) == sorted(sizes.tolist())
    for smallest in (0, 1, 2, 5):
        kept = np.isin(numbers, 1 + np.flatnonzero(sizes >= smallest))
        assert np.array_equal(parts.mask(parts.kept(smallest=smallest)), kept)


@given(masks())
@settings(deadline=None, max_examples=100)
def test_holes_are_those_of_scipy(mask: Mask) -> None:
    thin = tuple(axis for axis, side in enumerate(mask.shape) if side == 1)
    expected = ndimage.binary_fill_holes(mask.squeeze(axis=thin)) if mask.ndim > len(thin) else mask
    assert np.array_equal(filled(mask), np.reshape(expected, mask.shape))


@pytest.mark.parametrize("shape", [(0, 3, 3), (4, 4, 4)])
def test_nothing_has_no_parts(shape: tuple[int, ...]) -> None:
    nothing = np.zeros(shape, bool)
    parts = find_components(nothing)
    assert parts.sizes.tolist() == [0]
    assert parts.mask(parts.kept(largest=True)).shape == filled(nothing).shape == shape


def test_of_small_boxes_every_part_is_found() -> None:
    draw = np.random.default_rng(0)
    for _ in range(3000):
        mask = draw.random(draw.integers(1, 7, 3)) < draw.choice([0.1, 0.3, 0.5])
        wanted = ndimage.label(mask, np.ones((3, 3, 3)))[1]
        assert np.count_nonzero(find_components(mask).sizes) == wanted
        assert components(mask).max() == wanted
