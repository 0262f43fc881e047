"""Memory: how much a case will take, known before it runs, and what is given up where that is too much.

One rung of the ladder after the other, from what costs nothing but a little time to what changes the answer:

    1. fewer windows, slices or mirror images per forward pass
    2. logits put together in main memory instead of the GPU's
    3. overlapping windows summed, and logits kept, in half precision
    4. a smaller window, only where that is allowed: norms and pooling over the whole window then see less
"""

from __future__ import annotations

import copy
import gc
import logging
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor

from brats_pipeline.data.cache import in_gib
from brats_pipeline.errors import PipelineError
from brats_pipeline.freed_memory import keep_freed_memory
from brats_pipeline.inference.estimating import available_bytes, bytes_needed, peak_bytes, used_bytes
from brats_pipeline.inference.inferers import stride_of

logger = logging.getLogger(__name__)

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
SMALLEST_WINDOW = 32
"""Sides below are not tried, in voxels: little of a brain can be seen from there."""
ROOM = 2
"""So many times what a case needs must be free for freed memory to be kept: its holes do not fit every next tensor."""
EXHAUSTED = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "failed to allocate memory",
    "bad_alloc",
    "bad allocation",
    "alloc_failed",
)
"""What errors say that mean a lack of memory: torch on CPU and CUDA, cuDNN and cuBLAS, onnxruntime, OpenVINO."""


def parse_bytes(size: str | int | float | None) -> int | None:
    """``8GiB``, ``800 MB`` or a number of bytes to bytes; None stays None.

    Raises:
        ValueError: it is no positive size.
    """
    if size is None:
        return None
    found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([KMGT]I?)?B?\s*", str(size).upper())
    if found is None or float(found[1]) <= 0:
        raise ValueError(f"max_memory is {size!r}; give a size such as 8GiB, 800MB or a number of bytes")
    return int(float(found[1]) * UNITS[found[2] or ""])


def ran_out(error: BaseException) -> bool:
    """Whether an error, or one that it was made from, means that memory ran out."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, MemoryError | torch.OutOfMemoryError):
            return True
        if isinstance(link, RuntimeError) and any(words in str(link).lower() for words in EXHAUSTED):
            return True
        link = link.__cause__
    return False


def changed(inferer: Inferer, **attributes: Any) -> Inferer:
    """A copy of an inferer with other attributes, which may belong to one that it wraps."""
    other = copy.copy(inferer)
    for name, value in attributes.items():
        if hasattr(other, name):
            setattr(other, name, value)
        elif hasattr(other, "inferer"):
            other.inferer = changed(other.inferer, **{name: value})
    return other


def setting(inferer: Any, name: str, default: Any = None) -> Any:
    """An attribute of an inferer or of one that it wraps."""
    while not hasattr(inferer, name) and hasattr(inferer, "inferer"):
        inferer = inferer.inferer
    return getattr(inferer, name, default)


def fewer_at_a_time(inferer: Inferer, on_gpu: bool) -> tuple[Inferer, str] | None:
    """Half as many mirror images, windows or slices per pass."""
    if setting(inferer, "flips") and setting(inferer, "batch") != 1 and (on_gpu or setting(inferer, "batch")):
        return changed(inferer, batch=1), "one mirror image at a time"
    for name, what in (("sw_batch_size", "windows"), ("slice_batch_size", "slices")):
        if (count := setting(inferer, name, 1)) > 1:
            return changed(inferer, **{name: count // 2}), f"{what} per pass: {count // 2} instead of {count}"
    return None


def off_the_gpu(inferer: Inferer, on_gpu: bool) -> tuple[Inferer, str] | None:
    """Logits in main memory."""
    if not on_gpu or setting(inferer, "keep_on") is not None:
        return None
    return changed(inferer, keep_on="cpu"), "logits put together in main memory"


def half_as_wide(inferer: Inferer, on_gpu: bool) -> tuple[Inferer, str] | None:
    """Sums and logits in float16."""
    wide = {name: "float16" for name in ("accumulate", "keep") if setting(inferer, name) == "float32"}
    return (changed(inferer, **wide), "logits put together in float16") if wide else None


def smaller_window(inferer: Inferer, stride: int) -> tuple[Inferer, str] | None:
    """The longest side of the window halved, to a multiple of the stride."""
    sides = list(setting(inferer, "roi_size") or ())
    longest = max(sides, default=0)
    half = longest // 2 // stride * stride
    if half < max(SMALLEST_WINDOW, stride):
        return None
    smaller = tuple(half if side == longest else side for side in sides)
    before, after = (" x ".join(map(str, window)) for window in (sides, smaller))
    return changed(inferer, roi_size=smaller), f"windows of {after} instead of {before}, which changes the answer"


class LadderInferer(Inferer):
    """Another inferer, in as much memory as there is.

    Before the first case of a size, its need is estimated; where that is more than there is, and where memory runs out
    all the same, the inferer goes down one rung after the other and stays there. Each step is told in a line, and so is
    a cap that was passed where no rung helps: while a scan was read, or its label map made. On a CPU with memory to
    spare, and no cap, what a layer frees stays with the process for the next one.

    Args:
        inferer: the one to run; it stays as it is.
        max_memory: the process may take no more, such as ``8GiB``; on a GPU, no more of the GPU's. By default what is
            free.
        allow_smaller_window: whether the last rung may be used.
        reduce: ``regions`` or ``logits``, see :class:`brats_pipeline.inference.inferers.WindowInferer`.
        threshold: of the probability, for regions.

    Raises:
        ValueError: ``max_memory`` is no size.
    """

    def __init__(
        self,
        inferer: Inferer,
        *,
        max_memory: str | int | float | None = None,
        allow_smaller_window: bool = False,
        reduce: str = "logits",
        threshold: float | Sequence[float] = 0.5,
    ) -> None:
        self.inferer = changed(inferer, reduce=reduce, threshold=threshold)
        self.max_memory = parse_bytes(max_memory)
        self.allow_smaller_window = allow_smaller_window
        self._fits: dict[tuple[int, ...], bool] = {}
        self._passed = False

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What the inferer gives.

        Raises:
            PipelineError: even the last rung needs more than there is.
        """
        on_gpu = inputs.device.type == "cuda"
        self._compare(inputs)
        self._fit(inputs, network, on_gpu)
        if not on_gpu:
            keep_freed_memory(self._fits.get(tuple(inputs.shape), False))
        while True:
            try:
                return self.inferer(inputs, network, *args, **kwargs)
            except (RuntimeError, MemoryError) as error:
                if not ran_out(error):
                    raise
            # Out here the error is gone, and with its traceback the tensors that it held.
            gc.collect()
            if on_gpu:
                torch.cuda.empty_cache()
            if not self._descend(network, on_gpu, "memory ran out"):
                raise PipelineError(f"memory ran out with the smallest steps; {self._advice(inputs)}")

    def _compare(self, inputs: Tensor) -> None:
        """Say once that more was taken than the cap."""
        if self.max_memory is None or self._passed or (most := peak_bytes(inputs.device)) <= self.max_memory:
            return
        self._passed = True
        logger.warning(
            "%s were taken at most so far, more than max_memory %s: what reads scans and writes label maps cannot do "
            "with less",
            in_gib(most),
            in_gib(self.max_memory),
        )

    def _fit(self, inputs: Tensor, network: Callable[..., Any], on_gpu: bool) -> None:
        """Go down until the estimate fits, and note whether there is room to keep what is freed."""
        size = tuple(inputs.shape)
        while size not in self._fits:
            needed = bytes_needed(self.inferer, inputs, network)
            if needed is None:
                return
            free = available_bytes(inputs.device)
            if self.max_memory is not None:
                left = self.max_memory - used_bytes(inputs.device)
                free = left if free is None else min(free, left)
            if free is None or needed <= free:
                self._fits[size] = self.max_memory is None and free is not None and ROOM * needed <= free
                return
            shape = " x ".join(map(str, size[2:]))
            why = f"{shape} voxels need {in_gib(needed)} more, {in_gib(max(free, 0))} are left"
            if not self._descend(network, on_gpu, why):
                if self.max_memory is None:
                    self._fits[size] = False  # an estimate of what is free is no reason not to try
                    return
                raise PipelineError(f"{why} of max_memory {in_gib(self.max_memory)}; {self._advice(inputs)}")

    def _descend(self, network: Callable[..., Any], on_gpu: bool, why: str) -> bool:
        """Take the next rung, if there is one."""
        step = (
            fewer_at_a_time(self.inferer, on_gpu)
            or off_the_gpu(self.inferer, on_gpu)
            or half_as_wide(self.inferer, on_gpu)
        )
        if step is None and self.allow_smaller_window:
            stride = setting(self.inferer, "stride") or stride_of(network)
            step = smaller_window(self.inferer, stride)
        if step is None:
            return False
        self.inferer, what = step
        self._fits.clear()
        logger.warning("%s: %s", why, what)
        return True

    def _advice(self, inputs: Tensor) -> str:
        where = "a GPU with more memory, or the CPU (--device cpu)" if inputs.device.type == "cuda" else "more memory"
        smaller = "" if self.allow_smaller_window else ", or allow_smaller_window: true, which changes the answer a bit"
        return f"use {where}{smaller}"
