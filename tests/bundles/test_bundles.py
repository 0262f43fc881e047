"""A bundle: valid metadata, configurations that agree, and the same results by MONAI's command as by ours."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
import yaml
from monai.bundle import ConfigParser, ConfigWorkflow, verify_metadata, verify_net_in_out
from monai.bundle.utils import load_bundle_config

from brats_pipeline.bundles import bundle_path, list_bundles, network_overlay
from brats_pipeline.bundles.paper_checks import SCHEMAS as SCHEMAS_FOLDER
from brats_pipeline.errors import PipelineError
from networks import NETWORKS
from transforms.labels import MODALITIES, REGIONS

HERE = Path(__file__).parent
SCHEMAS = sorted(SCHEMAS_FOLDER.glob("*.json"))
EVERY = list_bundles()
Python = Callable[..., subprocess.CompletedProcess[str]]

every = pytest.mark.parametrize("bundle", EVERY, ids=lambda path: path.name)
in_3d = pytest.mark.parametrize("bundle", [bundle_path("brats_glioma_3d")], ids=["brats_glioma_3d"])
# The schema of 2022 needs the field, MONAI 1.6 has renamed it (2026-11).
pytestmark = pytest.mark.filterwarnings("ignore:Detected deprecated name 'optional_packages_version'")


def config(bundle: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((bundle / "configs" / name).read_text())
    return content


def metadata(bundle: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((bundle / "configs" / "metadata.json").read_text())
    return content


@every
def test_the_files_of_a_bundle_are_there(bundle: Path) -> None:
    files = {str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file()}
    configs = ("metadata.json", "train.yaml", "inference.yaml", "evaluate.yaml", "logging.conf")
    assert {*(f"configs/{name}" for name in configs), "docs/README.md", "LICENSE"} <= files


@every
@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda path: path.stem)
def test_metadata_follows_the_official_schemas(bundle: Path, schema: Path) -> None:
    jsonschema.validate(metadata(bundle), json.loads(schema.read_text()))


@every
def test_metadata_names_a_schema_that_monai_accepts(bundle: Path, tmp_path: Path) -> None:
    name = metadata(bundle)["schema"].rsplit("/", 1)[1]
    assert name in {schema.name for schema in SCHEMAS}
    schema = SCHEMAS_FOLDER / name
    verify_metadata(
        meta_file=str(bundle / "configs" / "metadata.json"),
        filepath=str(schema),  # there already, so that nothing is downloaded
        hash_val=hashlib.sha256(schema.read_bytes()).hexdigest(),
        hash_type="sha256",
    )


@every
@pytest.mark.filterwarnings("ignore:Detected deprecated name")
def test_monai_finds_the_pins_of_every_package(bundle: Path) -> None:
    parser = ConfigParser()
    parser.read_meta(str(bundle / "configs" / "metadata.json"))  # takes the optional for the required packages
    assert parser["_meta_::required_packages_version"] == metadata(bundle)["required_packages_version"]
    assert "brats-pipeline" in metadata(bundle)["required_packages_version"]


@every
def test_metadata_describes_channels_as_the_code_orders_them(bundle: Path) -> None:
    data_format = metadata(bundle)["network_data_format"]
    inputs, outputs = data_format["inputs"]["image"], data_format["outputs"]["pred"]
    train = config(bundle, "train.yaml")
    expected = list(train["modalities"])
    assert expected == [name for name in MODALITIES if name in expected]
    if train["presence_flags"]:
        expected += [f"{name} present" for name in expected]
    assert [inputs["channel_def"][str(i)].lower() for i in range(inputs["num_channels"])] == expected
    words = {"TC": "tumour core", "WT": "whole tumour", "ET": "enhancing tumour"}
    if metadata(bundle)["layouts"] == ["lgg"]:
        words = {"WT": "flair abnormality"}
    described = [outputs["channel_def"][str(i)].lower() for i in range(outputs["num_channels"])]
    assert described == [words[region] for region in train["regions"]]
    assert train["regions"] == [region for region in REGIONS if region in words]
    assert metadata(bundle)["field_of_view"] == train["field_of_view"]


@every
def test_training_and_inference_agree_on_what_they_share(bundle: Path) -> None:
    train, infer = config(bundle, "train.yaml"), config(bundle, "inference.yaml")
    own = {"imports", "initialize", "run", "prepare_on"}
    shared = (train.keys() & infer.keys()) - own
    needed = {"network_def", "network", "preprocessing", "inferer", "modalities", "regions", "field_of_view"}
    assert needed | {"precision", "ckpt_path", "device"} <= shared
    assert {name: train[name] for name in shared} == {name: infer[name] for name in shared}


@every
def test_the_evaluation_overlay_makes_label_maps_as_inference_does(bundle: Path) -> None:
    infer, overlay = config(bundle, "inference.yaml"), config(bundle, "evaluate.yaml")
    ours, theirs = infer["to_label_map"], overlay["validate::postprocessing"]["transforms"]
    ours = [step | {"transform": "its preprocessing"} if "transform" in step else step for step in ours]
    theirs = [step | {"transform": "its preprocessing"} if "transform" in step else step for step in theirs]
    folders = [[step.pop("output_dir") for step in steps if "output_dir" in step] for steps in (ours, theirs)]
    assert folders[0] == ["$@output_dir + '/probabilities'", "@output_dir", "@output_dir"]
    below = "$@output_dir + '/predictions"
    assert folders[1] == [f"{below}/probabilities'", f"{below}'", f"{below}'"]
    assert ours == theirs
    assert infer["threshold"] == overlay["threshold"]
    for name in ("save_probabilities", "uncertainty"):
        assert infer[name] is overlay[name] is False
    assert infer["tta"] == overlay["tta"] == []
    assert {infer[name] == overlay[name] for name in ("averaging", "members", "member_weights", "calibration")} == {
        True
    }


@pytest.mark.parametrize(
    "document",
    [HERE.parents[1] / "README.md", *(bundle / "docs" / "README.md" for bundle in EVERY)],
    ids=lambda path: path.parent.parent.name,
)
def test_documented_commands_run_a_run_with_its_own_configuration(document: Path) -> None:
    text = document.read_text().replace("\\\n", " ")
    commands = [line for line in text.splitlines() if line.startswith("python -m monai.bundle run")]
    of_run = [line for line in commands if "--bundle_root RUN " in line]
    assert any("inference.yaml" in line for line in of_run)
    for line in of_run:
        assert "RUN/configs/" in line
        assert "$BUNDLE" not in line


@every
def test_no_configuration_hides_a_lambda(bundle: Path) -> None:
    for path in (bundle / "configs").glob("*.yaml"):
        assert "lambda" not in path.read_text(), path


@in_3d
@pytest.mark.parametrize(
    ("name", "kind"), [("train.yaml", "train"), ("inference.yaml", "infer")], ids=["train", "infer"]
)
def test_monai_finds_every_property_it_asks_for(bundle: Path, name: str, kind: str, run: Path, cohort: Path) -> None:
    workflow = ConfigWorkflow(
        config_file=str(run / "configs" / name),
        logging_file=False,
        workflow_type=kind,
        bundle_root=str(run),
        dataset_dir=str(cohort),
        data_list_file_path=str(run / "datalist.json"),
    )
    workflow.initialize()
    assert workflow.check_properties() == []


@every
def test_the_network_maps_the_declared_shapes(bundle: Path) -> None:
    parser: ConfigParser = load_bundle_config(str(bundle), "inference.yaml")
    parser["device"] = "$torch.device('cpu')"
    network = parser.get_parsed_content("network").eval()
    declared = metadata(bundle)["network_data_format"]
    shapes = []
    for side in ("inputs", "outputs"):
        (image,) = declared[side].values()
        spatial = [eval(text, {"n": 1, "p": 1}) if isinstance(text, str) else text for text in image["spatial_shape"]]
        shapes.append((1, image["num_channels"], *spatial))
    with torch.no_grad():
        assert tuple(network(torch.zeros(shapes[0])).shape) == shapes[1]


@every
def test_monai_verifies_the_network_against_the_metadata(bundle: Path) -> None:
    verify_net_in_out(
        net_id="network",
        meta_file=str(bundle / "configs" / "metadata.json"),
        config_file=str(bundle / "configs" / "inference.yaml"),
        device="cpu",
        n=1,
    )


def monai_run(python: Python, cwd: Path, root: Path, *names: str, **settings: object) -> None:
    """``python -m monai.bundle run`` from a folder that has nothing to do with the bundle."""
    files = [str(root / "configs" / name) for name in names]
    arguments = ["--config_file", files[0] if len(files) == 1 else str(files), "--bundle_root", root]
    for name, value in settings.items():
        arguments += [f"--{name.replace('__', '#')}", value]
    cwd.mkdir()
    result = python(["-m", "monai.bundle", "run", *arguments], cwd=cwd)
    assert result.returncode == 0, result.stdout + result.stderr
    assert not list(cwd.iterdir())


@in_3d
def test_a_run_is_a_bundle_and_segments_by_monai_as_by_us(
    bundle: Path, run: Path, cohort: Path, predictions: Path, python: Python, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    monai_run(python, tmp_path / "elsewhere", run, "inference.yaml", dataset_dir=cohort, output_dir=out)
    ours = {path.name: path.read_bytes() for path in predictions.glob("*.nii.gz")}
    assert ours == {path.name: path.read_bytes() for path in out.iterdir()}


@in_3d
def test_a_case_without_a_modality_ends_monais_run_with_an_error_after_all_the_others(
    bundle: Path, run: Path, own_cohort: Path, python: Python, tmp_path: Path
) -> None:
    lacking, *others = sorted(path.name for path in own_cohort.iterdir())
    (own_cohort / lacking / f"{lacking}_t2.nii.gz").unlink()
    arguments = ["--config_file", run / "configs" / "inference.yaml", "--bundle_root", run]
    arguments += ["--dataset_dir", own_cohort, "--output_dir", tmp_path / "out"]
    result = python(["-m", "monai.bundle", "run", *arguments], cwd=tmp_path)
    assert result.returncode != 0
    assert f"1 cases failed, the others are finished: {lacking}: lacks t2" in result.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"{name}.nii.gz" for name in others]


@in_3d
def test_the_evaluation_overlay_gives_the_table_of_evaluate(
    bundle: Path,
    run: Path,
    cohort: Path,
    predictions: Path,
    python: Python,
    command: Callable[..., Any],
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    monai_run(
        python, tmp_path / "elsewhere", run, "train.yaml", "evaluate.yaml",
        dataset_dir=cohort, data_list_file_path=run / "datalist.json", output_dir=out,
    )  # fmt: skip
    items = json.loads((run / "datalist.json").read_text())["training"]
    held_out = [item["case_id"] for item in items if item["fold"] == 0]
    for case_id in held_out:
        ours = (predictions / f"{case_id}.nii.gz").read_bytes()
        assert (out / "predictions" / f"{case_id}.nii.gz").read_bytes() == ours
    assert {"cases.csv", "summary.json", "report.html"} <= {path.name for path in out.iterdir()}
    references = [cohort / case_id for case_id in held_out]
    outcome = command("evaluate", out / "predictions", *references, "-o", tmp_path / "ours", "--workers", 1)
    assert outcome.code == 0
    assert (tmp_path / "ours" / "cases.csv").read_bytes() == (out / "cases.csv").read_bytes()


@in_3d
def test_training_by_monai_gives_the_weights_of_training_by_us(
    bundle: Path, run: Path, cohort: Path, python: Python, tmp_path: Path
) -> None:
    copy = shutil.copytree(bundle, tmp_path / "bundle", ignore=shutil.ignore_patterns("models"))
    overrides = json.loads((run / "run.json").read_text())["overrides"]
    settings = {name.replace("::", "__"): json.dumps(value) for name, value in overrides.items()}
    settings["precision"] = overrides["precision"]
    monai_run(
        python, tmp_path / "elsewhere", copy, "train.yaml", dataset_dir=cohort, folds=3,
        device="$torch.device('cpu')", **settings,
    )  # fmt: skip
    for name in ("model.pt", "last.pt"):
        ours, theirs = (torch.load(root / "models" / name, weights_only=True) for root in (run, copy))
        ours, theirs = ours.get("network", ours), theirs.get("network", theirs)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert (copy / "curves.csv").is_file()


def with_network(bundle: Path, name: str, config_name: str = "train.yaml") -> ConfigParser:
    """A bundle's configuration with ``configs/networks/<name>.yaml`` laid over it, as MONAI's command lays it."""
    parser = ConfigParser()
    parser.read_config([str(bundle / "configs" / config_name), str(bundle / "configs" / "networks" / f"{name}.yaml")])
    return parser


@every
def test_every_network_of_the_family_can_take_the_place_of_the_bundles_own(bundle: Path) -> None:
    further = {"segresnet"} if bundle.name == "brats_glioma_3d" else {"unet_half"}
    assert {path.stem for path in (bundle / "configs" / "networks").iterdir()} == set(NETWORKS) | further
    own = config(bundle, "train.yaml")
    default = "unet" if bundle.name == "brats_glioma_3d" else "unet_half"
    assert config(bundle, f"networks/{default}.yaml")["network_def"] == own["network_def"]
    for name, network_class in NETWORKS.items():
        for config_name in ("train.yaml", "inference.yaml"):
            parser = with_network(bundle, name, config_name)
            with torch.device("meta"):  # shapes without numbers: default networks are big
                network = parser.get_parsed_content("network_def")
                assert type(network) is network_class
                sides = own["patch_size"]
                image = torch.zeros(2, network.in_channels, *sides)
                assert network(image).shape == (2, len(own["regions"]), *sides), name
        assert all(side % network.stride == 0 for side in own.get("roi_size", own["patch_size"])), name


@every
def test_an_unknown_network_is_refused_with_the_known_ones(bundle: Path) -> None:
    with pytest.raises(PipelineError, match=r"has no network 'vnet'; known: attention_unet, .*unet"):
        network_overlay(bundle, "vnet")
