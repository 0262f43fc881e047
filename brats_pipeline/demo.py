"""The whole loop on a synthetic cohort, small enough for two CPU cores and a few minutes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from brats_pipeline.bundles import bundle_path, weights_path
from brats_pipeline.cases import find_cases
from brats_pipeline.data.datalist import split_cases, training_items, write_datalist
from brats_pipeline.errors import PipelineError
from brats_pipeline.evaluation.evaluate import Evaluation, evaluate
from brats_pipeline.inference.extras import Extras
from brats_pipeline.inference.segment import segment
from brats_pipeline.phantom import write_cohort
from brats_pipeline.progress import case_bar, growing_bar, training_bar
from brats_pipeline.training.train import train

WANTED_WT_DICE = 0.8
BUNDLE = "brats_glioma_3d"
CASES = 40
SPACING_MM = 3.0
SIDE = 64
SETTINGS = {
    "spacing": [SPACING_MM] * 3,
    "patch_size": [48, 64, 48],  # at 3 mm a whole brain: the network sees what is not tumour, too
    "roi_size": [48, 64, 48],
    "presence_flags": False,  # no case lacks a modality, and a few minutes are too short to learn to do without
    "modality_dropout": 0.0,
    "network_def::depth": 3,
    "network_def::features": 8,
    "learning_rate": 0.004,
    "batch_size": 2,
    "patches_per_epoch": 40,
    "max_epochs": 28,
    "val_interval": 7,
}


@dataclass(frozen=True)
class Demo:
    """What the demo found.

    Args:
        trained: scores of the network that it trained, on cases which that never saw.
        wt_dice: their mean Dice of WT.
        shipped: scores of the weights that the bundle comes with, on one brain; None where it comes without.
    """

    trained: Evaluation
    wt_dice: float
    shipped: Evaluation | None


def run_demo(out: Path, *, seed: int, quiet: bool, say: Callable[[str], None]) -> Demo:
    """Write a cohort, train on half of it, segment and score a quarter that it never saw; then try real weights.

    Args:
        out: folder of the demo; an earlier demo in it is replaced.
        seed: of the cohort, the split and the training.
        quiet: no progress bars.
        say: prints one line.

    Raises:
        PipelineError: ``out`` holds something that is no demo.
    """
    out = Path(out)
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise PipelineError(f"{out} is no folder; choose another with --out")
    marker = out / ".demo"
    if out.is_dir() and any(out.iterdir()) and not marker.is_file():
        raise PipelineError(f"{out} is not empty and holds no demo; choose another folder with --out")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    marker.touch()

    say(f"1/6  writing a synthetic cohort of {CASES} brains")
    with case_bar("phantom", CASES, quiet=quiet) as on_case:
        write_cohort(out / "cohort", cases=CASES, seed=seed, shape=(SIDE,) * 3, spacing_mm=SPACING_MM, on_case=on_case)
    cases = find_cases(out / "cohort")
    datalist = split_cases(cases, folds=4, seed=seed, name="demo")
    held_out = training_items(datalist, fold=0, validation=True)
    write_datalist({**datalist, "training": training_items(datalist, fold=0, validation=False)}, out / "datalist.json")

    say("2/6  training a small 3D U-Net on two folds of four, one more validates")
    with training_bar(quiet=quiet) as on_start:
        train(
            BUNDLE,
            out / "run",
            datalist=out / "datalist.json",
            fold=1,
            seed=seed,
            overrides=SETTINGS,
            on_start=on_start,
        )

    say("3/6  segmenting the fold that it never saw")
    folders = [Path(item["image"][0]).parent for item in held_out]
    with growing_bar("segment", quiet=quiet) as (on_number, on_case):
        result = segment(folders, out / "predictions", bundle=out / "run", on_start=on_number, on_case=on_case)

    say("4/6  scoring the tumour regions, 5/6  writing the report")
    names = [item["case_id"] for item in held_out]
    with case_bar("evaluate", len(names), quiet=quiet) as on_case:
        evaluation = evaluate(result.out, out / "cohort", out / "report", only=names, on_case=on_case)
    dice = [score.dice for score in evaluation.scores if score.region == "WT"]
    return Demo(evaluation, float(np.mean(dice)), _with_real_weights(out / "shipped", seed=seed, say=say))


def _with_real_weights(out: Path, *, seed: int, say: Callable[[str], None]) -> Evaluation | None:
    """Segment and score one synthetic brain of 1 mm with the weights that were trained on real scans."""
    if not weights_path(bundle_path(BUNDLE)).is_file():
        say(f"6/6  passed over: {BUNDLE} comes without weights here, as in every wheel; a checkout has them")
        return None
    say(f"6/6  segmenting one brain of 1 mm with the weights that {BUNDLE} comes with, which saw real scans alone")
    write_cohort(out / "cohort", cases=1, seed=seed)
    result = segment([out / "cohort"], out / "predictions", extras=Extras(preview=True))
    return evaluate(result.out, out / "cohort", out / "report")
