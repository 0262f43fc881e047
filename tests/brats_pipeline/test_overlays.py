"""``configs/postprocessing.yaml``: an overlay that changes label maps, and is refused where it cannot."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from brats_pipeline.bundles import freeze_bundle, open_workflow
from brats_pipeline.errors import PipelineError
from brats_pipeline.overlays import configuration_sha256, post_processing


@pytest.fixture
def own_run(run: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may give an overlay."""
    return shutil.copytree(run, tmp_path / "own run")


def overlaid(run: Path, text: str) -> Path:
    path = run / "configs" / "postprocessing.yaml"
    path.write_text(text)
    return path


def settings_in_force(run: Path, cohort: Path, *names: str, **overrides: object) -> tuple[object, object]:
    """Threshold and cleaning as the opened workflow has them."""
    given = {"data_list_file_path": str(run / "datalist.json"), "dataset_dir": str(cohort), **overrides}
    kind = "infer" if "inference.yaml" in names else "train"
    parser = open_workflow(run, list(names), workflow_type=kind, overrides=given).parser
    return parser.get_parsed_content("threshold"), parser.get_parsed_content("smallest_component")


def test_an_overlay_lies_over_what_makes_label_maps_and_below_what_a_person_sets(own_run: Path, cohort: Path) -> None:
    assert settings_in_force(own_run, cohort, "inference.yaml") == (0.5, 0)
    overlaid(own_run, "threshold: [0.4, 0.5, 0.6]\nsmallest_component: 7\n")
    assert settings_in_force(own_run, cohort, "inference.yaml") == ([0.4, 0.5, 0.6], 7)
    assert settings_in_force(own_run, cohort, "inference.yaml", threshold=0.3) == (0.3, 7)
    assert settings_in_force(own_run, cohort, "train.yaml", "evaluate.yaml") == ([0.4, 0.5, 0.6], 7)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("smallest_componnet: 5\n", "no configuration of own run has the id smallest_componnet"),
        ("smallest_component: -5\n", r"postprocessing\.yaml: smallest_component is -5; give a whole number"),
        ("keep_largest: [true, false]\n", "2 values for 3 regions"),
        ("threshold: [0.5, 0.5]\n", "between 0 and 1, or one for each region"),
        ("threshold: 1.5\n", "between 0 and 1"),
        ("- 5\n", "holds no ids with values"),
        ("threshold: [\n", "cannot be read as YAML"),
    ],
)
def test_what_an_overlay_cannot_mean_is_refused(own_run: Path, cohort: Path, text: str, message: str) -> None:
    overlaid(own_run, text)
    with pytest.raises(PipelineError, match=message):
        settings_in_force(own_run, cohort, "inference.yaml")


def test_the_hash_of_a_configuration_changes_with_its_overlay_and_comes_back_without(own_run: Path) -> None:
    plain = configuration_sha256(own_run)
    path = overlaid(own_run, "threshold: 0.4\n")
    first = configuration_sha256(own_run)
    overlaid(own_run, "threshold: 0.6\n")
    assert len({plain, first, configuration_sha256(own_run)}) == 3
    path.unlink()
    assert configuration_sha256(own_run) == plain


def test_a_run_that_is_trained_from_a_bundle_does_not_inherit_what_was_tuned_for_other_weights(
    own_run: Path, tmp_path: Path
) -> None:
    overlaid(own_run, "threshold: 0.4\n")
    freeze_bundle(own_run, tmp_path / "next", {})
    assert post_processing(tmp_path / "next") is None
    freeze_bundle(own_run, own_run, {})
    assert post_processing(own_run) is not None
