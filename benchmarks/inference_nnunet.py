"""nnU-Net v2's predictor (Isensee et al. 2021) around a given network, for ``benchmarks/inference.py``.

Plans are written as its planner would for images of 1 mm that are not resampled: z-score within the brain, a window of
the size that all arms have, half of it overlapping. Mirroring is off, as in the other arms. nnU-Net crops to the brain
by itself, and pads the crop to the window.
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.inference_arms import Clock, build
from brats_pipeline.cases.case import Case
from transforms.labels import MODALITIES

for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
    os.environ.setdefault(variable, "/nonexistent")  # it warns where they are not set, and does not use them here

RESAMPLING = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
DATASET = {
    "channel_names": {str(number): name for number, name in enumerate(MODALITIES)},
    "labels": {"background": 0, "WT": [1, 2, 3], "TC": [1, 3], "ET": [3]},
    "regions_class_order": [2, 1, 3],
    "file_ending": ".nii.gz",
    "numTraining": 1,
}


def plans_for(window: Sequence[int]) -> dict[str, Any]:
    """What nnU-Net must know of images of 1 mm."""
    function = "resample_data_or_seg_to_shape"
    configuration = {
        "data_identifier": "none",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 1,
        "patch_size": list(window)[::-1],
        "spacing": [1.0] * 3,
        "normalization_schemes": ["ZScoreNormalization"] * 4,
        "use_mask_for_norm": [True] * 4,
        "resampling_fn_data": function,
        "resampling_fn_seg": function,
        "resampling_fn_probabilities": function,
        "resampling_fn_data_kwargs": RESAMPLING,
        "resampling_fn_seg_kwargs": RESAMPLING | {"is_seg": True},
        "resampling_fn_probabilities_kwargs": RESAMPLING,
        "architecture": {},
    }
    return {
        "dataset_name": "benchmark",
        "plans_name": "benchmark",
        "image_reader_writer": "NibabelIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "foreground_intensity_properties_per_channel": {str(number): {} for number in range(len(MODALITIES))},
        "label_manager": "LabelManager",
        "configurations": {"3d_fullres": configuration},
    }


class InTheirOrder(nn.Module):
    """Our network for nnU-Net, which turns images to (z, y, x) and paints regions in the order that they come in."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.network(image.permute(0, 1, 4, 3, 2))
        return logits.permute(0, 1, 4, 3, 2)[:, [1, 0, 2]]


class NnUNet:
    """``predict_from_files`` with two processes that load and two that write, nnU-Net's own habit being three."""

    def __init__(self, options: argparse.Namespace, clock: Clock) -> None:
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        inner = build(options.network, options.tiny)
        inner.load_state_dict(torch.load(options.weights, map_location="cpu", weights_only=True))
        network = InTheirOrder(inner)
        network.forward = clock.of("network", network.forward)  # type: ignore[method-assign]
        device = torch.device(options.device)
        self.predictor = nnUNetPredictor(
            tile_step_size=0.5,
            use_gaussian=True,
            use_mirroring=False,
            perform_everything_on_device=True,
            device=device,
            allow_tqdm=False,
        )
        plans = PlansManager(plans_for(options.window))
        configuration = plans.get_configuration("3d_fullres")
        self.predictor.manual_initialization(
            network, plans, configuration, [network.state_dict()], DATASET, "benchmark", None
        )
        network.to(device).eval()

    def run(self, cases: Sequence[Case], out: Path) -> None:
        out.mkdir(parents=True, exist_ok=True)
        images = [[str(case.images[name].paths[0]) for name in MODALITIES] for case in cases]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.predictor.predict_from_files(
                images,
                [str(out / case.case_id) for case in cases],
                save_probabilities=False,
                overwrite=True,
                num_processes_preprocessing=2,
                num_processes_segmentation_export=2,
            )
