"""The ways to segment a cohort that ``benchmarks/inference.py`` compares; each runs in a process of its own.

    stock          the model zoo's BraTS bundle, rebuilt from MONAI's own parts: its transforms, its padded window of
                   240 x 240 x 160, four loading workers, float32 on a CPU (its mixed precision is CUDA's alone)
    plain          brats_glioma_3d with MONAI's SlidingWindowInferer in the place of ours, float32
    nnunet         nnU-Net v2's predictor around the same network and window, without mirroring
    exact          brats_glioma_3d on the whole image in the windows of stock, padded as there: what stock computes, in
                   our way
    exact_float32  the same, float32
    fast           brats_glioma_3d on the box around the brain, in one pass
    cropped        the same with the weights of exact, which never saw a crop: what the crop changes for them

Commands come as lines of JSON on standard input, answers go to standard output behind ``ANSWER``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.memory import status_bytes
from brats_pipeline.cases import find_cases
from brats_pipeline.cases.case import Case
from transforms.labels import MODALITIES

ARMS = ("stock", "plain", "nnunet", "exact", "exact_float32", "fast", "cropped")
ANSWER = "ANSWER "
WINDOW = (240, 240, 160)
NETWORKS: dict[str, dict[str, Any]] = {
    "segresnet": {
        "_target_": "monai.networks.nets.SegResNet",
        "in_channels": 4,
        "out_channels": 3,
        "init_filters": 16,
        "blocks_down": [1, 2, 2, 4],
        "blocks_up": [1, 1, 1],
        "dropout_prob": 0.2,
    },
    "unet": {
        "_target_": "networks.UNet",
        "spatial_dims": 3,
        "in_channels": 4,
        "out_channels": 3,
        "depth": 4,
        "features": 16,
        "norm": "group",
    },
}
STRIDE = {"segresnet": 8, "unet": 16}
"""The padding that a network needs; MONAI's does not say."""
TINY: dict[str, dict[str, Any]] = {
    "segresnet": {"init_filters": 8, "blocks_down": [1, 1], "blocks_up": [1]},
    "unet": {"depth": 2, "features": 8},
}


def definition(name: str, tiny: bool) -> dict[str, Any]:
    """The configuration of a network; tiny ones are for tests of this benchmark."""
    return NETWORKS[name] | (TINY[name] if tiny else {})


def build(name: str, tiny: bool) -> nn.Module:
    """The network itself."""
    from monai.bundle import ConfigComponent

    network: nn.Module = ConfigComponent(definition(name, tiny)).instantiate()
    return network


class Clock:
    """Seconds by stage; stages may run at the same time."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def of(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with its time noted."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            result = function(*args, **kwargs)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.seconds[stage] += time.perf_counter() - started
            return result

        return timed


class Stock:
    """The zoo's configuration."""

    def __init__(self, options: argparse.Namespace, clock: Clock) -> None:
        self.clock, self.device = clock, torch.device(options.device)
        self.network = build(options.network, options.tiny).to(self.device)
        self.network.load_state_dict(torch.load(options.weights, map_location=self.device, weights_only=True))
        self.network.forward = clock.of("network", self.network.forward)  # type: ignore[method-assign]
        self.window, self.workers = options.window, options.workers

    def run(self, cases: Sequence[Case], out: Path) -> None:
        from monai.data import DataLoader, Dataset
        from monai.engines import SupervisedEvaluator
        from monai.inferers import SlidingWindowInferer
        from monai.transforms import (
            Activationsd,
            AsDiscreted,
            Compose,
            Invertd,
            LoadImaged,
            NormalizeIntensityd,
            SaveImaged,
        )

        items = [{"image": [str(case.images[name].paths[0]) for name in MODALITIES]} for case in cases]
        before = Compose([LoadImaged("image"), NormalizeIntensityd("image", nonzero=True, channel_wise=True)])
        invert = Invertd("pred", transform=before, orig_keys="image", nearest_interp=False, to_tensor=True)
        save = SaveImaged(
            "pred", output_dir=out, output_postfix="seg", output_dtype="uint8", resample=False, squeeze_end_dims=True,
            print_log=False,
        )  # fmt: skip
        after = [
            ("activate", Activationsd("pred", sigmoid=True)),
            ("invert", invert),
            ("threshold", AsDiscreted("pred", threshold=0.5)),
            ("label", nested_labels),
            ("save", save),
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MONAI asks for CUDA's autocast on a CPU
            SupervisedEvaluator(
                device=self.device,
                val_data_loader=DataLoader(Dataset(items, before), batch_size=1, num_workers=self.workers),
                network=self.network,
                inferer=_Timed(SlidingWindowInferer(self.window, sw_batch_size=1, overlap=0.5), self.clock),
                postprocessing=Compose([self.clock.of(stage, step) for stage, step in after]),
                amp=True,
            ).run()


class _Timed:
    """An inferer whose time is noted."""

    def __init__(self, inferer: Any, clock: Clock) -> None:
        self.call = clock.of("inferer", inferer)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.call(*args, **kwargs)


def nested_labels(item: dict[str, Any]) -> dict[str, Any]:
    """Regions TC, WT, ET to labels 1, 2, 4, the narrowest on top."""
    core, whole, enhancing = (region[None] > 0 for region in item["pred"])
    label = torch.zeros_like(item["pred"][:1])
    label[whole], label[core], label[enhancing] = 2, 1, 4
    return {**item, "pred": label}


class Ours:
    """``brats-pipeline segment`` with a bundle made for the arm."""

    def __init__(self, options: argparse.Namespace, clock: Clock) -> None:
        from brats_pipeline.bundles import bundle_path, freeze_bundle, weights_path
        from brats_pipeline.inference import inferers

        self.clock, self.device = clock, options.device
        self.bundle = Path(options.folder) / f"{options.arm}-{options.network}"
        full = options.arm in ("exact", "exact_float32")
        changes: dict[str, Any] = {
            "network_def": definition(options.network, options.tiny),
            "field_of_view": "full" if full else "foreground",
            "precision": "float32" if options.arm in ("plain", "exact_float32") else "auto",
            "roi_size": list(options.window),
            "spacing": [1.0] * 3,
            "presence_flags": False,
            **json.loads(options.set),
        }
        if options.arm == "plain":
            changes["inferer"] = {
                "_target_": "SlidingWindowInferer",
                "roi_size": list(options.window),
                "overlap": "@overlap",
                "mode": "gaussian",
            }
        elif full:
            changes |= {"inferer::stride": max(options.window), "inferer::mode": "constant"}  # padded as stock's
        else:
            changes["inferer::stride"] = STRIDE[options.network]
        freeze_bundle(bundle_path("brats_glioma_3d"), self.bundle, changes)
        weights = weights_path(self.bundle)
        weights.parent.mkdir(parents=True, exist_ok=True)
        weights.write_bytes(Path(options.weights).read_bytes())
        if options.arm == "plain":
            network = build(options.network, options.tiny)
            type(network).forward = clock.of("network", type(network).forward)  # type: ignore[method-assign]
        else:
            inferers.run_network = clock.of("network", inferers.run_network)  # the inferers look it up there

    def run(self, cases: Sequence[Case], out: Path) -> None:
        from brats_pipeline.inference.segment import segment

        folders = sorted({str(case.images[MODALITIES[0]].paths[0].parent) for case in cases})
        done = segment(folders, out, bundle=self.bundle, device=self.device, overwrite=True)
        if done.failed:
            raise RuntimeError(str(done.failed))
        for stages in done.seconds.values():
            for stage, spent in stages.items():
                self.clock.seconds["inferer" if stage == "network" else stage] += spent


def make_arm(options: argparse.Namespace, clock: Clock) -> Any:
    """The arm by its name."""
    if options.arm == "stock":
        return Stock(options, clock)
    if options.arm == "nnunet":
        from benchmarks.inference_nnunet import NnUNet

        return NnUNet(options, clock)
    return Ours(options, clock)


def parity(options: argparse.Namespace, case: Case) -> dict[str, float]:
    """Largest difference of float32 logits between MONAI's sliding window and ours, on one prepared case."""
    from monai.inferers import SlidingWindowInferer
    from monai.transforms import Compose, LoadImaged, NormalizeIntensityd

    from brats_pipeline.inference.inferers import WindowInferer

    network = build(options.network, options.tiny).to(options.device).eval()
    network.load_state_dict(torch.load(options.weights, map_location=options.device, weights_only=True))
    prepare = Compose([LoadImaged("image"), NormalizeIntensityd("image", nonzero=True, channel_wise=True)])
    paths = [str(case.images[name].paths[0]) for name in MODALITIES]
    image = prepare({"image": paths})["image"].as_tensor()[None].to(options.device)
    found = {}
    smaller = tuple(max(STRIDE[options.network], side // 2 // 16 * 16) for side in options.window)
    for window in (tuple(options.window), smaller):
        with torch.no_grad():
            theirs = SlidingWindowInferer(window, overlap=0.5, mode="gaussian")(image, network)
            ours = WindowInferer(
                window, precision="float32", stride=max(window), skip_air=False
            )(image, network)  # fmt: skip
        found["x".join(map(str, window))] = float((theirs - ours).abs().max())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arm", choices=ARMS, required=True)
    parser.add_argument("--network", choices=sorted(NETWORKS), required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--folder", required=True, help="for the bundle")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--window", type=int, nargs=3, default=WINDOW)
    parser.add_argument("--set", default="{}", help="further configuration of ours, as JSON")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    clock, cases = Clock(), {case.case_id: case for case in find_cases(options.data)}
    arm = make_arm(options, clock)
    for line in sys.stdin:
        command = json.loads(line)
        chosen = [cases[name] for name in command["cases"]]
        if command["do"] == "parity":
            answer: dict[str, Any] = parity(options, chosen[0])
        else:
            clock.seconds.clear()
            with contextlib.suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew
            started = time.perf_counter()
            arm.run(chosen, Path(command["out"]))
            spent = time.perf_counter() - started
            peak = torch.cuda.max_memory_allocated() if options.device != "cpu" else status_bytes("VmHWM")
            answer = {"seconds": spent, "stages": dict(clock.seconds), "peak_bytes": peak}
        print(ANSWER + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
