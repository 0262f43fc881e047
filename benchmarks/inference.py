"""Cases per minute: ours beside the zoo's BraTS bundle, plain MONAI and nnU-Net, with the same weights and cases.

    python -m benchmarks.inference --data DATA [--weights segresnet=FILE unet=FILE] [--cases 5 --rounds 3]
        [--json out.json --markdown out.md]

What each arm is stands in ``benchmarks/inference_arms.py``. All arms run round by round over the same cases, each in a
process of its own that has run one case before. A time is the whole call for all cases, from files to files. What is
not the network is that time without what the forward passes took. Without ``--weights`` they are random: times hold,
Dice does not. ``NAME@fast=FILE`` gives the arm ``fast`` weights of its own, trained on the box around the brain.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch

from benchmarks.inference_arms import ANSWER, ARMS, NETWORKS, WINDOW, build
from benchmarks.network_speed import machine
from brats_pipeline.cases import find_cases

ROOT = Path(__file__).resolve().parents[1]
REGIONS = {"TC": (1, 3, 4), "WT": (1, 2, 3, 4), "ET": (3, 4)}
"""Labels of both spellings, ET 3 and ET 4, which never mean anything else in the adult challenges."""
ONE_ML = 1000
"""Voxels of 1 mm; a smaller region says nothing about precision."""


class Worker:
    """An arm in a process of its own."""

    def __init__(self, arm: str, network: str, weights: Path, folder: Path, options: argparse.Namespace) -> None:
        python = options.nnunet_python if arm == "nnunet" else sys.executable
        command = [python, "-m", "benchmarks.inference_arms", "--arm", arm, "--network", network]
        command += ["--weights", str(weights), "--data", str(options.data), "--folder", str(folder)]
        command += ["--device", options.device, "--threads", str(options.threads), "--workers", str(options.workers)]
        command += ["--window", *map(str, options.window), "--set", options.set]
        command += ["--tiny"] if options.tiny else []
        threads = {"OMP_NUM_THREADS": str(options.threads)} if options.threads else {}
        self.process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **threads}, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def ask(self, **command: Any) -> dict[str, Any]:
        """Have it do something and wait for the answer.

        Raises:
            RuntimeError: the process ended instead.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith(ANSWER):
                answer: dict[str, Any] = json.loads(line.removeprefix(ANSWER))
                return answer
        raise RuntimeError(f"the arm ended with status {self.process.wait()}; its message is above")

    def close(self) -> None:
        """Let it end."""
        self.process.communicate()


def label_map(out: Path, case_id: str) -> np.ndarray[Any, Any]:
    """The label map that an arm wrote for a case, whatever it calls the file."""
    (path,) = [path for path in out.rglob("*.nii*") if case_id in path.name]
    return np.asarray(nibabel.load(path).dataobj)


def dice(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any], *, smallest: int = 0) -> dict[str, float]:
    """Dice per region, without regions that have fewer than ``smallest`` voxels in ``other``."""
    scores = {}
    for name, labels in REGIONS.items():
        a, b = np.isin(one, labels), np.isin(other, labels)
        if b.sum() >= max(1, smallest):
            scores[name] = float(2 * (a & b).sum() / (a.sum() + b.sum()))
    return scores


def agreement(arms: dict[str, Path], cases: dict[str, Any]) -> dict[str, Any]:
    """Label maps of every arm beside those of ``exact_float32``, of ``stock``, and of the person who drew them."""
    found: dict[str, Any] = {name: {"exact_float32": [], "stock": [], "drawn": []} for name in arms}
    for case_id, case in cases.items():
        maps = {name: label_map(out, case_id) for name, out in arms.items()}
        if case.label is not None:
            maps["drawn"] = np.asarray(nibabel.load(case.label.paths[0]).dataobj)
        for name in arms:
            for beside, scores in found[name].items():
                if beside in maps and beside != name:
                    smallest = 0 if beside == "drawn" else ONE_ML
                    scores.append(dice(maps[name], maps[beside], smallest=smallest))
    return {
        name: {
            beside: {
                "lowest": min((value for one in scores for value in one.values()), default=None),
                "mean": statistics.fmean(values) if (values := [v for one in scores for v in one.values()]) else None,
            }
            for beside, scores in sides.items()
        }
        for name, sides in found.items()
    }


def summarise(answers: list[dict[str, Any]], cases: int) -> dict[str, Any]:
    """What the rounds of one arm come to."""
    seconds = [answer["seconds"] / cases for answer in answers]
    stages = sorted({stage for answer in answers for stage in answer["stages"]})
    by_stage = {
        stage: statistics.median(answer["stages"].get(stage, 0.0) / cases for answer in answers) for stage in stages
    }
    return {
        "seconds_per_case": statistics.median(seconds),
        "cases_per_minute": 60 / statistics.median(seconds),
        "stages_s": by_stage,
        "not_the_network": statistics.median(
            1 - answer["stages"].get("network", 0.0) / answer["seconds"] for answer in answers
        ),
        "peak_bytes": max(answer["peak_bytes"] for answer in answers),
        "samples_s": seconds,
    }


def weights_of(options: argparse.Namespace, folder: Path) -> dict[str, Path]:
    """Files by the name of the network, and by ``NAME@ARM`` where an arm has weights of its own."""
    files = {name: Path(path).resolve() for name, _, path in (item.partition("=") for item in options.weights)}
    for name in options.networks:
        if name not in files:
            torch.manual_seed(0)
            files[name] = folder / f"{name}.pt"
            torch.save(build(name, options.tiny).state_dict(), files[name])
    return files


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Every network in every arm."""
    found = {case.case_id: case for case in find_cases(options.data)}
    cases = {name: found[name] for name in sorted(found)[: options.cases]}
    files = weights_of(options, folder)
    settings = {"cases": list(cases), "rounds": options.rounds, "window": options.window, "workers": options.workers}
    settings |= {"trained": sorted({item.partition("=")[0] for item in options.weights}), "set": options.set}
    settings |= {"about": f" {options.about}" if options.about else ""}
    result: dict[str, Any] = {"schema": 1, "machine": machine(), "settings": settings, "networks": {}, "skipped": []}
    for network in options.networks:
        workers, answers = {}, {}
        for arm in options.arms:
            if arm == "nnunet" and options.nnunet_python is None:
                result["skipped"].append("nnunet: give --nnunet-python, an interpreter that has nnunetv2")
                continue
            weights = files.get(f"{network}@{arm}", files[network])
            workers[arm] = Worker(arm, network, weights, folder, options)
            workers[arm].ask(do="run", cases=list(cases)[:1], out=str(folder / "warm" / network / arm))
            answers[arm] = []
        outputs = {arm: folder / "out" / network / arm for arm in workers}
        for turn in range(options.rounds):
            for arm, worker in workers.items():
                answers[arm].append(worker.ask(do="run", cases=list(cases), out=str(outputs[arm])))
                print(
                    f"{network} {arm} round {turn + 1}: {answers[arm][-1]['seconds'] / len(cases):.2f} s a case",
                    flush=True,
                )
        logits = next(iter(workers.values())).ask(do="parity", cases=list(cases)[:1]) if options.parity else {}
        for worker in workers.values():
            worker.close()
        arms = {arm: summarise(taken, len(cases)) for arm, taken in answers.items()}
        if "stock" in arms:
            for arm in arms:
                ratios = [
                    stock["seconds"] / mine["seconds"]
                    for mine, stock in zip(answers[arm], answers["stock"], strict=True)
                ]
                arms[arm]["times_stock"] = statistics.median(ratios)
        result["networks"][network] = {"arms": arms, "max_logit_difference": logits, "dice": agreement(outputs, cases)}
    return result


def table(result: dict[str, Any]) -> str:
    """Markdown."""

    def shown(value: float | None, digits: int = 4) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    host, settings = result["machine"], result["settings"]
    lines = [
        "# Inference, from files to files",
        "",
        f"{host['cpu']}, {host['threads']} threads, load {host['load']}, GPU {host['gpu']}, torch {host['torch']}, "
        f"MONAI {host['monai']}, {host['date']}; {len(settings['cases'])} cases, {settings['rounds']} rounds, medians. "
        f"Trained weights: {', '.join(settings['trained']) or 'none, all random'}.{settings['about']}",
        "",
        "Dice is the lowest of all cases and regions of at least 1 ml beside the label maps of exact_float32 and of "
        "stock, and the mean beside those drawn by hand. Stages overlap in ours. The peak is that of the process which "
        "holds the network; the loading workers of stock are not counted.",
    ]
    for network, found in result["networks"].items():
        lines += [
            "",
            f"## {network}",
            "",
            "| arm | cases a minute | seconds a case | times stock | not the network | peak GiB | "
            "Dice, exact_float32 | Dice, stock | Dice, drawn | seconds by stage |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
        ]
        for arm, told in found["arms"].items():
            stages = ", ".join(f"{stage} {spent:.2f}" for stage, spent in told["stages_s"].items())
            scores = found["dice"][arm]
            lines.append(
                f"| {arm} | {told['cases_per_minute']:.2f} | {told['seconds_per_case']:.2f} | "
                f"{shown(told.get('times_stock'), 2)} | {100 * told['not_the_network']:.0f} % | "
                f"{told['peak_bytes'] / 2**30:.1f} | {shown(scores['exact_float32']['lowest'])} | "
                f"{shown(scores['stock']['lowest'])} | {shown(scores['drawn']['mean'])} | {stages} |"
            )
        if (cropped := found["dice"].get("cropped")) and cropped["exact_float32"]["mean"] is not None:
            beside = cropped["exact_float32"]
            lines += [
                "",
                "The crop to the brain changes what weights say that never saw it: Dice beside their own label maps "
                f"of the whole image {shown(beside['mean'])} in the mean, {shown(beside['lowest'])} at the lowest.",
            ]
        for window, most in found["max_logit_difference"].items():
            lines += ["", f"Largest difference of float32 logits from MONAI's, window {window}: {most:.1e}."]
    lines += [""] + [f"Skipped: {reason}." for reason in result["skipped"]]
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument(
        "--weights", nargs="+", default=[], metavar="NAME=FILE", help="NAME or NAME@ARM; default random"
    )
    parser.add_argument("--about", default="", help="how the weights were trained, for the reader of the tables")
    parser.add_argument("--networks", nargs="+", choices=sorted(NETWORKS), default=sorted(NETWORKS))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--cases", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="of every arm; by default torch's own choice")
    parser.add_argument("--workers", type=int, default=4, help="that load cases for the stock arm; the zoo has 4")
    parser.add_argument("--window", type=int, nargs=3, default=WINDOW)
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--nnunet-python", help="interpreter of an environment with nnunetv2 and this project's packages"
    )
    parser.add_argument("--set", default="{}", help="further configuration of ours, as JSON")
    parser.add_argument("--parity", action=argparse.BooleanOptionalAction, default=True, help="compare logits, too")
    parser.add_argument("--tiny", action="store_true", help="networks that run in no time, to try the benchmark")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    options.data = options.data.resolve()
    with tempfile.TemporaryDirectory(prefix="inference-benchmark-") as folder:
        result = measure(options, Path(folder))
    for path, text in ((options.json, json.dumps(result, indent=2) + "\n"), (options.markdown, table(result))):
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    print(table(result))


if __name__ == "__main__":
    main()
