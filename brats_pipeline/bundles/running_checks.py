"""What can only be said of a bundle by running it: the network on the declared shape, TorchScript, the workflows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from brats_pipeline.bundles.installed import weights_path
from brats_pipeline.bundles.subject import NETWORK, Subject
from brats_pipeline.bundles.workflow import holds
from brats_pipeline.errors import root_cause
from brats_pipeline.phantom import LAYOUTS, write_cohort

WORKFLOWS = {("train",): "train", ("train", "evaluate"): "train", ("inference",): "infer"}
"""Configurations, later ones laid over earlier ones, to the kind of workflow that MONAI knows them as."""
PHANTOM_SHAPE = (36, 40, 32)
PHANTOM_SPACING_MM = 5.0
SLICES_SHAPE = (32, 32, 12)
AGREEMENT = 1e-4
"""Largest difference of logits between torch and TorchScript."""


def in_words(error: BaseException) -> str:
    """The cause of an error in one line."""
    cause = root_cause(error)
    first = (str(cause).strip() or type(cause).__name__).splitlines()[0]
    return f"{first} ({type(cause).__name__})"


def declared_side(side: int | str) -> int:
    """A side of ``spatial_shape`` with ``n`` and ``p`` both 1, and ``*`` the smallest that there is.

    Raises:
        ValueError: it is neither a number nor one times or to the power of ``n`` and ``p``.
    """
    if isinstance(side, int):
        return side
    if side.strip() == "*":
        return 1
    found = re.fullmatch(r"\s*(\d+)(\s*\*\*?\s*[np])*\s*", side)
    if found is None:
        raise ValueError(f"spatial_shape has {side!r}; write a number, or one such as 32*n")
    return int(found[1])


def declared_shape(tensor: Any) -> tuple[int, ...]:
    """``(1, channels, *spatial)`` of an entry of ``network_data_format``."""
    return (1, int(tensor["num_channels"]), *map(declared_side, tensor["spatial_shape"]))


def check_network(subject: Subject) -> Iterator[str]:
    """The network makes of the declared input the declared output; MONAI's own check agrees."""
    import torch
    from monai.bundle import verify_net_in_out

    from brats_pipeline.weights import load_weights

    declared = subject.metadata["network_data_format"]
    shape, wanted = (declared_shape(declared[side][name]) for side, name in (("inputs", "image"), ("outputs", "pred")))
    network = subject.network()
    if subject.has_weights:
        load_weights(network, weights_path(subject.copy))
    with torch.inference_mode():
        logits = network(torch.zeros(shape))
    if tuple(logits.shape) != wanted:
        yield f"an input of the declared shape {shape} becomes {tuple(logits.shape)}; metadata.json declares {wanted}"
        return
    if not bool(torch.isfinite(logits).all()):
        yield f"an input of zeros of the declared shape {shape} becomes NaN or infinity"
    config, metadata = subject.config("inference"), subject.copy / "configs" / "metadata.json"
    verify_net_in_out(
        net_id=NETWORK,
        meta_file=str(metadata),
        config_file=str(config),
        device="cpu",
        bundle_root=str(subject.copy),
    )


def check_torchscript(subject: Subject) -> Iterator[str]:
    """MONAI's ``ckpt_export`` makes a TorchScript module of it, which says the same."""
    import torch
    from monai.bundle import ckpt_export

    from brats_pipeline.weights import load_weights

    exported = subject.copy / "models" / "verify_model.ts"
    ckpt_export(
        net_id=NETWORK,
        filepath=str(exported),
        ckpt_file=str(weights_path(subject.copy)),
        meta_file=str(subject.copy / "configs" / "metadata.json"),
        config_file=str(subject.config("inference")),
        bundle_root=str(subject.copy),
    )
    shape = declared_shape(subject.metadata["network_data_format"]["inputs"]["image"])
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    network = load_weights(subject.network(), weights_path(subject.copy))
    with torch.inference_mode():
        scripted: Any = torch.jit.load(exported)  # type: ignore[no-untyped-call]
        difference = float((scripted(image) - network(image)).abs().max())
    if not difference <= AGREEMENT:
        yield f"the logits of the TorchScript module differ from those of the network by up to {difference:.2g}"


def check_workflows(subject: Subject) -> Iterator[str]:
    """Every property that MONAI asks a training and an inference for is there and can be made of a synthetic cohort."""
    layouts: Sequence[str] = [name for name in subject.metadata.get("layouts", ()) if name in LAYOUTS]
    data = subject.copy.parent / "cohort"
    layout = layouts[0] if layouts else "brats2021"
    size: dict[str, Any] = {"shape": PHANTOM_SHAPE, "spacing_mm": PHANTOM_SPACING_MM}
    if layout == "lgg":  # slices carry no voxel size
        size = {"shape": SLICES_SHAPE}
    write_cohort(data, layout=layout, cases=3, **size)
    for names, kind in WORKFLOWS.items():
        paths = [path for path in map(subject.config, names) if path is not None]
        if len(paths) == len(names):
            yield from (f"{paths[-1].name}: {sentence}" for sentence in _properties(subject, paths, kind, data))


def _properties(subject: Subject, paths: Sequence[Path], kind: str, data: Path) -> Iterator[str]:
    from monai.bundle import ConfigParser, ConfigWorkflow

    settings: dict[str, Any] = {
        "dataset_dir": str(data),
        "output_dir": str(subject.copy / "eval"),
        "data_list_file_path": None,
        "device": "$torch.device('cpu')",
        "folds": 2,
        "fold": 0,
        "resume": False,
        "encoder_weights": None,
    }
    files = list(map(str, paths))
    parser = ConfigParser()
    parser.read_config(files)
    workflow = ConfigWorkflow(
        config_file=files,
        meta_file=str(subject.copy / "configs" / "metadata.json"),
        logging_file=False,
        workflow_type=kind,
        bundle_root=str(subject.copy),
        **{key: value for key, value in settings.items() if holds(parser, key) and key in parser},
    )
    try:
        workflow.initialize()
    except Exception as error:
        yield f"`initialize` fails: {in_words(error)}"
        return
    broken = set()
    for name in workflow.properties or {}:
        try:
            getattr(workflow, name)
        except Exception as error:
            broken.add(name)
            yield f"the property {name} cannot be made: {in_words(error)}"
    if not broken:
        yield from (f"MONAI misses the property {name}" for name in workflow.check_properties() or [])
