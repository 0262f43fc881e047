"""Patients whose scans are slices are scored: pairs of masks, misses, copied channels, files. And decathlon volumes."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from brats_pipeline.errors import PipelineError
from brats_pipeline.evaluation.evaluate import Evaluation, evaluate
from brats_pipeline.metrics import COLUMNS, SLICE_COLUMNS
from brats_pipeline.phantom import write_cohort

A, B, C = "TCGA_ZA_9001_19990101", "TCGA_ZA_9002_19990101", "TCGA_ZB_9003_19990101"
ROWS, COLUMNS_ACROSS, SLICES = 20, 30, 11  # more than nine slices: 10 comes after 9, not after 1


def box(top: int, left: int, height: int, width: int) -> np.ndarray:
    """A mask as it is stored, rows by columns."""
    mask = np.zeros((ROWS, COLUMNS_ACROSS), np.uint8)
    mask[top : top + height, left : left + width] = 255
    return mask


EMPTY = box(0, 0, 0, 0)
TUMOUR = {3: box(4, 6, 4, 5), 10: box(5, 7, 2, 5)}  # slice number to mask: 20 and 10 pixels


def save_masks(folder: Path, case_id: str, masks: dict[int, np.ndarray]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(1, SLICES + 1):
        Image.fromarray(masks.get(number, EMPTY)).save(folder / f"{case_id}_{number}_mask.tif")


def save_patient(root: Path, case_id: str, masks: dict[int, np.ndarray], *, copied: tuple[int, ...] = ()) -> None:
    """Slices of noise whose FLAIR (channel 1) is bright where the mask is, and their masks."""
    random = np.random.default_rng(len(case_id) + int(case_id[8:12]))
    save_masks(root / case_id, case_id, masks)
    for number in range(1, SLICES + 1):
        picture = random.integers(20, 90, (ROWS, COLUMNS_ACROSS, 3), dtype=np.uint8)
        picture[..., 1] += masks.get(number, EMPTY) // 3
        for channel in copied:
            picture[..., channel] = picture[..., 1]
        Image.fromarray(picture).save(root / case_id / f"{case_id}_{number}.tif")


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    save_patient(root, A, TUMOUR)
    save_patient(root, B, TUMOUR, copied=(2,))
    save_patient(root, C, TUMOUR)
    return root


def run(tmp_path: Path, references: Path, **options) -> Evaluation:
    options.setdefault("images", False)
    return evaluate(tmp_path / "pred", references, tmp_path / "out", **options)


def predict(tmp_path: Path, *cases: str, masks: dict[int, np.ndarray] = TUMOUR) -> None:
    for case_id in cases:
        save_masks(tmp_path / "pred" / case_id, case_id, masks)


def table_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_perfect_masks_score_one_without_anything_being_named(tmp_path, dataset):
    predict(tmp_path, A, B, C)
    evaluation = run(tmp_path, dataset)
    assert evaluation.complete
    assert evaluation.rules.name == "lgg"
    assert [(row.case_id, row.region, row.dice) for row in evaluation.scores] == [
        (A, "WT", 1),
        (B, "WT", 1),
        (C, "WT", 1),
    ]
    assert evaluation.unmatched == ()


def test_the_tables_hold_the_pixels_that_were_drawn(tmp_path, dataset):
    # Of 20 + 10 pixels: slice 3 found but for its last two columns, slice 10 missed, 6 false ones in slice 11.
    predict(tmp_path, A, masks={3: box(4, 6, 4, 3), 11: box(0, 0, 2, 3)})
    run(tmp_path, dataset, only=[A])
    (row,) = table_of(tmp_path / "out" / "cases.csv")
    assert tuple(row) == COLUMNS
    pixels = ROWS * COLUMNS_ACROSS * SLICES
    assert [int(row[name]) for name in ("tp", "fp", "fn", "tn")] == [12, 6, 18, pixels - 36]
    assert float(row["dice"]) == 0.5
    assert (row["hd95_mm"], row["reference_ml"], row["predicted_ml"]) == ("", "", "")
    slices = table_of(tmp_path / "out" / "slices.csv")
    assert tuple(slices[0]) == SLICE_COLUMNS
    assert [entry["slice"] for entry in slices] == [f"{A}_{number}" for number in range(1, 12)]
    assert slices[2] == {"case_id": A, "slice": f"{A}_3", "dice": "0.75", "tp": "12", "fp": "0", "fn": "8", "tn": "580"}
    assert [entry["dice"] for entry in slices] == ["1", "1", "0.75", "1", "1", "1", "1", "1", "1", "0", "0"]


def test_the_summary_names_each_average_and_both_groups(tmp_path, dataset):
    predict(tmp_path, A, B, masks={3: box(4, 6, 4, 3), 11: box(0, 0, 2, 3)})
    predict(tmp_path, C)
    evaluation = run(tmp_path, dataset)
    assert evaluation.copied == {B: ("t1c",)}
    text = (tmp_path / "out" / "summary.json").read_text()
    assert "NaN" not in text
    summary = json.loads(text)["slices"]
    assert summary["copied_channels"] == {B: ["t1c"]}
    assert summary["headline"] == "Dice per patient volume (slices pooled)"
    everyone, whole = summary["groups"]
    assert (everyone["name"], everyone["patients"]) == ("all patients", 3)
    assert (whole["name"], whole["patients"]) == ("patients with every sequence", 2)
    assert everyone["per_patient"]["dice"]["mean"] == pytest.approx((0.5 + 0.5 + 1) / 3)
    assert whole["per_patient"]["dice"]["mean"] == pytest.approx((0.5 + 1) / 2)
    assert everyone["dice_per_tumour_slice"]["mean"] == pytest.approx((2 * 0.75 + 2 * 0 + 2 * 1) / 6)
    assert everyone["dice_per_slice"]["mean"] == pytest.approx((2 * 8.75 + 11) / 33)
    assert everyone["pooled"]["dice"] == pytest.approx(2 * 54 / (2 * 54 + 12 + 36))


def test_the_printed_table_leads_with_the_patient_volumes(tmp_path, dataset):
    predict(tmp_path, A, B, C)
    header, first, *_ = run(tmp_path, dataset).table()
    assert header == ["", "all patients (3)", "patients with every sequence (2)"]
    assert first == ["Dice per patient volume (slices pooled)", "1.000 ± 0.000", "1.000 ± 0.000"]


def test_a_patient_with_a_slice_missing_is_a_miss_and_the_slice_is_named(tmp_path, dataset):
    predict(tmp_path, A, B, C)
    (tmp_path / "pred" / B / f"{B}_7_mask.tif").unlink()
    evaluation = run(tmp_path, dataset)
    assert list(evaluation.failed) == [B]
    assert f"lacks 1 of 11 slices: {B}_7_mask.tif" in evaluation.failed[B]
    assert [row.dice for row in evaluation.scores] == [1, 0, 1]
    assert {row.dice for row in evaluation.slices if row.case_id == B} == {0}
    assert not evaluation.complete


def test_a_patient_without_masks_is_a_miss_and_strange_files_are_listed(tmp_path, dataset):
    predict(tmp_path, A, B, "TCGA_ZZ_9999_19990101")
    Image.fromarray(EMPTY).save(tmp_path / "pred" / A / f"{A}_12_mask.tif")
    evaluation = run(tmp_path, dataset)
    assert evaluation.missing == (C,)
    assert evaluation.unmatched == ("TCGA_ZZ_9999_19990101", f"{A}/{A}_12_mask.tif")
    assert [row.dice for row in evaluation.scores] == [1, 1, 0]


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (np.full((ROWS, COLUMNS_ACROSS), 128, np.uint8), "the mask holds"),
        (np.zeros((COLUMNS_ACROSS, ROWS), np.uint8), "has shape"),
        (np.zeros((ROWS, COLUMNS_ACROSS, 3), np.uint8), "has shape"),
    ],
)
def test_an_unusable_mask_is_a_miss_and_the_others_go_on(tmp_path, dataset, mask, reason):
    predict(tmp_path, A, B)
    Image.fromarray(mask).save(tmp_path / "pred" / A / f"{A}_4_mask.tif")
    evaluation = run(tmp_path, dataset, only=[A, B])
    assert reason in evaluation.failed[A]
    assert [row.dice for row in evaluation.scores] == [0, 1]


def test_turned_slices_are_refused_with_both_sizes(tmp_path, dataset):
    turned = {number: mask.T for number, mask in TUMOUR.items()}
    (tmp_path / "pred" / A).mkdir(parents=True)
    for number in range(1, SLICES + 1):
        Image.fromarray(np.ascontiguousarray(turned.get(number, EMPTY.T))).save(
            tmp_path / "pred" / A / f"{A}_{number}_mask.tif"
        )
    evaluation = run(tmp_path, dataset, only=[A])
    assert "20x30x11 columns, rows and slices, the reference 30x20x11" in evaluation.failed[A]


def test_a_stacked_nifti_counts_as_the_masks_do(tmp_path, dataset):
    stack = np.zeros((COLUMNS_ACROSS, ROWS, SLICES), np.uint8)
    for number, mask in {3: box(4, 6, 4, 3), 11: box(0, 0, 2, 3)}.items():
        stack[:, :, number - 1] = mask.T > 0
    (tmp_path / "pred").mkdir()
    nib.save(nib.Nifti1Image(stack, np.eye(4)), tmp_path / "pred" / f"{A}.nii.gz")
    evaluation = run(tmp_path, dataset, only=[A])
    assert [(row.tp, row.fp, row.fn, row.dice) for row in evaluation.scores] == [(12, 6, 18, 0.5)]


def test_where_masks_and_their_stack_lie_side_by_side_the_masks_count(tmp_path, dataset):
    predict(tmp_path, A)
    nothing = np.zeros((COLUMNS_ACROSS, ROWS, SLICES), np.uint8)
    nib.save(nib.Nifti1Image(nothing, np.eye(4)), tmp_path / "pred" / f"{A}.nii.gz")
    assert [row.dice for row in run(tmp_path, dataset, only=[A]).scores] == [1]


def test_a_reference_that_lacks_a_mask_is_not_scored_but_named(tmp_path, dataset):
    (dataset / A / f"{A}_5_mask.tif").unlink()
    predict(tmp_path, A, B)
    evaluation = run(tmp_path, dataset, only=[A, B])
    assert "slice 5" in evaluation.failed[A]
    assert "not scored" in evaluation.failed[A]
    assert [row.case_id for row in evaluation.scores] == [B]
    assert {row.case_id for row in evaluation.slices} == {B}


def test_references_are_not_scored_against_themselves(tmp_path, dataset):
    with pytest.raises(PipelineError, match=rf"{A}_10_mask\.tif is prediction and reference at once"):
        evaluate(dataset, dataset, tmp_path / "out")
    data = tmp_path / "msd"
    write_cohort(data, cases=1, layout="msd", shape=(48, 48, 48), spacing_mm=3.0)
    with pytest.raises(PipelineError, match=r"labelsTr/BRATS_001\.nii\.gz is prediction and reference at once"):
        evaluate(data / "labelsTr", data, tmp_path / "out")


def test_rules_that_do_not_suit_the_references_are_refused(tmp_path, dataset):
    predict(tmp_path, A)
    with pytest.raises(PipelineError, match="use --rules lgg"):
        run(tmp_path, dataset, rules="brats2023-gli")
    assert run(tmp_path, dataset, rules="lgg", only=[A]).complete


def test_slices_and_volumes_are_not_put_together(tmp_path, dataset):
    write_cohort(dataset, cases=1, shape=(48, 48, 48), spacing_mm=3.0)
    predict(tmp_path, A)
    with pytest.raises(PipelineError, match="evaluate them apart"):
        run(tmp_path, dataset)


def test_a_folder_without_predictions_of_slices_says_how_they_are_named(tmp_path, dataset):
    (tmp_path / "pred").mkdir()
    with pytest.raises(PipelineError, match=r"CASE/SLICE_mask\.tif"):
        run(tmp_path, dataset)
    predict(tmp_path, "somebody")
    with pytest.raises(PipelineError, match=rf"such as {A}/SLICE_mask\.tif, and the folder holds somebody"):
        run(tmp_path, dataset)


def test_the_report_warns_of_the_face_and_shows_a_strip_of_each_patient(tmp_path, dataset):
    predict(tmp_path, A, B)
    run(tmp_path, dataset, images=True)
    html = (tmp_path / "out" / "report.html").read_text()
    assert "These scans show skull and face; do not share." in html
    assert html.count("data:image/jpeg") == 3
    assert "(mm)" not in html
    assert "HD95" not in html
    assert f"{B} (t1c)" in html


def test_a_report_without_pictures_needs_no_warning(tmp_path, dataset):
    predict(tmp_path, A, B, C)
    run(tmp_path, dataset, images=False)
    html = (tmp_path / "out" / "report.html").read_text()
    assert "do not share" not in html
    assert "data:image/jpeg" not in html


def test_more_processes_give_the_same_files(tmp_path, dataset):
    predict(tmp_path, A, B, masks={3: box(4, 6, 4, 3)})
    predict(tmp_path, C)
    evaluate(tmp_path / "pred", dataset, tmp_path / "alone")
    evaluate(tmp_path / "pred", dataset, tmp_path / "together", workers=2)
    for name in ("cases.csv", "slices.csv", "summary.json", "report.html"):
        assert (tmp_path / "alone" / name).read_bytes() == (tmp_path / "together" / name).read_bytes(), name


def test_decathlon_volumes_are_scored_in_their_own_labels_with_flair_and_t1c_in_the_picture(tmp_path):
    data = tmp_path / "Task01_BrainTumour"
    write_cohort(data, cases=3, layout="msd", seed=3, shape=(48, 48, 48), spacing_mm=3.0)
    shutil.copytree(data / "labelsTr", tmp_path / "pred")
    second = nib.load(tmp_path / "pred" / "BRATS_002.nii.gz")
    labels = np.asarray(second.dataobj).copy()
    labels[labels == 1] = 0  # edema: the core stays whole, the whole tumour does not
    nib.save(nib.Nifti1Image(labels, second.affine, second.header), tmp_path / "pred" / "BRATS_002.nii.gz")
    evaluation = run(tmp_path, data, images=True)
    assert evaluation.rules.name == "brats2023-gli"
    assert evaluation.conventions == {"msd": "msd"}
    scores = {(row.case_id, row.region): row.dice for row in evaluation.scores}
    assert {scores["BRATS_001", region] for region in ("WT", "TC", "ET")} == {1}
    assert scores["BRATS_002", "TC"] == 1
    assert 0 < scores["BRATS_002", "WT"] < 0.9
    assert evaluation.groups == ()
    assert not (tmp_path / "out" / "slices.csv").exists()
    assert (tmp_path / "out" / "report.html").read_text().count("data:image/jpeg") == 3
