"""Study files: what they may say, and what is refused before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from brats_pipeline.errors import PipelineError
from brats_pipeline.studies.checks import check_plan
from brats_pipeline.studies.plan import Plan
from brats_pipeline.studies.reading import list_studies, read_plan, study_path
from brats_pipeline.studies.study import arms_asked

SMALL: dict[str, Any] = {
    "name": "small",
    "title": "A small study",
    "bundle": "brats_glioma_3d",
    "set": {"max_epochs": 9, "learning_rate": 0.01},
    "arms": [
        {"name": "plain", "network": "unet"},
        {"name": "slow", "network": "unet", "set": {"learning_rate": 0.001}, "seeds": [3, 4]},
    ],
    "folds": {"k": 4, "test": [0, 2]},
    "budgets": {"smoke": {"max_epochs": 1, "set": {"batch_size": 1}, "arms": {"slow": {"batch_size": 3}}}},
}


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    """Writes a study file that differs from ``SMALL`` in some keys."""

    def write(**changes: Any) -> Path:
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump({**SMALL, **changes}))
        return path

    return write


def test_the_arm_changes_the_study_and_the_budget_changes_both(written: Callable[..., Path]) -> None:
    plain, slow = read_plan(written(), "smoke").arms
    assert plain.settings == {"max_epochs": 1, "learning_rate": 0.01, "batch_size": 1}
    assert slow.settings == {"max_epochs": 1, "learning_rate": 0.001, "batch_size": 3}
    assert (plain.seeds, slow.seeds) == ((0,), (3, 4))


def test_without_a_budget_the_study_is_full_and_says_so(written: Callable[..., Path]) -> None:
    plan = read_plan(written())
    assert plan.arms[0].settings["max_epochs"] == 9
    assert plan.budget_in_words == "full budget"


def test_a_reduced_budget_says_its_numbers(written: Callable[..., Path]) -> None:
    words = read_plan(written(), "smoke").budget_in_words
    assert words == "reduced budget “smoke”: max_epochs 1; batch_size 1; slow: batch_size 3"


def test_a_reduced_budget_tells_components_by_their_name_and_equal_changes_once(written: Callable[..., Path]) -> None:
    network = {"_target_": "networks.Downscaled", "factor": 2, "network": {"_target_": "networks.UNet"}, "x": "@y"}
    both = {"arms": {"plain": {"network_def": network}, "slow": {"network_def": network}}}
    words = read_plan(written(budgets={"half": both}), "half").budget_in_words
    assert words == "reduced budget “half”: plain, slow: network_def networks.Downscaled (factor 2)"


def test_a_budget_may_run_some_of_the_arms_and_says_which(written: Callable[..., Path]) -> None:
    plan = read_plan(written(budgets={"quick": {"arms": ["slow"], "max_epochs": 2}}), "quick")
    assert [arm.name for arm in plan.arms] == ["slow"]
    assert plan.reference == "slow"
    assert plan.arms[0].settings == {"max_epochs": 2, "learning_rate": 0.001}
    assert plan.budget_in_words == "reduced budget “quick”: max_epochs 2; 1 of 2 arms: slow"


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (
            {"budgets": {"quick": {"arms": ["fast"]}}},
            r"budgets\.quick\.arms: there is no arm 'fast'; known: plain, slow",
        ),
        ({"budgets": {"quick": {"arms": ["slow"]}}, "reference": "plain"}, "plain is the reference arm"),
        ({"budgets": {"quick": {"arms": []}}}, r"budgets\.quick\.arms: .*at least 1"),
        ({"budgets": {"quick": {"arms": ["slow", "slow"]}}}, "each may stand there once"),
    ],
)
def test_arms_of_a_budget_that_cannot_be_are_refused(
    written: Callable[..., Path], changes: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(PipelineError, match=complaint):
        read_plan(written(**changes), "quick")


def test_the_fold_behind_the_tested_one_validates_and_the_first_follows_the_last(written: Callable[..., Path]) -> None:
    folds = read_plan(written(folds={"k": 3, "test": [0, 1, 2]})).folds
    assert [folds.validating(fold) for fold in folds.test] == [1, 2, 0]
    assert read_plan(written(folds={"k": 2, "validation": "none"})).folds.validating(0) is None


def test_comments_and_the_order_of_keys_do_not_make_another_study(written: Callable[..., Path], tmp_path: Path) -> None:
    path = written()
    turned = tmp_path / "turned.yaml"
    turned.write_text("# a comment\n" + yaml.safe_dump(dict(reversed(SMALL.items())), sort_keys=False))
    assert read_plan(path).sha256 == read_plan(turned).sha256
    assert read_plan(path).sha256 != read_plan(path, "smoke").sha256
    assert read_plan(path).sha256 != read_plan(written(set={"max_epochs": 8})).sha256


def test_a_budget_that_was_not_chosen_may_change(written: Callable[..., Path]) -> None:
    first = read_plan(written()).sha256
    assert read_plan(written(budgets={"smoke": {"max_epochs": 2}})).sha256 == first


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"netwrok": "unet"}, r"unknown key netwrok; known: .*arms.*bundle"),
        ({"arms": [{"name": "a", "netwrok": "unet"}]}, r"arms\[0\]: unknown key netwrok; known: .*network"),
        ({"arms": []}, "arms: lists nothing"),
        ({"arms": [{"name": "a"}, {"name": "a"}]}, "arms: a stands there 2 times"),
        ({"arms": [{"name": "a b"}]}, r"arms\[0\].name: is 'a b'; a name is made of letters"),
        ({"arms": [{"network": "unet"}]}, r"arms\[0\]: name is missing"),
        ({"reference": "nobody"}, "there is no arm 'nobody'; known: plain, slow"),
        ({"folds": {"k": 1}}, "folds.k: is 1; at least 2"),
        ({"folds": {"k": 2}}, "one fold is tested, one validates, one trains"),
        ({"folds": {"k": 3, "test": [3]}}, "there is no fold 3; k is 3, so the last one is 2"),
        ({"folds": {"validation": "always"}}, "is 'always'; choose one of next, none"),
        ({"seeds": [0, 0]}, "each may stand there once"),
        ({"set": [1]}, r"set: is \[1\], a mapping is needed"),
        ({"budgets": {"smoke": {"data": {"phantom": {"layout": "lgg"}}}}}, "data.phantom: cases is missing"),
    ],
)
def test_a_file_of_another_form_is_refused_by_name(
    written: Callable[..., Path], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(PipelineError, match=message):
        read_plan(written(**changes), "smoke" if "budgets" in changes else "full")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bundle": "brats_5d"}, "unknown bundle 'brats_5d'"),
        ({"arms": [{"name": "a", "network": "unett"}]}, "arm a: brats_glioma_3d has no network 'unett'; known: .*unet"),
        ({"set": {"max_epohcs": 3}}, "has the id max_epohcs; near to it: max_epochs"),
        ({"set": {"train::trainer::nothing::x": 3}}, "has the id train::trainer::nothing::x"),
        ({"set": {"fold": 1}}, "fold belongs to the study"),
        ({"set": {"loss_name": "dyce"}}, "unknown loss_name 'dyce'; known: .*dice"),
        ({"evaluation": {"rules": "brats1999"}}, "unknown rules 'brats1999'; known: .*brats2023-gli"),
        ({"evaluation": {"metrics": ["dyce"]}}, "unknown column 'dyce'"),
        ({"evaluation": {"compare": ["predicted_ml"]}}, "has no better side"),
        ({"evaluation": {"rules": "brats2020", "metrics": ["lesionwise_dice"]}}, "brats2020 give no lesionwise_dice"),
        ({"evaluation": {"rules": "brats2023-gli", "metrics": ["legacy_dice"]}}, "gli give no legacy_dice"),
        ({"evaluation": {"metrics": ["fp"]}, "seeds": [0, 1]}, "fp is a count, which has no mean over the seeds"),
    ],
)
def test_what_is_not_installed_is_refused_before_training(
    written: Callable[..., Path], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(PipelineError, match=message):
        check_plan(read_plan(written(**changes)))


def test_settings_of_a_network_and_of_lists_are_known(written: Callable[..., Path]) -> None:
    check_plan(read_plan(written(set={"network_def::features": 8, "optimizer::betas": [0.9, 0.99]})))


def test_an_unknown_budget_names_those_there_are(written: Callable[..., Path]) -> None:
    with pytest.raises(PipelineError, match="has no budget 'huge'; known: smoke, full"):
        read_plan(written(), "huge")


def test_an_unknown_study_names_those_that_come_along() -> None:
    with pytest.raises(PipelineError, match=f"neither a file nor one of .*{next(iter(list_studies()))}"):
        study_path("no_such_study")


def _names(plan: Plan, arm: str | None, **environment: str) -> list[str]:
    return [each.name for each in arms_asked(plan, arm, environment)]


def test_arms_are_asked_for_by_number_by_name_and_by_the_cluster(written: Callable[..., Path]) -> None:
    plan = read_plan(written())
    assert _names(plan, None) == ["plain", "slow"]
    assert _names(plan, "1") == _names(plan, "slow") == ["slow"]
    assert _names(plan, "env", SLURM_ARRAY_TASK_ID="1", RANK="0") == ["slow"]
    with pytest.raises(PipelineError, match="no arm '2'; known: 0 plain, 1 slow"):
        _names(plan, "2")
    with pytest.raises(PipelineError, match="SLURM_ARRAY_TASK_ID or RANK"):
        _names(plan, "env")


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_ranks_of_torchrun_share_out_the_arms(written: Callable[..., Path], size: int) -> None:
    plan = read_plan(written())
    taken = [_names(plan, "env", RANK=str(rank), WORLD_SIZE=str(size)) for rank in range(size)]
    assert sorted(name for names in taken for name in names) == ["plain", "slow"]
