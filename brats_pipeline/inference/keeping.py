"""What is kept of logits: all of them, or for each region on which side of its threshold they lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from monai.data import MetaTensor, decollate_batch
from torch import Tensor

from brats_pipeline.inference.windows import NOTHING
from transforms.restore import interpolated, logit_of, thresholds_for

FORMATS = {"float32": torch.float32, "float16": torch.float16}


@dataclass(frozen=True)
class Keeping:
    """A choice between logits and regions, made part by part as the logits of a volume come.

    Args:
        reduce: ``logits``, or ``regions``: bytes, 1 where a probability reaches its threshold.
        keep: number format of logits, ``float32`` or ``float16``.
        threshold: of the probability, one for all regions or one for each.

    Raises:
        ValueError: an unknown name.
    """

    reduce: str = "logits"
    keep: str = "float32"
    threshold: float | Sequence[float] = 0.5

    def __post_init__(self) -> None:
        if self.reduce not in ("logits", "regions"):
            raise ValueError(f"reduce is {self.reduce!r}; known: logits, regions")
        check_format("keep", self.keep)

    def for_image(self, image: Tensor) -> Keeping:
        """Logits where the way to this image made values between voxels: their probabilities must travel back."""
        if self.reduce == "logits" or only_moved(image):
            return self
        return Keeping("logits", self.keep)

    @property
    def dtype(self) -> torch.dtype:
        """Number format of what is kept."""
        return FORMATS[self.keep] if self.reduce == "logits" else torch.uint8

    @property
    def nothing(self) -> float:
        """What stands where no window was run."""
        return NOTHING if self.reduce == "logits" else 0

    def of(self, logits: Tensor, *, regions_axis: int) -> Tensor:
        """What is kept of float32 logits, in their shape.

        Raises:
            ValueError: another number of thresholds than of regions.
        """
        if self.reduce == "logits":
            return logits.to(self.dtype)
        limits = thresholds_for(self.threshold, logits.shape[regions_axis])
        kept = torch.empty(logits.shape, dtype=torch.uint8, device=logits.device)
        for number, limit in enumerate(limits):
            kept.select(regions_axis, number).copy_(logits.select(regions_axis, number) >= logit_of(limit))
        return kept


def check_format(name: str, value: str) -> None:
    """Refuse a number format that logits are not put together in.

    Raises:
        ValueError: it is neither ``float32`` nor ``float16``.
    """
    if value not in FORMATS:
        raise ValueError(f"{name} is {value!r}; known: {', '.join(FORMATS)}")


def only_moved(images: Tensor) -> bool:
    """Whether the preprocessing of a batch ``(N, C, *spatial)`` only moved voxels; true without metadata."""
    if not isinstance(images, MetaTensor):
        return True
    return not any(map(interpolated, decollate_batch(images) if images.is_batch else [images]))
