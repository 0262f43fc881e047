"""Maps, intervals of volumes and expected Dice of cases whose members are drawn by hand."""

from __future__ import annotations

import csv
import json
import logging
import math
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.utils.misc import ImageMetaKey

from brats_pipeline.errors import CaseError, PipelineError
from brats_pipeline.inference.doubt import read_cases, region_doubt, write_table
from brats_pipeline.inference.expected_dice import ExpectedDice, RegionFit, makers, write_expected_dice
from brats_pipeline.inference.uncertainty import SaveUncertaintyd, calibration_for, map_image
from brats_pipeline.predictions import TOLD, UNCERTAINTY, files_by_case, files_to_write
from transforms.uncertainty import MemberPool, RestoreSpreadd

REGIONS = ["TC", "WT", "ET"]
MEMBERS = [  # of WT in a row of four voxels
    [0.9, 0.8, 0.6, 0.0],
    [0.9, 0.6, 0.3, 0.0],
]


def line_of(low: float, high: float) -> RegionFit:
    """Dice rises in a line from (0, low) to (1, high)."""
    return RegionFit(20, (0.0, 1.0), (low, high), 0.05, 0.1, 0, None)


def row(*values: float) -> np.ndarray:
    return np.array(values).reshape(-1, 1, 1)


def test_the_interval_goes_from_what_all_mark_to_what_one_marks() -> None:
    members = np.array(MEMBERS)
    marked = members >= 0.5
    mean = members.mean(axis=0)
    found = region_doubt(
        "WT", mask=row(*mean >= 0.5), lowest=row(*marked.all(0)), highest=row(*marked.any(0)), mean=row(*mean),
        voxel_ml=0.002, calibration=None,
    )  # fmt: skip
    assert (found.volume_low, found.volume, found.volume_high) == pytest.approx((0.004, 0.004, 0.006))
    assert found.expected_dice is found.needs_review is None
    for member in marked:
        assert found.volume_low <= member.sum() * 0.002 <= found.volume_high


def test_the_interval_holds_the_label_map_after_a_clean_up_too() -> None:
    everywhere, nowhere = row(1, 1, 1) > 0, row(0, 0, 0) > 0
    arguments: dict[str, Any] = {"mean": row(0.5, 0.5, 0.5), "voxel_ml": None, "calibration": None}
    removed = region_doubt("WT", mask=nowhere, lowest=everywhere, highest=everywhere, **arguments)
    filled = region_doubt("WT", mask=everywhere, lowest=nowhere, highest=nowhere, **arguments)
    assert (removed.volume_low, removed.volume, removed.volume_high) == (0, 0, 3)
    assert (filled.volume_low, filled.volume, filled.volume_high) == (0, 3, 3)


def test_a_case_of_which_too_little_is_expected_needs_review() -> None:
    mask = row(1, 1, 0) > 0
    arguments: dict[str, Any] = {"mask": mask, "lowest": mask, "highest": mask, "mean": row(1, 1, 0), "voxel_ml": None}
    for high, needed in ((0.69, True), (0.71, False)):
        found = region_doubt("WT", calibration=ExpectedDice({"WT": line_of(0.2, high)}, {}, 0.7), **arguments)
        assert found.expected_dice == pytest.approx(high)
        assert found.needs_review is needed
    other = region_doubt("WT", calibration=ExpectedDice({"TC": line_of(0.2, 0.9)}, {}), **arguments)
    assert other.expected_dice is other.needs_review is None


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """A scan of four voxels of 10 x 5 x 2 mm."""
    path = tmp_path / "scan.nii.gz"
    image = nib.Nifti1Image(np.ones((4, 1, 1), np.int16), np.diag([-10.0, 5.0, 2.0, 1.0]))
    image.set_sform(image.affine, code=1)
    nib.save(image, path)
    return path


def item_of(scan: Path, *, case_id: str = "case", convention: str = "brats2023") -> dict[str, Any]:
    """A case behind the network: WT as :data:`MEMBERS` say, TC surely in the first voxel, no ET."""
    pool = MemberPool(spread=True)
    for member in MEMBERS:
        pool.add(torch.tensor([[1.0, 0, 0, 0], member, [0.0] * 4]).view(1, 3, 4, 1, 1))
    image = MetaTensor(torch.ones(1, 4, 1, 1), meta={ImageMetaKey.FILENAME_OR_OBJ: str(scan)})
    item = RestoreSpreadd("pred", regions=REGIONS, transform=None)({"image": image, "pred": pool.logits()[0]})
    labels = torch.tensor([1, 2, 0, 0]).view(1, 4, 1, 1)
    return {**item, "pred": labels, "case_id": case_id, "convention": convention}


def saver(tmp_path: Path, **more: Any) -> SaveUncertaintyd:
    return SaveUncertaintyd("pred", output_dir=tmp_path / "out", regions=REGIONS, **more)


def test_a_case_is_told_in_maps_and_figures(scan: Path, tmp_path: Path) -> None:
    saver(tmp_path)(item_of(scan))
    folder = tmp_path / "out" / UNCERTAINTY
    names = ["case.json", "case_entropy.nii.gz", "case_mutual_information.nii.gz"]
    assert sorted(path.name for path in folder.iterdir()) == names
    entropy, information = (nib.load(folder / name) for name in names[1:])
    assert entropy.shape == information.shape == (4, 1, 1, 3)
    assert np.array_equal(entropy.affine, nib.load(scan).affine)
    assert entropy.header["sform_code"] == 1

    def bits(p: float) -> float:
        return -p * math.log(p) - (1 - p) * math.log(1 - p) if 0 < p < 1 else 0

    mean = [0.9, 0.7, 0.45, 0]
    expected = [bits(p) for p in mean]
    own = [(bits(a) + bits(b)) / 2 for a, b in zip(*MEMBERS, strict=True)]
    assert entropy.get_fdata()[:, 0, 0, 1].tolist() == pytest.approx(expected, abs=1e-3)
    disagreement = [whole - part for whole, part in zip(expected, own, strict=True)]
    assert information.get_fdata()[:, 0, 0, 1].tolist() == pytest.approx(disagreement, abs=1e-3)
    assert not entropy.get_fdata()[..., [0, 2]].any()

    told = read_cases(tmp_path / "out")["case"]
    assert told["unit"] == "ml"
    assert told["needs_review"] is None
    wt = told["regions"]["WT"]
    assert (wt["volume_low"], wt["volume"], wt["volume_high"]) == pytest.approx((0.2, 0.2, 0.3))
    tc, et = told["regions"]["TC"], told["regions"]["ET"]
    assert tc["volume_low"] == tc["volume"] == tc["volume_high"] == pytest.approx(0.1)
    assert et["volume_low"] == et["volume"] == et["volume_high"] == 0


def test_slices_are_counted_in_voxels(scan: Path, tmp_path: Path) -> None:
    saver(tmp_path, like_key=None)(item_of(scan))
    write_table(tmp_path / "out")
    with (tmp_path / "out" / "uncertainty.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["region"], row["volume_voxels"], row["volume_high_voxels"]) for row in rows] == [
        ("WT", "2", "3"),
        ("TC", "1", "1"),
        ("ET", "0", "0"),
    ]
    assert not any("_ml" in name for name in rows[0])


def test_the_table_has_every_case_and_region(scan: Path, tmp_path: Path) -> None:
    weights = tmp_path / "model.pt"
    weights.write_bytes(b"weights")
    known = ExpectedDice({"WT": line_of(0, 1), "TC": line_of(0, 0.5)}, makers(weights, tta="all"), 0.7)
    write_expected_dice(tmp_path / "expected_dice.json", known)
    save = saver(tmp_path, calibration=tmp_path / "expected_dice.json", checkpoints=weights, tta="all")
    for case_id in ("b", "a.2"):
        save(item_of(scan, case_id=case_id))
    write_table(tmp_path / "out")
    lines = (tmp_path / "out" / "uncertainty.csv").read_text().splitlines()
    assert lines[0] == "case_id,region,volume_ml,volume_low_ml,volume_high_ml,expected_dice,needs_review"
    wt = np.array([0.9, 0.7, 0.45], dtype=np.float16).astype(float)  # as probabilities are kept
    expected = 2 * wt[:2].sum() / (2 + wt.sum())
    assert lines[1:4] == [
        f"a.2,WT,0.200,0.200,0.300,{expected:.4f},no",
        "a.2,TC,0.100,0.100,0.100,0.5000,yes",
        "a.2,ET,0.000,0.000,0.000,,",
    ]
    assert [line.split(",")[0] for line in lines[4:]] == ["b"] * 3
    assert read_cases(tmp_path / "out")["b"]["needs_review"] is True


def test_there_is_no_table_where_nothing_was_told(tmp_path: Path) -> None:
    (tmp_path / "uncertainty.csv").write_text("of cases that were segmented again without")
    write_table(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("change", "named"), [("weights", "weights_sha256"), ("tta", "tta")])
def test_a_calibration_of_other_makers_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, change: str, named: str
) -> None:
    weights, path = tmp_path / "model.pt", tmp_path / "expected_dice.json"
    weights.write_bytes(b"weights")
    made = ExpectedDice({"WT": line_of(0, 1)}, makers(weights, tta=[0]))
    write_expected_dice(path, made)
    with caplog.at_level(logging.WARNING):
        assert calibration_for(path, [weights], tta=[0]) == made
        assert not caplog.records
        if change == "weights":
            weights.write_bytes(b"other weights")
        assert calibration_for(path, weights, tta=[0] if change == "weights" else []) is None
    assert f"another {named};" in caplog.text
    assert calibration_for(tmp_path / "none.json", weights) is None


def test_levels_of_a_map_are_fine_and_stay_in_their_range() -> None:
    values = np.linspace(0, math.log(2), 1001, dtype=np.float32).reshape(1, -1, 1, 1)
    image = map_image(values, np.eye(4), None)
    assert image.get_data_dtype() == np.int16
    assert image.shape == (1001, 1, 1)
    np.testing.assert_allclose(nib.Nifti1Image.from_bytes(image.to_bytes()).get_fdata(), values[0], atol=1.1e-5)


def test_a_scan_that_went_away_is_a_case_that_failed(scan: Path, tmp_path: Path) -> None:
    item = item_of(scan)
    scan.unlink()
    with pytest.raises(CaseError, match=r"case: .*scan\.nii\.gz"):
        saver(tmp_path)(item)


def test_a_damaged_record_of_a_case_is_named(scan: Path, tmp_path: Path) -> None:
    saver(tmp_path)(item_of(scan))
    path = tmp_path / "out" / UNCERTAINTY / "case.json"
    assert json.loads(path.read_text())["schema_version"] == 1
    path.write_text("{")
    with pytest.raises(PipelineError, match=r"case.json: cannot be read .* segment the case again"):
        read_cases(tmp_path / "out")


def test_what_is_told_belongs_to_the_predictions_of_its_case(scan: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for case_id in ("a.1", "b"):
        saver(tmp_path)(item_of(scan, case_id=case_id))
    written = [out / UNCERTAINTY / f"a.1{ending}" for ending in TOLD]
    assert files_by_case(out)["a.1"] == written
    wanted = files_to_write(out, {"case_id": "a.1", "layout": "brats2021"}, uncertainty=True)
    assert wanted == [out / "a.1.nii.gz", *written]
    assert all(path.is_file() for path in written)
