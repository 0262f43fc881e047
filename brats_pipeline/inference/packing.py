"""A run as a bundle of its own, with its network in the formats of other engines too, each of them checked."""

from __future__ import annotations

import importlib.util
import tempfile
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from brats_pipeline.bundles.detaching import resolved
from brats_pipeline.bundles.exporting import Exported, export_bundle
from brats_pipeline.bundles.installed import read_metadata
from brats_pipeline.bundles.workflow import open_workflow
from brats_pipeline.errors import PipelineError
from brats_pipeline.inference.exporting import export_onnx
from brats_pipeline.inference.inferers import stride_of
from brats_pipeline.phantom import write_cohort
from transforms.nifti import is_nifti_name, read_nifti, voxels
from transforms.slices import read_mask

ENGINES = {"torchscript": "model.ts", "onnx": "model.onnx", "openvino": "model.xml"}
NEEDED = {
    "torchscript": (),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
}
HEAD_MM = (176, 192, 160)
SLICES_SHAPE = (96, 96, 6)
MAX_SHARE = 1e-4
"""Share of the voxels of a label map that may differ from torch's: those whose probability is all but the threshold."""
MAX_DIFFERENCE = 1e-3
"""Of logits, as a share of the largest."""


def export_run(
    run: str | Path,
    out: Path,
    *,
    torchscript: bool = False,
    onnx: bool = False,
    openvino: bool = False,
    report: Path | None = None,
) -> Exported:
    """Write a run as a bundle of its own, see :func:`brats_pipeline.bundles.exporting.export_bundle`.

    Args:
        run: name or folder of a bundle with weights.
        out: a new folder, or a new file that ends in ``.zip``.
        torchscript: also write ``models/model.ts``.
        onnx: also write ``models/model.onnx``.
        openvino: also write ``models/model.xml`` and ``model.bin``.
        report: folder of an evaluation of these weights, for the model card.

    Raises:
        PipelineError: see there; a package is missing; or an engine does not say what torch says.
    """
    wanted = [name for name, on in (("torchscript", torchscript), ("onnx", onnx), ("openvino", openvino)) if on]
    for name in wanted:
        if missing := [package for package in NEEDED[name] if importlib.util.find_spec(package) is None]:
            raise PipelineError(
                f"--{name} needs {', '.join(missing)}, which is not installed; run `pip install {' '.join(missing)}`"
            )
    return export_bundle(run, out, report=report, extras=[partial(write_engine, engine=name) for name in wanted])


def write_engine(run: Path, bundle: Path, *, engine: str) -> str:
    """Write the network of a run for an engine and compare label maps of a synthetic case; say what came out.

    Args:
        run: with the configuration that torch runs.
        bundle: that the file goes into.
        engine: a key of :data:`ENGINES`.

    Raises:
        PipelineError: label maps or logits differ.
    """
    path = bundle / "models" / ENGINES[engine]
    with tempfile.TemporaryDirectory(prefix="brats-pipeline-") as folder:
        work = Path(folder)
        _write_case(run, work / "case")
        network = _segment(run, work, "torch", None)
        channels = int(read_metadata(bundle)["network_data_format"]["inputs"]["image"]["num_channels"])
        spatial = [2 * max(stride_of(network), 8)] * _dims(network)
        _write(network, path, engine, (1, channels, *spatial), read_metadata(bundle))
        opened = EngineNetwork(path, engine, network)
        image = torch.randn((1, channels, *spatial), generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            expected, found = network(image), opened(image)
        apart = float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-6))
        _segment(run, work, engine, opened)
        differing, marked, all_voxels = _compare(work / "torch", work / engine)
    if apart > MAX_DIFFERENCE or differing > MAX_SHARE * all_voxels:
        raise PipelineError(
            f"{path.name}: {engine} does not say what torch says: {differing} of {all_voxels} voxels of a synthetic "
            f"case differ, and logits by up to {apart:.1e} of the largest; export without --{engine}, and report it"
        )
    return (
        f"`models/{path.name}` holds the network for {engine}. Compared with torch in float32 when it was written: "
        f"{differing} of {all_voxels} voxels of a synthetic case differ ({marked} of them are marked by torch), logits "
        f"by up to {apart:.1e} of the largest."
    )


class EngineNetwork(nn.Module):
    """A network out of a file, run on the CPU by the engine that the file is for.

    Args:
        path: of the file.
        engine: a key of :data:`ENGINES`.
        network: in torch, which tells the size of its inputs and the memory that it takes.
    """

    def __init__(self, path: Path, engine: str, network: nn.Module) -> None:
        super().__init__()
        self.followed = network
        self.stride = stride_of(network)
        self._run = _OPENERS[engine](path)

    def forward(self, image: Tensor) -> Tensor:
        plain = torch.as_tensor(image).detach().float().contiguous()
        logits: Tensor = self._run(plain)
        return logits


def _open_torchscript(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls TorchScript old
        return torch.jit.load(str(path), map_location="cpu").eval()  # type: ignore[no-untyped-call]


def _open_onnx(path: Path) -> Any:
    import onnxruntime  # type: ignore[import-untyped]

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda image: torch.from_numpy(session.run(None, {"image": image.numpy()})[0])


def _open_openvino(path: Path) -> Any:
    import openvino  # type: ignore[import-not-found,import-untyped,unused-ignore]

    model = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda image: torch.from_numpy(np.array(model([image.numpy()])[0]))


_OPENERS = {"torchscript": _open_torchscript, "onnx": _open_onnx, "openvino": _open_openvino}


def _write(network: nn.Module, path: Path, engine: str, shape: tuple[int, ...], metadata: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if engine == "torchscript":
        from monai.data.torchscript_utils import save_net_with_metadata

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch calls TorchScript old
            scripted = torch.jit.script(network.eval())
            save_net_with_metadata(scripted, str(path), meta_values=metadata)
        return
    model = export_onnx(network, shape, any_size=stride_of(network) > 1)
    if engine == "onnx":
        path.write_bytes(model)
        return
    import openvino

    read = openvino.Core().read_model(model, b"")
    openvino.save_model(read, str(path), compress_to_fp16=False)


def _dims(network: nn.Module) -> int:
    """2 or 3: the spatial axes of a network's convolutions."""
    weights = [weight for weight in network.parameters() if weight.dim() in (4, 5)]
    return weights[0].dim() - 2


def _write_case(run: Path, out: Path) -> None:
    """A synthetic case that the run's configuration can take, on a grid that it does not resample."""
    if "lgg" in read_metadata(run).get("layouts", ()):
        write_cohort(out, cases=1, layout="lgg", shape=SLICES_SHAPE)
        return
    spacing = [float(side) for side in resolved(run)["spacing"]]
    shape = tuple(round(length / side) for length, side in zip(HEAD_MM, spacing, strict=True))
    write_cohort(out, cases=1, shape=shape, spacing_mm=spacing)  # type: ignore[arg-type]


def _segment(run: Path, work: Path, name: str, network: nn.Module | None) -> nn.Module:
    """Segment the case by a network, or by the run's own, which is returned."""
    overrides = {
        "dataset_dir": str(work / "case"),
        "output_dir": str(work / name),
        "device": "$torch.device('cpu')",
        "precision": "float32",
        "backend": "torch",
    }
    workflow = open_workflow(run, ["inference.yaml"], workflow_type="infer", overrides=overrides)
    evaluator = workflow.parser.get_parsed_content("evaluator")
    own: nn.Module = workflow.parser.get_parsed_content("members")
    if network is not None:
        evaluator.network = network
    workflow.run()
    workflow.finalize()
    if evaluator.failures:
        raise PipelineError(f"the synthetic case cannot be segmented: {'; '.join(evaluator.failures.values())}")
    return own.eval()


def _compare(expected: Path, found: Path) -> tuple[int, int, int]:
    """Voxels of label maps that differ, that are marked, and all."""
    counts = np.zeros(3, dtype=np.int64)
    for path in sorted(path for path in expected.rglob("*") if path.suffix in (".gz", ".tif")):
        one, other = (_labels(folder / path.relative_to(expected)) for folder in (expected, found))
        counts += [np.count_nonzero(one != other), np.count_nonzero(one), one.size]
    return int(counts[0]), int(counts[1]), int(counts[2])


def _labels(path: Path) -> Any:
    return voxels(read_nifti(path)) if is_nifti_name(path.name) else read_mask([path])
