"""How much of a training step is not the network: a bundle's own training loop beside the same step on one fixed batch.

    python benchmarks/training.py lgg_slices_2d --data DATA [--steps 12 --rounds 5 --json out.json] [--set id=value]...

Both are MONAI's ``SupervisedTrainer`` iteration (forward pass, loss, backward pass, optimizer) and alternate in one
process: first on a batch that was drawn once, then on batches of the bundle's data loader. The ratio of the medians is
the price of loading and augmentation.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

from brats_pipeline.bundles import bundle_path, freeze_bundle, open_workflow, wanted_modalities
from brats_pipeline.cases import decide_conventions, find_cases
from brats_pipeline.data.datalist import unsplit_cases, write_datalist
from brats_pipeline.training.rehearsal import endless_batches


def open_training(bundle: str, data: Path, run: Path, overrides: dict[str, Any]) -> Any:
    """The workflow of a bundle over every case below ``data``, as ``brats-pipeline train --fold all`` opens it."""
    source = bundle_path(bundle)
    freeze_bundle(source, run, {"fold": None, **overrides})
    cases = decide_conventions(find_cases(data), None)
    write_datalist(unsplit_cases(cases, modalities=wanted_modalities(source, overrides)), run / "datalist.json")
    runtime = {"data_list_file_path": str(run / "datalist.json"), "max_epochs": 1000}
    return open_workflow(run, ["train.yaml"], workflow_type="train", overrides=runtime)


def timed(step: Callable[[], object], repeats: int) -> list[float]:
    """Seconds of each of ``repeats`` steps, the first one of each block left out."""
    seconds = []
    for repeat in range(repeats + 1):
        started = time.perf_counter()
        step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if repeat:
            seconds.append(time.perf_counter() - started)
    return seconds


def summarise(samples: list[float]) -> dict[str, float]:
    """Mean, median and 90th percentile in seconds. The mean counts: a loader that stalls does so now and then."""
    ordered = sorted(samples)
    return {
        "mean_s": statistics.fmean(ordered),
        "median_s": statistics.median(ordered),
        "p90_s": ordered[int(0.9 * (len(ordered) - 1))],
        "n": len(ordered),
    }


def compare(workflow: Any, *, steps: int, rounds: int) -> dict[str, Any]:
    """Time both kinds of step in alternating blocks."""
    parsed = workflow.parser.get_parsed_content
    trainer, loader, dataset = parsed("train::trainer"), parsed("train::dataloader"), parsed("train::dataset")
    started = time.perf_counter()
    dataset.load()
    loaded = time.perf_counter() - started
    batches = endless_batches(loader, dataset)
    fixed = next(batches)
    samples: dict[str, list[float]] = {"network": [], "training": []}
    for turn in range(rounds + 1):
        network = timed(lambda: trainer._iteration(trainer, dict(fixed)), steps)
        training = timed(lambda: trainer._iteration(trainer, next(batches)), steps)
        if turn:  # the first round warms up
            samples["network"] += network
            samples["training"] += training
    ratios = [
        statistics.fmean(samples["training"][first : first + steps])
        / statistics.fmean(samples["network"][first : first + steps])
        for first in range(0, rounds * steps, steps)
    ]
    image = fixed["image"]
    return {
        "batch": list(image.shape),
        "voxels_per_second": image[:, 0].numel() / statistics.fmean(samples["training"]),
        "loading_all_cases_s": loaded,
        "network": summarise(samples["network"]),
        "training": summarise(samples["training"]),
        "ratio": statistics.median(ratios),
        "ratio_by_round": ratios,
    }


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=12, help="steps per block")
    parser.add_argument("--rounds", type=int, default=5, help="blocks of each kind")
    parser.add_argument("--set", action="append", default=[], metavar="ID=VALUE")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    overrides = {key: yaml.safe_load(value) for key, _, value in (item.partition("=") for item in arguments.set)}
    with tempfile.TemporaryDirectory() as folder:
        workflow = open_training(arguments.bundle, arguments.data, Path(folder) / "run", overrides)
        result = compare(workflow, steps=arguments.steps, rounds=arguments.rounds)
    result = {"bundle": arguments.bundle, "overrides": overrides, "machine": machine(), **result}
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
