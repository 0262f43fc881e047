"""Two runs of one configuration give the same bits, on a GPU too; and what that costs."""

from __future__ import annotations

import os

import torch


def set_deterministic(wanted: bool) -> None:
    """Allow deterministic algorithms only, or any; made to be named in a bundle's YAML.

    An operation without a deterministic form raises then, instead of giving other bits each time. Every network and
    loss of this package has deterministic forms throughout. cuBLAS reads its workspace from the environment when it is
    first used, so call this before.
    """
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(wanted)
