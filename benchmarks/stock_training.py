"""Voxels per second of training: ours beside the stock recipe of the model zoo's BraTS bundle, on the same cases.

    python -m benchmarks.stock_training --data DATA [--rounds 3 --json out.json]

The stock recipe is rebuilt from MONAI's own parts as the bundle's train.json names them: load and normalise whole
volumes in four workers for every step, random crop of 224x224x144, three flips, two intensity transforms, SegResNet
with 16 filters, Dice loss, Adam; labels are cast to float32, without which it does not run on MONAI 1.6.1, and its
mixed precision does nothing on a CPU. Ours is ``brats_glioma_3d`` with the same network (so that only the pipeline
differs) and with its own U-Net. Steps of all three alternate in one process, and every round is kept in ``--json`` as
soon as it is measured. A step of the stock recipe keeps 7 GiB of feature maps, so have some 10 GiB free;
``--stock-patch`` makes it smaller, which the voxels per second hardly feel.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer
from monai.inferers import SimpleInferer
from monai.losses import DiceLoss
from monai.networks.nets import SegResNet
from monai.transforms import (
    CastToTyped,
    Compose,
    ConvertToMultiChannelBasedOnBratsClassesd,
    LoadImaged,
    NormalizeIntensityd,
    RandFlipd,
    RandScaleIntensityd,
    RandShiftIntensityd,
    RandSpatialCropd,
)

from benchmarks.training import machine, open_training
from brats_pipeline.cases import find_cases
from brats_pipeline.training.rehearsal import endless_batches
from transforms.labels import MODALITIES
from transforms.nifti import read_header

PATCH = (224, 224, 144)
STRIDE = 8
"""Of SegResNet; the stock recipe pads nothing."""
SEGRESNET = {
    "_target_": "monai.networks.nets.SegResNet",
    "in_channels": 4,
    "out_channels": 3,
    "init_filters": 16,
    "blocks_down": [1, 2, 2, 4],
    "blocks_up": [1, 1, 1],
    "dropout_prob": 0.2,
}


def stock_trainer(
    data: Path, *, patch: Sequence[int] = PATCH, network_def: Mapping[str, Any] = SEGRESNET, workers: int = 4
) -> tuple[Any, Iterator[Any]]:
    """The stock recipe's trainer and its batches."""
    items = []
    for case in find_cases(data):
        assert case.label is not None
        images = [str(case.images[name].paths[0]) for name in MODALITIES]
        size = read_header(images[0]).shape
        if any(side < least and side % STRIDE for side, least in zip(size, patch, strict=True)):
            print(f"{case.case_id}: left out of the stock recipe, whose network takes no {size} voxels")
            continue
        items.append({"image": images, "label": str(case.label.paths[0])})
    transform = Compose(
        [
            LoadImaged(["image", "label"], ensure_channel_first=True),
            ConvertToMultiChannelBasedOnBratsClassesd("label"),
            NormalizeIntensityd("image", nonzero=True, channel_wise=True),
            RandSpatialCropd(["image", "label"], roi_size=patch, random_size=False),
            *(RandFlipd(["image", "label"], prob=0.5, spatial_axis=axis) for axis in range(3)),
            RandScaleIntensityd("image", factors=0.1, prob=1.0),
            RandShiftIntensityd("image", offsets=0.1, prob=1.0),
            CastToTyped("label", dtype=torch.float32),
        ]
    )
    loader = DataLoader(Dataset(items, transform), batch_size=1, shuffle=True, num_workers=workers)
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    network = SegResNet(**{key: value for key, value in network_def.items() if key != "_target_"}).to(device)
    trainer = SupervisedTrainer(
        device=device,
        max_epochs=1,
        train_data_loader=loader,
        network=network,
        loss_function=DiceLoss(smooth_nr=0, smooth_dr=1e-5, squared_pred=True, sigmoid=True),
        optimizer=torch.optim.Adam(network.parameters(), lr=1e-4, weight_decay=1e-5),
        inferer=SimpleInferer(),
        amp=torch.cuda.is_available(),
    )

    def batches() -> Iterator[Any]:
        while True:
            yield from loader

    return trainer, batches()


def our_trainer(data: Path, run: Path, overrides: dict[str, Any]) -> tuple[Any, Iterator[Any]]:
    """The bundle's trainer and its batches, cases prepared."""
    as_theirs = {"spacing": [1.0] * 3, "presence_flags": False}  # four channels of 1 mm
    parsed = open_training("brats_glioma_3d", data, run, as_theirs | overrides).parser.get_parsed_content
    parsed("train::dataset").load()
    return parsed("train::trainer"), endless_batches(parsed("train::dataloader"), parsed("train::dataset"))


def voxels_per_second(trainer: Any, batches: Iterator[Any], steps: int) -> float:
    """Over ``steps`` steps after one that warms up."""
    voxels, started = 0, 0.0
    for step in range(steps + 1):
        if step == 1:
            started = time.perf_counter()
        batch = next(batches)
        trainer._iteration(trainer, batch)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if step:
            voxels += batch["image"][:, 0].numel()
    return voxels / (time.perf_counter() - started)


def paired_ratios(rates: Mapping[str, Sequence[float]], reference: str = "stock") -> dict[str, float]:
    """The median over the rounds of each rate over that of the reference in the same round."""
    return {
        name: statistics.median(mine / other for mine, other in zip(own, rates[reference], strict=True))
        for name, own in rates.items()
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8, help="of ours in a round; the stock recipe takes two")
    parser.add_argument("--stock-steps", type=int, default=2, help="of the stock recipe in a round")
    parser.add_argument("--stock-patch", type=int, nargs=3, default=PATCH, metavar="VOXELS")
    parser.add_argument("--stock-workers", type=int, default=4)
    parser.add_argument("--filters", type=int, default=SEGRESNET["init_filters"], help="of the stock network")
    parser.add_argument("--set", action="append", default=[], metavar="ID=VALUE", help="of ours")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args(argv)
    network_def = {**SEGRESNET, "init_filters": arguments.filters}
    ours = {key: yaml.safe_load(value) for key, _, value in (item.partition("=") for item in arguments.set)}
    with tempfile.TemporaryDirectory() as folder:
        ours["cache_dir"] = str(Path(folder) / "cache")  # both of ours prepare the same cases alike
        stock = {"patch": arguments.stock_patch, "network_def": network_def, "workers": arguments.stock_workers}
        arms = {
            "stock": (stock_trainer(arguments.data, **stock), arguments.stock_steps),
            "ours, its network": (
                our_trainer(arguments.data, Path(folder) / "same", _only_network(ours, network_def)),
                arguments.steps,
            ),
            "ours": (our_trainer(arguments.data, Path(folder) / "own", ours), arguments.steps),
        }
        rates: dict[str, list[float]] = {name: [] for name in arms}
        for number in range(arguments.rounds):
            for name, ((trainer, batches), steps) in arms.items():
                rates[name].append(voxels_per_second(trainer, batches, steps))
                print(f"round {number + 1}: {name} {rates[name][-1]:.0f} voxels a second", file=sys.stderr, flush=True)
            result = {
                "machine": machine(),
                "stock_patch": list(arguments.stock_patch),
                "settings": {key: value for key, value in ours.items() if key != "cache_dir"},
                "voxels_per_second": rates,
                "median_of_paired_ratios": paired_ratios(rates),
                "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
            }
            if arguments.json:
                arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


def _only_network(settings: Mapping[str, Any], network_def: Mapping[str, Any]) -> dict[str, Any]:
    """These settings with another network; what they say of the bundle's own network does not fit it."""
    kept = {key: value for key, value in settings.items() if not key.startswith("network_def::")}
    return {**kept, "network_def": dict(network_def)}


if __name__ == "__main__":
    main()
