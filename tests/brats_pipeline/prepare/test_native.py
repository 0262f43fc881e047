"""Label maps come back to the grid of the original scan, with its header."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from brats_pipeline.errors import PipelineError
from brats_pipeline.prepare import is_prepared, preparing, to_native
from brats_pipeline.prepare.matching import Match
from brats_pipeline.prepare.preparing import prepare_case
from brats_pipeline.prepare.similarity import Similarity

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
CENTRE = np.array([4.0, -3.0, 6.0])
RADII = {1: 12.0, 2: 26.0, 4: 34.0}
"""Label to the radius in mm of the ball that it fills, around :data:`CENTRE` in LPS; smaller ones hide larger ones."""


def balls(shape: tuple[int, ...], affine: np.ndarray, centre: np.ndarray = CENTRE) -> tuple[np.ndarray, np.ndarray]:
    """Labels of balls at the voxels of a NIfTI grid, and each voxel's distance to the nearest border."""
    index = np.indices(shape).reshape(3, -1)
    points = ((LPS @ affine)[:3, :3] @ index).T + (LPS @ affine)[:3, 3]
    away = np.linalg.norm(points - centre, axis=1).reshape(shape)
    labels = np.zeros(shape, np.uint8)
    for label, radius in sorted(RADII.items(), key=lambda entry: -entry[1]):
        labels[away < radius] = label
    return labels, np.min([np.abs(away - radius) for radius in RADII.values()], axis=0)


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """A scan with thick slices, axes in odd order and direction, turned, and a header full of particulars."""
    shape, sides = (30, 44, 40), (5.0, 2.2, 2.4)
    turn = sitk.Euler3DTransform()
    turn.SetRotation(0.1, -0.2, 0.15)
    axes = np.reshape(turn.GetMatrix(), (3, 3)) @ np.array([[0, 0, 1], [0, -1, 0], [1, 0, 0]], float)
    affine = np.eye(4)
    affine[:3, :3] = axes * sides
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    values = np.random.default_rng(0).integers(1, 900, shape).astype(np.int16)
    image = nib.Nifti1Image(values, affine)
    image.set_qform(affine, 2)
    image.set_sform(affine, 3)
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, tmp_path / "t1c.nii.gz")
    return tmp_path / "t1c.nii.gz"


def labelled(case: Path, **arguments: Any) -> Path:
    """Write balls on the grid of a prepared case."""
    image = nib.load(case / f"{case.name}-t1c.nii.gz")
    path = case.parent / "labels.nii.gz"
    nib.save(nib.Nifti1Image(balls(image.shape, image.affine, **arguments)[0], image.affine), path)
    return path


def assert_header_of(scan: Path, found: nib.Nifti1Image) -> None:
    header = nib.load(scan).header
    for name in ("qform_code", "sform_code", "srow_x", "srow_y", "srow_z", "quatern_b", "qoffset_x", "pixdim", "dim"):
        np.testing.assert_array_equal(found.header[name], header[name], err_msg=name)
    assert found.header["xyzt_units"] == header["xyzt_units"]
    assert found.get_data_dtype() == np.uint8


def test_on_the_references_own_voxels_nothing_is_lost(scan: Path, tmp_path: Path) -> None:
    case = prepare_case({"t1c": scan}, tmp_path / "case", grid="reference", brain="none").folder
    assert is_prepared(case)
    assert not is_prepared(tmp_path)
    native = np.random.default_rng(1).integers(0, 5, (30, 44, 40)).astype(np.uint8)
    original = nib.Nifti1Image(native, nib.load(scan).affine)
    turned = nib.orientations.ornt_transform(
        nib.io_orientation(original.affine), nib.orientations.axcodes2ornt(("L", "P", "S"))
    )
    nib.save(original.as_reoriented(turned), tmp_path / "labels.nii.gz")
    out = to_native(tmp_path / "labels.nii.gz", case, tmp_path / "native.nii.gz")
    np.testing.assert_array_equal(np.asarray(nib.load(out).dataobj), native)
    assert_header_of(scan, nib.load(out))


def test_from_cubes_of_1_mm_every_label_comes_back_where_it_lies(scan: Path, tmp_path: Path) -> None:
    case = prepare_case({"t1c": scan}, tmp_path / "case", brain="none", interpolation="linear").folder
    image = nib.load(case / "case-t1c.nii.gz")
    assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
    np.testing.assert_allclose(image.header.get_zooms(), 1, atol=1e-6)
    found = nib.load(to_native(labelled(case), case, tmp_path / "native.nii.gz"))
    truth, border = balls(found.shape, found.affine)
    seen = np.asarray(found.dataobj)
    assert set(np.unique(truth)) == {0, 1, 2, 4}
    np.testing.assert_array_equal(seen[border > 0.9], truth[border > 0.9])
    for label in RADII:
        both = 2 * ((seen == label) & (truth == label)).sum() / ((seen == label).sum() + (truth == label).sum())
        assert both > 0.97
    assert_header_of(scan, found)


def test_from_an_atlas_the_transform_is_undone(scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = sitk.Euler3DTransform()
    moved.SetRotation(0.2, 0.1, -0.15)
    moved.SetTranslation((6.0, -5.0, 4.0))
    good = Similarity(1.0, 1.0)
    monkeypatch.setattr(preparing, "match", lambda *_, **__: Match(moved, good, good, 9.0, 15.0, False))
    shape, sides = (100, 110, 90), np.diag([-1.5, -1.5, 1.5, 1.0])
    sides[:3, 3] = [75, 82, -67]
    atlas = tmp_path / "atlas.nii.gz"
    nib.save(nib.Nifti1Image(np.random.default_rng(2).integers(1, 900, shape).astype(np.int16), sides), atlas)
    case = prepare_case({"t1c": scan}, tmp_path / "case", brain="none", atlas=atlas, interpolation="linear").folder
    np.testing.assert_allclose(nib.load(case / "case-t1c.nii.gz").affine, sides)
    there = np.array(moved.GetInverse().TransformPoint(CENTRE.tolist()))  # where the atlas shows the centre
    found = nib.load(to_native(labelled(case, centre=there), case, tmp_path / "native.nii.gz"))
    truth, border = balls(found.shape, found.affine)
    np.testing.assert_array_equal(np.asarray(found.dataobj)[border > 1.3], truth[border > 1.3])


def test_a_label_map_of_another_grid_is_refused(scan: Path, tmp_path: Path) -> None:
    case = prepare_case({"t1c": scan}, tmp_path / "case", grid="reference", brain="none").folder
    with pytest.raises(PipelineError, match="another grid than the prepared case"):
        to_native(scan, case, tmp_path / "native.nii.gz")
    assert not (tmp_path / "native.nii.gz").exists()


def test_grey_values_are_no_labels(scan: Path, tmp_path: Path) -> None:
    case = prepare_case({"t1c": scan}, tmp_path / "case", grid="reference", brain="none").folder
    with pytest.raises(PipelineError, match="no labels"):
        to_native(case / "case-t1c.nii.gz", case, tmp_path / "native.nii.gz")


def test_a_folder_without_record_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"prepare\.json"):
        to_native(tmp_path / "labels.nii.gz", tmp_path, tmp_path / "native.nii.gz")
