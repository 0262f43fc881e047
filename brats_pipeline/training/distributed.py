"""Training by several processes: one network, each process a share of every batch.

``torchrun --nproc_per_node=N -m monai.bundle run`` with ``multi_gpu_train.yaml`` over ``train.yaml`` starts them; rank
0 alone writes. Without torchrun everything here is that of a single process.
"""

from __future__ import annotations

import os
from collections.abc import Sized
from typing import Any

import torch
from monai.data import DistributedSampler
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from brats_pipeline.errors import PipelineError


def several() -> bool:
    """Whether several processes train together, in this one's view."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """Number of this process; 0 writes."""
    return dist.get_rank() if several() else 0


def sum_over_processes(values: Tensor) -> Tensor:
    """The sum of a tensor over all processes; the same in each."""
    if not several():
        return values
    device = this_device() if dist.get_backend() == "nccl" else torch.device("cpu")
    total = values.detach().to(device, copy=True)
    dist.all_reduce(total)
    return total.to(values.device)


def this_device() -> torch.device:
    """The GPU of this process on its machine, or the CPU where there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    number = int(os.environ.get("LOCAL_RANK", "0"))
    if number >= torch.cuda.device_count():
        raise PipelineError(
            f"process {number} of this machine needs a GPU of its own, and there are {torch.cuda.device_count()}; "
            "start torchrun with --nproc_per_node of at most that"
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def start() -> None:
    """Join the other processes: by NCCL between GPUs, by gloo between CPUs.

    Raises:
        PipelineError: this process was not started by torchrun.
    """
    if dist.is_initialized():
        return
    if "WORLD_SIZE" not in os.environ:
        raise PipelineError(
            "multi_gpu_train.yaml needs several processes; start them by `torchrun --nproc_per_node=N -m monai.bundle "
            "run ...`, or leave the file out"
        )
    device = this_device()
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, device_id=device if device.type == "cuda" else None)


def collect(told: dict[str, Any]) -> None:
    """Add to a table what the tables of all other processes hold; each goes on when all have come this far."""
    if several():
        tables: list[dict[str, Any]] = [{}] * dist.get_world_size()
        dist.all_gather_object(tables, told)
        for table in tables:
            told.update(table)


def finish() -> None:
    """Leave the other processes."""
    if dist.is_initialized():
        dist.destroy_process_group()


def with_common_batches(network: nn.Module, device: torch.device) -> nn.Module:
    """The network, with batch norms that see the batches of all processes where they can: on GPUs.

    Then W processes with b patches each see what one process with W * b patches sees. On CPUs torch has no such norm:
    there each process normalises its own share, and the running statistics are those of rank 0.
    """
    if device.type != "cuda":
        return network
    converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    return converted


def share(network: nn.Module, device: torch.device) -> nn.Module:
    """The network whose gradients are the mean over all processes."""
    return DistributedDataParallel(network.to(device), device_ids=[device] if device.type == "cuda" else None)


def shared_sampler(dataset: Sized, *, whole: bool = False) -> Any:
    """Which items this process takes: every W-th, so that step j of all is one batch of W * b items in a row.

    Args:
        dataset: of the training or validation.
        whole: each item exactly once (validation); else some come twice where the number is not divisible by W. A data
            set smaller than W goes to each process entire, which leaves its mean as it is: None.
    """
    if whole and len(dataset) < dist.get_world_size():
        return None
    return DistributedSampler(dataset, even_divisible=not whole, shuffle=False)  # type: ignore[arg-type]
