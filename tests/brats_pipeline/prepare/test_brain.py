"""Where the brain is: the fallback on a made-up head, HD-BET as a program, scans without a skull."""

from __future__ import annotations

import stat
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from brats_pipeline.errors import PipelineError
from brats_pipeline.prepare.bias import without_bias
from brats_pipeline.prepare.brain import extract_brain
from brats_pipeline.prepare.images import array_of, like

# Stands in for HD-BET: marks what is brighter than 500, where HD-BET 2 writes its mask.
STAND_IN = """#!{python}
import argparse, nibabel, numpy
parser = argparse.ArgumentParser()
for name in ("-i", "-o", "-device"):
    parser.add_argument(name, required=True)
for name in ("--save_bet_mask", "--no_bet_image", "--disable_tta"):
    parser.add_argument(name, action="store_true", required=True)
told = parser.parse_args()
image = nibabel.load(told.i)
mask = (numpy.asarray(image.dataobj) > 500).astype(numpy.uint8)
nibabel.save(nibabel.Nifti1Image(mask, image.affine), told.o.replace(".nii.gz", "_bet.nii.gz"))
"""
BROKEN = """#!{python}
import sys
sys.exit("no weights found")
"""


def install(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str) -> None:
    folder.mkdir()
    program = folder / "hd-bet"
    program.write_text(text.format(python=sys.executable))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder))


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


@pytest.mark.parametrize("modality", ["t1c", "t1"])
def test_the_fallback_finds_most_of_the_brain(modality: str, head: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    found = extract_brain(head.scans[modality])
    assert found.method == "classical"
    assert dice(array_of(found.mask) > 0, array_of(head.brain) > 0) > 0.9
    assert not found.trusted
    tumour = array_of(head.tumour) > 0
    assert (array_of(found.mask) > 0)[tumour].mean() > 0.95


def test_hd_bet_is_taken_where_it_is_installed(head: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, tmp_path / "bin", STAND_IN)
    found = extract_brain(head.scans["t1c"])
    assert found.method == "hd-bet"
    assert found.trusted
    np.testing.assert_array_equal(array_of(found.mask) > 0, array_of(head.scans["t1c"]) > 500)


def test_hd_bet_that_fails_is_told_with_its_last_words(
    head: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, tmp_path / "bin", BROKEN)
    with pytest.raises(PipelineError, match=r"HD-BET ended with 1 .*no weights found.*--brain-mask"):
        extract_brain(head.scans["t1c"])


def test_hd_bet_that_is_wanted_and_missing_is_told(head: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(PipelineError, match="not on the PATH"):
        extract_brain(head.scans["t1c"], method="hd-bet")


def test_a_scan_without_skull_is_left_as_it_is(head: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, tmp_path / "bin", STAND_IN)
    stripped = sitk.Mask(head.scans["t1c"], head.brain)
    found = extract_brain(stripped)
    assert found.method == "already stripped"
    np.testing.assert_array_equal(array_of(found.mask) > 0, array_of(stripped) != 0)


def test_what_is_no_brain_is_refused(head: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    small = sitk.Image(head.scans["t1c"])
    small.SetSpacing([1.2, 1.2, 1.2])
    with pytest.raises(PipelineError, match=r"is no brain \(600 to 2200 ml\).*--brain-mask"):
        extract_brain(small, method="classical")


@pytest.mark.slow
def test_a_bias_field_is_taken_out(head: Any) -> None:
    scan = head.scans["t1"]
    slope = np.linspace(0.4, 1.8, scan.GetSize()[1], dtype=np.float32)[None, :, None]
    spoilt = like(scan, array_of(scan) * slope)
    white = (array_of(scan) > 385) & (array_of(scan) < 402) & (array_of(head.brain) > 0)

    def spread(image: sitk.Image) -> float:
        values = array_of(image)[white]
        return float(values.std() / values.mean())

    assert spread(spoilt) > 0.15
    assert spread(without_bias(spoilt)) < 0.5 * spread(spoilt)
