"""Opening a study: what it was begun with is kept, and what differs from it is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from brats_pipeline.bundles import bundle_path
from brats_pipeline.errors import PipelineError
from brats_pipeline.locking import claimed, taking_turns
from brats_pipeline.studies import opening
from brats_pipeline.studies.opening import open_study
from brats_pipeline.studies.plan import Plan
from brats_pipeline.studies.reading import read_plan
from brats_pipeline.studies.units import data_sha256, units_of

SMALL: dict[str, Any] = {
    "name": "small",
    "title": "A small study",
    "bundle": "brats_glioma_3d",
    "set": {"max_epochs": 2},
    "arms": [{"name": "plain", "network": "unet"}, {"name": "slow", "set": {"learning_rate": 0.0001}}],
    "folds": {"k": 3, "test": [0, 2]},
}


@pytest.fixture
def plan(tmp_path: Path) -> Callable[..., Plan]:
    """A plan that differs from ``SMALL`` in some keys."""

    def make(**changes: Any) -> Plan:
        path = tmp_path / "small.yaml"
        path.write_text(yaml.safe_dump({**SMALL, **changes}))
        return read_plan(path)

    return make


@pytest.fixture
def data(cohort: Path, tmp_path: Path) -> Path:
    """A cohort that a test may change; the times of its files are those of the first."""
    return Path(shutil.copytree(cohort, tmp_path / "data"))


def test_a_study_opens_again_with_the_same_folds_and_without_its_data_named(
    plan: Callable[..., Plan], data: Path, tmp_path: Path
) -> None:
    first = open_study(plan(), tmp_path / "out", data=data)
    folds = json.loads((tmp_path / "out" / "datalist.json").read_text())
    again = open_study(plan(), tmp_path / "out")
    assert again["units"] == first["units"]
    assert json.loads((tmp_path / "out" / "datalist.json").read_text()) == folds
    assert len(set(first["units"].values())) == 4


def test_data_that_moved_as_they_were_are_taken_where_they_lie_now(
    plan: Callable[..., Plan], data: Path, tmp_path: Path
) -> None:
    first = open_study(plan(), tmp_path / "out", data=data)
    moved = data.rename(tmp_path / "moved")
    again = open_study(plan(), tmp_path / "out", data=moved)
    assert again["data_sha256"] == first["data_sha256"]
    images = [
        path
        for item in json.loads((tmp_path / "out" / "datalist.json").read_text())["training"]
        for path in item["image"]
    ]
    assert images
    assert all(Path(path).is_relative_to(moved) and Path(path).is_file() for path in images)


def test_other_data_are_refused_and_nothing_is_written(plan: Callable[..., Plan], data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    open_study(plan(), out, data=data)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    touched = next(data.rglob("*flair*"))
    times = touched.stat()
    os.utime(touched, ns=(times.st_atime_ns, times.st_mtime_ns + 10**9))
    with pytest.raises(PipelineError, match=r"not those that the study began with; restore .* --new"):
        open_study(plan(), out)
    os.utime(touched, ns=(times.st_atime_ns, times.st_mtime_ns))
    open_study(plan(), out)
    gone = touched.parent.rename(tmp_path / "gone")
    with pytest.raises(PipelineError, match=f"has no case {touched.parent.name} of the study"):
        open_study(plan(), out)
    gone.rename(touched.parent)
    shutil.copytree(touched.parent, data / "BraTS2021_09999")
    for path in (data / "BraTS2021_09999").iterdir():
        path.rename(path.with_name(path.name.replace(touched.parent.name, "BraTS2021_09999")))
    with pytest.raises(PipelineError, match="has cases that the study lacks"):
        open_study(plan(), out)
    kept = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert {path.name for path in before if kept[path] != before[path]} == set()


def test_another_study_is_refused_by_what_differs(plan: Callable[..., Plan], data: Path, tmp_path: Path) -> None:
    open_study(plan(), tmp_path / "out", data=data)
    with pytest.raises(PipelineError, match=r"differs from the study .*, in set, title; "):
        open_study(plan(set={"max_epochs": 3}, title="Another"), tmp_path / "out")


def test_new_forgets_only_the_trainings_that_the_change_touches(
    plan: Callable[..., Plan], data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    record = open_study(plan(), out, data=data)
    for unit in units_of(plan(), out):
        unit.write(state="done", identity=record["units"][unit.name])
    arms = [SMALL["arms"][0], {"name": "slow", "set": {"learning_rate": 0.01}}, {"name": "third"}]
    changed = plan(arms=arms)
    open_study(changed, out, new=True)
    assert {unit.name: unit.state for unit in units_of(changed, out)} == {
        "plain, seed 0, fold 0": "done",
        "plain, seed 0, fold 2": "done",
        "slow, seed 0, fold 0": "waiting",
        "slow, seed 0, fold 2": "waiting",
        "third, seed 0, fold 0": "waiting",
        "third, seed 0, fold 2": "waiting",
    }


def test_a_later_bundle_changes_nothing_until_it_is_asked_for(
    plan: Callable[..., Plan], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    first = open_study(plan(), out, data=data)
    later = Path(shutil.copytree(bundle_path("brats_glioma_3d"), tmp_path / "brats_glioma_3d"))
    with (later / "configs" / "train.yaml").open("a") as config:
        config.write("something_new: 1\n")
    monkeypatch.setattr(opening, "bundle_path", lambda name: later)
    own = out / "bundles" / "brats_glioma_3d" / "configs" / "train.yaml"
    assert open_study(plan(), out)["units"] == first["units"]
    assert "something_new" not in own.read_text()
    assert not set(open_study(plan(), out, new=True)["units"].values()) & set(first["units"].values())
    assert "something_new" in own.read_text()


def test_a_folder_with_other_things_in_it_is_left_alone(plan: Callable[..., Plan], data: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    with pytest.raises(PipelineError, match="holds no study"):
        open_study(plan(), tmp_path / "out", data=data)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_folds_of_another_number_are_refused(plan: Callable[..., Plan], data: Path, tmp_path: Path) -> None:
    open_study(plan(), tmp_path / "out", data=data)
    with pytest.raises(PipelineError, match="has the folds 0, 1, 2, the study has 2; write it with --folds 2"):
        open_study(
            plan(folds={"k": 2, "validation": "none"}),
            tmp_path / "other",
            data=data,
            datalist=tmp_path / "out" / "datalist.json",
        )


def test_a_convention_beside_a_datalist_is_refused(plan: Callable[..., Plan], data: Path, tmp_path: Path) -> None:
    open_study(plan(), tmp_path / "out", data=data)
    with pytest.raises(PipelineError, match="a datalist names the label convention of its cases already"):
        open_study(
            plan(), tmp_path / "other", data=data, datalist=tmp_path / "out" / "datalist.json", convention="brats2021"
        )


def test_a_study_without_data_says_what_it_needs(plan: Callable[..., Plan], tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"needs data: .* --data"):
        open_study(plan(), tmp_path / "out")


def smoke(tmp_path: Path, *, cases: int = 3) -> Path:
    """The file of a study with a budget that makes its own cases."""
    phantom = {"layout": "brats2021", "cases": cases, "size": [44, 48, 40], "spacing": 4.0}
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump({**SMALL, "budgets": {"smoke": {"data": {"phantom": phantom}}}}))
    return path


def test_a_synthetic_cohort_is_made_again_where_another_one_is_meant_and_never_taken_for_data(tmp_path: Path) -> None:
    out = tmp_path / "out"
    open_study(read_plan(smoke(tmp_path), "smoke"), out)
    made = {path: path.stat().st_mtime_ns for path in (out / "data").rglob("*.nii.gz")}
    file = smoke(tmp_path, cases=4)
    with pytest.raises(PipelineError, match="differs from the study"):
        open_study(read_plan(file, "smoke"), out)
    assert made == {path: path.stat().st_mtime_ns for path in (out / "data").rglob("*.nii.gz")}
    with pytest.raises(PipelineError, match="needs data"):
        open_study(read_plan(file), out, new=True)
    open_study(read_plan(file, "smoke"), out, new=True)
    assert len(json.loads((out / "datalist.json").read_text())["training"]) == 4


def test_data_are_refused_where_the_budget_makes_its_own(data: Path, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="budget smoke makes synthetic cases of its own; leave out --data"):
        open_study(read_plan(smoke(tmp_path), "smoke"), tmp_path / "out", data=data)
    assert not (tmp_path / "out").exists()


def test_another_convention_is_refused(plan: Callable[..., Plan], data: Path, tmp_path: Path) -> None:
    open_study(plan(), tmp_path / "out", data=data, convention="brats2017")
    open_study(plan(), tmp_path / "out", convention="brats2017")
    with pytest.raises(PipelineError, match=r"--convention is msd, .* was begun with brats2017"):
        open_study(plan(), tmp_path / "out", convention="msd")


def two_by_two(data: Path, folder: Path) -> Path:
    """A table that gives every patient two cases of a cohort."""
    cases = sorted(case.name for case in data.iterdir())
    table = folder / "patients.csv"
    table.write_text("case_id,patient_id\n" + "".join(f"{case},P{number // 2}\n" for number, case in enumerate(cases)))
    return table


def test_other_patients_are_refused_and_the_same_ones_taken(
    plan: Callable[..., Plan], data: Path, tmp_path: Path
) -> None:
    cases = sorted(folder.name for folder in data.iterdir())
    table = two_by_two(data, tmp_path)
    out = tmp_path / "out"
    first = open_study(plan(), out, data=data, patients=table)
    assert open_study(plan(), out, patients=table)["data_sha256"] == first["data_sha256"]
    assert open_study(plan(), out)["data_sha256"] == first["data_sha256"]
    table.write_text(table.read_text().replace(f"{cases[0]},P0", f"{cases[0]},P9"))
    with pytest.raises(PipelineError, match=rf"--patients .* gives {cases[0]} to another patient .* --new"):
        open_study(plan(), out, patients=table)
    assert open_study(plan(), out, patients=table, new=True)["data_sha256"] != first["data_sha256"]


def fold_of(out: Path) -> dict[str, tuple[str, int]]:
    """Case id to patient and fold."""
    items = json.loads((out / "datalist.json").read_text())["training"]
    return {item["case_id"]: (item["patient_id"], item["fold"]) for item in items}


def test_a_change_that_does_not_touch_them_keeps_patients_and_folds(
    plan: Callable[..., Plan], data: Path, tmp_path: Path
) -> None:
    table = two_by_two(data, tmp_path)
    out, other = tmp_path / "out", tmp_path / "other"
    first = open_study(plan(), out, data=data, patients=table)
    before = fold_of(out)
    assert open_study(plan(title="Another"), out, new=True)["units"] == first["units"]
    assert fold_of(out) == before
    own = json.loads((out / "datalist.json").read_text())
    turned = [item | {"fold": (item["fold"] + 1) % 3} for item in own["training"]]
    (tmp_path / "own.json").write_text(json.dumps({**own, "training": turned}))
    open_study(plan(), other, data=data, datalist=tmp_path / "own.json")
    open_study(plan(title="Another"), other, new=True)
    assert fold_of(other) == {case: (patient, (fold + 1) % 3) for case, (patient, fold) in before.items()}
    said: list[str] = []
    open_study(plan(title="Another", folds={"k": 3, "seed": 1}), other, new=True, say=said.append)
    assert "folds are made anew, since their number or seed changed" in said[0]
    assert {case: patient for case, (patient, _) in fold_of(other).items()} == {
        case: patient for case, (patient, _) in before.items()
    }


def test_what_labels_mean_is_remembered_and_a_network_that_learned_another_meaning_is_forgotten(
    plan: Callable[..., Plan], data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = open_study(plan(), out, data=data, convention="brats2017")
    assert open_study(plan(title="Another"), out, new=True)["convention"] == "brats2017"
    changed = json.loads((out / "datalist.json").read_text())
    for item in changed["training"]:
        item["convention"] = "brats2020"
    assert data_sha256(changed) != first["data_sha256"]


def test_a_change_waits_for_whoever_opens_the_study_and_takes_no_training_from_whoever_works_on_it(
    plan: Callable[..., Plan], data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    record = open_study(plan(), out, data=data)
    unit = units_of(plan(), out)[0]
    changed = plan(set={"max_epochs": 3})
    said: list[str] = []
    with claimed(unit.folder), pytest.raises(PipelineError, match=r"works on units/plain/seed0-fold0; end it"):
        open_study(changed, out, new=True)
    assert json.loads((out / "study.json").read_text())["units"] == record["units"]
    opened: list[dict[str, Any]] = []
    with taking_turns(out):
        second = threading.Thread(target=lambda: opened.append(open_study(changed, out, new=True, say=said.append)))
        second.start()
        second.join(0.3)
        assert second.is_alive()
        assert json.loads((out / "study.json").read_text())["units"] == record["units"]
    second.join(60)
    assert said == [f"waiting: another process is opening {out}"]
    assert json.loads((out / "study.json").read_text())["units"] == opened[0]["units"] != record["units"]


OPEN_OFTEN = """
import os, sys
from pathlib import Path
from brats_pipeline.studies import opening
from brats_pipeline.studies.reading import read_plan

file, out, data, log = map(Path, sys.argv[1:])
really_open = opening._open

def tell(word):
    with log.open("a") as lines:
        lines.write(f"{os.getpid()} {word}\\n")

def opened(*arguments, **named):
    tell("in")
    record = really_open(*arguments, **named)
    tell("out")
    return record

opening._open = opened
for _ in range(5):
    opening.open_study(read_plan(file), out, data=data, new=True)
"""


def test_two_processes_that_take_changes_at_once_take_turns(data: Path, tmp_path: Path) -> None:
    files = []
    for number in (1, 2):
        files.append(tmp_path / f"study{number}.yaml")
        files[-1].write_text(yaml.safe_dump({**SMALL, "set": {"max_epochs": number}}))
    out, log = tmp_path / "out", tmp_path / "log.txt"
    arguments = [str(out), str(data), str(log)]
    both = [subprocess.Popen([sys.executable, "-c", OPEN_OFTEN, str(file), *arguments]) for file in files]
    assert [process.wait(300) for process in both] == [0, 0]
    told = [line.split() for line in log.read_text().splitlines()]
    assert len({process for process, _ in told}) == 2
    assert [word for _, word in told] == ["in", "out"] * 10
    assert all(begin[0] == end[0] for begin, end in zip(told[::2], told[1::2], strict=True))
    record = json.loads((out / "study.json").read_text())
    last = {plan.sha256: plan for plan in map(read_plan, files)}[record["study"]["sha256"]]
    assert open_study(last, out)["units"] == record["units"]
