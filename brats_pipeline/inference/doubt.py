"""What a reader should know of a label map before trusting it, in figures: intervals of volumes and expected Dice.

The interval of a region's volume goes from the voxels that every member marks (each member's probability reaches the
threshold) to those that at least one member marks, before any clean-up, and is widened to hold the volume of the label
map. It is no confidence interval: it holds every member's own volume, and where there is one member it is a point.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brats_pipeline.errors import PipelineError
from brats_pipeline.files import write_atomically
from brats_pipeline.inference.expected_dice import ExpectedDice
from brats_pipeline.inference.result import Segmentation
from brats_pipeline.predictions import UNCERTAINTY, uncertainty_files
from transforms.cleaning import WIDEST_FIRST

TABLE = "uncertainty.csv"
"""All cases in one table, beside the label maps."""
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class RegionDoubt:
    """One region of one case.

    Args:
        region: its name.
        volume: of the label map, in ml; in voxels where a scan has no voxel size.
        volume_low: see the module.
        volume_high: see the module.
        expected_dice: None without a calibration.
        needs_review: whether less is expected than the calibration says is enough; None without an expectation.
    """

    region: str
    volume: float
    volume_low: float
    volume_high: float
    expected_dice: float | None
    needs_review: bool | None


def region_doubt(
    region: str,
    *,
    mask: npt.NDArray[np.bool_],
    lowest: npt.NDArray[np.bool_],
    highest: npt.NDArray[np.bool_],
    mean: npt.NDArray[np.floating[Any]],
    voxel_ml: float | None,
    calibration: ExpectedDice | None,
) -> RegionDoubt:
    """What is told of one region.

    Args:
        region: its name.
        mask: the region in the label map, ``(x, y, z)``.
        lowest: where every member marks it.
        highest: where at least one does.
        mean: of the members' probabilities.
        voxel_ml: volume of a voxel; None: count voxels.
        calibration: None gives no expected Dice.
    """
    voxels, fewest, most = (int(np.count_nonzero(array)) for array in (mask, lowest, highest))
    size = 1 if voxel_ml is None else voxel_ml
    expected = None if calibration is None else calibration.of(region, mean, mask)
    return RegionDoubt(
        region=region,
        volume=voxels * size,
        volume_low=min(voxels, fewest) * size,
        volume_high=max(voxels, most) * size,
        expected_dice=expected,
        needs_review=None if expected is None or calibration is None else expected < calibration.review_below,
    )


def write_case(out: Path, case_id: str, rows: Sequence[RegionDoubt], *, unit: str, members_differ: bool) -> None:
    """Write ``uncertainty/<case_id>.json`` of a folder of predictions.

    Args:
        out: the folder.
        case_id: the case.
        rows: its regions.
        unit: of the volumes.
        members_differ: whether any voxel is marked by some members and not by others.
    """
    flags = [row.needs_review for row in rows if row.needs_review is not None]
    content = {
        "schema_version": SCHEMA_VERSION,
        "unit": unit,
        "needs_review": any(flags) if flags else None,
        "members_differ": members_differ,
        "regions": {row.region: {k: v for k, v in asdict(row).items() if k != "region"} for row in rows},
    }
    write_atomically(uncertainty_files(out, case_id)[0], json.dumps(content, indent=2) + "\n")


def read_cases(out: str | os.PathLike[str]) -> dict[str, dict[str, Any]]:
    """What was told of each case of a folder of predictions, by case id; empty where nothing was.

    Raises:
        PipelineError: a file is damaged.
    """
    told = {}
    for path in sorted((Path(out) / UNCERTAINTY).glob("*.json")):
        if not path.name.startswith("."):
            try:
                told[path.stem] = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise PipelineError(
                    f"{path}: cannot be read ({error}); delete it and segment the case again"
                ) from error
    return told


def reviews(case: Mapping[str, Any]) -> str:
    """Why a case should be looked at, in words; empty where it need not be, or nobody can tell."""
    low = {
        region: row["expected_dice"]
        for region, row in sorted(case["regions"].items(), key=lambda item: _place(item[0]))
        if row["needs_review"]
    }
    if not low:
        return ""
    return "needs review: the Dice to expect is " + ", ".join(f"{dice:.2f} for {name}" for name, dice in low.items())


def _place(region: str) -> int:
    """Where a region stands in a table: widest first, then those that hold no other."""
    return WIDEST_FIRST.index(region) if region in WIDEST_FIRST else len(WIDEST_FIRST)


def write_table(out: str | os.PathLike[str]) -> None:
    """Gather what was told of each case in ``uncertainty.csv``, one row per case and region, widest region first.

    Where nothing was told, there is no table.
    """
    told = read_cases(out)
    if not told:
        (Path(out) / TABLE).unlink(missing_ok=True)
        return
    unit = next(iter(told.values()))["unit"]
    volumes = ("volume", "volume_low", "volume_high")
    buffer = io.StringIO()
    table = csv.writer(buffer, lineterminator="\n")
    table.writerow(["case_id", "region", *(f"{name}_{unit}" for name in volumes), "expected_dice", "needs_review"])
    for case_id, case in told.items():
        for region in sorted(case["regions"], key=_place):
            row = case["regions"][region]
            expected, review = row["expected_dice"], row["needs_review"]
            digits = 3 if unit == "ml" else 0
            table.writerow(
                [
                    case_id,
                    region,
                    *(f"{row[name]:.{digits}f}" for name in volumes),
                    "" if expected is None else f"{expected:.4f}",
                    "" if review is None else "yes" if review else "no",
                ]
            )
    write_atomically(Path(out) / TABLE, buffer.getvalue())


def note_doubt(out: Path, result: Segmentation) -> None:
    """Gather what was told of the cases' doubt, and note which of them should be looked at."""
    write_table(out)
    told = read_cases(out)
    for name in told.keys() & {*result.skipped, *result.done}:
        result.doubt[name] = told[name]
        if review := reviews(told[name]):
            result.review[name] = review
            result.note(name, review)
