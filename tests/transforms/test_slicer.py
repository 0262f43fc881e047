"""What 3D Slicer is given: colour tables and segmentations that lie where the label map lay."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from brats_pipeline.errors import PipelineError
from transforms.labels import CONVENTIONS
from transforms.slicer import COLOURS, colour_table, write_colour_table, write_segmentation

TABLES = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "slicer"

every = pytest.mark.parametrize("name", sorted(CONVENTIONS))


@every
def test_a_colour_table_names_every_value_in_a_colour_of_its_own(name: str, tmp_path: Path) -> None:
    write_colour_table(tmp_path / "table.ctbl", name)
    rows = [line.split(" ") for line in (tmp_path / "table.ctbl").read_text().splitlines() if not line.startswith("#")]
    assert all(len(row) == 6 for row in rows)
    assert {int(row[0]) for row in rows} == CONVENTIONS[name].values
    named = {int(value): tissue.replace("_", " ") for value, tissue, *_ in rows[1:]}
    assert named == dict(CONVENTIONS[name].tissues)
    assert len({tuple(row[2:5]) for row in rows}) == len(rows)


@every
def test_the_tables_beside_the_documentation_are_those_of_the_code(name: str) -> None:
    assert (TABLES / f"{name}.ctbl").read_text() == colour_table(name)


def test_no_colour_is_left_over() -> None:
    assert set(COLOURS) == {tissue for row in CONVENTIONS.values() for tissue in row.tissues.values()}


@pytest.fixture
def label_map(tmp_path: Path) -> Path:
    """An oblique label map with ED, ET and no NCR."""
    labels = np.zeros((5, 4, 3), dtype=np.uint8)
    labels[1:4, 1:3, 0:2] = 2
    labels[2, 2, 1] = 4
    turn = np.array([[0.0, -2.0, 0.0], [-0.6, 0.0, 0.8 * 3], [0.8, 0.0, 0.6 * 3]])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn, [10, -20, 30]
    nib.save(nib.Nifti1Image(labels, affine), tmp_path / "case.nii.gz")
    return tmp_path / "case.nii.gz"


def test_another_reader_finds_the_same_voxels_in_the_same_place(label_map: Path, tmp_path: Path) -> None:
    out = tmp_path / "case.seg.nrrd"
    write_segmentation(label_map, out, "brats2017")
    ours, theirs = sitk.ReadImage(str(out)), sitk.ReadImage(str(label_map))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(ours), sitk.GetArrayFromImage(theirs))
    for index in ((0, 0, 0), (4, 3, 2), (2, 0, 1)):
        np.testing.assert_allclose(
            ours.TransformIndexToPhysicalPoint(index), theirs.TransformIndexToPhysicalPoint(index), atol=1e-4
        )
    assert ours.GetMetaData("Segment1_Name") == "ED"
    assert ours.GetMetaData("Segment1_LabelValue") == "2"
    assert ours.GetMetaData("Segment1_Extent") == "1 3 1 2 0 1"
    assert ours.GetMetaData("Segment2_Name") == "ET"
    assert ours.GetMetaData("Segment0_Extent") == "0 -1 0 -1 0 -1"


def test_values_of_another_convention_and_other_names_are_refused(label_map: Path, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="holds the value 4, which the convention brats2023 does not know"):
        write_segmentation(label_map, tmp_path / "case.seg.nrrd", "brats2023")
    with pytest.raises(PipelineError, match=r"must end in \.seg\.nrrd"):
        write_segmentation(label_map, tmp_path / "case.nrrd", "brats2017")
    with pytest.raises(ValueError, match="unknown label convention"):
        write_segmentation(label_map, tmp_path / "case.seg.nrrd", "brats")
    assert list(tmp_path.iterdir()) == [label_map]
