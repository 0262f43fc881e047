"""How long scoring takes beside MONAI's metrics and surface-distance, on one 240 x 240 x 155 case with seven lesions.

    python benchmarks/metrics.py [--rounds 5] [--panoptica PYTHON] [--out benchmarks/results]

Everything alternates in one process on one thread: each round scores the same three regions once by every contender, so
that a busy machine slows all of them. What each one computes stands in the table; none computes all that ours does.
``--panoptica`` names the interpreter of an environment that has panoptica, which needs an older NumPy than the rest.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

# Libraries read these when they are imported.
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.uint8]

SHAPE = (240, 240, 155)
LESIONS = (
    ((120, 110, 75), 30),
    ((60, 60, 60), 8),
    ((180, 70, 90), 7),
    ((70, 170, 100), 9),
    ((170, 180, 50), 6),
    ((120, 40, 110), 5),
    ((60, 120, 30), 4),
)
"""Centre and radius in voxels: one large tumour, and six satellites."""

REGIONS = {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}
SPACING_MM = (1.0, 1.0, 1.0)


def seven_lesions(seed: int = 0) -> tuple[Labels, Labels]:
    """Prediction and reference: seven ragged lesions of three tissues; the prediction is shifted by a voxel."""
    from scipy.ndimage import gaussian_filter

    random = np.random.default_rng(seed)
    grids = np.meshgrid(*(np.arange(side, dtype=np.float32) for side in SHAPE), indexing="ij", sparse=True)
    noises = [gaussian_filter(random.normal(size=SHAPE).astype(np.float32), 4) for _ in range(2)]
    maps = []
    for own, noise in enumerate(noises):
        ragged = 0.12 * (0.7 * noises[0] / noises[0].std() + 0.3 * noise / noise.std())
        labels: Labels = np.zeros(SHAPE, np.uint8)
        for centre, radius in LESIONS:
            offsets = [grid - place for grid, place in zip(grids, (centre[0] + own, *centre[1:]), strict=True)]
            distance = np.sqrt(sum(offset**2 for offset in offsets)) / radius + ragged
            for limit, value in ((1.0, 2), (0.7, 3), (0.4, 1)):
                labels[distance < limit] = value
        maps.append(labels)
    return maps[1], maps[0]


def ours(prediction: Labels, reference: Labels) -> dict[str, float]:
    """All columns of ``cases.csv`` and ``lesions.csv``."""
    from brats_pipeline.metrics import RULES, score_case
    from transforms.labels import CONVENTIONS

    convention = CONVENTIONS["brats2023"]
    rows = score_case(
        prediction,
        reference,
        case_id="case",
        spacing_mm=SPACING_MM,
        prediction_convention=convention,
        reference_convention=convention,
        rules=RULES["brats2023-gli"],
    )
    return {row.region: row.hd95_mm for row in rows}


def surface_distance(prediction: Labels, reference: Labels) -> dict[str, float]:
    """Dice, HD95, average distances and NSD at three tolerances, whole regions only."""
    from surface_distance import metrics

    found = {}
    for region, values in REGIONS.items():
        masks = np.isin(reference, values), np.isin(prediction, values)
        distances = metrics.compute_surface_distances(*masks, SPACING_MM)
        metrics.compute_dice_coefficient(*masks)
        metrics.compute_average_surface_distance(distances)
        for tolerance in (0.5, 1, 2):
            metrics.compute_surface_dice_at_tolerance(distances, tolerance)
        found[region] = float(metrics.compute_robust_hausdorff(distances, 95))
    return found


def monai(prediction: Labels, reference: Labels) -> dict[str, float]:
    """Dice, HD95, average distance and NSD at three tolerances, whole regions only."""
    import torch
    from monai.metrics import (
        compute_average_surface_distance,
        compute_dice,
        compute_hausdorff_distance,
        compute_surface_dice,
    )

    torch.set_num_threads(1)
    masks = [
        torch.from_numpy(np.stack([np.isin(labels, values) for values in REGIONS.values()])[None].astype(np.float32))
        for labels in (prediction, reference)
    ]
    compute_dice(*masks)
    compute_average_surface_distance(*masks, include_background=True, symmetric=True, spacing=SPACING_MM)
    for tolerance in (0.5, 1.0, 2.0):
        compute_surface_dice(*masks, [tolerance] * 3, include_background=True, spacing=SPACING_MM)
    hd95 = compute_hausdorff_distance(*masks, include_background=True, percentile=95, spacing=SPACING_MM)
    return dict(zip(REGIONS, map(float, hd95[0]), strict=True))


def medpy(prediction: Labels, reference: Labels) -> dict[str, float]:
    """Dice, HD95 and ASSD between border voxels, whole regions only."""
    from medpy.metric import binary

    found = {}
    for region, values in REGIONS.items():
        masks = np.isin(prediction, values), np.isin(reference, values)
        binary.dc(*masks)
        binary.assd(*masks, SPACING_MM)
        found[region] = float(binary.hd95(*masks, SPACING_MM))
    return found


CONTENDERS: dict[str, tuple[str, Callable[[Labels, Labels], dict[str, float]]]] = {
    "brats-pipeline": ("overlap, HD95, ASSD, NSD, volumes, counts; each lesion's Dice and HD95", ours),
    "surface-distance": ("Dice, HD95, average distances, NSD", surface_distance),
    "MONAI": ("Dice, HD95, average distance, NSD", monai),
    "MedPy": ("Dice, HD95, ASSD (border voxels)", medpy),
}

PANOPTICA = """
import sys, time
import numpy as np
from panoptica import ConnectedComponentsInstanceApproximator, InputType, Metric, NaiveThresholdMatching
from panoptica import Panoptica_Evaluator
data = np.load(sys.argv[1])
evaluator = Panoptica_Evaluator(
    expected_input=InputType.SEMANTIC,
    instance_approximator=ConnectedComponentsInstanceApproximator(),
    instance_matcher=NaiveThresholdMatching(),
    instance_metrics=[Metric.DSC, Metric.HD95, Metric.ASSD],
    global_metrics=[Metric.DSC],
)
regions = ((1, 2, 3), (1, 3), (3,))
for _ in range(int(sys.argv[2]) + 1):
    started = time.perf_counter()
    for values in regions:
        masks = [np.isin(data[name], values).astype(np.uint8) for name in ("prediction", "reference")]
        result = evaluator.evaluate(*masks, verbose=False)
        (result["ungrouped"] if isinstance(result, dict) else result).to_dict()
    print("seconds", time.perf_counter() - started)
"""


def panoptica_seconds(python: str, prediction: Labels, reference: Labels, rounds: int) -> list[float]:
    """Seconds a case in another environment, the first one left out."""
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "pair.npz", prediction=prediction, reference=reference)
        script = Path(folder) / "score.py"
        script.write_text(PANOPTICA)
        done = subprocess.run(
            [python, str(script), str(Path(folder) / "pair.npz"), str(rounds)],
            capture_output=True,
            text=True,
            check=True,
        )
    return [float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("seconds")][1:]


def versions() -> dict[str, str]:
    """What was measured."""
    names = ("numpy", "scipy", "connected-components-3d", "surface-distance", "monai", "torch", "MedPy")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in names}}


def measure(rounds: int) -> tuple[dict[str, Any], Labels, Labels]:
    """Seconds of wall clock and of the processor for every contender, alternating."""
    prediction, reference = seven_lesions()
    wall: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    processor: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    answers = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the peers call SciPy and torch by names that warn
        for lap in range(rounds + 1):  # the first one only imports and warms up
            for name, (_, score) in CONTENDERS.items():
                started, busy = time.perf_counter(), time.process_time()
                answers[name] = score(prediction, reference)
                if lap:
                    wall[name].append(time.perf_counter() - started)
                    processor[name].append(time.process_time() - busy)
    result: dict[str, Any] = {
        "shape": SHAPE,
        "lesions": len(LESIONS),
        "rounds": rounds,
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()},
        "versions": versions(),
        "contenders": {
            name: {
                "computes": computes,
                "wall_s": wall[name],
                "processor_s": processor[name],
                "median_wall_s": statistics.median(wall[name]),
                "median_processor_s": statistics.median(processor[name]),
                "hd95_mm": answers[name],
            }
            for name, (computes, _) in CONTENDERS.items()
        },
    }
    return result, prediction, reference


def as_markdown(result: dict[str, Any]) -> str:
    """The table."""
    contenders = result["contenders"]
    own = contenders["brats-pipeline"]
    lines = [
        "# Scoring one case",
        "",
        f"One {' x '.join(map(str, result['shape']))} case with {result['lesions']} lesions, regions WT, TC and ET, "
        f"one thread, after loading; medians of {result['rounds']} rounds in which all take turns in one process. "
        "Processor time is what a quiet machine would take; the wall clock includes what other programs took.",
        "",
        "| program | computes | processor s | wall s | ratio to ours | HD95 of WT, TC, ET (mm) |",
        "| --- | --- | ---: | ---: | ---: | --- |",
    ]
    for name, row in contenders.items():
        seconds = row.get("median_processor_s")
        ratio = f"{(seconds or row['median_wall_s']) / own['median_processor_s' if seconds else 'median_wall_s']:.1f}"
        shown = "-" if seconds is None else f"{seconds:.2f}"
        distances = ", ".join(f"{value:.2f}" for value in row["hd95_mm"].values()) or "-"
        lines.append(f"| {name} | {row['computes']} | {shown} | {row['median_wall_s']:.2f} | {ratio} | {distances} |")
    lines += [
        "",
        "MONAI, MedPy and surface-distance define HD95 differently (see `docs/reference/metrics.md`), so their figures "
        "differ on purpose; ours must equal those of surface-distance. Only ours scores single lesions here, panoptica "
        "aside, whose ratio is one of wall clocks.",
        "",
        *result.get("notes", ()),
        f"Versions: {', '.join(f'{name} {version}' for name, version in result['versions'].items())}. "
        f"Cores: {result['machine']['cores']}; load while measuring: {result['machine']['load'][0]:.1f}.",
        "",
        "`python benchmarks/metrics.py` makes this page.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, and write ``metrics.json`` and ``metrics.md``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--panoptica", metavar="PYTHON", help="interpreter of an environment with panoptica")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    result, prediction, reference = measure(options.rounds)
    if options.panoptica:
        seconds = panoptica_seconds(options.panoptica, prediction, reference, options.rounds)
        result["contenders"]["panoptica"] = {
            "computes": "per lesion: Dice, HD95, ASSD; Dice of the region (own environment, after the others)",
            "wall_s": seconds,
            "median_wall_s": statistics.median(seconds),
            "hd95_mm": {},
        }
    else:
        result["notes"] = ["panoptica was not measured: it needs an environment of its own (`--panoptica PYTHON`).", ""]
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "metrics.json").write_text(json.dumps(result, indent=2) + "\n")
    (options.out / "metrics.md").write_text(as_markdown(result))
    print(as_markdown(result))


if __name__ == "__main__":
    main()
