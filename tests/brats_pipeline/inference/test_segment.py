"""Segmentation: headers, conventions, what is kept, what is refused, and what becomes of a bad case."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from brats_pipeline.errors import PipelineError
from brats_pipeline.inference.inferers import WindowInferer
from brats_pipeline.inference.inputs import case_from_files
from brats_pipeline.inference.record import sparingly
from brats_pipeline.inference.segment import segment
from brats_pipeline.predictions import files_by_case, files_to_write, find_predictions

CASE = "BraTS2021_00001"
T1CE = {"t1c": "t1ce", "t1": "t1", "t2": "t2", "flair": "flair"}


def files_of(folder: Path) -> dict[str, Path]:
    return {name: folder / f"{folder.name}_{word}.nii.gz" for name, word in T1CE.items()}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.nii.gz")}


def labels_of(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def test_every_case_has_a_label_map_in_the_header_of_its_t1c(predictions: Path, cohort: Path) -> None:
    names = sorted(folder.name for folder in cohort.iterdir())
    assert sorted(contents(predictions)) == [f"{name}.nii.gz" for name in names]
    for name in names:
        scan, prediction = nib.load(cohort / name / f"{name}_t1ce.nii.gz"), nib.load(predictions / f"{name}.nii.gz")
        assert prediction.shape == scan.shape
        assert prediction.get_data_dtype() == np.uint8
        assert np.array_equal(prediction.affine, scan.affine)
        for field in ("qform_code", "sform_code", "pixdim", "srow_x", "srow_y", "srow_z", "quatern_b", "xyzt_units"):
            assert np.array_equal(prediction.header[field], scan.header[field]), field


def test_the_network_of_the_fixture_marks_something_so_that_comparisons_mean_something(predictions: Path) -> None:
    assert all(labels_of(path).any() for path in predictions.glob("*.nii.gz"))


def test_nothing_but_predictions_and_a_record_lies_in_the_folder(predictions: Path) -> None:
    assert {path.name for path in predictions.iterdir()} == {*contents(predictions), "run.json"}


def test_the_record_names_the_weights_and_the_status_of_every_case(predictions: Path, run: Path) -> None:
    import hashlib

    record = json.loads((predictions / "run.json").read_text())
    assert record["schema_version"] == 3
    assert record["weights_sha256"] == hashlib.sha256((run / "models" / "model.pt").read_bytes()).hexdigest()
    assert {name: case["status"] for name, case in record["cases"].items()} == {
        path.name.removesuffix(".nii.gz"): "done" for path in predictions.glob("*.nii.gz")
    }


def test_the_record_tells_what_was_read_and_what_each_stage_took(predictions: Path, cohort: Path) -> None:
    import hashlib

    record = json.loads((predictions / "run.json").read_text())
    for name, case in record["cases"].items():
        files = [cohort / name / f"{name}_{suffix}.nii.gz" for suffix in ("t1ce", "t1", "t2", "flair")]
        assert case["image_sha256"] == [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
        assert set(case["seconds"]) == {"load", "network", "write"}
        assert all(0 < spent < 60 for spent in case["seconds"].values())


def test_a_second_call_does_nothing_again(predictions: Path, cohort: Path, run: Path, tmp_path: Path) -> None:
    out = shutil.copytree(predictions, tmp_path / "out")
    (out / f"{CASE}.nii.gz").unlink()
    times = {path.name: path.stat().st_mtime_ns for path in out.glob("*.nii.gz")}
    calls: list[str] = []
    result = segment([cohort], out, bundle=run, device="cpu", on_case=calls.append)
    assert result.done == calls == [CASE]
    assert len(result.skipped) == 5
    assert contents(out) == contents(predictions)
    assert times.items() <= {path.name: path.stat().st_mtime_ns for path in out.glob("*.nii.gz")}.items()
    states = json.loads((out / "run.json").read_text())["cases"]
    assert len(states) == 6
    for state in states.values():  # what was not done again keeps what was said of it
        assert {"status", "inputs", "image_sha256", "seconds"} <= state.keys()


def test_a_call_that_is_killed_loses_nothing_of_what_it_learned_about_finished_cases(
    predictions: Path, cohort: Path, run: Path, tmp_path: Path
) -> None:
    names = [CASE, "BraTS2021_00002", "BraTS2021_00003"]
    folders, out, left = [cohort / name for name in names], tmp_path / "out", tmp_path / "left by a kill"

    def kill(case_id: str) -> None:
        if case_id == names[1]:
            shutil.copytree(out, left)

    segment(folders, out, bundle=run, device="cpu", on_case=kill)
    assert CASE in (left / "run.json").read_text()
    shutil.copy(predictions / f"{names[2]}.nii.gz", left)  # written, but the process was gone before it could tell
    result = segment(folders, left, bundle=run, device="cpu")
    assert CASE in result.skipped
    assert names[2] in result.done
    once, resumed = (json.loads((folder / "run.json").read_text())["cases"] for folder in (out, left))
    for name in names:
        assert resumed[name]["image_sha256"] == once[name]["image_sha256"]
        assert resumed[name].get("unlike") == once[name].get("unlike") == result.unlike.get(name)
        assert {"status", "inputs", "seconds"} <= resumed[name].keys()


def test_writing_again_and_again_takes_a_small_share_of_the_time_however_long_it_takes() -> None:
    time, spent, calls = 0.0, 0.0, 0

    def write() -> None:
        nonlocal time, spent, calls
        cost = 0.01 * (calls := calls + 1)
        time, spent = time + cost, spent + cost

    note = sparingly(write, share=0.05, clock=lambda: time)
    note()
    assert calls == 1, "the first is never passed over"
    for _ in range(10_000):
        time += 0.02
        note()
    assert 5 < calls < 100
    assert 0.02 < spent / time < 0.06


def test_the_record_keeps_the_cases_of_earlier_calls(cohort: Path, run: Path, tmp_path: Path) -> None:
    for name in (CASE, "BraTS2021_00002"):
        segment([cohort / name], tmp_path / "out", bundle=run, device="cpu")
    cases = json.loads((tmp_path / "out" / "run.json").read_text())["cases"]
    assert list(cases) == [CASE, "BraTS2021_00002"]


def test_overwrite_segments_again(predictions: Path, cohort: Path, run: Path, tmp_path: Path) -> None:
    out = shutil.copytree(predictions, tmp_path / "out")
    (out / f"{CASE}.nii.gz").write_bytes(b"spoilt")
    result = segment([cohort / CASE], out, bundle=run, device="cpu", overwrite=True)
    assert (result.done, result.skipped) == ([CASE], [])
    assert contents(out) == contents(predictions)


def other_weights(run: Path, out: Path) -> Path:
    import torch

    shutil.copytree(run, out)
    weights = torch.load(out / "models" / "model.pt", weights_only=True)
    torch.save({name: -tensor for name, tensor in weights.items()}, out / "models" / "model.pt")
    return out


def test_predictions_of_other_weights_are_not_mixed(predictions: Path, cohort: Path, run: Path, tmp_path: Path) -> None:
    out = shutil.copytree(predictions, tmp_path / "out")
    other = other_weights(run, tmp_path / "other run")
    with pytest.raises(PipelineError, match=r"weights.*--overwrite"):
        segment([cohort], out, bundle=other, device="cpu")
    with pytest.raises(PipelineError, match="choose another folder"):  # five of six would stay from the first weights
        segment([cohort / CASE], out, bundle=other, device="cpu", overwrite=True)
    assert contents(out) == contents(predictions)


def test_an_interrupted_overwrite_leaves_no_prediction_of_the_old_weights(
    predictions: Path, cohort: Path, run: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(predictions, tmp_path / "out")
    other = other_weights(run, tmp_path / "other run")
    record = json.loads((out / "run.json").read_text())
    record["cases"][CASE]["beside"] = ["--preview"]
    (out / "run.json").write_text(json.dumps(record))
    (picture := out / f"{CASE}_preview.png").touch()

    def interrupt(case_id: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        segment([cohort], out, bundle=other, device="cpu", overwrite=True, on_case=interrupt)
    assert list(contents(out)) == [f"{CASE}.nii.gz"]
    assert contents(out)[f"{CASE}.nii.gz"] != contents(predictions)[f"{CASE}.nii.gz"]
    assert list(json.loads((out / "run.json").read_text())["cases"]) == [CASE]
    assert not picture.exists()


def test_other_settings_and_another_convention_are_not_mixed_either(
    predictions: Path, cohort: Path, run: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(predictions, tmp_path / "out")
    with pytest.raises(PipelineError, match="overrides"):
        segment([cohort], out, bundle=run, device="cpu", overrides={"overlap": 0.25})
    with pytest.raises(PipelineError, match="convention"):
        segment([cohort], out, bundle=run, device="cpu", convention="brats2023")


def test_a_prediction_never_replaces_a_scan(cohort: Path, run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "head"
    folder.mkdir()
    images = {name: folder / f"{word}.nii.gz" for name, word in zip(T1CE, ("head", "b", "c", "d"), strict=True)}
    for name, path in files_of(cohort / CASE).items():
        shutil.copy(path, images[name])
    before = images["t1c"].read_bytes()
    with pytest.raises(PipelineError, match="choose another folder"):
        segment(images, folder, bundle=run, device="cpu", overwrite=True)
    assert images["t1c"].read_bytes() == before


def test_four_files_give_the_same_label_map_as_their_folder(
    predictions: Path, cohort: Path, run: Path, tmp_path: Path
) -> None:
    result = segment(files_of(cohort / CASE), tmp_path / "out", bundle=run, device="cpu", convention="brats2017")
    assert result.done == [CASE]
    assert (tmp_path / "out" / f"{CASE}.nii.gz").read_bytes() == (predictions / f"{CASE}.nii.gz").read_bytes()


@pytest.mark.parametrize(
    ("names", "case_id"),
    [
        (("A-12-t1c.nii.gz", "A-12-t1n.nii.gz", "A-12-t2w.nii", "A-12-t2f.nii.gz"), "A-12"),
        (("t1c.nii.gz", "t1.nii.gz", "t2.nii.gz", "flair.nii.gz"), "folder"),
        (("Case 7_T1CE.NII.GZ", "Case 7_T1.NII.GZ", "Case 7_T2.NII.GZ", "Case 7_FLAIR.NII.GZ"), "Case 7"),
    ],
)
def test_the_case_is_named_by_what_its_files_have_in_common(
    tmp_path: Path, names: tuple[str, ...], case_id: str
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in names:
        (folder / name).touch()
    case = case_from_files({key: folder / name for key, name in zip(T1CE, names, strict=True)})
    assert case.case_id == case_id


def test_links_into_a_store_name_the_case_and_not_what_they_lead_to(tmp_path: Path) -> None:
    (tmp_path / "P1").mkdir()
    links = {name: tmp_path / "P1" / f"P1_{word}.nii.gz" for name, word in T1CE.items()}
    for number, link in enumerate(links.values()):
        stored = tmp_path / "store" / f"SHA256E-s{number}--{number}.nii.gz"
        stored.parent.mkdir(exist_ok=True)
        stored.touch()
        link.symlink_to(stored)
    assert case_from_files(links).case_id == "P1"


def test_one_file_for_two_modalities_is_refused(cohort: Path, tmp_path: Path) -> None:
    images = files_of(cohort / CASE)
    (link := tmp_path / "t2.nii.gz").symlink_to(images["t1"])
    for twin in (images["t1"], link):
        with pytest.raises(PipelineError, match="for t1 and for t2"):
            case_from_files({**images, "t2": twin})


def test_a_file_that_is_not_there_is_refused(cohort: Path, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="no such file"):
        case_from_files({**files_of(cohort / CASE), "flair": tmp_path / "no.nii.gz"})


def test_a_reference_has_no_say_in_a_prediction(predictions: Path, own_cohort: Path, run: Path, tmp_path: Path) -> None:
    one, two, three = (own_cohort / f"BraTS2021_0000{number}" for number in (1, 2, 3))
    (one / f"{one.name}_seg.nii.gz").unlink()
    path = two / f"{two.name}_seg.nii.gz"
    seg = nib.load(path)
    nib.save(nib.Nifti1Image(np.full(seg.shape, 7, np.uint8), seg.affine), path)
    (three / f"{three.name}_seg.nii.gz").write_text("no label map")
    result = segment([one, two, three], tmp_path / "out", bundle=run, device="cpu")
    assert not result.failed
    for folder in (one, two, three):
        name = f"{folder.name}.nii.gz"
        assert (tmp_path / "out" / name).read_bytes() == (predictions / name).read_bytes()


def test_predictions_are_written_in_the_convention_of_the_layout_or_the_one_asked_for(
    predictions: Path, make_cohort: Callable[..., Path], run: Path, tmp_path: Path
) -> None:
    def values(out: str, **arguments: Any) -> tuple[np.ndarray, set[int]]:
        folder = make_cohort(cases=1, layout="brats2023")
        segment([folder], tmp_path / out, bundle=run, device="cpu", **arguments)
        labels = labels_of(next((tmp_path / out).glob("*.nii.gz")))
        return labels, set(np.unique(labels).tolist())

    old = labels_of(predictions / f"{CASE}.nii.gz")
    assert set(np.unique(old).tolist()) <= {0, 1, 2, 4}
    new, new_values = values("new")
    assert new_values <= {0, 1, 2, 3}
    asked, _ = values("asked", convention="brats2017")
    assert np.array_equal(old, asked)  # the phantom is the same head in every layout
    assert np.array_equal(new, np.where(old == 4, 3, old))
    assert 4 in old, "the network of the fixture must find enhancing tumour for this test to say anything"


def test_a_bad_case_does_not_stop_the_others(
    predictions: Path, own_cohort: Path, run: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    scan = files_of(own_cohort / CASE)["t2"]
    scan.write_bytes(scan.read_bytes()[:1000])
    other = files_of(own_cohort / "BraTS2021_00003")["flair"]
    image = nib.load(other)
    voxels = image.get_fdata(dtype=np.float32)
    voxels[20, 20, 20] = np.nan
    nib.save(nib.Nifti1Image(voxels, image.affine), other)
    outcome = command("segment", own_cohort, "-o", tmp_path / "out", "--bundle", run, "--device", "cpu", "--json")
    assert outcome.code == 1
    result = json.loads(outcome.out)
    assert set(result["failed"]) == {CASE, "BraTS2021_00003"}
    assert len(result["done"]) == 4
    lines = outcome.err.splitlines()
    assert len(lines) == 2
    assert any(line.startswith(f"{CASE}: ") and "truncated" in line and str(scan) in line for line in lines)
    assert any(line.startswith("BraTS2021_00003: ") and "flair holds 1 voxels that are NaN" in line for line in lines)
    written = contents(tmp_path / "out")
    assert len(written) == 4
    assert written.items() <= contents(predictions).items()
    record = json.loads((tmp_path / "out" / "run.json").read_text())["cases"]
    assert (record[CASE]["status"], record[CASE]["reason"]) == ("failed", result["failed"][CASE])


def test_an_unknown_setting_is_refused_by_name(cohort: Path, run: Path, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="overlp"):
        segment([cohort], tmp_path / "out", bundle=run, device="cpu", overrides={"overlp": 0.25})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"overrides": {"network_def::colour": "red"}}, "colour"),
        ({"overrides": {"roi_size": [32, 32]}}, "roi_size"),
        ({"overrides": {"precision": "float8"}}, "float8"),
        ({"overrides": {"dataloader::batch_size": 2}}, "one by one"),
        ({"device": "toaster"}, "toaster"),
    ],
)
def test_a_configuration_that_cannot_start_is_refused_in_words(
    cohort: Path, run: Path, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(PipelineError, match=words):
        segment([cohort / CASE], tmp_path / "out", bundle=run, **{"device": "cpu", **change})
    assert not (tmp_path / "out").exists()


def copy_as_scan(folder: Path, out: Path) -> Path:
    """The case under a name that says nothing about whose it is."""
    out.mkdir(parents=True)
    for name, path in files_of(folder).items():
        shutil.copy2(path, out / f"{name}.nii.gz")
    return out


def test_another_patient_of_the_same_case_id_is_refused_and_overwritten_on_demand(
    predictions: Path, cohort: Path, run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    one, two = (copy_as_scan(cohort / f"BraTS2021_0000{number}", tmp_path / str(number) / "scan") for number in (1, 2))
    arguments: dict[str, Any] = {"bundle": run, "device": "cpu", "convention": "brats2017"}
    assert segment([one], out, **arguments).done == ["scan"]
    before = contents(out), (out / "run.json").read_bytes()
    with pytest.raises(PipelineError, match=rf"scan: .*made from {one}.*another folder.*--overwrite"):
        segment([two], out, **arguments)
    files = {name: two / f"{name}.nii.gz" for name in T1CE}
    with pytest.raises(PipelineError, match=f"made from {one}"):
        segment(files, out, **arguments)
    assert (contents(out), (out / "run.json").read_bytes()) == before
    assert segment([two], out, **arguments, overwrite=True).done == ["scan"]
    assert contents(out)["scan.nii.gz"] == (predictions / "BraTS2021_00002.nii.gz").read_bytes()
    assert segment([two], out, **arguments).skipped == ["scan"]


def test_two_files_that_change_places_are_not_the_same_case(cohort: Path, run: Path, tmp_path: Path) -> None:
    images = files_of(cohort / CASE)
    arguments: dict[str, Any] = {"bundle": run, "device": "cpu", "convention": "brats2017"}
    segment(images, tmp_path / "out", **arguments)
    with pytest.raises(PipelineError, match="made from"):
        segment({**images, "t1": images["t2"], "t2": images["t1"]}, tmp_path / "out", **arguments)


def test_a_case_whose_scan_was_replaced_is_segmented_again(
    predictions: Path, own_cohort: Path, run: Path, tmp_path: Path
) -> None:
    folders = [own_cohort / CASE, own_cohort / "BraTS2021_00003"]
    segment(folders, tmp_path / "out", bundle=run, device="cpu")
    for name, path in files_of(own_cohort / CASE).items():
        shutil.copy(files_of(own_cohort / "BraTS2021_00002")[name], path)
    result = segment(folders, tmp_path / "out", bundle=run, device="cpu")
    assert (result.done, result.skipped) == ([CASE], ["BraTS2021_00003"])
    assert contents(tmp_path / "out")[f"{CASE}.nii.gz"] == (predictions / "BraTS2021_00002.nii.gz").read_bytes()


@pytest.mark.parametrize("defect", ["truncated", "absent", "NaN"])
def test_a_prediction_does_not_outlive_the_scan_that_it_was_made_from(
    defect: str, own_cohort: Path, run: Path, tmp_path: Path
) -> None:
    folders = [own_cohort / CASE, own_cohort / "BraTS2021_00003"]
    segment(folders, tmp_path / "out", bundle=run, device="cpu")
    scan = files_of(own_cohort / CASE)["t2"]
    if defect == "absent":
        scan.unlink()
    elif defect == "truncated":
        scan.write_bytes(scan.read_bytes()[:1000])
    else:
        image = nib.load(scan)
        nib.save(nib.Nifti1Image(np.full(image.shape, np.nan, np.float32), image.affine), scan)
    result = segment(folders, tmp_path / "out", bundle=run, device="cpu")
    assert set(result.failed) == {CASE}
    assert list(contents(tmp_path / "out")) == ["BraTS2021_00003.nii.gz"]
    cases = json.loads((tmp_path / "out" / "run.json").read_text())["cases"]
    assert {name: case["status"] for name, case in cases.items()} == {CASE: "failed", "BraTS2021_00003": "done"}


@pytest.mark.parametrize("convention", ["men-rt", "lgg"])
def test_a_convention_without_the_regions_of_the_bundle_is_refused_with_those_that_fit(
    convention: str, cohort: Path, run: Path, tmp_path: Path
) -> None:
    with pytest.raises(PipelineError, match=rf"{convention} has .*marks TC, WT, ET.*brats2017, brats2023") as caught:
        segment([cohort / CASE], tmp_path / "out", bundle=run, device="cpu", convention=convention)
    assert not {"men-rt", "lgg"} & set(str(caught.value).split("that fit: ")[1].split(", "))
    assert not (tmp_path / "out").exists()


def test_a_scan_that_vanishes_before_its_label_map_is_written_does_not_stop_the_others(
    predictions: Path, own_cohort: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = files_of(own_cohort / CASE)["t1c"]
    loaded = own_cohort / "BraTS2021_00002"
    window = "brats_pipeline.inference.inferers.WindowInferer.__call__"
    original = WindowInferer.__call__

    def removing(self: WindowInferer, *arguments: Any, **more: Any) -> Any:
        gone.unlink(missing_ok=True)
        return original(self, *arguments, **more)

    monkeypatch.setattr(window, removing)
    result = segment([gone.parent, loaded], tmp_path / "out", bundle=run, device="cpu")
    assert result.done == [loaded.name]
    assert list(result.failed) == [CASE]
    assert str(gone) in result.failed[CASE]
    assert not result.failed[CASE].startswith(CASE)
    name = f"{loaded.name}.nii.gz"
    assert contents(tmp_path / "out") == {name: contents(predictions)[name]}


def test_what_is_written_is_what_stands_there_and_what_is_scored(tmp_path: Path) -> None:
    volume = {"case_id": "a", "layout": "brats2021", "image": ["x/a_t1.nii.gz"]}
    slices = {"case_id": "b", "layout": "lgg", "image": ["x/b_1.tif", "x/b_2.tif"]}
    assert files_by_case(tmp_path / "absent") == {}
    written = {item["case_id"]: files_to_write(tmp_path, item) for item in (volume, slices)}
    for path in (path for paths in written.values() for path in paths):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "run.json").touch()
    assert files_by_case(tmp_path) == written
    assert find_predictions(tmp_path) == {"a": tmp_path / "a.nii.gz", "b": tmp_path / "b"}
