"""The studies that come along: they fit the bundles, they are what they say, and their smoke budgets run."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from brats_pipeline.bundles import bundle_path, network_overlay
from brats_pipeline.studies.checks import check_plan, configuration
from brats_pipeline.studies.opening import open_study
from brats_pipeline.studies.plan import Arm
from brats_pipeline.studies.reading import list_studies, read_plan
from brats_pipeline.studies.running import run_units
from brats_pipeline.studies.study import study
from brats_pipeline.studies.units import units_of

STUDIES = sorted(list_studies())
VOXELS_PER_SECOND = {2: 200_000, 3: 300_000}
"""That one CPU core trains on at least: slices by the widest networks, volumes by a U-Net with 16 features."""
BUDGETS = [
    (name, budget)
    for name, path in sorted(list_studies().items())
    for budget in yaml.safe_load(path.read_text())["budgets"]
]


def test_the_five_systems_the_strong_recipes_and_the_ablation_are_there() -> None:
    assert {
        *("brats_three_networks", "brats_slices_two_networks", "lgg_five_networks", "lgg_unet_dice_curves"),
        *("lgg_loss_comparison", "brats_strong", "lgg_strong", "lgg_strong_beside_buda", "ablation"),
    } == set(STUDIES)


@pytest.mark.parametrize(("name", "budget"), BUDGETS)
def test_every_budget_of_every_study_fits_its_bundle(name: str, budget: str) -> None:
    plan = read_plan(name, budget)
    check_plan(plan)
    assert plan.name == name
    short = {
        *(("brats_strong", budget) for budget in ("one_core", "twenty_minutes")),
        ("brats_slices_two_networks", "quarter_hour"),
        *((study, "few_minutes") for study in ("brats_three_networks", "lgg_five_networks", "lgg_loss_comparison")),
    }
    keeps_the_last_epoch = name == "lgg_strong_beside_buda" or (name, budget) in short
    assert plan.folds.validation == ("none" if keeps_the_last_epoch else "next")
    assert (plan.phantom is not None) == (budget == "smoke")


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_has_a_smoke_and_a_full_budget(name: str) -> None:
    assert {(name, "smoke"), (name, "full")} <= set(BUDGETS)
    assert read_plan(name).budget_in_words == "full budget"
    assert "synthetic cases" in read_plan(name, "smoke").budget_in_words


@pytest.mark.parametrize("name", STUDIES)
def test_the_cpu_budget_leaves_time_for_enough_steps(name: str) -> None:
    plan = read_plan(name, "cpu")
    for arm in plan.arms:
        settings = {**configuration(bundle_path(arm.bundle)), **arm.settings}
        dims = len(settings["patch_size"])
        coarser = settings["network_def"].get("factor", 1) ** dims  # voxels of the patch to one that the network sees
        voxels = settings["batch_size"] * math.prod(settings["patch_size"]) / coarser
        assert plan.minutes is not None
        assert plan.minutes * 60 * VOXELS_PER_SECOND[len(settings["patch_size"])] / voxels >= 1500, arm.name
        epoch_s = settings["patches_per_epoch"] * math.prod(settings["patch_size"])
        epoch_s /= VOXELS_PER_SECOND[len(settings["patch_size"])]
        assert plan.minutes * 60 / epoch_s >= 4 * settings["val_interval"], "the epoch is chosen among some"


def _network(arm: Arm) -> Any:
    """The network of an arm, made as its bundle would."""
    import networks

    bundle = bundle_path(arm.bundle)
    config = {**configuration(bundle), **(network_overlay(bundle, arm.network) if arm.network else {})}
    settings = dict(config["network_def"])
    own = {key.partition("::")[2]: value for key, value in arm.settings.items() if key.startswith("network_def::")}
    settings |= {"in_channels": 3, "out_channels": len(config["regions"]), **own}
    return getattr(networks, settings.pop("_target_").removeprefix("networks."))(**settings)


def test_the_arms_of_the_curves_have_the_parameters_of_their_models() -> None:
    small, buda = read_plan("lgg_unet_dice_curves").arms
    count = [sum(parameter.numel() for parameter in _network(arm).parameters()) for arm in (small, buda)]
    assert count == [161_633, 7_763_041]  # for three modalities


def test_each_arm_of_the_ablation_leaves_out_one_ingredient() -> None:
    strong, *others = read_plan("ablation").arms
    assert dict(strong.settings) == dict(read_plan("brats_strong").arm("strong").settings)
    together = {"no_modality_dropout": 2, "no_schedule": 2}
    for arm in others:
        changed = {key for key in arm.settings if arm.settings[key] != strong.settings[key]}
        assert len(changed) == together.get(arm.name, 1), arm.name
    assert len({str(sorted(arm.settings.items(), key=str)) for arm in (strong, *others)}) == len(others) + 1


@pytest.mark.parametrize("name", ["brats_three_networks", "lgg_loss_comparison"])
def test_one_training_of_the_smoke_budget_runs(name: str, tmp_path: Path) -> None:
    plan = read_plan(name, "smoke")
    record = open_study(plan, tmp_path / "out")
    unit = units_of(plan, tmp_path / "out")[0]
    progress = run_units([unit], plan, tmp_path / "out", record, device="cpu", quiet=True)
    assert progress.done == (unit.name,)
    assert unit.read()["segment_failed"] == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_the_whole_smoke_budget_runs_to_its_report(name: str, tmp_path: Path) -> None:
    result = study(name, tmp_path / "out", budget="smoke", device="cpu")
    assert result.complete
    with (tmp_path / "out" / "arms.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["arm"] for row in rows} == {arm.name for arm in result.plan.arms}
    assert all(row["budget"].startswith("reduced budget “smoke”") for row in rows)
    page = (tmp_path / "out" / "report.html").read_text()
    assert all(arm.title in page for arm in result.plan.arms)
    losses = {row["arm"]: row["test_loss"] for row in rows}
    assert all(float(loss) > 0 for loss in losses.values()) if result.plan.test_loss else not any(losses.values())
    notes = [json.loads(unit.marker.read_text()).get("note", "") for unit in units_of(result.plan, tmp_path / "out")]
    weighted = [arm.settings.get("loss_name") == "weighted_bce" for arm in result.plan.arms]
    assert [note.startswith("Mean tumour share") for note in notes] == weighted
    assert all(note in page for note in notes)
