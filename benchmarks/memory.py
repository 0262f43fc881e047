"""Peak memory of SegNet beside that of a U-Net of the same first width and depth, in inference and in training.

    python benchmarks/memory.py [--side-2d 256 --batch-2d 8 --side-3d 96 --batch-3d 1] [--json out.json] > memory.md

On a CPU each figure comes from a process of its own: the highest resident size during the pass, less the resident size
just before it. On CUDA it is what torch's allocator held at most, less what it held before. Weights and image are there
before; activations, positions of maxima, work space and (in training) gradients are counted. Training is one forward
pass, loss and backward pass, without an optimizer.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import platform
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from networks import NETWORKS

MIB = 2**20
ROOT = Path(__file__).resolve().parents[1]


def status_bytes(name: str) -> int:
    """A figure of this process from the kernel, such as ``VmRSS`` (resident now) or ``VmHWM`` (resident at most)."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


class Peak:
    """Memory above the start of a ``with`` block, at its highest, in ``bytes``."""

    def __init__(self, device: str) -> None:
        self.cuda = device == "cuda"
        self.bytes = 0

    def __enter__(self) -> Peak:
        if self.cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
        else:
            self.before = status_bytes("VmRSS")
            with contextlib.suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew
        return self

    def __exit__(self, *_: object) -> None:
        if self.cuda:
            torch.cuda.synchronize()
            self.bytes = torch.cuda.max_memory_allocated() - self.before
        else:
            high = min(status_bytes("VmHWM"), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
            self.bytes = high - self.before


def measure(
    network: str, *, spatial_dims: int, side: int, batch: int, precision: str, training: bool, device: str
) -> dict[str, Any]:
    """One pass in this process."""
    torch.manual_seed(0)
    net = NETWORKS[network](spatial_dims=spatial_dims, in_channels=4, out_channels=3).to(device).train(training)
    positions: list[int] = []
    for name, module in net.named_modules():
        if name == "pool" and network == "segnet":
            module.register_forward_hook(lambda _module, _inputs, output: positions.append(output[1].nbytes))

    def once(image: torch.Tensor) -> None:
        with torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            logits = net(image)
            if training:
                loss = F.binary_cross_entropy_with_logits(logits.float(), torch.zeros_like(logits, dtype=torch.float32))
                loss.backward()

    with torch.set_grad_enabled(training):
        once(torch.randn(1, 4, *(32,) * spatial_dims, device=device))  # loads libraries
        net.zero_grad(set_to_none=True)
        positions.clear()
        image = torch.randn(batch, 4, *(side,) * spatial_dims, device=device)
        with Peak(device) as peak:
            once(image)
    return {
        "network": network,
        "spatial_dims": spatial_dims,
        "side": side,
        "batch": batch,
        "precision": precision,
        "pass": "training" if training else "inference",
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
        "peak_mib": round(peak.bytes / MIB, 1),
        "positions_mib": round(sum(positions) / MIB, 1),
    }


def measure_apart(**settings: Any) -> dict[str, Any]:
    """The same in a fresh process, where nothing that ran before has left memory behind."""
    done = subprocess.run(
        [sys.executable, __file__, "--one", json.dumps(settings)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{settings} failed:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def table(results: list[dict[str, Any]]) -> str:
    """Markdown: one row per input, precision and pass, both networks beside each other."""
    lines = [
        "| input | precision | pass | U-Net MiB | SegNet MiB | SegNet / U-Net | positions MiB (int64) | their share |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for unet, segnet in zip(results[0::2], results[1::2], strict=True):
        shape = " x ".join([str(unet["side"])] * unet["spatial_dims"])
        peak, positions = segnet["peak_mib"], segnet["positions_mib"]
        lines.append(
            f"| {unet['batch']} of {shape} | {unet['precision']} | {unet['pass']} | {unet['peak_mib']:.0f} "
            f"| {peak:.0f} | {peak / unet['peak_mib']:.2f} | {positions:.0f} | {positions / peak:.0%} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for dims, side, batch in ((2, 256, 8), (3, 96, 1)):
        parser.add_argument(f"--side-{dims}d", type=int, default=side, help="a multiple of 16")
        parser.add_argument(f"--batch-{dims}d", type=int, default=batch)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(**arguments.one)))
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    inputs = ((2, arguments.side_2d, arguments.batch_2d), (3, arguments.side_3d, arguments.batch_3d))
    results = [
        measure_apart(
            network=network,
            spatial_dims=dims,
            side=side,
            batch=batch,
            precision=precision,
            training=training,
            device=device,
        )
        for (dims, side, batch), precision, training, network in itertools.product(
            inputs, ("float32", "bfloat16"), (False, True), ("unet", "segnet")
        )
    ]
    machine = {
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.machine(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    print(f"Measured on {machine['device']}, torch {machine['torch']}, {machine['threads']} threads.\n")
    print(table(results))
    if arguments.json:
        text = json.dumps({"machine": machine, "results": results}, indent=2)
        arguments.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
