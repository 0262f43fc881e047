"""MONAI's SegResNet, which says what sizes it takes.

Myronenko, 3D MRI Brain Tumor Segmentation Using Autoencoder Regularization, BrainLes 2018, arXiv:1810.11654.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monai.networks.nets import SegResNet as MonaiSegResNet


class SegResNet(MonaiSegResNet):
    """The network of the model zoo's ``brats_mri_segmentation``, with the names of its weights.

    Args:
        blocks_down: residual blocks of each level of the encoder; behind every level but the last the image is halved.
        settings: all else, as MONAI's.

    Attributes:
        stride: the number that every side of an input must be a multiple of.
    """

    def __init__(self, *, blocks_down: Sequence[int] = (1, 2, 2, 4), **settings: Any) -> None:
        super().__init__(blocks_down=tuple(blocks_down), **settings)
        self.stride = 2 ** (len(blocks_down) - 1)
