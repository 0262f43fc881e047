"""Segmentation by several members: mirror images, checkpoints, bundles, and what is told of their doubt."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from brats_pipeline.inference.doubt import read_cases
from brats_pipeline.inference.expected_dice import ExpectedDice, RegionFit, makers, write_expected_dice
from brats_pipeline.inference.segment import segment
from transforms.probabilities import read_probabilities

CASE, OTHER = "BraTS2021_00001", "BraTS2021_00003"


def labels_of(out: Path, case_id: str = CASE) -> np.ndarray:
    return np.asarray(nib.load(out / f"{case_id}.nii.gz").dataobj)


def probabilities_of(out: Path, case_id: str = CASE) -> np.ndarray:
    return read_probabilities(out / "probabilities" / f"{case_id}.npz").values.astype(np.float32)


def other_weights(run: Path, path: Path, seed: int = 0) -> Path:
    """Weights that say something else, but not nonsense."""
    torch.manual_seed(seed)
    weights = torch.load(run / "models" / "model.pt", weights_only=True)
    noisy = {k: v + 0.1 * v.std() * torch.randn_like(v) if v.numel() > 1 else v for k, v in weights.items()}
    torch.save(noisy, path)
    return path


def segmented(cohort: Path, out: Path, run: Path, *, case_id: str = CASE, **overrides: Any) -> Path:
    segment([cohort / case_id], out, bundle=run, device="cpu", overrides={"save_probabilities": True, **overrides})
    return out


@pytest.fixture(scope="module")
def alone(run: Path, cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One case by the run as it is; must not be changed."""
    return segmented(cohort, tmp_path_factory.mktemp("alone") / "out", run)


def test_an_ensemble_of_checkpoints_has_the_mean_of_their_probabilities(
    cohort: Path, run: Path, alone: Path, tmp_path: Path, python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    other = other_weights(run, tmp_path / "other.pt")
    second = segmented(cohort, tmp_path / "second", run, ckpt_path=str(other))
    both = [str(run / "models" / "model.pt"), str(other)]
    found = segmented(cohort, tmp_path / "both", run, ckpt_path=both)
    expected = (probabilities_of(alone) + probabilities_of(second)) / 2
    assert np.abs(probabilities_of(alone) - probabilities_of(second)).max() > 0.05, "or they are one network"
    np.testing.assert_allclose(probabilities_of(found), expected, atol=1e-3)
    weighted = segmented(cohort, tmp_path / "weighted", run, ckpt_path=both, member_weights=[1, [0, 1, 3]])
    share = np.array([0, 1 / 2, 3 / 4], dtype=np.float32).reshape(3, 1, 1, 1)
    expected = probabilities_of(alone) * (1 - share) + probabilities_of(second) * share
    np.testing.assert_allclose(probabilities_of(weighted), expected, atol=1e-3)

    arguments = ["--config_file", run / "configs" / "inference.yaml", "--bundle_root", run, "--ckpt_path", str(both)]
    arguments += ["--dataset_dir", cohort / CASE, "--output_dir", tmp_path / "monai"]
    arguments += ["--device", "$torch.device('cpu')"]
    result = python(["-m", "monai.bundle", "run", *arguments], cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    name = f"{CASE}.nii.gz"
    assert (tmp_path / "monai" / name).read_bytes() == (found / name).read_bytes()


def test_mirror_images_change_the_answer_and_agree_with_mirrored_scans(
    cohort: Path, run: Path, alone: Path, tmp_path: Path
) -> None:
    found = segmented(cohort, tmp_path / "tta", run, tta="all")
    assert not np.array_equal(probabilities_of(found), probabilities_of(alone))
    mirrored = tmp_path / "cohort" / CASE
    shutil.copytree(cohort / CASE, mirrored)
    for path in mirrored.iterdir():
        image = nib.load(path)
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[::-1], image.affine, image.header), path)
    turned = segmented(mirrored.parent, tmp_path / "turned", run, tta="all")
    np.testing.assert_allclose(probabilities_of(turned)[:, ::-1], probabilities_of(found), atol=2e-3)


def test_doubt_is_told_beside_the_label_map_which_stays_as_it_is(
    cohort: Path, run: Path, alone: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    segmented(cohort, out, run, uncertainty=True)
    assert (out / f"{CASE}.nii.gz").read_bytes() == (alone / f"{CASE}.nii.gz").read_bytes()
    scan = nib.load(cohort / CASE / f"{CASE}_t1ce.nii.gz")
    entropy, information = (
        nib.load(out / "uncertainty" / f"{CASE}_{name}.nii.gz") for name in ("entropy", "mutual_information")
    )
    assert entropy.shape == information.shape == (*scan.shape, 3)
    assert np.array_equal(entropy.affine, scan.affine)
    p = probabilities_of(alone).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = np.nan_to_num(-p * np.log(p)) + np.nan_to_num(-(1 - p) * np.log(1 - p))
    np.testing.assert_allclose(np.moveaxis(entropy.get_fdata(), -1, 0), expected, atol=3e-3)
    assert information.get_fdata().max() < 1e-3, "one network has nobody to disagree with"
    told = read_cases(out)[CASE]
    ml = abs(np.linalg.det(scan.affine[:3, :3])) / 1000
    labels = labels_of(out)
    for region, values in {"WT": [1, 2, 4], "TC": [1, 4], "ET": [4]}.items():
        assert told["regions"][region]["volume"] == pytest.approx(np.isin(labels, values).sum() * ml)
        assert told["regions"][region]["expected_dice"] is None


def test_members_that_differ_make_intervals_and_disagreement(cohort: Path, run: Path, tmp_path: Path) -> None:
    both = [str(run / "models" / "model.pt"), str(other_weights(run, tmp_path / "other.pt"))]
    out = segmented(cohort, tmp_path / "out", run, ckpt_path=both, tta=[0], uncertainty=True)
    information = nib.load(out / "uncertainty" / f"{CASE}_mutual_information.nii.gz").get_fdata()
    assert 0.01 < information.max() <= np.log(2)
    whole = read_cases(out)[CASE]["regions"]["WT"]
    assert whole["volume_low"] < whole["volume"] < whole["volume_high"]


@pytest.fixture(scope="module")
def coarse(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another run: other weights, another spacing."""
    folder = shutil.copytree(run, tmp_path_factory.mktemp("other") / "coarse run")
    other_weights(run, folder / "models" / "model.pt", seed=3)
    path = folder / "configs" / "inference.yaml"
    text = path.read_text()
    assert "spacing: [4.0, 4.0, 4.0]" in text
    path.write_text(text.replace("spacing: [4.0, 4.0, 4.0]", "spacing: [5.0, 5.0, 5.0]"))
    return folder


def test_bundles_segment_together_by_the_command(
    cohort: Path, run: Path, coarse: Path, alone: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    out = tmp_path / "out"
    arguments = ["segment", cohort / CASE, "-o", out, "--bundle", run, "--bundle", coarse, "--device", "cpu"]
    arguments += ["--weight", "1", "--weight", "WT=3", "--uncertainty", "--save-probabilities"]
    outcome = command(*arguments)
    assert outcome.code == 0, outcome.err
    second = probabilities_of(segmented(cohort, tmp_path / "second", coarse))
    share = np.array([1 / 2, 3 / 4, 1 / 2], dtype=np.float32).reshape(3, 1, 1, 1)
    expected = probabilities_of(alone) * (1 - share) + second * share
    assert np.abs(probabilities_of(alone) - second).max() > 0.05, "or they are one network"
    np.testing.assert_allclose(probabilities_of(out), expected, atol=2e-3)
    labels, (core, whole, enhancing) = labels_of(out), expected > 0.5
    sure = (np.abs(expected - 0.5) > 0.002).all(axis=0)
    painted = np.where(enhancing, 4, np.where(core, 1, np.where(whole, 2, 0)))
    assert np.array_equal(labels[sure], painted[sure])

    record = json.loads((out / "run.json").read_text())
    assert [(one["bundle"], one["weight"]) for one in record["members"]] == [
        (run.name, 1.0),
        (coarse.name, [1.0, 3.0, 1.0]),
    ]
    assert len({one["weights_sha256"] for one in record["members"]}) == 2
    told = record["cases"][CASE]["uncertainty"]
    interval = told["regions"]["WT"]
    assert interval["volume_low"] < interval["volume"] < interval["volume_high"]
    with (out / "uncertainty.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["region"] for row in rows] == ["WT", "TC", "ET"]
    assert float(rows[0]["volume_ml"]) == pytest.approx(interval["volume"], abs=1e-3)
    assert not (out / "members").exists(), "what finished cases need no more is deleted"

    again = command(*arguments, "--json")
    assert json.loads(again.out)["skipped"] == [CASE]
    assert not (out / "members").exists()
    refused = command("segment", cohort / CASE, "-o", out, "--bundle", run, "--device", "cpu")
    assert refused.code == 2
    assert "differ in weights_sha256" in " ".join(refused.err.split())


def test_a_case_that_validation_expects_little_of_needs_review(
    cohort: Path, run: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    own = shutil.copytree(run, tmp_path / "own run")
    fit = RegionFit(20, (0.0, 1.0), (0.31, 0.31), 0.05, 0.1, 0, None)
    known = ExpectedDice({"WT": fit}, makers(own / "models" / "model.pt", tta="all"))
    write_expected_dice(own / "configs" / "expected_dice.json", known)
    out = tmp_path / "out"
    arguments = ["segment", cohort / CASE, "-o", out, "--bundle", own, "--device", "cpu", "--uncertainty"]
    outcome = command(*arguments, "--tta")
    assert outcome.code == 0, outcome.err
    assert f"{CASE}: needs review: the Dice to expect is 0.31 for WT" in " ".join(outcome.out.split())
    state = json.loads((out / "run.json").read_text())["cases"][CASE]
    assert state["uncertainty"]["needs_review"] is True
    assert "needs review" in state["note"]
    plain = command(*arguments[:3], tmp_path / "plain", *arguments[4:])
    assert "another tta;" in " ".join(plain.err.split()), "a calibration with mirror images says nothing without them"
    told = json.loads((tmp_path / "plain" / "run.json").read_text())["cases"][CASE]["uncertainty"]
    assert told["needs_review"] is None


def test_maps_do_not_outlive_the_label_map_they_belong_to(cohort: Path, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments: dict[str, Any] = {"bundle": run, "device": "cpu"}
    segment([cohort / CASE], out, **arguments)
    assert not (out / "uncertainty").exists()
    assert segment([cohort / CASE], out, **arguments, uncertainty=True).done == [CASE]
    assert segment([cohort / CASE], out, **arguments, uncertainty=True).skipped == [CASE]
    assert segment([cohort / CASE], out, **arguments).skipped == [CASE]
    assert len(list((out / "uncertainty").iterdir())) == 3
    segment([cohort / CASE], out, **arguments, overwrite=True)
    assert not list((out / "uncertainty").iterdir())
