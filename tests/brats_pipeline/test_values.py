"""Values that would be taken for others are refused, by every command that reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from brats_pipeline.bundles import list_bundles, open_workflow
from brats_pipeline.errors import PipelineError
from brats_pipeline.inference.segment import segment
from brats_pipeline.values import check_values

SOUND: dict[str, Any] = {"regions": ["TC", "WT", "ET"], "field_of_view": "full", "modality_dropout": 0.2}


@pytest.mark.parametrize(
    ("wrong", "known"),
    [
        ({"regions": "WT"}, "regions is 'WT'; give a list of some of TC, WT, ET"),
        ({"regions": ["WT", "wt"]}, "regions is"),
        ({"regions": ["WT", "WT"]}, "each once"),
        ({"regions": []}, "regions is"),
        ({"field_of_view": "foregruond"}, "field_of_view is 'foregruond'; this bundle knows: foreground, full"),
        ({"field_of_view": "foreground", "fields_of_view": ["full"]}, "this bundle knows: full"),
        ({"modality_dropout": 1.5}, "modality_dropout is 1.5; it must lie between 0 and 1"),
        ({"modality_dropout": "much"}, "modality_dropout is 'much'"),
        ({"strong_augmentation": "flase"}, "strong_augmentation is 'flase'; known: true, false"),
        ({"deep_supervision": None}, "deep_supervision is None; known: true, false"),
    ],
)
def test_a_value_that_would_be_taken_for_another_is_refused(wrong: dict[str, Any], known: str) -> None:
    check_values(**SOUND)
    with pytest.raises(PipelineError, match=known):
        check_values(**SOUND | wrong)


@pytest.mark.parametrize(
    ("kind", "configs"),
    [
        ("infer", ["inference.yaml"]),
        ("infer", ["inference.yaml", "combine.yaml"]),
        ("infer", ["train.yaml", "evaluate.yaml"]),
        ("infer", ["train.yaml", "evaluate.yaml", "multi_gpu_evaluate.yaml"]),
        ("train", ["train.yaml"]),
        ("train", ["train.yaml", "multi_gpu_train.yaml"]),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else value,
)
@pytest.mark.parametrize("bundle", list_bundles(), ids=lambda path: path.name)
def test_every_configuration_checks_its_switches_before_anything_else(
    bundle: Path, kind: str, configs: list[str]
) -> None:
    switch = "deep_supervision" if kind == "train" else "save_probabilities"
    for name, value in ((switch, "flase"), ("field_of_view", "fuul"), ("allow_missing", "no")):
        with pytest.raises(PipelineError, match=f"{name} is '{value}'; .*know"):
            open_workflow(bundle, configs, workflow_type=kind, overrides={name: value, "device": "cpu"})


@pytest.mark.parametrize("switch", ["save_probabilities", "uncertainty", "allow_missing", "raise_failures"])
def test_segment_takes_no_text_for_true(run: Path, cohort: Path, tmp_path: Path, switch: str) -> None:
    with pytest.raises(PipelineError, match=f"{switch}"):
        segment([cohort], tmp_path / "out", bundle=run, overrides={switch: "flase"})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "value", "instead"),
    [
        ("data_list_file_path", "/nope.json", "name the cases"),
        ("dataset_dir", "/nowhere", "name the folder of the cases"),
        ("device", "cpu", "give --device"),
        ("output_dir", "/elsewhere", "give -o"),
        ("share", "1/2", "give --shard"),
    ],
)
def test_segment_names_the_option_of_what_an_option_says(
    run: Path, cohort: Path, tmp_path: Path, name: str, value: str, instead: str
) -> None:
    with pytest.raises(PipelineError, match=f"--set {name} is not for segmenting: {instead}"):
        segment([cohort], tmp_path / "out", bundle=run, overrides={name: value})
    assert not (tmp_path / "out").exists()


def test_segment_crops_no_head_with_skull_to_a_brain_that_it_cannot_see(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="field_of_view is 'foreground'; this bundle knows: full"):
        open_workflow(
            next(path for path in list_bundles() if path.name == "lgg_slices_2d"),
            ["inference.yaml"],
            workflow_type="infer",
            overrides={"field_of_view": "foreground"},
        )
