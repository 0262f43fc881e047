"""What computes a network: torch, or an engine that takes it over as ONNX; the same logits, whichever it is.

An engine is called like the network and has its ``stride``, so every inferer runs it unchanged. The export happens at
the first call, when the weights are loaded, and is kept in a folder under a name made of the weights' hash.
"""

from __future__ import annotations

import copy
import importlib.util
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from brats_pipeline.errors import PipelineError
from brats_pipeline.files import write_atomically
from brats_pipeline.inference.exporting import export_onnx, network_hash
from brats_pipeline.inference.inferers import stride_of

logger = logging.getLogger(__name__)

BACKENDS = ("torch", "onnxruntime", "openvino", "tensorrt")
COMPILE_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
"""Those that torch documents."""
TENSORRT = "TensorrtExecutionProvider"
SHAPES_KEPT = 4
"""Input shapes that OpenVINO stays compiled for at a time."""


def run_by(
    backend: str,
    network: nn.Module,
    *,
    compile: bool | str = False,
    channels_last: bool | str = "auto",
    cache_dir: str | Path | None = None,
) -> nn.Module:
    """A network to be run by a backend; made to be named in a bundle's YAML.

    Args:
        backend: ``torch``; ``onnxruntime`` (float32, whatever the precision); ``openvino`` (a CPU; float32 or
            bfloat16); or ``tensorrt`` (a GPU; by way of onnxruntime).
        network: whose weights may still change until the first call; an ensemble is taken member by member.
        compile: torch only: ``true`` for ``torch.compile``, or one of its modes by name; ``reduce-overhead`` makes CUDA
            graphs.
        channels_last: torch only: keep weights and features with the channels last; ``auto`` does where a CPU computes
            in bfloat16, which takes half the time then (benchmarks/results/inference.md).
        cache_dir: folder of exported networks; by default they are exported for every process.

    Returns:
        The network itself where there is nothing to do.

    Raises:
        PipelineError: the backend is not installed.
        ValueError: it is unknown, or does not have what is asked for.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend is {backend!r}; known: {', '.join(BACKENDS)}")
    if channels_last not in (True, False, "auto"):
        raise ValueError(f"channels_last is {channels_last!r}; known: auto, true, false")
    if compile not in (True, False, *COMPILE_MODES):
        raise ValueError(f"compile is {compile!r}; known: true, false, {', '.join(COMPILE_MODES)}")
    if backend != "torch" and (compile or channels_last is True):
        raise ValueError(f"compile and channels_last are torch's; leave them out with backend {backend}")
    members = getattr(network, "members", None)
    if isinstance(members, nn.ModuleList):
        ensemble = copy.copy(network)
        ensemble._modules = dict(network._modules)
        options: dict[str, Any] = {"compile": compile, "channels_last": channels_last, "cache_dir": cache_dir}
        ensemble.members = nn.ModuleList(run_by(backend, member, **options) for member in members)
        return ensemble
    if backend == "torch":
        return (
            TorchNetwork(network, compile=compile, channels_last=channels_last) if compile or channels_last else network
        )
    require(backend)
    kind = OpenVinoNetwork if backend == "openvino" else OnnxNetwork
    return kind(network, cache_dir=cache_dir, providers=[TENSORRT] if backend == "tensorrt" else None)


def require(backend: str) -> None:
    """Say no to a backend that is not installed.

    Raises:
        PipelineError: it is not.
    """
    package = "openvino" if backend == "openvino" else "onnxruntime"
    if importlib.util.find_spec(package) is None:
        extra = "openvino" if backend == "openvino" else "onnx"
        raise PipelineError(
            f"backend {backend} needs the package {package}, which is not installed; "
            f"run `pip install 'brats-pipeline[{extra}]'`, or choose another of {', '.join(BACKENDS)}"
        )
    if backend == "tensorrt":
        import onnxruntime  # type: ignore[import-untyped]

        if TENSORRT not in onnxruntime.get_available_providers():
            raise PipelineError(
                "backend tensorrt needs an onnxruntime with TensorRT, which is not installed; run "
                "`pip install onnxruntime-gpu tensorrt` on a machine with an NVIDIA GPU, or choose backend torch"
            )


class TorchNetwork(nn.Module):
    """A network in torch, compiled or with its channels last.

    Args:
        network: its weights are laid out anew with ``channels_last``.
        compile: see :func:`run_by`.
        channels_last: see there.
    """

    def __init__(self, network: nn.Module, *, compile: bool | str, channels_last: bool | str) -> None:
        super().__init__()
        self.followed = network
        self.stride = stride_of(network)
        self.channels_last = channels_last
        self.graphs = compile == "reduce-overhead"
        mode = compile if isinstance(compile, str) else None
        # In a list it is no module of its own, whose weights would count twice.
        self._callable: list[Any] = [torch.compile(network, mode=mode) if compile else network]

    def forward(self, image: Tensor) -> Any:
        halves = image.device.type == "cpu" and torch.is_autocast_enabled("cpu")
        if self.channels_last is True or (self.channels_last == "auto" and halves):
            layout = torch.channels_last if image.dim() == 4 else torch.channels_last_3d
            self.followed.to(memory_format=layout)  # type: ignore[call-overload]  # torch's stubs want more
            # The first layer would round the image by itself: so it is turned and rounded in one go.
            dtype = torch.get_autocast_dtype("cpu") if halves else image.dtype
            image = image.to(dtype, memory_format=layout)
        if not self.graphs:
            return self._callable[0](image)
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        logits = self._callable[0](image)
        return [one.clone() for one in logits] if isinstance(logits, list) else logits.clone()  # the graph writes again


class OnnxNetwork(nn.Module):
    """A network run by onnxruntime.

    Args:
        network: in torch; exported at the first call.
        cache_dir: see :func:`run_by`.
        providers: of onnxruntime; by default CUDA for images on a GPU, else the CPU.
    """

    def __init__(
        self, network: nn.Module, *, cache_dir: str | Path | None = None, providers: Sequence[str] | None = None
    ) -> None:
        super().__init__()
        self.followed = network
        self.stride = stride_of(network)
        self.cache_dir = None if cache_dir is None else Path(cache_dir)
        self.providers = providers
        self._hash = ""
        self._engines: dict[Any, Any] = {}

    def forward(self, image: Tensor) -> Tensor:
        array = image.detach().float().cpu().contiguous().numpy()
        return torch.from_numpy(self._run(image, array)).to(image.device)

    def _run(self, image: Tensor, array: Any) -> Any:
        key = "any" if self.any_size else tuple(image.shape)
        if key not in self._engines:
            self._engines[key] = self._open(image)
        return self._engines[key].run(None, {"image": array})[0]

    def _open(self, image: Tensor) -> Any:
        import onnxruntime

        providers = list(self.providers or (["CUDAExecutionProvider"] if image.device.type == "cuda" else []))
        if absent := set(providers) - set(onnxruntime.get_available_providers()):
            raise PipelineError(
                f"this onnxruntime cannot use the GPU ({', '.join(absent)} is missing); install onnxruntime-gpu, or "
                "choose --device cpu or backend torch"
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        given: list[Any] = [*providers, "CPUExecutionProvider"]
        if TENSORRT in given:
            half = torch.is_autocast_enabled("cuda")
            given[0] = (TENSORRT, {"trt_fp16_enable": half})
        return self.opened(image, lambda model: onnxruntime.InferenceSession(model, options, providers=given))

    @property
    def any_size(self) -> bool:
        """Whether one export takes every size: the network says which it takes."""
        return self.stride > 1

    def opened(self, image: Tensor, load: Callable[[bytes], Any]) -> Any:
        """What ``load`` makes of the exported network; a damaged file is exported again."""
        path = self._path(image)
        if path is not None and path.is_file():
            try:
                return load(path.read_bytes())
            except Exception as error:  # whatever an engine says of a file
                logger.warning("%s cannot be used and is made again (%s)", path, str(error).splitlines()[0])
        model = export_onnx(self.followed, tuple(image.shape), any_size=self.any_size)
        if path is not None:
            try:
                write_atomically(path, model)
            except PipelineError as error:
                logger.warning("the exported network is not kept: %s", error)
        return load(model)

    def _path(self, image: Tensor) -> Path | None:
        if self.cache_dir is None:
            return None
        self._hash = self._hash or network_hash(self.followed)
        size = f"{image.dim() - 2}d" if self.any_size else "x".join(map(str, image.shape))
        return self.cache_dir / f"model.{self._hash[:16]}.{size}.onnx"


class OpenVinoNetwork(OnnxNetwork):
    """A network run by OpenVINO on a CPU, in bfloat16 under autocast and in float32 without, compiled for each size."""

    def _run(self, image: Tensor, array: Any) -> Any:
        if image.device.type != "cpu":
            raise PipelineError(f"backend openvino runs on the CPU, not on {image.device}; add --device cpu")
        half = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
        key = (tuple(image.shape), half)
        if key not in self._engines:
            if len(self._engines) >= SHAPES_KEPT:
                self._engines.pop(next(iter(self._engines)))
            self._engines[key] = self.opened(image, lambda model: self._compile(model, list(image.shape), half))
        return self._engines[key]([array])[0]

    def _compile(self, model: bytes, shape: Sequence[int], half: bool) -> Any:
        import openvino  # type: ignore[import-not-found,import-untyped,unused-ignore]

        core = openvino.Core()
        read = core.read_model(model, b"")
        read.reshape(openvino.PartialShape(list(shape)))
        # Without the hint OpenVINO computes in bfloat16 wherever it can.
        hints = {
            "INFERENCE_PRECISION_HINT": "bf16" if half else "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        return core.compile_model(read, "CPU", hints)
