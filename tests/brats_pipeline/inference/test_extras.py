"""What is made beside label maps, each against what another reader or a known solid says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from brats_pipeline.errors import PipelineError
from brats_pipeline.inference import making
from brats_pipeline.inference.doubt import note_doubt
from brats_pipeline.inference.extras import Extras, make_extras, remove_extras
from brats_pipeline.inference.result import Segmentation
from brats_pipeline.inference.segment import segment
from brats_pipeline.inference.volumes import read_volumes_file, update_volumes, volumes_of
from brats_pipeline.phantom import write_cohort
from brats_pipeline.prepare import prepare_case

CASE, OTHER = "BraTS2021_00001", "BraTS2021_00002"
ALL = Extras(formats=("nrrd",), volumes=True, preview=True, viewer=True)


def oblique(sides: tuple[float, float, float]) -> np.ndarray:
    """An affine with these voxel sides, turned about two axes."""
    a, b = 0.4, -0.7
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    turn = turn @ np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag(sides)
    return affine


@pytest.mark.parametrize("sides", [(1.0, 1.0, 1.0), (0.8, 1.2, 2.5)])
def test_the_volumes_of_nested_balls_are_those_of_geometry_whatever_the_voxels(
    sides: tuple[float, float, float],
) -> None:
    shape = tuple(int(64 / side) for side in sides)
    place = (np.indices(shape).T - (np.array(shape) - 1) / 2) * sides
    radius = np.sqrt((place**2).sum(axis=-1)).T
    labels = np.zeros(shape, np.uint8)
    for label, radius_mm in ((2, 28.0), (1, 18.0), (4, 10.0)):
        labels[radius <= radius_mm] = label
    told = volumes_of(labels, oblique(sides), convention_name="brats2017")
    for region, radius_mm in (("WT", 28.0), ("TC", 18.0), ("ET", 10.0)):
        assert told["regions"][region] == pytest.approx(4 / 3 * np.pi * radius_mm**3 / 1000, rel=0.02)
    assert told["labels"]["1"]["ml"] == pytest.approx(told["regions"]["TC"] - told["regions"]["ET"])
    assert told["labels"]["4"]["tissue"] == "ET"
    assert list(told["regions"]) == ["WT", "TC", "ET"]
    assert told["tumour_found"]


def test_an_interval_is_told_where_members_disagree_and_a_point_is_none() -> None:
    def told(differ: bool) -> dict[str, Any]:
        doubt = {"regions": {"WT": {"volume_low": 1.5, "volume_high": 2.0}}, "members_differ": differ}
        return volumes_of(np.ones((4, 4, 2), np.uint8), np.eye(4), convention_name="brats2023", doubt=doubt)

    assert told(True)["intervals"] == {"WT": [1.5, 2.0]}
    assert "intervals" not in told(False)


def test_why_a_case_should_be_looked_at_stands_first_on_picture_and_page(tmp_path: Path) -> None:
    result = Segmentation(tmp_path, tmp_path, done=["a"], missing={"a": ("t2",)}, unlike={"a": ["its skull"]})
    row = {"volume": 1.0, "volume_low": 1.0, "volume_high": 1.0, "expected_dice": 0.4, "needs_review": True}
    (tmp_path / "uncertainty").mkdir()
    (tmp_path / "uncertainty" / "a.json").write_text(json.dumps({"unit": "ml", "regions": {"WT": row}}))
    note_doubt(tmp_path, result)
    assert [sentence.split()[0] for sentence in result.told("a")] == ["needs", "segmented", "unlike"]


def test_slices_without_a_size_are_counted_in_voxels_and_an_empty_map_is_said_to_be_empty() -> None:
    labels = np.zeros((4, 4, 2), np.uint8)
    labels[:3, 1, 0] = 1
    told = volumes_of(labels, None, convention_name="lgg")
    assert (told["unit"], told["voxel_ml"], told["regions"]) == ("voxels", None, {"WT": 3})
    assert not volumes_of(labels * 0, np.eye(4), convention_name="brats2023")["tumour_found"]


def test_the_file_of_volumes_keeps_other_cases_and_goes_with_its_last(tmp_path: Path) -> None:
    update_volumes(tmp_path, {"a": {"unit": "ml"}})
    update_volumes(tmp_path, {"b": {"unit": "ml"}})
    assert set(read_volumes_file(tmp_path)) == {"a", "b"}
    update_volumes(tmp_path, {}, without=["a"])
    assert set(read_volumes_file(tmp_path)) == {"b"}
    update_volumes(tmp_path, {}, without=["b"])
    assert not (tmp_path / "volumes.json").exists()


@pytest.fixture(scope="module")
def made(run: Path, cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Label maps of two cases and all that can be made of them; must not be changed."""
    out = tmp_path_factory.mktemp("extras") / "out"
    inputs = [cohort / CASE, cohort / OTHER]
    result = segment(inputs, out, bundle=run, device="cpu", uncertainty=True, extras=ALL)
    assert (result.done, result.without) == ([CASE, OTHER], {})
    return out


def test_the_segmentation_for_slicer_is_the_label_map_as_another_reader_sees_it(made: Path) -> None:
    written, label_map = (sitk.ReadImage(str(made / f"{CASE}{ending}")) for ending in (".seg.nrrd", ".nii.gz"))
    assert np.array_equal(sitk.GetArrayFromImage(written), sitk.GetArrayFromImage(label_map))
    assert np.allclose(written.GetOrigin(), label_map.GetOrigin())
    assert np.allclose(written.GetDirection(), label_map.GetDirection())
    names = {written.GetMetaData(key) for key in written.GetMetaDataKeys() if key.endswith("_Name")}
    assert names == {"NCR/NET", "ED", "ET"}


def test_the_volumes_are_those_of_the_label_map(made: Path) -> None:
    document = json.loads((made / "volumes.json").read_text())
    assert document["schema_version"] == 1
    image = sitk.ReadImage(str(made / f"{CASE}.nii.gz"))
    voxel_ml = np.prod(image.GetSpacing()) / 1000
    labels = sitk.GetArrayFromImage(image)
    told = document["cases"][CASE]
    assert told["regions"]["WT"] == pytest.approx((labels > 0).sum() * voxel_ml, abs=1e-4)
    assert told["regions"]["ET"] == pytest.approx((labels == 4).sum() * voxel_ml, abs=1e-4)
    assert "intervals" not in told, "a lone network cannot disagree with itself"
    assert set(document["cases"]) == {CASE, OTHER}


def test_the_picture_is_a_png_and_the_page_needs_no_network(made: Path) -> None:
    with Image.open(made / f"{CASE}_preview.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > 1000
    page = (made / f"{CASE}_viewer.html").read_text()
    assert "default-src 'none'" in page
    assert "http" not in page.partition("<script")[0].replace("http-equiv", "")
    assert "patient's right is on the left" in page.replace("&#39;", "'")
    assert "Reference</label>" not in page
    assert "skull and face" not in page


def test_a_second_call_makes_only_what_is_missing(made: Path, run: Path, cohort: Path) -> None:
    files = [path for path in made.rglob("*") if path.is_file() and path.name not in ("run.json", "uncertainty.csv")]
    before = {path: path.stat().st_mtime_ns for path in files}
    (made / f"{OTHER}_preview.png").unlink()
    inputs = [cohort / CASE, cohort / OTHER]
    result = segment(inputs, made, bundle=run, device="cpu", uncertainty=True, extras=ALL)
    assert (result.done, result.skipped) == ([], [CASE, OTHER])
    changed = [path.name for path in files if path.stat().st_mtime_ns != before[path]]
    assert changed == [f"{OTHER}_preview.png"]


def test_what_lies_beside_predictions_is_not_taken_for_one(made: Path, cohort: Path, tmp_path: Path) -> None:
    from brats_pipeline.predictions import find_predictions

    assert set(find_predictions(made)) == {CASE, OTHER}


def test_a_case_that_is_segmented_again_loses_what_was_made_of_the_old_label_map(
    run: Path, cohort: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    extras = Extras(formats=("nrrd",), volumes=True)
    segment([cohort / CASE], out, bundle=run, device="cpu", extras=extras)
    segment([cohort / CASE], out, bundle=run, device="cpu", overwrite=True)
    assert sorted(path.name for path in out.iterdir()) == [f"{CASE}.nii.gz", "run.json"]


def test_what_a_person_saved_beside_a_label_map_stays_and_what_was_made_of_it_goes(
    predictions: Path, run: Path, cohort: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(predictions, tmp_path / "out")
    mine = [out / f"{CASE}.seg.nrrd", out / f"{CASE}.dcm", out / "native" / f"{CASE}.nii.gz"]
    mine[2].parent.mkdir()
    for path in mine:
        path.write_text("corrected by hand")
    segment([cohort / CASE], out, bundle=run, device="cpu", extras=Extras(preview=True))
    made = out / f"{CASE}_preview.png"
    assert made.is_file()
    with pytest.raises(PipelineError, match=rf"{CASE}\.seg\.nrrd is there already, and no run\.json"):
        segment([cohort / CASE], out, bundle=run, device="cpu", extras=Extras(formats=("nrrd",)), overwrite=True)
    assert segment([cohort / CASE], out, bundle=run, device="cpu", overwrite=True).done == [CASE]
    assert [path.read_text() for path in mine] == ["corrected by hand"] * 3
    assert not made.exists()


def test_the_record_names_what_was_made_beside_each_label_map(made: Path) -> None:
    cases = json.loads((made / "run.json").read_text())["cases"]
    assert [cases[name]["beside"] for name in (CASE, OTHER)] == [["--format nrrd", "--preview", "--viewer"]] * 2


def test_one_thing_that_cannot_be_made_costs_neither_the_label_map_nor_the_others(
    run: Path, cohort: Path, tmp_path: Path, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError("no ink")

    monkeypatch.setattr(making, "make_preview", broken)
    out = tmp_path / "out"
    wanted = ("--preview", "--format", "nrrd", "--volumes")
    outcome = command("segment", cohort / CASE, "-o", out, "--bundle", run, "--device", "cpu", *wanted)
    assert outcome.code == 1
    assert f"{CASE}: the label map is there, but --preview could not be made: no ink" in outcome.err
    assert {path.name for path in out.iterdir()} == {f"{CASE}.nii.gz", f"{CASE}.seg.nrrd", "volumes.json", "run.json"}
    record = json.loads((out / "run.json").read_text())["cases"][CASE]
    assert (record["status"], record["without"]) == ("done", {"--preview": "no ink"})
    monkeypatch.undo()
    outcome = command("segment", cohort / CASE, "-o", out, "--bundle", run, "--device", "cpu", *wanted)
    assert outcome.code == 0
    assert "without" not in json.loads((out / "run.json").read_text())["cases"][CASE]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--format", "stl"), "no such format; known: nifti, nrrd, dicom-seg"),
        (("--format", "dicom-seg"), "--dicom-series FOLDER"),
        (("--format", "dicom-seg", "--dicom-series", "nowhere"), "there is no such folder"),
        (("--deidentify",), "go with --format dicom-seg"),
        (("--native",), "none of these was made by `brats-pipeline prepare`"),
    ],
)
def test_what_cannot_be_had_is_refused_before_anything_is_segmented(
    arguments: tuple[str, ...], told: str, run: Path, cohort: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    outcome = command("segment", cohort / CASE, "-o", tmp_path / "out", "--bundle", run, *arguments)
    assert outcome.code == 2
    assert told in outcome.err
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A prepared case, and the T1c that it was made from."""
    home = tmp_path_factory.mktemp("exam")
    write_cohort(home / "raw", cases=1, shape=(44, 48, 40), spacing_mm=4.0)
    exam = home / "raw" / CASE
    files = {name: exam / f"{CASE}_{end}.nii.gz" for name, end in (("t1c", "t1ce"), ("t1", "t1"), ("t2", "t2"))}
    files["flair"] = exam / f"{CASE}_flair.nii.gz"
    image = nib.load(files["t1c"])
    turned = nib.as_closest_canonical(image)  # another order of axes than the prepared case will have
    nib.save(nib.Nifti1Image(np.asarray(turned.dataobj), turned.affine), files["t1c"])
    prepare_case(files, home / "case", grid="reference", brain="none")
    return home / "case", files["t1c"]


def test_a_prepared_case_has_its_label_map_on_the_original_grid_too(
    prepared: tuple[Path, Path], run: Path, tmp_path: Path
) -> None:
    case, original = prepared
    out = tmp_path / "out"
    result = segment([case], out, bundle=run, device="cpu", extras=Extras(native=True, volumes=True))
    assert (result.done, result.without) == (["case"], {})
    native, like = nib.load(out / "native" / "case.nii.gz"), nib.load(original)
    assert native.shape == like.shape
    assert np.allclose(native.affine, like.affine)
    voxel_ml = abs(np.linalg.det(native.affine[:3, :3])) / 1000
    told = read_volumes_file(out)["case"]["regions"]
    assert (np.asarray(native.dataobj) > 0).sum() * voxel_ml == pytest.approx(told["WT"], rel=0.02)


def test_among_others_a_case_that_was_not_prepared_is_named(
    prepared: tuple[Path, Path], cohort: Path, run: Path, tmp_path: Path
) -> None:
    result = segment(
        [prepared[0], cohort / OTHER], tmp_path / "out", bundle=run, device="cpu", extras=Extras(native=True)
    )
    assert set(result.done) == {"case", OTHER}
    assert "was not made by `brats-pipeline prepare`" in result.without[OTHER]["--native"]
    assert "case" not in result.without


def test_a_missing_format_of_the_library_is_a_request_error() -> None:
    with pytest.raises(PipelineError, match="no such format"):
        Extras(formats=("stl",))


def test_nothing_is_made_of_a_case_without_a_label_map(cohort: Path, run: Path, tmp_path: Path) -> None:
    result = Segmentation(out=tmp_path, bundle=run)
    make_extras([], result, ALL)
    remove_extras(tmp_path, {"nobody": {}})
    assert list(tmp_path.iterdir()) == []
