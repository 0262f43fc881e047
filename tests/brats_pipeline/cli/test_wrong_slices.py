"""Wrong slices: each defect gives one message that names patient and file, from every command that meets it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from brats_pipeline.phantom import write_cohort
from brats_pipeline.training.train import train

Command = Callable[..., Any]
SIDE, DEPTH = 32, 8
SMALL = {
    "network_def::depth": 1,
    "network_def::features": 8,
    "precision": "float32",
    "patch_size": [SIDE, SIDE],
    "max_epochs": 1,
    "patches_per_epoch": 2,
    "batch_size": 2,
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three patients without a defect; must not be changed."""
    folder = tmp_path_factory.mktemp("lgg")
    write_cohort(folder, layout="lgg", cases=3, shape=(SIDE, SIDE, DEPTH), seed=1)
    return folder


@pytest.fixture(scope="module")
def lgg_run(sound: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    return train("lgg_slices_2d", out, data=sound, fold=None, device="cpu", overrides=SMALL).run


def slice_of(patient: Path, number: int, *, mask: bool = False) -> Path:
    return patient / f"{patient.name}_{number}{'_mask' if mask else ''}.tif"


def drop_slice(patient: Path) -> None:
    slice_of(patient, 4).unlink()


def drop_mask(patient: Path) -> None:
    slice_of(patient, 4, mask=True).unlink()


def leave_gap(patient: Path) -> None:
    slice_of(patient, 4).unlink()
    slice_of(patient, 4, mask=True).unlink()


def deepen(patient: Path) -> None:
    Image.fromarray(np.full((SIDE, SIDE), 999, np.uint16)).save(slice_of(patient, 4))


def lose_channels(patient: Path) -> None:
    for path in patient.glob("*.tif"):
        if not path.stem.endswith("_mask"):
            Image.open(path).convert("L").save(path)


def shrink(patient: Path) -> None:
    for mask in (False, True):
        path = slice_of(patient, 4, mask=mask)
        Image.open(path).resize((SIDE, SIDE - 2)).save(path)


def grey_mask(patient: Path) -> None:
    Image.fromarray(np.full((SIDE, SIDE), 100, np.uint8)).save(slice_of(patient, 4, mask=True))


DEFECTS: dict[str, tuple[Callable[[Path], None], str, bool]] = {
    # what was done, what a message must say, whether the slices alone are fine
    "mask without slice": (drop_slice, "slice 4", False),
    "slice without mask": (drop_mask, "slice without a mask: slice 4", True),
    "gap": (leave_gap, "slice 4 missing between 1 and 8", False),
    "16 bits": (deepen, "of 16 bits; 3 channels of 8 bits needed", False),
    "one channel": (lose_channels, "3 channels", False),
    "sizes": (shrink, "one size", False),
    "no binary mask": (grey_mask, "the mask holds [100]", True),
}


@pytest.fixture(params=list(DEFECTS))
def spoilt(request: pytest.FixtureRequest, sound: Path, tmp_path: Path) -> tuple[Path, Path, str, bool]:
    """A cohort, its patient with a defect, what a message must say, and whether the slices alone are fine."""
    spoil, wanted, usable = DEFECTS[request.param]
    cohort = tmp_path / "cohort"
    shutil.copytree(sound, cohort)
    patient = min(cohort.iterdir())
    spoil(patient)
    return cohort, patient, wanted, usable


def said(text: str, *wanted: str) -> bool:
    plain = " ".join(text.split())
    return all(words in plain for words in wanted) and "Traceback" not in plain and "not foreseen" not in plain


def test_inspect_names_patient_and_defect(spoilt: tuple[Path, Path, str, bool], command: Command) -> None:
    cohort, patient, wanted, _ = spoilt
    outcome = command("inspect", cohort)
    assert outcome.code == 1
    assert said(outcome.out, patient.name, wanted, "1 with defects")


def test_training_and_splitting_are_refused_in_one_message(
    spoilt: tuple[Path, Path, str, bool], command: Command, tmp_path: Path
) -> None:
    cohort, patient, wanted, _ = spoilt
    settings = [argument for key, value in SMALL.items() for argument in ("--set", f"{key}={value}")]
    trained = command(
        "train", "lgg_slices_2d", "--data", cohort, "-o", tmp_path / "run", "--fold", "all", "--device", "cpu",
        *settings,
    )  # fmt: skip
    assert trained.code == 2
    assert said(trained.err, patient.name, wanted)
    assert trained.err.count("error: ") == 1
    assert not (tmp_path / "run").exists()
    divided = command("split", cohort, "-o", tmp_path / "datalist.json", "--folds", 2)
    assert divided.code == 2
    assert said(divided.err, patient.name, wanted)
    assert not (tmp_path / "datalist.json").exists()


def test_segment_does_the_others_and_needs_no_masks(
    spoilt: tuple[Path, Path, str, bool], command: Command, lgg_run: Path, tmp_path: Path
) -> None:
    cohort, patient, wanted, usable = spoilt
    outcome = command("segment", cohort, "-o", tmp_path / "out", "--bundle", lgg_run, "--device", "cpu")
    assert len(list((tmp_path / "out").iterdir())) == (4 if usable else 3), "two or three patients and a record"
    if usable:
        assert outcome.code == 0
    else:
        assert outcome.code == 1
        assert said(outcome.err, patient.name, wanted)
        assert outcome.err.count(f"{patient.name}: ") == 1
