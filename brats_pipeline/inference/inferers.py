"""Running a network: in half precision where the machine is fast at it, over sliding windows or slices.

MONAI's engines autocast on CUDA only, so precision belongs to these inferers and the engines keep ``amp: false``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from torch import Tensor
from torch.nn import functional as F

from brats_pipeline.inference.keeping import FORMATS, Keeping, check_format
from brats_pipeline.inference.windows import WindowGrid, blend_windows, crop, lay_windows
from transforms.neighbours import neighbouring

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_precision(precision: str, device: torch.device, *, gradients: bool = False) -> torch.dtype:
    """The number format of the convolutions.

    Args:
        precision: ``float32``, ``bfloat16``, ``float16``, or ``auto``: bfloat16 where the device computes in it (CUDA
            since Ampere, x86 with AVX512-BF16), float16 on older GPUs, else float32.
        device: where the network runs.
        gradients: whether gradients will flow; float16 is out of the question then, since small ones become 0.

    Raises:
        ValueError: unknown name, or float16 where gradients flow.
    """
    if precision not in ("auto", *PRECISIONS):
        raise ValueError(f"precision is {precision!r}; known: auto, {', '.join(PRECISIONS)}")
    if precision == "float16" and gradients:
        raise ValueError("precision float16 loses small gradients; train in bfloat16, float32 or auto")
    if precision != "auto":
        return PRECISIONS[precision]
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16
        return torch.float32 if gradients else torch.float16
    fast = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast else torch.float32


def run_network(image: Tensor, network: Callable[..., Any], precision: str, *args: Any, **kwargs: Any) -> Any:
    """One forward pass under autocast: ``(N, C, *spatial)`` to float32 logits, one tensor or a list of them."""
    plain = image.as_tensor() if hasattr(image, "as_tensor") else image  # metadata would slow every layer
    dtype = choose_precision(precision, plain.device, gradients=torch.is_grad_enabled())
    with torch.autocast(plain.device.type, dtype=dtype, enabled=dtype != torch.float32):
        logits = network(plain, *args, **kwargs)
    return [level.float() for level in logits] if isinstance(logits, list) else logits.float()


def stride_of(network: Callable[..., Any]) -> int:
    """The number that every side of an input must be a multiple of; 1 where the network does not say."""
    stride = getattr(getattr(network, "module", network), "stride", 1)
    return stride if isinstance(stride, int) else 1  # torch's own layers call something else a stride


class AutocastInferer(Inferer):
    """The whole input in one pass; for training and for images that fit.

    Args:
        precision: see :func:`choose_precision`.
    """

    def __init__(self, precision: str = "auto") -> None:
        self.precision = precision

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Logits, or the list of them that :class:`networks.DeepSupervision` gives."""
        return run_network(inputs, network, self.precision, *args, **kwargs)


class WindowInferer(Inferer):
    """Sliding window under autocast; one pass where the image fits into a window.

    With ``mode`` and ``overlap`` as MONAI's ``SlidingWindowInferer`` the logits are the same (see
    :mod:`brats_pipeline.inference.windows` for what is done otherwise).

    Args:
        roi_size: sides of the window in voxels. An image that is smaller is padded with zeros to a multiple of the
            network's ``stride``, not to the window.
        sw_batch_size: windows per forward pass.
        overlap: share of a window that the next one covers again, from 0 up to but not 1.
        mode: weights within a window, ``gaussian`` (as nnU-Net; Isensee et al. 2021) or ``constant``.
        precision: see :func:`choose_precision`.
        skip_air: never run windows in which every channel is exactly 0.
        flags: last channels of the image that are the same everywhere, as those of
            :func:`transforms.presence.flag_presence`; what is air is seen from the others.
        accumulate: number format in which overlapping windows are summed, ``float32`` or ``float16``.
        keep: number format of the logits, ``float32`` or ``float16``.
        keep_on: where the logits are put together; by default on the device of the input. ``cpu`` spares a GPU.
        reduce: ``logits``; or ``regions``, so that only a slab of logits is ever held: bytes, 1 where the probability
            reaches ``threshold``. Where the preprocessing interpolated, logits come all the same, since their
            probabilities must travel back before the threshold.
        threshold: of the probability, one for all regions or one for each.
        stride: every side of an input must be a multiple of it; by default what the network says, 1 where it does not.
    """

    def __init__(
        self,
        roi_size: Sequence[int],
        *,
        sw_batch_size: int = 1,
        overlap: float = 0.5,
        mode: str = "gaussian",
        precision: str = "auto",
        skip_air: bool = True,
        flags: int = 0,
        accumulate: str = "float32",
        keep: str = "float32",
        keep_on: str | torch.device | None = None,
        reduce: str = "logits",
        threshold: float | Sequence[float] = 0.5,
        stride: int | None = None,
    ) -> None:
        if sw_batch_size < 1:
            raise ValueError(f"sw_batch_size is {sw_batch_size}; it must be at least 1")
        if isinstance(roi_size, int) or any(side < 1 for side in roi_size):
            raise ValueError(f"roi_size is {roi_size}; give one side of at least 1 voxel for each axis")
        if flags < 0:
            raise ValueError(f"flags is {flags}; it cannot be below 0")
        check_format("accumulate", accumulate)
        Keeping(reduce, keep, threshold)  # refuses
        self.roi_size = tuple(int(side) for side in roi_size)
        self.sw_batch_size = sw_batch_size
        self.overlap = overlap
        self.mode = mode
        self.precision = precision
        self.skip_air = skip_air
        self.flags = flags
        self.accumulate = accumulate
        self.keep = keep
        self.keep_on = keep_on
        self.reduce = reduce
        self.threshold = threshold
        self.stride = stride

    def grid_for(self, size: Sequence[int], network: Callable[..., Any]) -> WindowGrid:
        """The windows over an image of this size."""
        stride = stride_of(network) if self.stride is None else self.stride
        return lay_windows(size, self.roi_size, overlap=self.overlap, stride=stride)

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """Logits or regions ``(N, R, *spatial)`` of ``inputs`` ``(N, C, *spatial)``, with the metadata of the input."""
        keeping = Keeping(self.reduce, self.keep, self.threshold).for_image(inputs)
        images = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        grid = self.grid_for(images.shape[2:], network)

        def run(windows: Tensor) -> Tensor:
            logits: Tensor = run_network(windows, network, self.precision, *args, **kwargs)
            return logits

        together = self.sw_batch_size if grid.single else 1
        parts = [
            self._whole(keep_flags(grid.pad(some), some, self.flags), grid, some.shape[2:], run, keeping)
            for some in torch.split(images, together)
        ]
        whole = parts[0] if len(parts) == 1 else torch.cat(parts)
        return MetaTensor(whole, meta=inputs.meta) if isinstance(inputs, MetaTensor) else whole

    def _whole(
        self, padded: Tensor, grid: WindowGrid, size: Sequence[int], run: Callable[[Tensor], Tensor], keeping: Keeping
    ) -> Tensor:
        """What is kept of one image, or of several that fit into a window: ``(N, R, *size)``."""
        offsets = [before for before, _ in grid.padding]
        inside = tuple(slice(offset, offset + length) for offset, length in zip(offsets, size, strict=True))
        place = padded.device if self.keep_on is None else torch.device(self.keep_on)
        scans = padded[:, : padded.shape[1] - self.flags]
        if grid.single:
            return keeping.of(crop(run(padded), inside), regions_axis=1).to(place)
        slabs = blend_windows(
            padded,
            run,
            grid,
            mode=self.mode,
            batch=self.sw_batch_size,
            air_in=scans if self.skip_air and bool(scans.any()) else None,
            sums=FORMATS[self.accumulate],
            place=place,
        )
        whole: Tensor | None = None
        for rows, logits in slabs:
            if logits is None:
                continue
            if whole is None:
                shape = (len(logits), *padded.shape[2:])
                whole = torch.full(shape, keeping.nothing, dtype=keeping.dtype, device=place)
            whole[:, rows] = keeping.of(logits, regions_axis=0)
        assert whole is not None  # an image that is all air is run too
        return crop(whole, inside)[None]


def keep_flags(padded: Tensor, image: Tensor, flags: int) -> Tensor:
    """Carry the last channels of an image into the margin of zeros that it got: they are the same everywhere.

    A training pads its scans before it flags them, so no network ever saw flags that end with the scan.

    Args:
        padded: ``(N, C, *spatial)``, changed in place where it is larger than the image.
        image: ``(N, C, *spatial)``.
        flags: how many of the channels.
    """
    if flags and padded.shape != image.shape:
        corner = (slice(None), slice(-flags, None), *[slice(1)] * (image.dim() - 2))
        padded[:, -flags:] = image[corner]
    return padded


class SliceInferer(Inferer):
    """A 2D network over the axial slices of volumes, many slices in one pass.

    Args:
        slice_batch_size: slices per forward pass.
        precision: see :func:`choose_precision`.
        neighbours: slices on each side that the network sees too, as further channels in the order of
            :mod:`transforms.neighbours`.
        flags: last channels of the volume that are the same in every slice, as those of
            :func:`transforms.presence.flag_presence`; they come once, behind the channels of all slices.
        keep: number format of the logits, ``float32`` or ``float16``.
        keep_on: where they are put together; by default on the device of the input.
        reduce: ``logits`` or ``regions``, as :class:`WindowInferer`.
        threshold: of the probability, one for all regions or one for each.
    """

    def __init__(
        self,
        *,
        slice_batch_size: int = 16,
        precision: str = "auto",
        neighbours: int = 0,
        flags: int = 0,
        keep: str = "float32",
        keep_on: str | torch.device | None = None,
        reduce: str = "logits",
        threshold: float | Sequence[float] = 0.5,
    ) -> None:
        if slice_batch_size < 1:
            raise ValueError(f"slice_batch_size is {slice_batch_size}; it must be at least 1")
        if neighbours < 0 or flags < 0:
            raise ValueError(f"neighbours is {neighbours} and flags {flags}; neither can be below 0")
        Keeping(reduce, keep, threshold)  # refuses
        self.slice_batch_size = slice_batch_size
        self.precision = precision
        self.neighbours = neighbours
        self.flags = flags
        self.keep = keep
        self.keep_on = keep_on
        self.reduce = reduce
        self.threshold = threshold

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """Logits or regions ``(N, R, x, y, z)`` of ``inputs`` ``(N, C, x, y, z)``, with the metadata of the input.

        Slices are padded with zeros to multiples of the network's ``stride`` (1 where it has none).
        """
        stride = stride_of(network)
        keeping = Keeping(self.reduce, self.keep, self.threshold).for_image(inputs)
        volume = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        width, height, depth = volume.shape[2:]
        padding = (0, -height % stride, 0, -width % stride)
        place = volume.device if self.keep_on is None else torch.device(self.keep_on)
        whole: Tensor | None = None
        for batch in torch.split(torch.arange(len(volume) * depth, device=volume.device), self.slice_batch_size):
            slices = self._gather(volume, batch)
            padded = keep_flags(F.pad(slices, padding), slices, self.flags)
            logits = run_network(padded, network, self.precision, *args, **kwargs)[..., :width, :height]
            if whole is None:
                shape = (len(volume) * depth, *logits.shape[1:])
                whole = torch.empty(shape, dtype=keeping.dtype, device=place)
            first = int(batch[0])
            whole[first : first + len(batch)] = keeping.of(logits, regions_axis=1).to(place)
        assert whole is not None  # a volume has slices
        stacked = whole.reshape(-1, depth, *whole.shape[1:]).permute(0, 2, 3, 4, 1)
        return MetaTensor(stacked, meta=inputs.meta) if isinstance(inputs, MetaTensor) else stacked

    def _gather(self, volume: Tensor, numbers: Tensor) -> Tensor:
        """Slices by their number within the batch of volumes, with their neighbours: ``(B, channels, x, y)``."""
        depth, modalities = volume.shape[4], volume.shape[1] - self.flags
        which, place = numbers // depth, numbers % depth
        by_slice = volume.permute(0, 4, 1, 2, 3)  # (N, z, C, x, y), no copy
        slabs = by_slice[:, :, :modalities][which[:, None], neighbouring(place, self.neighbours, depth)]
        return torch.cat([slabs.flatten(1, 2), by_slice[:, :, modalities:][which, place]], dim=1)
