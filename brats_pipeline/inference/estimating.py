"""How much memory a case will take and how much there is, in bytes.

A network is run once over tensors that have shapes but no data (torch's ``FakeTensorMode``), and what would be alive
at the same time is added up. That is linear in the voxels of a window, so once per network is enough. What libraries
take beside tensors, such as copies of a convolution's input in another layout, is a share on top.
"""

from __future__ import annotations

import logging
import math
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from monai.inferers import Inferer
from monai.networks import eval_mode
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from brats_pipeline.freed_memory import kept_bytes
from brats_pipeline.inference.inferers import SliceInferer, WindowInferer, run_network, stride_of
from brats_pipeline.inference.keeping import only_moved
from transforms.room import free_bytes

logger = logging.getLogger(__name__)

BESIDE_TENSORS = 1.8
"""What a forward pass takes over what its tensors do: on a CPU 0.6 to 1.3 times as much in float32 and up to 1.8 times
in bfloat16, measured for the networks of the family and SegResNet in windows of 96 and slices of 256 voxels a side."""


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch 2.13 has no types here
    """Counts the bytes of all tensors that were made inside and are still alive; ``peak`` is the most at a time."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {id(leaf.untyped_storage()) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and id(leaf.untyped_storage()) not in given:
                self._count(leaf.untyped_storage())
        return result

    def _count(self, storage: Any) -> None:
        key, size = id(storage), int(storage.nbytes())
        if key in self._known:
            return

        def gone(_: Any) -> None:
            if self._known.pop(key, None) is not None:
                self.now -= size

        self._known[key] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)


def follow(network: nn.Module, shape: tuple[int, ...], device: torch.device, precision: str) -> tuple[int, int]:
    """Bytes that a pass over ``(N, C, *spatial)`` holds at most beside weights and input, and the regions it gives."""
    with eval_mode(network), FakeTensorMode(allow_non_fake_inputs=True), LiveBytes() as live:
        image = torch.empty(shape, device=device)
        before = live.now
        logits = run_network(image, network, precision)
    return int((live.peak - before) * BESIDE_TENSORS), int(logits.shape[1])


_MEASURED: weakref.WeakKeyDictionary[nn.Module, dict[Any, tuple[float, int]]] = weakref.WeakKeyDictionary()


def per_voxel(
    network: Callable[..., Any], shape: tuple[int, ...], device: torch.device, precision: str
) -> tuple[float, int] | None:
    """Bytes per voxel of a pass over ``shape``, and the number of regions; None where a network cannot be followed.

    It is followed once for each number of images and channels: the bytes grow with the voxels.
    """
    network = getattr(network, "followed", network)
    if not isinstance(network, nn.Module):
        return None
    known = _MEASURED.setdefault(network, {})
    key = (*shape[:2], len(shape), device.type, precision)
    if key not in known:
        try:
            whole, regions = follow(network, shape, device, precision)
            known[key] = whole / (shape[0] * math.prod(shape[2:])), regions
        except Exception as error:  # a network may do anything; then there is no estimate, and it runs as it did
            logger.debug("the memory of %s cannot be told beforehand: %s", type(network).__name__, error)
            return None
    return known[key]


def bytes_needed(inferer: Inferer, inputs: Tensor, network: Callable[..., Any]) -> int | None:
    """What a case takes at most beside itself and the weights; None for an inferer or a network that is not known."""
    members = getattr(network, "members", None) or [network]
    copies, at_once = 0, 1  # of float32 logits where members are averaged, and images that one call is about
    while not isinstance(inferer, WindowInferer | SliceInferer):
        if not hasattr(inferer, "inferer"):
            return None
        mirrored = bool(getattr(inferer, "flips", None))
        if mirrored:
            every = len(inferer.mirrored(inputs)) if inputs.device.type == "cuda" else 1  # type: ignore[attr-defined]
            at_once = getattr(inferer, "batch", None) or every
        spread = bool(getattr(inferer, "spread", False))
        if len(members) > 1 or spread or mirrored:
            copies = 3 + 3 * spread  # sums, and a member's logits and probabilities
        inferer = inferer.inferer
    if isinstance(inferer, SliceInferer):
        shape, blended, sums = _slices(inferer, inputs, members[0]), 0, 0
    else:
        shape, blended, sums = _windows(inferer, inputs, members[0], at_once * len(inputs))
    found = per_voxel(members[0], shape, inputs.device, inferer.precision)
    if found is None:
        return None
    each, regions = found
    voxels = inputs[:1, 0].numel()
    reduced = inferer.reduce == "regions" and not copies and only_moved(inputs)
    kept = 1 if reduced else 2 if inferer.keep == "float16" else 4
    put_together = blended * (regions * (2 * sums + 4) + 8)  # sums, their move, what is finished; and the weights
    put_together += at_once * voxels * regions * (kept + 4 * copies)
    on_cpu_instead = inferer.keep_on is not None and torch.device(inferer.keep_on).type != inputs.device.type
    running = math.prod(shape[2:]) * shape[0] * (each + 4 * shape[1])
    return int(running + (0 if on_cpu_instead else put_together) + (at_once - 1) * inputs.nbytes)


def _slices(inferer: SliceInferer, inputs: Tensor, network: Callable[..., Any]) -> tuple[int, ...]:
    """Shape of what one pass over slices is given."""
    stride = stride_of(network)
    seen = (inputs.shape[1] - inferer.flags) * (2 * inferer.neighbours + 1) + inferer.flags
    return (inferer.slice_batch_size, seen, *(-(-side // stride) * stride for side in inputs.shape[2:4]))


def _windows(
    inferer: WindowInferer, inputs: Tensor, network: Callable[..., Any], images: int
) -> tuple[tuple[int, ...], int, int]:
    """Shape of what one pass over windows is given; voxels of the slab in which they are blended, bytes of its sums."""
    grid = inferer.grid_for(inputs.shape[2:], network)
    if grid.single:
        return (min(inferer.sw_batch_size, images), inputs.shape[1], *grid.sides), 0, 0
    padded = [side + sum(more) for side, more in zip(inputs.shape[2:], grid.padding, strict=True)]
    slab = grid.sides[0] * math.prod(padded[1:])
    return (inferer.sw_batch_size, inputs.shape[1], *grid.sides), slab, 2 if inferer.accumulate == "float16" else 4


def used_bytes(device: torch.device) -> int:
    """What this process holds: resident memory, or what it has of a GPU."""
    return torch.cuda.memory_reserved(device) if device.type == "cuda" else _resident("VmRSS")


def peak_bytes(device: torch.device) -> int:
    """The most that this process has held so far."""
    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else _resident("VmHWM")


def _resident(name: str) -> int:
    """A figure that Linux tells of this process, in bytes; 0 elsewhere."""
    with suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])
    return 0


def available_bytes(device: torch.device) -> int | None:
    """What this process can still take: of a GPU, or of the machine or its container; None where nobody tells."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    told = free_bytes()
    return None if told is None else told + kept_bytes()
