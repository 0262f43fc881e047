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
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from brats_pipeline.data.cache import free_memory
from brats_pipeline.inference.inferers import SliceInferer, WindowInferer, run_network, stride_of

logger = logging.getLogger(__name__)

BESIDE_TENSORS = 1.35
"""What a forward pass takes over what its tensors do: at most this on CPU, for the networks of the family."""
CGROUP = Path("/sys/fs/cgroup")


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


def forward_bytes(network: Callable[..., Any], shape: tuple[int, ...], device: torch.device, precision: str) -> int:
    """Bytes that one forward pass over ``(N, C, *spatial)`` holds at most, beside weights and input."""
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True), LiveBytes() as live:
        image = torch.empty(shape, device=device)
        before = live.now
        run_network(image, network, precision)
    return int((live.peak - before) * BESIDE_TENSORS)


_MEASURED: weakref.WeakKeyDictionary[nn.Module, dict[Any, tuple[float, int]]] = weakref.WeakKeyDictionary()


def per_voxel(
    network: Callable[..., Any], channels: int, sides: tuple[int, ...], device: torch.device, precision: str
) -> tuple[float, int] | None:
    """Bytes per voxel of a forward pass, and the number of regions; None where the network cannot be followed."""
    network = getattr(network, "followed", network)
    if not isinstance(network, nn.Module):
        return None
    known = _MEASURED.setdefault(network, {})
    key = (channels, len(sides), device.type, precision)
    if key not in known:
        try:
            with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True):
                said = run_network(torch.empty(1, channels, *sides, device=device), network, precision)
            whole = forward_bytes(network, (1, channels, *sides), device, precision)
            known[key] = whole / math.prod(sides), int(said.shape[1])
        except Exception as error:  # a network may do anything; then there is no estimate, and it runs as it did
            logger.debug("the memory of %s cannot be told beforehand: %s", type(network).__name__, error)
            return None
    return known[key]


def bytes_needed(inferer: Inferer, inputs: Tensor, network: Callable[..., Any]) -> int | None:
    """What a case takes at most beside itself and the weights; None for an inferer or a network that is not known."""
    members = getattr(network, "members", None)
    if members is not None:
        network = members[0]
    images, size = 1, inputs.shape[2:]
    pooled = 0
    while not isinstance(inferer, WindowInferer | SliceInferer):
        if hasattr(inferer, "flips"):
            pooled = 3 + 3 * bool(getattr(inferer, "spread", False))  # sums, and a member's logits and probabilities
            images = (getattr(inferer, "batch", None) or 2 ** len(size)) if inferer.flips else 1
        if not hasattr(inferer, "inferer"):
            return None
        inferer = inferer.inferer
    elsewhere = inferer.keep_on is not None and torch.device(inferer.keep_on).type != inputs.device.type
    kept_bytes = 1 if inferer.reduce == "regions" and not pooled else 2 if inferer.keep == "float16" else 4
    channels, volume = inputs.shape[1], math.prod(size)
    if isinstance(inferer, SliceInferer):
        stride = stride_of(network)
        sides = tuple(-(-side // stride) * stride for side in size[:2])
        seen = (channels - inferer.flags) * (2 * inferer.neighbours + 1) + inferer.flags
        batch, sums, padded, slab = inferer.slice_batch_size, 0, 0, 0
    else:
        grid = inferer.grid_for(size, network)
        sides, seen, batch = grid.sides, channels, 1 if grid.single else inferer.sw_batch_size
        padded = math.prod(side + sum(more) for side, more in zip(size, grid.padding, strict=True))
        slab = 0 if grid.single else sides[0] * padded // (size[0] + sum(grid.padding[0]))
        sums = 2 if inferer.accumulate == "float16" else 4
        padded = padded if any(map(any, grid.padding)) else 0
    found = per_voxel(network, seen, sides, inputs.device, inferer.precision)
    if found is None:
        return None
    each, regions = found
    window = batch * math.prod(sides)
    running = window * (each + 4 * seen)
    blending = slab * (regions * (2 * sums + 4) + 8)  # sums, their move, what is finished; weights likewise
    keeping = images * volume * regions * kept_bytes + pooled * 4 * regions * volume * max(1, images)
    return int(
        running + 4 * channels * padded + (0 if elsewhere else blending + keeping) + (images - 1) * inputs.nbytes
    )


def used_bytes(device: torch.device) -> int:
    """What this process holds: resident memory, or what it has of a GPU."""
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device)
    with suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmRSS")).split()[1])
    return 0


def available_bytes(device: torch.device) -> int | None:
    """What this process can still take: of a GPU, or of the machine or its container; None where nobody tells."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return min((size for size in (free_memory(), container_memory()) if size is not None), default=None)


def container_memory() -> int | None:
    """What is left of a container's or a batch job's limit (cgroup v2); None where there is none."""
    with suppress(OSError, ValueError):
        limit = int((CGROUP / "memory.max").read_text(encoding="ascii"))
        return max(0, limit - int((CGROUP / "memory.current").read_text(encoding="ascii")))
    return None
