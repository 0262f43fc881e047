"""One window through every network by every backend, precision and memory layout; rounds alternate.

    python -m benchmarks.backends [--dims 3 --networks unet segresnet] [--rounds 5] [--json out.json --markdown out.md]

Times are those of a forward pass, medians; the ratio is that of paired rounds to torch in float32, contiguous. The
difference is the largest one of the logits from theirs, over their largest. Backends that are not installed are named.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.inference_arms import build
from benchmarks.network_speed import machine
from brats_pipeline.errors import PipelineError
from brats_pipeline.inference.backends import run_by
from brats_pipeline.inference.inferers import run_network
from networks import NETWORKS

CONTIGUOUS = {"backend": "torch", "channels_last": False}
WAYS: dict[str, tuple[dict[str, Any], str]] = {
    "torch float32": (CONTIGUOUS, "float32"),
    "torch float32 channels_last": ({"backend": "torch", "channels_last": True}, "float32"),
    "torch float32 compiled": (CONTIGUOUS | {"compile": True}, "float32"),
    "torch bfloat16": (CONTIGUOUS, "bfloat16"),
    "torch bfloat16 channels_last": ({"backend": "torch", "channels_last": True}, "bfloat16"),
    "torch bfloat16 compiled": (CONTIGUOUS | {"compile": True}, "bfloat16"),
    "onnxruntime": ({"backend": "onnxruntime"}, "float32"),
    "openvino float32": ({"backend": "openvino"}, "float32"),
    "openvino bfloat16": ({"backend": "openvino"}, "bfloat16"),
}
FIRST = "torch float32"


def network_of(name: str, dims: int) -> nn.Module:
    """A network with its default widths, the same weights each time."""
    torch.manual_seed(0)
    if name == "segresnet":
        network = build(name, tiny=False)
        network.stride = 8  # type: ignore[assignment]  # so that one export takes every size
        return network.eval()
    return NETWORKS[name](spatial_dims=dims, in_channels=4, out_channels=3).eval()


def compare(name: str, dims: int, image: Tensor, options: argparse.Namespace, cache: Path) -> dict[str, Any]:
    """One network in every way, round by round."""
    calls: dict[str, Callable[[], Tensor]] = {}
    found: dict[str, Any] = {}
    for way in options.ways:
        arguments, precision = WAYS[way]
        try:
            network = run_by(network=network_of(name, dims), cache_dir=cache, **arguments).to(options.device)
            call = lambda network=network, precision=precision: run_network(image, network, precision)  # noqa: E731
            started = time.perf_counter()
            found[way] = {"logits": call(), "first_s": time.perf_counter() - started, "samples_s": []}
            calls[way] = call
        except (PipelineError, ValueError, RuntimeError) as error:
            found[way] = {"missing": str(error).splitlines()[0]}
    for _ in range(options.rounds):
        for way, call in calls.items():
            started = time.perf_counter()
            call()
            if options.device != "cpu":
                torch.cuda.synchronize()
            found[way]["samples_s"].append(time.perf_counter() - started)
    expected = found[FIRST]["logits"]
    for told in found.values():
        if "logits" in told:
            told["median_s"] = statistics.median(told["samples_s"])
            pairs = zip(told["samples_s"], found[FIRST]["samples_s"], strict=True)
            told["ratio"] = statistics.median(mine / first for mine, first in pairs)
            told["difference"] = float((told.pop("logits") - expected).abs().max() / expected.abs().max())
    del expected
    gc.collect()
    return found


def table(result: dict[str, Any]) -> str:
    """Markdown."""
    host = result["machine"]
    lines = [
        "# Backends, precisions and layouts",
        "",
        f"{host['cpu']}, {host['threads']} threads, load {host['load']}, GPU {host['gpu']}, torch {host['torch']}, "
        f"{host['date']}; {result['rounds']} rounds. Seconds of a forward pass, its ratio to torch in float32, and the "
        "largest difference of logits over the largest logit.",
    ]
    for title, ways in result["networks"].items():
        lines += ["", f"## {title}", "", "| way | seconds | ratio | difference |", "| --- | ---: | ---: | ---: |"]
        for way, told in ways.items():
            if "missing" in told:
                lines.append(f"| {way} | - | - | {told['missing']} |")
            else:
                lines.append(f"| {way} | {told['median_s']:.3f} | {told['ratio']:.2f} | {told['difference']:.0e} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dims", type=int, nargs="+", choices=[2, 3], default=[3, 2])
    parser.add_argument(
        "--networks", nargs="+", choices=[*sorted(NETWORKS), "segresnet"], default=["unet", "segresnet"]
    )
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=[way for way in WAYS if "compiled" not in way])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--side", type=int, help="of the window; default 256 in 2D (16 slices), 128 in 3D")
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    result: dict[str, Any] = {"schema": 1, "machine": machine(), "rounds": options.rounds, "networks": {}}
    with tempfile.TemporaryDirectory() as cache, torch.no_grad():
        for dims in options.dims:
            for name in options.networks:
                if name == "segresnet" and dims == 2:
                    continue
                side = options.side or {2: 256, 3: 128}[dims]
                image = torch.randn(16 if dims == 2 else 1, 4, *[side] * dims, device=options.device)
                title = f"{name} in {dims}D, {' x '.join(map(str, image.shape))}"
                result["networks"][title] = compare(name, dims, image, options, Path(cache))
                print(table({**result, "networks": {title: result["networks"][title]}}), flush=True)
                for path, text in ((options.json, json.dumps(result, indent=2)), (options.markdown, table(result))):
                    if path:
                        path.parent.mkdir(parents=True, exist_ok=True)
                        path.write_text(text.rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
