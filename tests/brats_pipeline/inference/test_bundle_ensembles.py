"""What goes together in an ensemble of bundles, by what it is known, and what its members leave behind."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from brats_pipeline.errors import PipelineError
from brats_pipeline.files import file_sha256
from brats_pipeline.inference.ensembles import checkpoint_members, ensemble_of, parse_weight

REGIONS = ["TC", "WT", "ET"]


def bundle(folder: Path, *, weights: str = "a", modalities: str = "[t1c, flair]", combine: bool = True) -> Path:
    """As much of a bundle as an ensemble looks at."""
    for name, text in {
        "configs/metadata.json": "{}",
        "configs/inference.yaml": f"modalities: {modalities}\nregions: [TC, WT, ET]\n",
        "models/model.pt": weights,
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    if combine:
        (folder / "configs" / "combine.yaml").write_text("member_outputs: []\n")
    return folder


def regions_of(root: Path) -> list[str]:
    return REGIONS


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    return [bundle(tmp_path / "one"), bundle(tmp_path / "two", weights="b", modalities="[t1, flair]")]


def test_an_ensemble_needs_what_any_member_needs(two: list[Path]) -> None:
    ensemble = ensemble_of(two, regions_of, overrides={})
    assert ensemble.modalities({}) == ("t1c", "t1", "flair")
    assert ensemble.weights == (1.0, 1.0)
    assert ensemble.regions == ("TC", "WT", "ET")


def test_every_member_is_named_with_its_hash_and_weight(two: list[Path]) -> None:
    known = ensemble_of(two, regions_of, weights=[1, {"ET": 0.5}], overrides={}).identity(None, {})
    hashes = [file_sha256(root / "models" / "model.pt") for root in two]
    assert known["weights_sha256"] == hashes
    assert [(one["bundle"], one["weights_sha256"], one["weight"]) for one in known["members"]] == [
        ("one", hashes[0], 1.0),
        ("two", hashes[1], [1.0, 1.0, 0.5]),
    ]
    assert json.loads(json.dumps(known)) == known
    assert ensemble_of(two[::-1], regions_of, overrides={}).identity(None, {}) != known


def test_what_does_not_go_together_is_refused(two: list[Path], tmp_path: Path) -> None:
    def refuse(words: str, bundles: list[Path], **more: Any) -> None:
        with pytest.raises(PipelineError, match=words):
            ensemble_of(bundles, more.pop("tell", regions_of), **{"overrides": {}, **more})

    refuse("there is 1; name more", two[:1], weights=[1])
    refuse("there is none", [], weights=[1])
    refuse("named twice", [two[0], two[0]])
    refuse("2 weights for 3 bundles", [*two, bundle(tmp_path / "three")], weights=[1, 2])
    refuse("no region GTV; known: TC, WT, ET", two, weights=[1, {"GTV": 1}])
    for wrong in (-1, float("inf"), float("nan"), {"TC": float("inf")}):
        refuse("at least 0", two, weights=[1, wrong])
    refuse("every weight of ET is 0", two, weights=[{"ET": 0}, {"ET": 0}])
    refuse("either several bundles or several checkpoints", two, overrides={"ckpt_path": "a.pt"})
    refuse("one marks TC, WT, ET, and two WT", two, tell=lambda root: REGIONS if root.name == "one" else ["WT"])
    refuse("put a bundle of this version first", [bundle(tmp_path / "old", combine=False), two[0]])


def test_members_segment_one_after_another_into_folders_of_their_own(two: list[Path], tmp_path: Path) -> None:
    calls: list[tuple[Path, Path, Any]] = []

    def segment(inputs: Any, out: Path, **arguments: Any) -> Any:
        calls.append((arguments["bundle"], out, arguments["only"]))
        assert arguments["save_probabilities"]
        prediction = out / "probabilities" / "a.npz"
        prediction.parent.mkdir(parents=True)
        prediction.write_bytes(b"")
        (out / "run.json").write_text(json.dumps({"weights_sha256": "", "cases": {}}))
        return SimpleNamespace(failed={"b": "no T1"} if out.name == "2_two" else {})

    ensemble = ensemble_of(two, regions_of, overrides={})
    out = tmp_path / "out"
    failed = ensemble.run_members(segment, ["cohort"], out, fresh=False, only=["a", "b"])
    folders = [out / "members" / "1_one", out / "members" / "2_two"]
    assert calls == [(root, folder, ["a", "b"]) for root, folder in zip(two, folders, strict=True)]
    assert failed == {"b": "two: no T1"}
    assert ensemble.settings(out, {})["member_outputs"] == [str(folder) for folder in folders]
    ensemble.tidy(out, ["c"], all_done=False)
    assert all((folder / "probabilities" / "a.npz").is_file() for folder in folders)
    ensemble.tidy(out, ["a"], all_done=False)
    assert not any((folder / "probabilities" / "a.npz").is_file() for folder in folders)
    mine = out / "members" / "mine" / "run.json"
    mine.parent.mkdir()
    mine.write_text("{}")
    ensemble.tidy(out, [], all_done=True)
    assert list((out / "members").iterdir()) == [mine.parent]
    assert mine.is_file()
    mine.unlink()
    mine.parent.rmdir()
    ensemble.tidy(out, [], all_done=True)
    assert not (out / "members").exists()


def test_a_weight_is_a_number_or_one_for_each_region() -> None:
    assert parse_weight("2") == 2.0
    assert parse_weight("TC=1, ET=0.5") == {"TC": 1.0, "ET": 0.5}
    for text in ("two", "TC=", "TC=1=2"):
        with pytest.raises(PipelineError, match="--weight"):
            parse_weight(text)


def test_checkpoints_are_named_with_their_hashes(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_text(name)
    assert checkpoint_members({}) == {}
    both = checkpoint_members({"ckpt_path": [str(tmp_path / "a"), str(tmp_path / "b")]})
    assert both["weights_sha256"] == [file_sha256(tmp_path / name) for name in "ab"]
    assert [one["checkpoint"] for one in both["members"]] == [str(tmp_path / "a"), str(tmp_path / "b")]
    assert checkpoint_members({"ckpt_path": str(tmp_path / "a")})["weights_sha256"] == both["weights_sha256"][:1]
    assert checkpoint_members({"ckpt_path": "$@bundle_root + '/models/last.pt'"}) == {}
    with pytest.raises(PipelineError, match="no such checkpoint"):
        checkpoint_members({"ckpt_path": str(tmp_path / "c")})
