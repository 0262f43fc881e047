"""Every bundle passes `bundle verify`, and each thing that can be wrong with one is said in a sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from brats_pipeline.bundles import bundle_path, list_bundles, verifying
from brats_pipeline.bundles.cards import unmeasured
from brats_pipeline.bundles.paper_checks import LARGEST_BYTES
from brats_pipeline.bundles.running_checks import declared_side
from brats_pipeline.bundles.subject import subject_of
from brats_pipeline.bundles.verifying import CHECKS, verify_bundle
from brats_pipeline.files import file_sha256

Change = Callable[[Path], object]
PERSON = Path("/home") / "somebody"


def content_of(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def changed_yaml(name: str, **values: Any) -> Change:
    """Sets ids of a configuration; ``None`` removes one."""

    def change(root: Path) -> None:
        path = root / "configs" / name
        content = yaml.safe_load(path.read_text())
        for key, value in values.items():
            *parents, last = key.split("__")
            place = content
            for parent in parents:
                place = place[parent]
            if value is None:
                del place[last]
            else:
                place[last] = value
        path.write_text(yaml.safe_dump(content, sort_keys=False))

    return change


def changed_metadata(**values: Any) -> Change:
    def change(root: Path) -> None:
        path = root / "configs" / "metadata.json"
        content = json.loads(path.read_text())
        for key, value in values.items():
            *parents, last = key.split("__")
            place = content
            for parent in parents:
                place = place[parent]
            place[last] = value
        path.write_text(json.dumps(content))

    return change


def text_in(name: str, text: str) -> Change:
    return lambda root: (root / name).write_text((root / name).read_text() + text)


def replaced(name: str, text: str) -> Change:
    return lambda root: (root / name).write_text(text)


def without(name: str) -> Change:
    return lambda root: (root / name).unlink()


def with_weights(root: Path, **changes: torch.Tensor) -> Path:
    """Random weights for the bundle, some of them replaced."""
    with subject_of(root) as subject:
        state = subject.network().state_dict()
    path = root / "models" / "model.pt"
    path.parent.mkdir(exist_ok=True)
    torch.save(state | changes, path)
    return path


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle of a small network that a test may spoil."""
    copy = shutil.copytree(bundle_path("lgg_slices_2d"), tmp_path / "lgg", ignore=shutil.ignore_patterns("models"))
    for name in ("train.yaml", "inference.yaml"):
        changed_yaml(name, network_def__features=4, network_def__depth=1)(copy)
    card = copy / "docs" / "README.md"
    card.write_text(unmeasured(card.read_text()))  # of the weights that were left out
    metadata = copy / "configs" / "metadata.json"
    metadata.write_text(
        json.dumps({key: told for key, told in json.loads(metadata.read_text()).items() if key != "weights"})
    )
    return copy


def findings(bundle: Path, check: str) -> list[str]:
    with subject_of(bundle) as subject:
        return list(CHECKS[check](subject))


@pytest.mark.parametrize("bundle", list_bundles(), ids=lambda path: path.name)
def test_every_bundle_holds(bundle: Path) -> None:
    before = content_of(bundle)
    found = verify_bundle(bundle)
    assert found.problems == {name: [] for name in CHECKS}
    assert found.holds
    assert content_of(bundle) == before


def test_a_bundle_with_weights_holds_without_a_note_and_none_of_its_files_changes(bundle: Path) -> None:
    with_weights(bundle)
    before = content_of(bundle)
    found = verify_bundle(bundle, weights=True)
    assert found.problems == {name: [] for name in CHECKS}
    assert not [note for note in found.notes if "model.pt" in note]
    assert content_of(bundle) == before


@pytest.mark.parametrize(
    ("check", "spoil", "sentence"),
    [
        ("files", without("LICENSE"), "LICENSE is missing"),
        ("files", without("docs/data_license.txt"), "docs/data_license.txt is missing"),
        ("files", without("configs/inference.yaml"), "configs/inference.yaml (or .json) is missing"),
        ("files", text_in("configs/train.yaml", f"# from {PERSON}/scans"), "names a folder of one person"),
        ("files", text_in("docs/README.md", " " * LARGEST_BYTES), "a file may have 25"),
        ("model card", replaced("docs/README.md", "# Title"), "lacks the sections"),
        ("versions", changed_metadata(version="9.0.0"), "version 9.0.0 is not in the changelog"),
        ("versions", changed_metadata(version="one"), "three numbers"),
        ("versions", changed_metadata(monai_version=">=1.6"), "monai_version is '>=1.6'; one exact version"),
        ("versions", changed_metadata(required_packages_version__nibabel="latest"), "nibabel is 'latest'"),
        ("versions", changed_metadata(optional_packages_version={}), "optional_packages_version replaces"),
        ("schemas", changed_metadata(authors=3), "metadata.json, authors: 3 is not of type 'string'"),
        ("schemas", changed_metadata(schema="https://example.org/mine.json"), "it must end in meta_schema_2022"),
        ("shared ids", changed_yaml("train.yaml", regions=["TC"]), "train and inference differ in regions"),
        ("network", changed_metadata(network_data_format__outputs__pred__num_channels=2), "metadata.json declares"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(check: str, spoil: Change, sentence: str, bundle: Path) -> None:
    assert findings(bundle, check) == []
    spoil(bundle)
    assert [said for said in findings(bundle, check) if sentence in said]


def test_a_version_that_the_zoo_has_already_is_refused(bundle: Path) -> None:
    listing = bundle.parent / "model_info.json"
    listing.write_text("{}")
    assert findings(bundle, "versions") == []
    listing.write_text('{"lgg_v0.1.0": {"checksum": "", "source": ""}}')
    (said,) = findings(bundle, "versions")
    assert said == "lgg 0.1.0 is published already (model_info.json); give it a new version"


def test_weights_must_fit_and_be_those_of_the_model_card(bundle: Path) -> None:
    path = with_weights(bundle)
    assert findings(bundle, "weights") == []
    text_in("docs/README.md", f"\nsha256 of model.pt: {file_sha256(path)}\n")(bundle)
    assert findings(bundle, "weights") == []
    torch.save({name: value + 1 for name, value in torch.load(path, weights_only=True).items()}, path)
    (said,) = findings(bundle, "weights")
    assert said.startswith(f"models/model.pt has the sha256 {file_sha256(path)}, and docs/README.md tells of")
    with_weights(bundle, odd=torch.zeros(1))
    assert "odd is unknown to the network" in findings(bundle, "weights")[0]


def test_weights_must_be_those_of_the_metadata_and_told_of_in_the_card(bundle: Path) -> None:
    sha256 = file_sha256(with_weights(bundle))
    changed_metadata(weights={"sha256": sha256, "licence": "any"})(bundle)
    (said,) = findings(bundle, "weights")
    assert said == f"docs/README.md does not tell the sha256 of the weights; write sha256 `{sha256}`"
    text_in("docs/README.md", f"\nsha256 `{sha256}`\n")(bundle)
    assert findings(bundle, "weights") == []
    changed_metadata(weights={"sha256": "0" * 64, "licence": "any"})(bundle)
    (said,) = findings(bundle, "weights")
    assert said == f"models/model.pt has the sha256 {sha256}, and metadata.json tells of {'0' * 64} (weights)"
    changed_metadata(weights={"licence": "any"})(bundle)
    (said,) = findings(bundle, "weights")
    assert said == f"models/model.pt has the sha256 {sha256}, and metadata.json tells of None (weights)"


def test_a_declared_shape_that_the_network_cannot_take_is_a_problem(bundle: Path) -> None:
    changed_metadata(network_data_format__inputs__image__spatial_shape=["31*n", "32*n"])(bundle)
    (said,) = verify_bundle(bundle).problems["network"]
    assert said.startswith("could not be done: ")
    assert "31" in said


def test_a_property_that_cannot_be_made_or_is_not_referred_to_is_named(bundle: Path) -> None:
    with_weights(bundle)
    changed_yaml("train.yaml", train__trainer__inferer="$@train::inferer")(bundle)  # an expression is let through
    changed_yaml("train.yaml", train__trainer__train_handlers="@handlers_elsewhere", handlers_elsewhere=[])(bundle)
    changed_yaml("inference.yaml", evaluator__no_such_argument=1)(bundle)
    said = findings(bundle, "workflows")
    assert "train.yaml: MONAI misses the property train_handlers" in said
    assert [one for one in said if one.startswith("inference.yaml: ") and "no_such_argument" in one]


def test_an_overlay_is_checked_on_what_it_lies_over(bundle: Path) -> None:
    with_weights(bundle)
    path = bundle / "configs" / "evaluate.yaml"
    path.write_text(path.read_text().replace("inferer: '@validate::inferer'", "inferer: '@averaging'"))
    assert findings(bundle, "workflows") == ["evaluate.yaml: MONAI misses the property val_inferer"]


def test_a_side_is_that_of_n_and_p_one() -> None:
    assert [declared_side(side) for side in (24, "32*n", "32 * n", "2**p", "16**p*n", "*")] == [24, 32, 32, 2, 16, 1]
    with pytest.raises(ValueError, match=r"write a number, or one such as 32\*n"):
        declared_side("n+1")


def test_the_command_says_what_is_wrong_and_how_it_ends(
    bundle: Path, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifying, "CHECKS", {"versions": CHECKS["versions"]})
    done = command("bundle", "verify", bundle)
    assert done.code == 0
    assert "note: models/model.pt is missing" in done.out
    assert "lgg: holds" in done.out
    done = command("bundle", "verify", bundle, "--weights")
    assert done.code == 1
    assert "weights: models/model.pt is missing" in done.err
    changed_metadata(version="9.0.0")(bundle)
    done = command("bundle", "verify", bundle, "--json")
    assert done.code == 1
    told = json.loads(done.out)
    assert told["holds"] is False
    assert "not in the changelog" in told["problems"]["versions"][0]
    assert command("bundle", "verify", "no such bundle").code == 2
