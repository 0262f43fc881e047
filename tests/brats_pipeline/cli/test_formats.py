"""The other commands read MetaImage and NRRD as they read NIfTI; SimpleITK writes the files."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk


def convert(folder: Path, suffix: str) -> None:
    """Put another format in the place of every NIfTI file below."""
    for path in list(folder.rglob("*.nii.gz")):
        sitk.WriteImage(sitk.ReadImage(str(path)), str(path).removesuffix(".nii.gz") + suffix, useCompression=True)
        path.unlink()


def cases_of(path: Path) -> list[dict[str, object]]:
    return [dict(case) for case in json.loads(path.read_text())["cases"]]


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_inspect_says_the_same_of_a_cohort_in_another_format(command, cohort, own_cohort, tmp_path, suffix):
    convert(own_cohort, suffix)
    assert command("inspect", cohort, "-o", tmp_path / "nifti.json").code == 0
    assert command("inspect", own_cohort, "-o", tmp_path / "other.json").code == 0
    assert cases_of(tmp_path / "other.json") == cases_of(tmp_path / "nifti.json")


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_evaluate_scores_against_references_in_another_format(
    command, cohort, own_cohort, predictions, tmp_path, suffix
):
    convert(own_cohort, suffix)
    tables = []
    for references in (cohort, own_cohort):
        out = tmp_path / f"report {len(tables)}"
        assert command("evaluate", predictions, references, "-o", out).code == 0
        tables.append(list(csv.DictReader((out / "cases.csv").read_text().splitlines())))
    assert tables[0] == tables[1]
    assert len(tables[0]) == 18


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_prepare_makes_the_same_case_of_another_format(command, cohort, tmp_path, suffix):
    name = "BraTS2021_00001"
    for kind in ("nifti", "other"):
        shutil.copytree(cohort / name, tmp_path / kind / name, ignore=shutil.ignore_patterns("*_seg*"))
    convert(tmp_path / "other", suffix)
    for kind in ("nifti", "other"):
        arguments = ["-o", tmp_path / "out" / kind, "--grid", "reference", "--no-brain-extraction"]
        outcome = command("prepare", tmp_path / kind / name, *arguments)
        assert outcome.code == 0, outcome.err
    for word in ("t1c", "t1n", "t2w", "t2f"):
        one, other = (nib.load(tmp_path / "out" / kind / f"{name}-{word}.nii.gz") for kind in ("nifti", "other"))
        np.testing.assert_allclose(other.affine, one.affine, atol=1e-4)
        np.testing.assert_array_equal(np.asarray(other.dataobj), np.asarray(one.dataobj))
