"""Known motions are found again, whatever the contrasts, and to the same bits twice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from brats_pipeline.prepare.heads import one_thread
from brats_pipeline.prepare.matching import as_affine, displacement, match
from brats_pipeline.prepare.similarity import mutual_information

MOTIONS = {
    "15 degrees and 20 mm": ("t2", (9.0, -8.0, 9.0), (-12.0, 11.0, 11.5)),
    "a nod and a shift": ("flair", (-12.0, 3.0, 1.0), (2.0, -15.0, 6.0)),
}
SPACING = (2.6, 2.6, 4.0)


def errors(found: sitk.Transform, truth: sitk.Transform, points: np.ndarray) -> tuple[float, float]:
    """Mean distance in mm between where two transforms take points, and the angle in degrees between them."""
    one, other = as_affine(found), as_affine(truth)
    apart = points @ (one - other)[:3, :3].T + (one - other)[:3, 3]
    turn = one[:3, :3] @ other[:3, :3].T
    angle = np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1)))
    return float(np.linalg.norm(apart, axis=1).mean()), float(angle)


@pytest.mark.parametrize("name", list(MOTIONS))
def test_a_known_motion_between_two_contrasts_is_recovered(name: str, head: Any, scanner: Any) -> None:
    modality, degrees, shift_mm = MOTIONS[name]
    truth = scanner.motion(degrees, shift_mm)
    found = match(head.scans["t1c"], scanner.rescan(head.scans[modality], truth, spacing=SPACING))
    mm, angle = errors(found.transform, truth, head.points)
    assert mm < 0.5
    assert angle < 0.5
    assert found.after.information > 1.2 * found.before.information
    assert not found.kept
    assert found.rotated_degrees == pytest.approx(errors(sitk.Euler3DTransform(), truth, head.points)[1], abs=0.5)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_any_motion_up_to_15_degrees_and_20_mm_is_recovered(seed: int, scanner: Any) -> None:
    rng = np.random.default_rng(seed)
    head = scanner.draw_head(seed % 3)
    axis, way = (each / np.linalg.norm(each) for each in rng.normal(size=(2, 3)))
    truth = sitk.VersorRigid3DTransform()
    truth.SetRotation(axis.tolist(), float(np.radians(rng.uniform(2, 15))))
    truth.SetTranslation((way * rng.uniform(3, 20)).tolist())
    modality = ("t1", "t2", "flair")[seed % 3]
    moving = scanner.rescan(head.scans[modality], truth, spacing=(2.0, 2.0, 5.0), seed=seed)
    mm, angle = errors(match(head.scans["t1c"], moving, seed=seed).transform, truth, head.points)
    assert mm < 0.5
    assert angle < 0.5


def test_threads_do_not_change_a_bit_and_are_as_many_as_before(head: Any, scanner: Any) -> None:
    moving = scanner.rescan(head.scans["t1"], scanner.motion((4, 2, -3), (3, 1, 2)), spacing=(4.0, 4.0, 4.0))
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    found = []
    try:
        for threads in (1, 3):
            sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
            found.append(match(head.scans["t1c"], moving))
            assert sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() == threads
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
    assert found[0].transform.GetParameters() == found[1].transform.GetParameters()
    assert found[0].after == found[1].after


def test_threads_are_as_before_when_something_fails() -> None:
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    with pytest.raises(KeyError), one_thread():
        raise KeyError
    assert sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() == before


def test_scans_that_match_already_keep_their_headers(head: Any) -> None:
    found = match(head.scans["t1c"], head.scans["t1"])
    assert found.moved_mm < 0.2
    assert found.rotated_degrees < 0.2


def test_a_result_that_matches_worse_is_not_taken(head: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from brats_pipeline.prepare import matching

    monkeypatch.setattr(matching, "_follow", lambda start, *_: sitk.Euler3DTransform(head_off()))
    found = match(head.scans["t1c"], head.scans["t1"])
    assert found.kept
    assert (found.moved_mm, found.rotated_degrees) == (0, 0)
    np.testing.assert_array_equal(as_affine(found.transform), np.eye(4))
    assert found.after == found.before


def head_off() -> sitk.Euler3DTransform:
    """Worse than nothing: 12 mm to the side."""
    away = sitk.Euler3DTransform()
    away.SetTranslation((12.0, 0.0, 0.0))
    return away


def test_scans_that_lie_apart_by_their_headers_are_brought_together_by_contents(head: Any, scanner: Any) -> None:
    moving = scanner.rescan(head.scans["t1"], scanner.motion((2, -3, 4), (0, 0, 0)), spacing=(4.0, 4.0, 4.0))
    far = sitk.Image(moving)
    far.SetOrigin(np.add(moving.GetOrigin(), (400, -300, 900)).tolist())
    found = match(head.scans["t1c"], far)
    assert found.before.covered == 0
    truth = sitk.CompositeTransform(
        [sitk.TranslationTransform(3, (400, -300, 900)), scanner.motion((2, -3, 4), (0,) * 3)]
    )
    assert errors(found.transform, truth, head.points)[0] < 0.7


def test_displacement_is_that_of_the_points(head: Any, scanner: Any) -> None:
    moved = scanner.motion((10, 0, 0), (0, 3, 4))
    lengths = [np.linalg.norm(np.subtract(moved.TransformPoint(point.tolist()), point)) for point in head.points[::50]]
    mm, degrees = displacement(moved, head.brain)
    assert mm == pytest.approx(np.mean(lengths), rel=0.02)
    assert degrees == pytest.approx(10)


def test_mutual_information_is_that_of_the_textbook() -> None:
    rng = np.random.default_rng(0)
    levels = rng.permutation(np.repeat(np.arange(4), 5000)).astype(float)
    assert mutual_information(levels, 7 - levels**2) == pytest.approx(np.log(4), abs=1e-6)  # each tells the other
    assert mutual_information(levels, rng.permutation(levels)) == pytest.approx(0, abs=1e-3)
    half = np.where(levels < 2, 0.0, 1.0)
    assert mutual_information(levels, half) == pytest.approx(np.log(2), abs=1e-6)
