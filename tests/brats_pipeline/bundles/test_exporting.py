"""Bundles that travel alone: whole, told truly, and running where nothing of this distribution is."""

from __future__ import annotations

import ast
import gzip
import json
import re
import sys
import zipfile
from pathlib import Path
from shutil import copytree, ignore_patterns
from typing import Any

import jsonschema
import nibabel as nib
import numpy as np
import pytest
import yaml

import brats_pipeline.bundles
from brats_pipeline.bundles import bundle_path, freeze_bundle
from brats_pipeline.bundles.cards import NOTHING_MEASURED, read_report
from brats_pipeline.bundles.detaching import detached, modules_needed, own_names
from brats_pipeline.bundles.exporting import export_bundle
from brats_pipeline.bundles.importing import import_bundle
from brats_pipeline.bundles.scripts import own_scripts, package_name
from brats_pipeline.bundles.sums import check_sums
from brats_pipeline.bundles.vendoring import BASE, OWN, home_of, modules_behind, moved, vendored
from brats_pipeline.errors import PipelineError
from brats_pipeline.files import file_sha256
from tests.brats_pipeline.bundles.conftest import GLIOMA, untrained
from transforms import nifti

SCHEMAS = Path(brats_pipeline.bundles.__file__).parent / "schemas"


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained("brats_glioma_3d", tmp_path_factory.mktemp("noisy") / "run", GLIOMA)


@pytest.fixture(scope="module")
def exported(noisy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_bundle(noisy, tmp_path_factory.mktemp("exported") / "glioma").path


def test_a_name_is_followed_to_where_it_is_written() -> None:
    assert home_of("networks.UNet") == "networks.unet.UNet"
    assert home_of("networks.unet.UNet") == "networks.unet.UNet"
    assert home_of("transforms.reader.LoadCased") == "transforms.reader.LoadCased"


def test_imports_of_ours_move_and_those_of_others_may_fail() -> None:
    text = (
        '"""Doc."""\n\nfrom __future__ import annotations\n\nimport json\n\nimport torch\nfrom scipy.ndimage import (\n'
        "    label,\n)\nfrom brats_pipeline.errors import PipelineError\n\n\ndef f():\n"
        "    from networks.unet import UNet\n"
    )
    result = moved(text, "p")
    assert "from p.brats_pipeline.errors import PipelineError\n" in result
    assert "    from p.networks.unet import UNet\n" in result
    assert "\nimport torch\n" in result
    assert 'except ImportError:\n    from p.absent import absent\n\n    label = absent("scipy", "label")\n' in result


def test_imports_of_what_we_can_do_ourselves_fall_back_on_it() -> None:
    result = moved("import cc3d\nfrom PIL import Image, UnidentifiedImageError\n", "p")
    assert "except ImportError:\n    from p.brats_pipeline.stand_ins import parts as cc3d\n" in result
    assert "    from p.brats_pipeline.stand_ins.tiff import Image, UnidentifiedImageError\n" in result
    assert "brats_pipeline.stand_ins.parts" in modules_behind(["transforms.components.find_components"])


def test_an_import_that_cannot_move_is_refused() -> None:
    with pytest.raises(PipelineError, match="write `from X import Y`"):
        moved("import networks.unet\n", "p")


@pytest.mark.parametrize("bundle", ["brats_glioma_3d", "brats_slices_2d", "lgg_slices_2d"])
def test_the_modules_of_a_package_need_no_others(bundle: str) -> None:
    """By the syntax trees of what is written: nothing leads out of the package, or to a module that is not in it."""
    content = yaml.safe_load((bundle_path(bundle) / "configs" / "inference.yaml").read_text(encoding="utf-8"))
    texts = vendored(modules_needed(content), "p", version="1")
    for text in texts.values():
        for node in ast.walk(ast.parse(text)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.partition(".")[0] not in OWN
                path = name.replace(".", "/")
                assert not name.startswith("p.") or {f"{path}.py", f"{path}/__init__.py"} & texts.keys()
    for name, text in texts.items():
        top = [node for node in ast.parse(text).body if isinstance(node, ast.Import | ast.ImportFrom)]
        for node in top:
            first = (node.module or "") if isinstance(node, ast.ImportFrom) else node.names[0].name
            assert first.partition(".")[0] in sys.stdlib_module_names | BASE | {"p"}, name


def test_what_nothing_needs_is_left_out() -> None:
    assert modules_behind(["networks.UNet"]) == ["networks.blocks", "networks.layers", "networks.unet"]


@pytest.mark.parametrize("bundle", ["brats_glioma_3d", "brats_slices_2d", "lgg_slices_2d"])
def test_a_detached_configuration_names_nothing_of_ours(bundle: str) -> None:
    content = yaml.safe_load((bundle_path(bundle) / "configs" / "inference.yaml").read_text(encoding="utf-8"))
    result = detached(content, "p")
    assert list(own_names(content))
    assert not [name for name in own_names(result) if not name.startswith("p.")]
    assert "require_own_packages" not in json.dumps(result)
    assert set(result) - set(content) == {"_path", "scripts"}


@pytest.mark.parametrize("overlay", [None, "unet", "unet_half", "residual_unet", "deeplabv3plus"])
@pytest.mark.parametrize("bundle", ["brats_glioma_3d", "brats_slices_2d", "lgg_slices_2d"])
def test_what_a_detached_configuration_names_is_written_in_its_package(bundle: str, overlay: str | None) -> None:
    """By the syntax trees of the copies, for targets and expressions alike."""
    folder = bundle_path(bundle) / "configs"
    content = yaml.safe_load((folder / "inference.yaml").read_text(encoding="utf-8"))
    network = folder / "networks" / f"{overlay}.yaml"
    content |= yaml.safe_load(network.read_text(encoding="utf-8")) if network.is_file() else {}
    texts = vendored(modules_needed(content), "p", version="1")
    names = re.findall(r"(?:\"p|@scripts)\.([\w.]+)", json.dumps(detached(content, "p")))
    assert "networks" in {name.partition(".")[0] for name in names}
    for name in names:
        module, _, wanted = name.rpartition(".")
        text = texts.get(f"p/{module.replace('.', '/')}.py")
        assert text is not None, name
        defined = {getattr(node, "name", None) for node in ast.parse(text).body}
        assert wanted in defined, name


def test_what_is_written_in_a_file_that_is_not_copied_is_refused() -> None:
    with pytest.raises(PipelineError, match=r"written in brats_pipeline/__init__\.py, which no bundle takes along"):
        modules_behind(["brats_pipeline.require_own_packages"])


def test_a_name_that_an_expression_takes_from_elsewhere_leads_to_where_it_is_written() -> None:
    moved_to = detached({"x": "$networks.UNet"}, "p")["x"]
    assert moved_to == "$@scripts.networks.unet.UNet"


@pytest.mark.parametrize(
    ("name", "package"),
    [("brats_glioma_3d", "brats_glioma_3d_scripts"), ("My run-2", "my_run_2_scripts"), ("3d", "_3d_scripts")],
)
def test_a_package_is_named_after_its_bundle(name: str, package: str) -> None:
    assert package_name(name) == package


def test_an_exported_bundle_is_whole_and_taken_over_without_trust(exported: Path, tmp_path: Path) -> None:
    assert check_sums(exported)
    assert own_scripts(exported) == "brats_glioma_3d_scripts"
    imported = import_bundle(exported, tmp_path / "taken")
    assert imported.hashed
    assert not imported.trusted


def test_a_module_with_one_other_word_is_not_ours(exported: Path, tmp_path: Path) -> None:
    from brats_pipeline.bundles.sums import write_sums

    changed = copytree(exported, tmp_path / "changed")
    module = changed / "brats_glioma_3d_scripts" / "networks" / "unet.py"
    module.write_text(module.read_text(encoding="utf-8") + "\nopen('CANARY', 'w')\n", encoding="utf-8")
    write_sums(changed)
    assert own_scripts(changed) is None
    with pytest.raises(PipelineError, match=r"and \d+ more below brats_glioma_3d_scripts/: is a program"):
        import_bundle(changed, tmp_path / "taken")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("scripts::name", "os"),
        ("+scripts", {"name": "os"}),
        ("bundle_root", "/tmp"),
        ("_path", "$sys.path.insert(0, 'x')"),
    ],
)
def test_the_way_to_the_own_package_leads_nowhere_else(key: str, value: Any, exported: Path, tmp_path: Path) -> None:
    from brats_pipeline.bundles.sums import write_sums

    changed = copytree(exported, tmp_path / "changed")
    (changed / "configs" / "more.yaml").write_text(yaml.safe_dump({key: value}), encoding="utf-8")
    write_sums(changed)
    with pytest.raises(PipelineError, match=r"configs/more\.yaml"):
        import_bundle(changed, tmp_path / "taken")


def test_a_zip_holds_one_folder_with_the_same_files(noisy: Path, exported: Path, tmp_path: Path) -> None:
    packed = export_bundle(noisy, tmp_path / "glioma.zip").path
    with zipfile.ZipFile(packed) as archive:
        assert {name.partition("/")[0] for name in archive.namelist()} == {"glioma"}
        for name in archive.namelist():
            assert archive.read(name) == (exported / name.partition("/")[2]).read_bytes()


def test_the_metadata_fits_both_schemas_and_names_what_is_needed(exported: Path) -> None:
    metadata = json.loads((exported / "configs" / "metadata.json").read_text(encoding="utf-8"))
    for name in ("meta_schema_20220324.json", "meta_schema_20240725.json"):
        jsonschema.validate(metadata, json.loads((SCHEMAS / name).read_text(encoding="utf-8")))
    assert set(metadata["required_packages_version"]) == {"nibabel", "pytorch-ignite", "PyYAML", "fire"}
    assert metadata["optional_packages_version"] == metadata["required_packages_version"]
    assert {"isal", "connected-components-3d"} <= set(metadata["suggested_packages_version"])
    assert metadata["eval_metrics"] == {}
    assert "without weights" not in json.dumps(metadata["changelog"])


def test_channels_follow_the_settings_of_the_run(tmp_path: Path) -> None:
    run = untrained(
        "brats_glioma_3d", tmp_path / "run", {**GLIOMA, "presence_flags": True, "modalities": ["t1c", "flair"]}
    )
    path = export_bundle(run, tmp_path / "out").path
    image = json.loads((path / "configs" / "metadata.json").read_text())["network_data_format"]["inputs"]["image"]
    assert image["num_channels"] == 4
    assert list(image["channel_def"].values()) == ["T1c", "FLAIR", "T1c present", "FLAIR present"]


def test_post_processing_is_part_of_the_configuration(tmp_path: Path) -> None:
    run = untrained("brats_glioma_3d", tmp_path / "run", GLIOMA)
    (run / "configs" / "postprocessing.yaml").write_text("threshold: [0.4, 0.5, 0.3]\n", encoding="utf-8")
    path = export_bundle(run, tmp_path / "out").path
    assert yaml.safe_load((path / "configs" / "inference.yaml").read_text())["threshold"] == [0.4, 0.5, 0.3]


def test_a_card_without_a_report_says_that_nothing_was_measured(exported: Path) -> None:
    text = (exported / "docs" / "README.md").read_text(encoding="utf-8")
    assert f"## Performance\n{NOTHING_MEASURED}\n" in text
    assert "Trained by brats_pipeline for 2 epochs on all folds of its list but fold 0, seed 3." in text
    assert file_sha256(exported / "models" / "model.pt") in text


def written_report(folder: Path, weights_sha256: str) -> Path:
    report, predictions = folder / "report", folder / "predictions"
    report.mkdir(parents=True)
    predictions.mkdir()
    dice = {"n": 3, "mean": 0.81234, "sd": 0.1, "mean_interval_95": [0.7, 0.9]}
    summary = {
        "rules": {"name": "brats2023-gli", "in_words": ["Region empty in both: Dice 1."]},
        "regions": {"WT": {"metrics": {"dice": dice, "hd95_mm": {"n": 3, "mean": None}}}},
    }
    manifest = {"made": "2026-11-21T19:09:46+00:00", "call": {"predictions": "../predictions"}}
    (report / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    (report / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    (predictions / "run.json").write_text(json.dumps({"weights_sha256": weights_sha256}), encoding="utf-8")
    return report


def test_a_card_tells_figures_with_their_protocol(noisy: Path, tmp_path: Path) -> None:
    report = written_report(tmp_path / "told", file_sha256(noisy / "models" / "model.pt"))
    path = export_bundle(noisy, tmp_path / "out", report=report).path
    text = (path / "docs" / "README.md").read_text(encoding="utf-8")
    assert "| WT | Dice | 3 | 0.812 | 0.700 to 0.900 |" in text
    assert "Rules brats2023-gli, measured 2026-11-21." in text
    assert "Region empty in both: Dice 1." in text
    assert json.loads((path / "configs" / "metadata.json").read_text())["eval_metrics"] == {"WT_dice": 0.8123}


def test_weights_that_a_bundle_comes_with_keep_their_figures_and_their_licence(noisy: Path, tmp_path: Path) -> None:
    shipped = copytree(noisy, tmp_path / "shipped")
    metadata = json.loads((shipped / "configs" / "metadata.json").read_text(encoding="utf-8"))
    sha256 = file_sha256(shipped / "models" / "model.pt")
    metadata |= {"weights": {"sha256": sha256, "licence": "for research alone"}, "eval_metrics": {"WT_dice": 0.5}}
    (shipped / "configs" / "metadata.json").write_text(json.dumps(metadata), encoding="utf-8")
    card = shipped / "docs" / "README.md"
    card.write_text(card.read_text(encoding="utf-8").replace(NOTHING_MEASURED, "Dice 0.5 of three."), encoding="utf-8")
    exported = export_bundle(shipped, tmp_path / "out")
    text = (exported.path / "docs" / "README.md").read_text(encoding="utf-8")
    assert exported.measured
    assert "## Performance\nDice 0.5 of three.\n" in text
    assert "The weights are not under the licence of the program: for research alone." in text
    told = json.loads((exported.path / "configs" / "metadata.json").read_text(encoding="utf-8"))
    assert told["eval_metrics"] == {"WT_dice": 0.5}
    assert told["weights"] == metadata["weights"]


def test_the_changelog_and_the_training_of_weights_that_a_bundle_comes_with_are_kept(
    noisy: Path, tmp_path: Path
) -> None:
    shipped = copytree(noisy, tmp_path / "shipped", ignore=ignore_patterns("run.json"))
    path = shipped / "configs" / "metadata.json"
    metadata = json.loads(path.read_text(encoding="utf-8")) | {"changelog": {"0.1.0": "first version"}}
    told = {"sha256": file_sha256(shipped / "models" / "model.pt"), "licence": "for research alone"}
    path.write_text(json.dumps(metadata | {"weights": told}), encoding="utf-8")
    card = shipped / "docs" / "README.md"
    card.write_text(card.read_text(encoding="utf-8").replace(NOTHING_MEASURED, "Ten cases."), encoding="utf-8")
    exported = export_bundle(shipped, tmp_path / "out").path
    text = (exported / "docs" / "README.md").read_text(encoding="utf-8")
    assert "How they were trained is not told" not in text
    assert "How they were trained stands below, under Performance." in text
    changelog = json.loads((exported / "configs" / "metadata.json").read_text(encoding="utf-8"))["changelog"]
    assert changelog["0.1.0"].startswith("first version; exported with weights by brats_pipeline ")


def test_a_card_describes_the_network_in_numbers(exported: Path) -> None:
    text = (exported / "docs" / "README.md").read_text(encoding="utf-8")
    (network,) = re.findall(r"Network: (.*?)\. Weights", text)
    assert "in_channels 8, out_channels 3" in network
    assert not set("$@") & set(network)


def test_figures_of_other_weights_are_not_taken_over(noisy: Path, tmp_path: Path) -> None:
    shipped = copytree(noisy, tmp_path / "shipped")
    path = shipped / "configs" / "metadata.json"
    metadata = json.loads(path.read_text(encoding="utf-8"))
    told = {"weights": {"sha256": "0" * 64, "licence": "x"}, "eval_metrics": {"WT_dice": 0.5}}
    path.write_text(json.dumps(metadata | told), encoding="utf-8")
    exported = export_bundle(shipped, tmp_path / "out")
    assert not exported.measured
    assert NOTHING_MEASURED in (exported.path / "docs" / "README.md").read_text(encoding="utf-8")
    metadata = json.loads((exported.path / "configs" / "metadata.json").read_text(encoding="utf-8"))
    assert metadata["eval_metrics"] == {}
    assert "weights" not in metadata


def test_a_report_of_other_weights_is_refused_and_nothing_is_left(noisy: Path, tmp_path: Path) -> None:
    report = written_report(tmp_path / "told", "0" * 64)
    with pytest.raises(PipelineError, match="predictions are of other weights"):
        export_bundle(noisy, tmp_path / "out", report=report)
    (report.parent / "predictions" / "run.json").unlink()
    with pytest.raises(PipelineError, match="cannot be told"):
        read_report(report, "0" * 64)
    assert {path.name for path in tmp_path.iterdir()} == {"told"}


def test_what_fails_at_last_leaves_nothing_behind(noisy: Path, tmp_path: Path) -> None:
    def refusing(run: Path, bundle: Path) -> str:
        raise PipelineError(f"{bundle.name} of {run.name} does not agree")

    with pytest.raises(PipelineError, match="out of run does not agree"):
        export_bundle(noisy, tmp_path / "out", extras=[refusing])
    assert not list(tmp_path.iterdir())


def test_an_existing_target_is_left_alone(noisy: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(PipelineError, match="exists already"):
        export_bundle(noisy, tmp_path / "out")


def test_a_bundle_without_weights_is_refused(tmp_path: Path) -> None:
    freeze_bundle(bundle_path("brats_glioma_3d"), tmp_path / "run", {})
    with pytest.raises(PipelineError, match="no weights"):
        export_bundle(tmp_path / "run", tmp_path / "out")


def test_pythons_own_gzip_reads_and_writes_the_same_voxels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4))
    nifti.write_nifti(tmp_path / "fast.nii.gz", image)
    monkeypatch.setattr(nifti, "igzip", gzip)
    nifti.write_nifti(tmp_path / "plain.nii.gz", image)
    for name in ("fast", "plain"):
        found = nifti.read_nifti(tmp_path / f"{name}.nii.gz")
        assert np.array_equal(nifti.voxels(found), nifti.voxels(image))
        assert nifti.read_header(tmp_path / f"{name}.nii.gz").shape == (2, 3, 4)
