"""Size and speed of every network of this package, each beside its peers in MONAI and segmentation_models_pytorch.

    python -m benchmarks.network_speed [--device cuda] [--dims 2 3] [--networks unet segnet] [--repeats 10]
        [--markdown benchmarks/results/networks.md] [--json benchmarks/results/networks.json]

Ours and the peer take turns in one process: forward pass, then training step, round after round; the first round warms
up. What counts is time per FLOP, ours divided by the peer's in the same round, median over rounds: at most 1.05. FLOPs
are twice the multiply-adds of convolutions and matrix products, padding included; a training step counts as three
forward passes, since the backward pass of a convolution is two of its size. ``benchmarks.peers`` holds the arguments.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import gc
import importlib.metadata
import json
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.memory import Peak
from benchmarks.peers import IN_CHANNELS, OUT_CHANNELS, PEERS, Peer
from networks import NETWORKS

SIZE = {2: 256, 3: 128}
BATCH = {2: 2, 3: 1}
"""Batch norm behind global pooling, as in smp's DeepLabV3Plus, cannot train on one image."""

PRECISIONS = {"bf16": torch.bfloat16, "fp32": torch.float32}
FORMATS = {2: torch.channels_last, 3: torch.channels_last_3d}
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
"""Processor time, summed over threads, is what a CPU that has other work too does not spoil."""

PHASES = ("inference", "training")
TARGET = 1.05


# --- pure: figures and tables -----------------------------------------------------------------------------------------


def summarise(samples: Sequence[float]) -> dict[str, float]:
    """Median and 90th percentile (nearest rank) of seconds.

    Raises:
        ValueError: no samples.
    """
    if not samples:
        raise ValueError("no samples; at least one round has to follow the warm-up")
    ordered = sorted(samples)
    rank = -(-9 * len(ordered) // 10)  # ceil(0.9 n), in integers
    return {"median_s": statistics.median(ordered), "p90_s": ordered[rank - 1], "n": len(ordered)}


def paired_ratio(ours: Sequence[float], theirs: Sequence[float], *, flops: float, their_flops: float) -> float:
    """Seconds per FLOP of ours over the peer's: the median of the ratios of the rounds.

    Raises:
        ValueError: the two were not timed in the same rounds.
    """
    if len(ours) != len(theirs) or not ours:
        raise ValueError(f"{len(ours)} rounds of ours, {len(theirs)} of the peer; both must be timed in every round")
    return statistics.median((a / flops) / (b / their_flops) for a, b in zip(ours, theirs, strict=True))


def spell(arguments: dict[str, Any]) -> str:
    """Arguments as they would be written in a call."""
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items()) or "defaults"


def row(side: dict[str, Any], ratios: Sequence[str]) -> str:
    """One line of the table: a network with its figures."""
    cells = [side["name"], f"{side['parameters'] / 1e6:.2f}", f"{side['flops'] / 1e9:.1f}"]
    for phase in PHASES:
        figures = side[phase]
        cells.append(f"{1e3 * figures['median_s']:.1f} ({1e3 * figures['p90_s']:.1f})")
    peaks = [side[phase]["peak_bytes"] for phase in PHASES]
    cells += ["-" if peak is None else f"{peak / 2**30:.2f}" for peak in peaks]
    return "| " + " | ".join([*cells, *ratios]) + " |"


def table(result: dict[str, Any]) -> str:
    """The whole result as Markdown."""
    facts, settings = result["machine"], result["settings"]
    lines = [
        "# Speed of the networks",
        "",
        f"{facts['date']}; {facts['gpu'] or facts['cpu']}, {facts['cores']} cores, {facts['threads']} threads "
        f"(load average {facts['load']}); torch {facts['torch']}, MONAI {facts['monai']}, smp {facts['smp']}; "
        f"{settings['precision']} autocast, {settings['memory_format']}.",
        "",
        f"Times are medians of {settings['clock']} time in milliseconds with the 90th percentile in brackets. FLOPs "
        "are twice the multiply-adds of convolutions and matrix products; a training step (forward, loss, backward, "
        "AdamW) counts as three forward passes. Memory is the peak in GiB beyond weights and input (CUDA: the "
        "allocator's count; CPU: growth of a process of its own). The last two columns are time per FLOP of ours over "
        "that of the peer, median over paired "
        f"rounds: at most {TARGET} is the target. `~` marks a peer that is a relative, not the same architecture.",
    ]
    for dims, shape in settings["shape"].items():
        pairs = [pair for pair in result["pairs"] if str(pair["dims"]) == dims]
        if not pairs:
            continue
        rounds = pairs[0]["ours"]["inference"]["n"]
        lines += [
            "",
            f"## {dims}D, input {' x '.join(map(str, shape))}, {rounds} rounds after warm-up",
            "",
            "| network | M parameters | GFLOP | inference ms | training step ms | inference GiB | training GiB "
            "| inference per FLOP | training per FLOP |",
            "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        for pair in pairs:
            ratios = [f"{pair['ratio'][phase]:.2f}" for phase in PHASES]
            lines += [row(pair["ours"], ratios), row(pair["peer"], ["", ""])]
        lines += ["", "Arguments:", ""]
        lines += [
            f"- `{side['name']}`: `{spell(side['arguments'])}`"
            for side in {side["name"]: side for pair in pairs for side in (pair["peer"], pair["ours"])}.values()
        ]
    if result["missing"]:
        lines += ["", "Not measured:", "", *(f"- {line}" for line in result["missing"])]
    return "\n".join(lines) + "\n"


# --- measuring --------------------------------------------------------------------------------------------------------


def flops(network: nn.Module, shape: Sequence[int]) -> int:
    """FLOPs of a forward pass, counted without computing it."""
    ghost = copy.deepcopy(network).to("meta").eval()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        ghost(torch.empty(*shape, device="meta"))
    return int(counter.get_total_flops())


def shape_of(dims: int, options: argparse.Namespace) -> tuple[int, ...]:
    """Shape of the input: ``(N, C, *spatial)``."""
    return (options.batch or BATCH[dims], IN_CHANNELS, *[options.size or SIZE[dims]] * dims)


class Subject:
    """A network ready to be timed: placed, in its memory format, with an input, a target and an optimizer."""

    def __init__(self, network: nn.Module, shape: Sequence[int], options: argparse.Namespace) -> None:
        self.network = network.to(options.device)
        generator = torch.Generator().manual_seed(0)
        self.image = torch.randn(*shape, generator=generator).to(options.device)
        self.target = (torch.rand(shape[0], OUT_CHANNELS, *shape[2:], generator=generator) < 0.5).float()
        self.target = self.target.to(options.device)
        if options.memory_format == "channels_last":
            layout: Any = FORMATS[len(shape) - 2]
            self.network = self.network.to(memory_format=layout)  # type: ignore[call-overload]
            self.image = self.image.to(memory_format=layout)
        self.precision = PRECISIONS[options.precision]
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-4)

    def logits(self) -> torch.Tensor:
        enabled = self.precision is not torch.float32
        with torch.autocast(self.image.device.type, dtype=self.precision, enabled=enabled):
            made: torch.Tensor = self.network(self.image)
        return made

    def inference(self) -> None:
        self.network.eval()
        with torch.inference_mode():
            self.logits()

    def training(self) -> None:
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.binary_cross_entropy_with_logits(self.logits().float(), self.target)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()


def seconds(step: Callable[[], None], options: argparse.Namespace) -> float:
    """Time of one call, until the device has finished."""
    clock = CLOCKS[options.clock]
    if options.device != "cpu":
        torch.cuda.synchronize()
    started = clock()
    step()
    if options.device != "cpu":
        torch.cuda.synchronize()
    return clock() - started


def build(peer: Peer, dims: int, side: str) -> nn.Module:
    """Ours or the peer of a pair."""
    if side == "peer":
        return peer.build(dims)
    return NETWORKS[peer.of](spatial_dims=dims, in_channels=IN_CHANNELS, out_channels=OUT_CHANNELS, **peer.ours(dims))


def peaks(number: int, dims: int, side: str, options: argparse.Namespace) -> dict[str, int | None]:
    """Bytes held at most during a forward pass and during a training step, beyond weights and input."""
    if options.device == "cpu" and not Path("/proc/self/clear_refs").exists():
        return dict.fromkeys(PHASES)
    network = build(PEERS[number], dims, side)
    shape = shape_of(dims, options)
    small = Subject(network, (*shape[:2], *[64] * dims), options)
    found: dict[str, int | None] = {}
    for phase in PHASES:
        getattr(small, phase)()  # loads libraries
        small.optimizer.zero_grad(set_to_none=True)
        gc.collect()
        subject = Subject(network, shape, options)
        with Peak(options.device) as peak:
            getattr(subject, phase)()
        found[phase] = peak.bytes
    return found


def peaks_alone(number: int, dims: int, side: str, options: argparse.Namespace) -> dict[str, int | None]:
    """:func:`peaks`, on a CPU in a process of its own."""
    if not options.memory:
        return dict.fromkeys(PHASES)
    if options.device == "cuda":
        return peaks(number, dims, side, options)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(peaks, number, dims, side, options).result()


def compare(peer: Peer, dims: int, options: argparse.Namespace) -> dict[str, Any]:
    """Ours and one peer, round by round."""
    shape = shape_of(dims, options)
    extra = peer.ours(dims)
    made = {side: build(peer, dims, side) for side in ("ours", "peer")}
    memory = {side: peaks_alone(PEERS.index(peer), dims, side, options) for side in made}
    names = {"ours": peer.of + (f" ({spell(extra)})" if extra else ""), "peer": peer.label}
    arguments = {"ours": extra, "peer": peer.arguments(dims)}
    sides: dict[str, Any] = {}
    for side, network in made.items():
        sides[side] = {
            "name": names[side],
            "arguments": arguments[side],
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            "flops": flops(network, shape),
        }
    subjects = {side: Subject(network, shape, options) for side, network in made.items()}
    samples: dict[str, dict[str, list[float]]] = {phase: {"ours": [], "peer": []} for phase in PHASES}
    for turn in range(options.repeats + 1):
        for phase, taken in samples.items():
            for side, subject in subjects.items():
                took = seconds(getattr(subject, phase), options)
                if turn:  # the first round warms up
                    taken[side].append(took)
    for phase, taken in samples.items():
        for side in sides:
            sides[side][phase] = summarise(taken[side]) | {"samples_s": taken[side], "peak_bytes": memory[side][phase]}
    ratio = {
        phase: paired_ratio(
            taken["ours"], taken["peer"], flops=sides["ours"]["flops"], their_flops=sides["peer"]["flops"]
        )
        for phase, taken in samples.items()
    }
    return {"of": peer.of, "dims": dims, "same": peer.same, **sides, "ratio": ratio}


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    cpuinfo = Path("/proc/cpuinfo")
    models = (
        [line for line in cpuinfo.read_text("utf-8").splitlines() if "model name" in line] if cpuinfo.is_file() else []
    )
    versions: dict[str, str | None] = {}
    for name, package in (("monai", "monai"), ("smp", "segmentation_models_pytorch")):
        try:
            versions[name] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cpu": models[0].partition(":")[2].strip() if models else platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        **versions,
    }


def measure(options: argparse.Namespace, report: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Every pair that was asked for; ``report`` is called after each."""
    settings = {name: getattr(options, name) for name in ("precision", "memory_format", "repeats", "device", "clock")}
    settings["shape"] = {str(dims): list(shape_of(dims, options)) for dims in options.dims}
    result: dict[str, Any] = {"schema": 1, "machine": machine(), "settings": settings, "pairs": [], "missing": []}
    for dims in options.dims:
        for name in options.networks:
            peers = [peer for peer in PEERS if peer.of == name and dims in peer.dims]
            if not peers:
                result["missing"].append(f"{name} in {dims}D: no peer is named in benchmarks/peers.py")
            for peer in peers:
                try:
                    result["pairs"].append(compare(peer, dims, options))
                except ImportError as error:
                    result["missing"].append(f"{name} beside {peer.name} in {dims}D: {error}")
                report(result)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dims", type=int, nargs="+", choices=[2, 3], default=[2, 3])
    parser.add_argument("--networks", nargs="+", choices=sorted(NETWORKS), default=sorted(NETWORKS))
    parser.add_argument("--repeats", type=int, default=10, help="rounds after the warm-up")
    parser.add_argument("--size", type=int, help="side of the input; default 256 in 2D, 128 in 3D")
    parser.add_argument("--batch", type=int, help="default 2 in 2D, 1 in 3D")
    parser.add_argument("--precision", choices=sorted(PRECISIONS), default="bf16")
    parser.add_argument("--memory-format", choices=["channels_last", "contiguous"], default="channels_last")
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall", help="processor: for a busy CPU")
    parser.add_argument("--memory", action=argparse.BooleanOptionalAction, default=True, help="measure the peak too")
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.clock == "processor" and options.device != "cpu":
        parser.error("--clock processor does not see the time of a GPU; leave it out")

    def report(result: dict[str, Any]) -> None:
        if result["pairs"]:
            pair = result["pairs"][-1]
            figures = ", ".join(f"{phase} {ratio:.3f}" for phase, ratio in pair["ratio"].items())
            print(f"{pair['dims']}D {pair['ours']['name']} / {pair['peer']['name']}: {figures}", flush=True)
        for path, text in ((options.markdown, table(result)), (options.json, json.dumps(result, indent=2) + "\n")):
            if path:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")

    print(table(measure(options, report)))


if __name__ == "__main__":
    main()
