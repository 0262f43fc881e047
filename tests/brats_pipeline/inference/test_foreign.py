"""What segment did not write it never removes nor replaces, with ``overwrite`` neither."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from brats_pipeline.cases import find_cases
from brats_pipeline.data.datalist import case_items
from brats_pipeline.errors import PipelineError
from brats_pipeline.inference.extras import Extras
from brats_pipeline.inference.foreign import refuse_foreign
from brats_pipeline.inference.segment import segment
from brats_pipeline.phantom import write_cohort

CASE = "BraTS2021_00001"
TRAINING = {"schema_version": 1, "bundle": "brats_glioma_3d", "fold": 3, "seed": 7, "status": "interrupted"}


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_refused(inputs: Path, out: Path, run: Path, words: str, **more: Any) -> None:
    """The call is refused in these words, does not advise --overwrite, and leaves every file as it is."""
    before = contents(out)
    for overwrite in (False, True):
        with pytest.raises(PipelineError, match=words) as caught:
            segment([inputs], out, bundle=run, device="cpu", overwrite=overwrite, **more)
        assert "--overwrite" not in str(caught.value)
        assert "choose another folder" in str(caught.value)
        assert contents(out) == before


@pytest.mark.parametrize(
    ("name", "more"),
    [
        (f"{CASE}.nii.gz", {}),
        (f"{CASE}.nii", {}),
        (f"probabilities/{CASE}.npz", {}),
        (f"uncertainty/{CASE}_entropy.nii.gz", {"uncertainty": True}),
        (f"{CASE}.seg.nrrd", {"extras": Extras(formats=("nrrd",))}),
        (f"{CASE}.dcm", {"extras": Extras(formats=("dicom-seg",), dicom_series=Path())}),
        (f"native/{CASE}.nii.gz", {"extras": Extras(formats=("dicom-seg",), dicom_series=Path())}),
        (f"{CASE}_preview.png", {"extras": Extras(preview=True)}),
        (f"{CASE}_viewer.html", {"extras": Extras(viewer=True)}),
    ],
)
def test_a_file_that_no_record_vouches_for_is_not_replaced(
    name: str, more: dict[str, Any], cohort: Path, run: Path, tmp_path: Path
) -> None:
    foreign = tmp_path / "out" / name
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(b"somebody's work")
    assert_refused(cohort, tmp_path / "out", run, f"{CASE}: {foreign} is there already", **more)


def test_nor_where_a_record_tells_of_other_cases_or_that_this_one_failed(
    predictions: Path, cohort: Path, run: Path, tmp_path: Path
) -> None:
    record = json.loads((predictions / "run.json").read_text())
    told = record["cases"].pop(CASE)
    out = tmp_path / "out"
    out.mkdir()
    (out / f"{CASE}.nii.gz").write_bytes(b"drawn by hand")
    for cases in (record["cases"], {CASE: {**told, "status": "failed", "inputs": {}}}):
        (out / "run.json").write_text(json.dumps({**record, "cases": cases}))
        assert_refused(cohort / CASE, out, run, rf"{CASE}\.nii\.gz is there already, and no run\.json")


@pytest.mark.parametrize("text", [json.dumps(TRAINING), '{"mine": 1}', '{"cases": [], "weights_sha256": ""}', "[", "3"])
def test_a_run_json_of_another_kind_is_not_replaced(text: str, cohort: Path, run: Path, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(text)
    assert_refused(cohort / CASE, tmp_path, run, r"run\.json: is no record of predictions")


def test_a_run_is_no_place_for_predictions(run: Path, cohort: Path) -> None:
    assert_refused(cohort / CASE, run, run, r"run\.json: is no record of predictions")


def test_nor_are_tables_of_other_kinds(cohort: Path, run: Path, tmp_path: Path) -> None:
    (tmp_path / "volumes.json").write_text('{"my": "volumetry"}')
    assert_refused(cohort / CASE, tmp_path, run, r"volumes\.json: holds no volumes of predictions")
    (tmp_path / "volumes.json").unlink()
    (tmp_path / "uncertainty.csv").write_text("mine")
    assert_refused(cohort / CASE, tmp_path, run, r"uncertainty\.csv: no run\.json says", uncertainty=True)


def test_reference_label_maps_are_not_replaced(make_cohort: Callable[..., Path], run: Path) -> None:
    data = make_cohort(cases=1, layout="msd")
    assert list((data / "labelsTr").glob("*.nii.gz"))
    assert_refused(data, data / "labelsTr", run, "is there already")


def test_reference_masks_of_slices_are_not_replaced(tmp_path: Path) -> None:
    write_cohort(tmp_path / "data", cases=1, layout="lgg", shape=(44, 48, 40))
    (case,) = find_cases(tmp_path / "data")
    assert case.label is not None
    items = case_items([case], modalities=list(case.images))
    with pytest.raises(PipelineError, match=rf"{case.case_id}: .*_mask\.tif is there already"):
        refuse_foreign(case.label.paths[0].parents[1], {}, items, Extras(), probabilities=False, uncertainty=False)
