"""A study from end to end: two arms, two folds, killed in the middle, continued arm by arm."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from brats_pipeline.bundles import bundle_path
from brats_pipeline.files import file_sha256
from brats_pipeline.locking import claimed
from brats_pipeline.studies.study import study

PLAN: dict[str, Any] = {
    "name": "tiny",
    "title": "A tiny study",
    "set": {
        "spacing": [4.0, 4.0, 4.0],
        "patch_size": [16, 16, 16],
        "roi_size": [48, 48, 48],
        "network_def::depth": 1,
        "network_def::features": 4,
        "network_def::norm": "instance",
        "learning_rate": 0.01,
        "precision": "float32",
        "max_epochs": 3,
        "patches_per_epoch": 4,
        "val_interval": 3,
    },
    "arms": [{"name": "plain", "network": "unet"}, {"name": "residual", "network": "residual_unet"}],
    "folds": {"k": 3, "test": [0, 1]},
}
TABLES = ("arms.csv", "comparison.csv", "ranking.csv")
TIMED = ("training_seconds", "segment_seconds_per_case")


def write_plan(folder: Path, **changes: Any) -> Path:
    """A study file; it names its bundle by its folder."""
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({"bundle": str(bundle_path("brats_glioma_3d")), **PLAN, **changes}))
    return path


def run(file: Path, out: Path, **more: Any) -> Any:
    return study(file, out, device="cpu", images=False, **more)


def figures(out: Path) -> dict[str, list[dict[str, str]]]:
    """The tables without what a clock measured."""
    found = {}
    for name in TABLES:
        with (out / name).open(newline="") as file:
            found[name] = [{key: row[key] for key in row if key not in TIMED} for row in csv.DictReader(file)]
    return found


def content(folder: Path) -> dict[str, str]:
    """Hash of every prediction and of every network below a folder."""
    files = [*folder.rglob("predictions/*.nii.gz"), *folder.rglob("models/model.pt")]
    return {path.relative_to(folder).as_posix(): file_sha256(path) for path in files}


def stamps(folder: Path) -> dict[str, int]:
    return {
        path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()
    }


@pytest.fixture(scope="module")
def whole(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study, run in one piece; must not be changed."""
    folder = tmp_path_factory.mktemp("study")
    result = run(write_plan(folder), folder / "out", data=cohort)
    assert result.complete
    return folder / "out"


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A copy of the finished study that a test may spoil, and its file."""
    return write_plan(tmp_path), Path(shutil.copytree(whole, tmp_path / "out"))


def test_every_case_of_the_tested_folds_is_scored_once_for_every_arm(whole: Path) -> None:
    listing = json.loads((whole / "datalist.json").read_text())["training"]
    tested = sorted(item["case_id"] for item in listing if item["fold"] in (0, 1))
    for arm in ("plain", "residual"):
        with (whole / "arms" / arm / "seed0" / "cases.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert sorted(row["case_id"] for row in rows if row["region"] == "WT") == tested


def test_no_network_sees_a_case_or_a_patient_that_it_is_tested_on(whole: Path) -> None:
    folds = {item["patient_id"]: item["fold"] for item in json.loads((whole / "datalist.json").read_text())["training"]}
    for unit in (whole / "units").glob("*/*"):
        tested = int(unit.name.removeprefix("seed0-fold"))
        seen = json.loads((unit / "run" / "datalist.json").read_text())["training"]
        told = json.loads((unit / "run" / "run.json").read_text())
        assert seen
        assert tested not in {folds[item["patient_id"]] for item in seen}
        assert told["fold"] == (tested + 1) % 3  # the fold that chooses the epoch is not the tested one
        assert any(item["fold"] == told["fold"] for item in seen)


def test_the_tables_hold_what_the_evaluations_hold(whole: Path) -> None:
    table = {(row["arm"], row["region"]): row for row in figures(whole)["arms.csv"]}
    for arm in ("plain", "residual"):
        summary = json.loads((whole / "arms" / arm / "seed0" / "summary.json").read_text())
        for region in ("WT", "TC", "ET"):
            told = summary["regions"][region]["metrics"]["dice"]
            assert float(table[arm, region]["dice_mean"]) == pytest.approx(told["mean"], abs=1e-6)
            assert float(table[arm, region]["dice_median"]) == pytest.approx(told["median"], abs=1e-6)
            assert table[arm, region]["n"] == "4"


def test_parameters_are_those_of_the_network(whole: Path) -> None:
    from networks import UNet

    network = UNet(spatial_dims=3, in_channels=8, out_channels=3, depth=1, features=4, norm="instance")
    wanted = sum(parameter.numel() for parameter in network.parameters())
    assert {row["parameters"] for row in figures(whole)["arms.csv"] if row["arm"] == "plain"} == {str(wanted)}


def test_a_finished_study_is_not_done_again(copied: tuple[Path, Path]) -> None:
    file, out = copied
    before = stamps(out / "units") | stamps(out / "arms")
    assert run(file, out).complete
    after = stamps(out / "units") | stamps(out / "arms")
    assert {name for name in before if after[name] != before[name]} <= {
        name for name in before if name.endswith(".claim")
    }


def test_new_keeps_what_the_change_does_not_touch(copied: tuple[Path, Path], tmp_path: Path) -> None:
    _, out = copied
    before = content(out / "units" / "plain")
    same = str(out / "bundles" / "brats_glioma_3d")
    run(write_plan(tmp_path, arms=[PLAN["arms"][0]], bundle=same), out, new=True)
    assert content(out / "units" / "plain") == before
    assert not (out / "units" / "residual").exists()
    assert {row["arm"] for row in figures(out)["arms.csv"]} == {"plain"}


def dice_of(home: Path) -> dict[tuple[str, str], float]:
    with (home / "cases.csv").open(newline="") as file:
        return {(row["case_id"], row["region"]): float(row["dice"]) for row in csv.DictReader(file)}


def figures_of_missing(out: Path) -> list[dict[str, str]]:
    with (out / "missing.csv").open(newline="") as table:
        return list(csv.DictReader(table))


def test_what_missing_modalities_cost_is_measured_without_another_training(
    copied: tuple[Path, Path], tmp_path: Path
) -> None:
    _, out = copied
    before = content(out / "units" / "plain" / "seed0-fold0")
    asked: dict[str, Any] = {
        "arms": [PLAN["arms"][0]],
        "folds": {"k": 3, "test": [0]},
        "evaluation": {"missing": "pairs"},
    }
    file = write_plan(tmp_path, bundle=str(out / "bundles" / "brats_glioma_3d"), **asked)
    assert run(file, out, new=True).complete
    after = content(out / "units" / "plain" / "seed0-fold0")
    assert {name: after[name] for name in before} == before

    rows = {(row["without"], row["region"]): row for row in figures_of_missing(out)}
    pairs = {"t1c+t1", "t1c+t2", "t1c+flair", "t1+t2", "t1+flair", "t2+flair"}
    assert {modality for modality, _ in rows} == {"t1c", "t1", "t2", "flair"} | pairs
    home = out / "arms" / "plain" / "seed0"
    whole = dice_of(home)
    costs = []
    for (modality, region), row in rows.items():
        less = dice_of(home / "missing" / modality)
        assert less.keys() == whole.keys()
        values = [less[case] for case in less if case[1] == region]
        cost = sum(values) / 2 - sum(whole[case] for case in whole if case[1] == region) / 2
        assert float(row["mean"]) == pytest.approx(sum(values) / 2, abs=1e-6)
        assert float(row["mean_difference"]) == pytest.approx(cost, abs=1e-6)
        costs.append(cost)
    assert any(costs), "a network that does not look at its modalities would prove nothing"
    for name in ("report.html", "report.md"):
        assert "What a missing modality costs" in (out / name).read_text()
    assert {f"plain/seed0 without {name}" for name in ("t1c", "t1", "t2", "flair", *pairs)} < set(
        json.loads((out / "manifest.json").read_text())["call"]["reports"]
    )
    unit = out / "units" / "plain" / "seed0-fold0" / "unit.json"
    told = json.loads(unit.read_text())
    del told["missing"]
    unit.write_text(json.dumps(told))
    merged = run(file, out, only_merge=True).merged
    assert "1 of 1 trainings still lack what the study asks for" in merged.missing[0]
    assert figures_of_missing(out) == []


def test_only_the_tested_cases_are_segmented_where_all_lie_in_one_folder(
    make_cohort: Callable[..., Path], tmp_path: Path
) -> None:
    data = make_cohort(layout="msd", cases=4)
    quick = {"arms": [{**PLAN["arms"][0], "set": {"max_epochs": 1, "val_interval": 1}}], "folds": {"k": 4}}
    out = tmp_path / "out"
    assert run(write_plan(tmp_path, **quick), out, data=data).complete
    listing = json.loads((out / "datalist.json").read_text())["training"]
    predictions = out / "units" / "plain" / "seed0-fold0" / "predictions"
    assert {path.name.removesuffix(".nii.gz") for path in predictions.glob("*.nii.gz")} == {
        item["case_id"] for item in listing if item["fold"] == 0
    }


def test_a_missing_fold_is_said_and_its_cases_are_in_no_table(copied: tuple[Path, Path]) -> None:
    file, out = copied
    shutil.rmtree(out / "units" / "residual" / "seed0-fold1")
    merged = run(file, out, only_merge=True).merged
    assert not merged.complete
    assert merged.missing[0] == "residual: 1 of 2 trainings are not done: seed 0, fold 1 waiting"
    assert merged.missing[1].startswith("2 cases were not tested by every arm yet")
    assert {row["n"] for row in figures(out)["arms.csv"]} == {"2"}
    assert "1 of 2 trainings are not done" in (out / "report.html").read_text()


def test_a_missing_arm_is_said(copied: tuple[Path, Path]) -> None:
    file, out = copied
    shutil.rmtree(out / "units" / "residual")
    merged = run(file, out, only_merge=True).merged
    assert "the arm is in no table" in merged.missing[0]
    assert {row["arm"] for row in figures(out)["arms.csv"]} == {"plain"}
    assert figures(out)["ranking.csv"] == []


def test_a_case_that_could_not_be_segmented_is_a_miss(copied: tuple[Path, Path]) -> None:
    file, out = copied
    unit = out / "units" / "residual" / "seed0-fold0"
    victim = next((unit / "predictions").glob("*.nii.gz"))
    victim.unlink()
    told = json.loads((unit / "unit.json").read_text())
    case_id = victim.name.removesuffix(".nii.gz")
    (unit / "unit.json").write_text(json.dumps({**told, "segment_failed": {case_id: "its scan is damaged"}}))
    merged = run(file, out, only_merge=True).merged
    assert merged.missing == (f"residual: {case_id} could not be segmented and counts as a miss (its scan is damaged)",)
    with (out / "arms" / "residual" / "seed0" / "cases.csv").open(newline="") as table:
        assert {row["dice"] for row in csv.DictReader(table) if row["case_id"] == case_id} == {"0"}
    assert {row["n"] for row in figures(out)["arms.csv"]} == {"4"}


def test_a_training_that_fails_is_told_and_the_others_go_on(whole: Path, tmp_path: Path, cohort: Path) -> None:
    broken = {"name": "broken", "network": "unet", "set": {"network_def::activation": "none such"}}
    file = write_plan(tmp_path, arms=[broken, {**PLAN["arms"][0], "set": {"max_epochs": 1}}], folds={"k": 3})
    result = run(file, tmp_path / "out", data=cohort)
    assert not result.complete
    assert set(result.progress.failed) == {"broken, seed 0, fold 0"}
    assert "none such" in result.progress.failed["broken, seed 0, fold 0"]
    assert any("broken: 1 of 1 trainings are not done" in sentence for sentence in result.merged.missing)
    assert {row["arm"] for row in figures(tmp_path / "out")["arms.csv"]} == {"plain"}


def test_a_unit_belongs_to_one_process(tmp_path: Path) -> None:
    with claimed(tmp_path / "unit") as first:
        assert first
        script = "import sys; from pathlib import Path; from brats_pipeline.locking import claimed\n"
        script += f"with claimed(Path({str(tmp_path / 'unit')!r})) as ours: sys.exit(0 if ours else 3)"
        assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 3
    with claimed(tmp_path / "unit") as again:
        assert again


@pytest.mark.slow
def test_killed_in_mid_training_it_continues_arm_by_arm_to_the_same_figures(
    whole: Path, tmp_path: Path, cohort: Path
) -> None:
    file, out = write_plan(tmp_path), tmp_path / "out"
    first, second = (out / "units" / "plain" / f"seed0-fold{fold}" for fold in (0, 1))
    arguments = ["-m", "brats_pipeline", "study", file, "--data", cohort, "-o", out, "--device", "cpu", "--quiet"]
    process = subprocess.Popen([sys.executable, *map(str, arguments)], stdout=subprocess.DEVNULL)
    try:
        _wait(lambda: (second / "run" / "models" / "last.pt").is_file(), process)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert json.loads((first / "unit.json").read_text())["state"] == "done"
    assert json.loads((second / "unit.json").read_text())["state"] == "training"
    before = {name: stamp for name, stamp in stamps(first).items() if name != ".claim"}

    assert run(file, out, arm="residual").merged is None
    assert not (out / "report.html").exists()
    assert run(file, out, arm="0").merged is None
    assert {name: stamp for name, stamp in stamps(first).items() if name != ".claim"} == before
    assert json.loads((second / "run" / "run.json").read_text())["resumed"]
    assert run(file, out, only_merge=True).complete
    assert content(out / "units") == content(whole / "units")
    assert figures(out) == figures(whole)


def _wait(happened: Callable[[], bool], process: subprocess.Popen[bytes], *, patience_s: float = 300) -> None:
    end = time.monotonic() + patience_s
    while not happened():
        assert process.poll() is None, "the study ended before it could be killed"
        assert time.monotonic() < end, "the study did not come so far"
        time.sleep(0.02)


def test_the_report_names_its_budget_and_every_table_carries_it(whole: Path) -> None:
    for name in TABLES:
        assert {row["budget"] for row in figures(whole)[name]} == {"full budget"}
    assert "Full budget" in (whole / "report.html").read_text()


def test_the_manifest_holds_a_hash_of_everything_that_the_study_wrote(whole: Path) -> None:
    manifest = json.loads((whole / "manifest.json").read_text())
    assert {*TABLES, "report.html", "report.md", "summary.json", "study.yaml", "datalist.json"} <= set(
        manifest["outputs"]
    )
    for name, sha256 in manifest["outputs"].items():
        assert hashlib.sha256((whole / name).read_bytes()).hexdigest() == sha256
    assert len(manifest["call"]["weights_sha256"]) == 4
    references, predictions = set(), set()
    for name, home in manifest["call"]["reports"].items():
        scored = json.loads((whole / home / "manifest.json").read_text())
        assert scored["dataset_sha256"] == manifest["dataset_sha256"]
        for case_id, files in scored["predictions"].items():
            for path, sha256 in files.items():
                assert hashlib.sha256((whole / home / path).read_bytes()).hexdigest() == sha256
                predictions.add((name, case_id))
        references |= scored["references"].keys()
        lines = [f"{case_id} {' '.join(files.values())}" for case_id, files in sorted(scored["predictions"].items())]
        told = manifest["call"]["predictions_sha256"][name]
        assert told == hashlib.sha256("\n".join(lines).encode()).hexdigest()
    assert len(predictions) == 8
    assert len(references) == 4


def test_a_study_verifies_and_a_changed_figure_is_named(copied: tuple[Path, Path]) -> None:
    from brats_pipeline.studies.verifying import verify_study

    _, out = copied
    assert verify_study(out).holds
    table = out / "comparison.csv"
    table.write_text(table.read_text().replace("residual,plain,WT,dice,4,", "residual,plain,WT,dice,5,"))
    found = verify_study(out)
    assert found.files == ("comparison.csv was changed after the report was written",)
    assert len(found.figures) == 1
    assert found.figures[0].startswith("comparison.csv, line 2: is residual,plain,WT,dice,5")


def _list_as_it_is(out: Path, *names: str) -> None:
    """Write the present hashes into the manifest, as whoever falsifies a report would."""
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["outputs"] |= {name: file_sha256(out / name) for name in names}
    (out / "manifest.json").write_text(json.dumps(manifest))


def test_falsified_pages_networks_and_lists_are_found_though_the_manifest_was_falsified_too(
    copied: tuple[Path, Path],
) -> None:
    from brats_pipeline.studies.verifying import verify_study

    _, out = copied
    table = {(row["arm"], row["region"]): row for row in figures(out)["arms.csv"]}
    true = f"{float(table['plain', 'WT']['dice_mean']):.3f}"
    for name in ("report.html", "report.md"):
        (out / name).write_text((out / name).read_text().replace(true, "0.999"))
    told = json.loads((out / "summary.json").read_text())
    told["arms"][0]["parameters"] = 1
    (out / "summary.json").write_text(json.dumps(told))
    _list_as_it_is(out, "report.html", "report.md", "summary.json")
    manifest = json.loads((out / "manifest.json").read_text())
    del manifest["call"]["reports"]["residual/seed0"], manifest["outputs"]["arms.csv"]
    (out / "manifest.json").write_text(json.dumps(manifest))
    (out / "units" / "plain" / "seed0-fold1" / "run" / "models" / "model.pt").write_bytes(b"another network")
    found = verify_study(out)
    assert found.files == (
        "residual/seed0: is not listed in the manifest",
        "plain, seed 0, fold 1: its weights are not those that the report was made of",
        "arms.csv is not listed in manifest.json",
    )
    assert any(sentence.startswith("summary.json, arms.0.parameters is 1") for sentence in found.figures)
    for name in ("report.html", "report.md"):
        assert any(sentence.startswith(f"{name}: says “") and "0.999" in sentence for sentence in found.figures)


def test_no_report_outlives_what_it_tells_of(copied: tuple[Path, Path], tmp_path: Path) -> None:
    from brats_pipeline.studies.printing import sentences
    from brats_pipeline.studies.verifying import verify_study

    _, out = copied
    assert (out / "report.html").is_file()
    changed = write_plan(tmp_path, set={**PLAN["set"], "learning_rate": 0.02})
    result = run(changed, out, new=True, only_merge=True)
    assert result.merged.report is None
    assert "report: none, since no arm has a finished fold yet" in sentences(result)
    left = {path.relative_to(out).parts[0] for path in out.rglob("*") if path.is_file()}
    assert not left & {"report.html", "report.md", "figures", "arms"}
    assert verify_study(out).holds


def test_arms_that_have_no_case_in_common_are_told_and_nothing_is_lost(copied: tuple[Path, Path]) -> None:
    file, out = copied
    shutil.rmtree(out / "units" / "plain" / "seed0-fold1")
    shutil.rmtree(out / "units" / "residual" / "seed0-fold0")
    merged = run(file, out, only_merge=True).merged
    assert merged.arms == ()
    assert any("4 cases were not tested by every arm yet" in sentence for sentence in merged.missing)
    assert "No case was tested by every arm yet" in (out / "report.html").read_text()


def test_the_reports_of_arms_know_the_patients_of_the_study(
    copied: tuple[Path, Path], tmp_path: Path, cohort: Path
) -> None:
    _, out = copied
    listing = json.loads((out / "datalist.json").read_text())
    pairs = {item["case_id"]: f"P{item['fold']}" for item in listing["training"]}
    (tmp_path / "patients.csv").write_text(
        "case_id,patient_id\n" + "".join(f"{case},{patient}\n" for case, patient in pairs.items())
    )
    plan = {"arms": [{**PLAN["arms"][0], "set": {"max_epochs": 1, "val_interval": 1}}], "folds": {"k": 3, "test": [0]}}
    other = tmp_path / "other"
    assert run(write_plan(tmp_path, **plan), other, data=cohort, patients=tmp_path / "patients.csv").complete
    text = (other / "report.html").read_text()
    assert "bootstrap over patients (1 patient with 2 time points, drawn together)" in text
    assert "n = 1: with fewer than" in text
    assert "1 patient with 2 time points" in (other / "arms" / "plain" / "seed0" / "report.html").read_text()
