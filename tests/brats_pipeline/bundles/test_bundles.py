"""Finding bundles, and freezing one into a run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from brats_pipeline.bundles import (
    bundle_for,
    bundle_path,
    freeze_bundle,
    list_bundles,
    open_workflow,
    plain_errors,
    read_metadata,
    weights_licence,
)
from brats_pipeline.errors import PipelineError


def test_a_bundle_is_found_by_name_or_folder(run: Path) -> None:
    named = bundle_path("brats_glioma_3d")
    assert named in list_bundles()
    assert bundle_path(named) == named
    assert bundle_path(run) == run
    assert bundle_path(str(run)) == run


def test_metadata_that_is_no_json_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "configs"
    folder.mkdir()
    for text in ("{", "[]"):
        (folder / "metadata.json").write_text(text)
        with pytest.raises(PipelineError, match="restore the bundle"):
            read_metadata(tmp_path)


def test_without_weights_for_a_layout_the_message_names_train() -> None:
    with pytest.raises(PipelineError, match=r"layout no_such_layout.*brats-pipeline train"):
        bundle_for(["no_such_layout"])


@pytest.fixture
def with_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle of the distribution whose metadata and card speak of weights."""
    bundle = shutil.copytree(bundle_path("lgg_slices_2d"), tmp_path / "bundles" / "lgg_slices_2d")
    metadata = read_metadata(bundle)
    metadata |= {"weights": {"sha256": "ab12", "licence": "CC BY-NC-SA 4.0"}, "eval_metrics": {"WT_dice": 0.5}}
    (bundle / "configs" / "metadata.json").write_text(json.dumps(metadata))
    card = bundle / "docs" / "README.md"
    head, _, tail = card.read_text().partition("## Performance\n")
    card.write_text(f"{head}## Performance\nDice 0.5.\n\n## Addi{tail.partition('## Addi')[2]}")
    monkeypatch.setattr("brats_pipeline.bundles.installed.bundles_folder", lambda: tmp_path / "bundles")
    return bundle


def test_where_weights_were_left_out_of_an_installation_the_message_says_where_they_lie(with_weights: Path) -> None:
    shutil.rmtree(with_weights / "models", ignore_errors=True)
    with pytest.raises(PipelineError, match=r"lgg_slices_2d/models/model\.pt \(sha256 ab12, CC BY-NC-SA 4\.0\)"):
        bundle_for(["lgg"])


def test_a_run_says_nothing_that_was_measured_with_the_weights_of_the_bundle(
    with_weights: Path, tmp_path: Path
) -> None:
    assert weights_licence(with_weights) == "CC BY-NC-SA 4.0"
    freeze_bundle(with_weights, tmp_path / "run", {})
    assert weights_licence(tmp_path / "run") is None
    assert read_metadata(tmp_path / "run")["eval_metrics"] == {}
    before, after = ((root / "docs" / "README.md").read_text() for root in (with_weights, tmp_path / "run"))
    assert "Dice 0.5" not in after
    assert before.partition("## Performance")[0] == after.partition("## Performance")[0]
    assert before.partition("## Addi")[2] == after.partition("## Addi")[2] != ""


def test_a_bundle_that_lacks_a_configuration_is_refused(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / "configs" / "inference.yaml").unlink()
    with pytest.raises(PipelineError, match=r"inference\.yaml: the bundle lacks this configuration"):
        open_workflow(copy, ["inference.yaml"], workflow_type="infer", overrides={})


def test_a_change_of_post_processing_reaches_the_scoring_of_the_run_too(tmp_path: Path) -> None:
    source = bundle_path("brats_glioma_3d")
    freeze_bundle(source, tmp_path / "run", {"keep_largest": True})
    freeze_bundle(source, tmp_path / "as_it_was", {"seed": 3})
    for name in ("inference.yaml", "evaluate.yaml"):
        assert yaml.safe_load((tmp_path / "run" / "configs" / name).read_text())["keep_largest"] is True, name
    scoring = Path("configs", "evaluate.yaml")
    assert (tmp_path / "as_it_was" / scoring).read_bytes() == (source / scoring).read_bytes()


def test_freezing_changes_both_configurations_and_nothing_else(tmp_path: Path) -> None:
    source = bundle_path("brats_glioma_3d")
    freeze_bundle(source, tmp_path / "run", {"spacing": [2.0, 2.0, 2.0], "network_def::features": 8, "seed": 3})
    for name in ("train.yaml", "inference.yaml"):
        before, after = (yaml.safe_load((root / "configs" / name).read_text()) for root in (source, tmp_path / "run"))
        before["spacing"] = [2.0, 2.0, 2.0]
        before["network_def"]["features"] = 8
        if "seed" in before:
            before["seed"] = 3
        assert after == before
    for name in ("configs/evaluate.yaml", "configs/logging.conf", "LICENSE", "docs/data_license.txt"):
        assert (tmp_path / "run" / name).read_bytes() == (source / name).read_bytes()
    assert not (tmp_path / "run" / "models").exists()
    again = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    freeze_bundle(tmp_path / "run", tmp_path / "run", {})
    assert again == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}


def test_a_value_error_is_laid_to_the_settings_only_where_there_were_any() -> None:
    def fail() -> None:
        try:
            raise ValueError("probabilities contain NaN")
        except ValueError as error:
            raise RuntimeError("applying transform") from error

    blame = r"probabilities contain NaN \(ValueError\).*--set \(overlap\)"
    with pytest.raises(PipelineError, match=blame), plain_errors(["overlap"]):
        fail()
    with pytest.raises(RuntimeError) as caught, plain_errors():
        fail()
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize(("overrides", "blamed"), [({}, False), ({"overlap": 0.25}, True)])
def test_a_configuration_that_does_not_start_blames_the_settings_only_where_there_were_any(
    run: Path, tmp_path: Path, overrides: dict[str, float], blamed: bool
) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    path = copy / "configs" / "inference.yaml"
    path.write_text(path.read_text().replace("norm: group", "norm: nothing"))
    runtime = {"data_list_file_path": str(run / "datalist.json"), "output_dir": str(tmp_path)}
    with pytest.raises(PipelineError, match="norm") as caught:
        open_workflow(copy, ["inference.yaml"], workflow_type="infer", overrides=runtime | overrides)
    assert ("--set" in str(caught.value)) == blamed
