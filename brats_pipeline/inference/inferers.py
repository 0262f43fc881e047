"""Running a network: in half precision where the machine is fast at it, over sliding windows, case by case.

MONAI's engines autocast on CUDA only, so precision belongs to these inferers and the engines keep ``amp: false``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.engines import SupervisedEvaluator
from monai.inferers import Inferer
from torch import Tensor
from torch.nn import functional as F

from brats_pipeline.errors import CaseError, root_cause
from brats_pipeline.inference.windows import NOTHING, WindowGrid, blend_windows, crop, lay_windows
from transforms.neighbours import neighbouring

logger = logging.getLogger(__name__)

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
            network's ``stride`` (1 where it has none), not to the window.
        sw_batch_size: windows per forward pass.
        overlap: share of a window that the next one covers again, from 0 up to but not 1.
        mode: weights within a window, ``gaussian`` (as nnU-Net; Isensee et al. 2021) or ``constant``.
        precision: see :func:`choose_precision`.
        skip_air: never run windows in which every channel is exactly 0.
        keep: number format of the logits: ``float32`` or ``float16``, in half the memory.
        keep_on: where the logits are put together; by default on the device of the input. ``cpu`` spares a GPU.
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
        keep: str = "float32",
        keep_on: str | torch.device | None = None,
    ) -> None:
        if sw_batch_size < 1:
            raise ValueError(f"sw_batch_size is {sw_batch_size}; it must be at least 1")
        if keep not in ("float32", "float16"):
            raise ValueError(f"keep is {keep!r}; known: float32, float16")
        self.roi_size = tuple(int(side) for side in roi_size)
        self.sw_batch_size = sw_batch_size
        self.overlap = overlap
        self.mode = mode
        self.precision = precision
        self.skip_air = skip_air
        self.keep = PRECISIONS[keep]
        self.keep_on = keep_on

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """Logits ``(N, R, *spatial)`` of ``inputs`` ``(N, C, *spatial)``, with the metadata of the input."""
        images = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        stride = stride_of(network)
        grid = lay_windows(images.shape[2:], self.roi_size, overlap=self.overlap, stride=stride)

        def run(windows: Tensor) -> Tensor:
            logits: Tensor = run_network(windows, network, self.precision, *args, **kwargs)
            return logits

        logits = torch.cat(
            [self._whole(grid.pad(image), grid, image.shape[2:], run) for image in torch.split(images, 1)]
        )
        return MetaTensor(logits, meta=inputs.meta) if isinstance(inputs, MetaTensor) else logits

    def _whole(self, padded: Tensor, grid: WindowGrid, size: Sequence[int], run: Callable[[Tensor], Tensor]) -> Tensor:
        """One image's logits ``(1, R, *size)``."""
        offsets = [before for before, _ in grid.padding]
        inside = tuple(slice(offset, offset + length) for offset, length in zip(offsets, size, strict=True))
        place = padded.device if self.keep_on is None else torch.device(self.keep_on)
        if grid.single:
            return crop(run(padded), inside).to(place, self.keep)
        slabs = blend_windows(
            padded,
            run,
            grid,
            mode=self.mode,
            batch=self.sw_batch_size,
            skip_air=self.skip_air and bool(padded.any()),
        )
        whole: Tensor | None = None
        for rows, logits in slabs:
            if logits is None:
                continue
            if whole is None:
                whole = torch.full((len(logits), *padded.shape[2:]), NOTHING, dtype=self.keep, device=place)
            whole[:, rows] = logits.to(place, self.keep)
        assert whole is not None  # an image that is all air is run too
        return crop(whole, inside)[None]


class SliceInferer(Inferer):
    """A 2D network over the axial slices of volumes, many slices in one pass.

    Args:
        slice_batch_size: slices per forward pass.
        precision: see :func:`choose_precision`.
        neighbours: slices on each side that the network sees too, as further channels in the order of
            :mod:`transforms.neighbours`.
        flags: last channels of the volume that are the same in every slice, as those of
            :func:`transforms.presence.flag_presence`; they come once, behind the channels of all slices.
    """

    def __init__(
        self, *, slice_batch_size: int = 16, precision: str = "auto", neighbours: int = 0, flags: int = 0
    ) -> None:
        if slice_batch_size < 1:
            raise ValueError(f"slice_batch_size is {slice_batch_size}; it must be at least 1")
        if neighbours < 0 or flags < 0:
            raise ValueError(f"neighbours is {neighbours} and flags {flags}; neither can be below 0")
        self.slice_batch_size = slice_batch_size
        self.precision = precision
        self.neighbours = neighbours
        self.flags = flags

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """Logits ``(N, R, x, y, z)`` of ``inputs`` ``(N, C, x, y, z)``, float32, with the metadata of the input.

        Slices are padded with zeros to multiples of the network's ``stride`` (1 where it has none).
        """
        stride = stride_of(network)
        volume = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        width, height, depth = volume.shape[2:]
        padding = (0, -height % stride, 0, -width % stride)
        numbers = torch.arange(len(volume) * depth, device=volume.device)
        logits = torch.cat(
            [
                run_network(F.pad(self._gather(volume, batch), padding), network, self.precision, *args, **kwargs)[
                    ..., :width, :height
                ]
                for batch in torch.split(numbers, self.slice_batch_size)
            ]
        )
        stacked = logits.reshape(-1, depth, *logits.shape[1:]).permute(0, 2, 3, 4, 1)
        return MetaTensor(stacked, meta=inputs.meta) if isinstance(inputs, MetaTensor) else stacked

    def _gather(self, volume: Tensor, numbers: Tensor) -> Tensor:
        """Slices by their number within the batch of volumes, with their neighbours: ``(B, channels, x, y)``."""
        depth, modalities = volume.shape[4], volume.shape[1] - self.flags
        which, place = numbers // depth, numbers % depth
        by_slice = volume.permute(0, 4, 1, 2, 3)  # (N, z, C, x, y), no copy
        slabs = by_slice[:, :, :modalities][which[:, None], neighbouring(place, self.neighbours, depth)]
        return torch.cat([slabs.flatten(1, 2), by_slice[:, :, modalities:][which, place]], dim=1)


class CohortEvaluator(SupervisedEvaluator):
    """A ``SupervisedEvaluator`` that one bad case does not stop.

    A case that cannot be loaded arrives from :class:`brats_pipeline.data.datasets.CohortDataset` as
    ``{"case_id", "failure"}``; one that cannot be written raises a :class:`brats_pipeline.errors.CaseError`. Both are
    noted in ``failures`` and passed over. Any other error, such as a full disk, would meet the next case too, and ends
    the run. With any other data set this is MONAI's evaluator.

    Attributes:
        failures: case to the reason why it was passed over.
        case_ids: the cases of the batch at hand, or of the last one.

    Raises:
        ValueError: the loader puts several cases into a batch; cases differ in size, and one of them could fail.
    """

    def __init__(self, **arguments: Any) -> None:
        batch_size = getattr(arguments.get("val_data_loader"), "batch_size", 1)
        if batch_size != 1:
            raise ValueError(f"batch_size is {batch_size}; whole cases run one by one, set dataloader::batch_size to 1")
        super().__init__(**arguments)
        self.failures: dict[str, str] = {}
        self.case_ids: list[str] = []

    def _iteration(self, engine: SupervisedEvaluator, batchdata: dict[str, Any]) -> dict[str, Any]:
        self.case_ids = [str(case_id) for case_id in batchdata.get("case_id", ())]
        if "failure" in batchdata:
            for case_id, reason in zip(self.case_ids, batchdata["failure"], strict=True):
                self._pass_over(case_id, reason)
            return {}
        try:
            output: dict[str, Any] = super()._iteration(engine, batchdata)
        except Exception as error:
            cause = root_cause(error)
            if not isinstance(cause, CaseError):
                raise
            self._pass_over(cause.case_id, cause.reason)
            return {}
        return output

    def _pass_over(self, case_id: str, reason: str) -> None:
        logger.warning("%s: %s", case_id, reason)
        self.failures[case_id] = reason
        self.state.output = {}
