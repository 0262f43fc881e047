"""Names that a configuration of unknown origin may use: calling them reads data and computes, and starts nothing else.

Not on the lists, though common: ``LoadImaged`` and ``SaveImaged``, which import whatever their ``reader`` or ``writer``
names; ``Lambda`` and its kin, which call what they are given; ``CheckpointLoader``, which can be told to unpickle.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from brats_pipeline.bundles.installed import list_bundles
from brats_pipeline.bundles.vendoring import OWN as OWN_PACKAGES
from brats_pipeline.bundles.vendoring import home_of

BUILTINS = frozenset(
    [
        *("abs", "all", "any", "bool", "dict", "enumerate", "float", "int", "len", "list", "max", "min", "range"),
        *("reversed", "round", "set", "sorted", "str", "sum", "tuple", "zip"),
    ]
)
METHODS = frozenset(["attach", "get", "index", "items", "keys", "parameters", "resume", "run", "to", "values"])
"""Called on what another id makes."""
ATTRIBUTES = frozenset(["device", "dtype", "failures", "index", "module", "ndim", "shape", "type"])
"""Read of what another id makes. No name of the interpreter's frames and modules may join them."""

MODULES = frozenset(["math", "monai", "numpy", "os", "torch", "torch.distributed"])
CALLS = frozenset(
    [
        "math.ceil",
        "math.floor",
        "monai.handlers.from_engine",
        "monai.losses.DeepSupervisionLoss",
        "monai.transforms.Compose",
        "monai.utils.set_determinism",
        "os.environ.get",
        "os.path.basename",
        "os.path.dirname",
        "os.path.join",
        "torch.cuda.device_count",
        "torch.cuda.is_available",
        "torch.device",
        "torch.nn.Identity",
        "torch.tensor",
    ]
)
VALUES = frozenset(
    f"torch.{name}"
    for name in (
        *("bfloat16", "float16", "float32", "float64", "int16", "int32", "int64", "uint8", "bool"),
        *("channels_last", "channels_last_3d", "contiguous_format"),
    )
) | {"math.inf", "math.pi"}

_TARGETS = {
    "monai.data": ["CacheDataset", "DataLoader", "Dataset", "ThreadDataLoader"],
    "monai.engines": ["SupervisedEvaluator", "SupervisedTrainer"],
    "monai.handlers": ["IgniteMetricHandler", "LrScheduleHandler", "MeanDice", "ValidationHandler"],
    "monai.inferers": ["SimpleInferer", "SliceInferer", "SlidingWindowInferer"],
    "monai.losses": ["DiceCELoss", "DiceFocalLoss", "DiceLoss", "FocalLoss", "TverskyLoss"],
    "monai.metrics": ["DiceMetric", "HausdorffDistanceMetric", "MeanIoU", "SurfaceDistanceMetric"],
    "monai.networks.nets": ["AttentionUnet", "BasicUNet", "DynUNet", "SegResNet", "SwinUNETR", "UNETR", "UNet", "VNet"],
    "monai.transforms": [
        *("Activations", "Activationsd", "AsDiscrete", "AsDiscreted", "CastToTyped", "Compose"),
        *("ConvertToMultiChannelBasedOnBratsClassesd", "CropForegroundd", "DeleteItemsd", "DivisiblePadd"),
        *("EnsureChannelFirstd", "EnsureType", "EnsureTyped", "FillHolesd", "Invertd"),
        *("KeepLargestConnectedComponentd", "NormalizeIntensityd", "Orientationd", "RandAdjustContrastd"),
        *("RandAffined", "RandCropByPosNegLabeld", "RandFlipd", "RandGaussianNoised", "RandGaussianSmoothd"),
        *("RandRotate90d", "RandScaleIntensityd", "RandShiftIntensityd", "RandSpatialCropd", "RandZoomd"),
        *("RemoveSmallObjectsd", "Resized", "ScaleIntensityd", "ScaleIntensityRanged", "SelectItemsd"),
        *("SpatialPadd", "Spacingd", "ToDeviced", "ToTensord"),
    ],
    "torch.optim": ["Adam", "AdamW", "SGD"],
}
TARGETS = frozenset(f"{module}.{name}" for module, names in _TARGETS.items() for name in names) | frozenset(
    name for module, names in _TARGETS.items() if module.startswith("monai") for name in names
)
"""Components, by their full name and, where they are MONAI's, by their short one too."""


@dataclass(frozen=True)
class Names:
    """What may be named.

    Args:
        modules: imported.
        calls: called in expressions, with their full name.
        values: read in expressions, with their full name.
        targets: made by ``_target_``.
        package: a bundle's own package whose files are known to be ours; its names mean what ours mean.
    """

    modules: frozenset[str]
    calls: frozenset[str]
    values: frozenset[str]
    targets: frozenset[str]
    package: str | None = None

    def within(self, package: str) -> Names:
        """The same names for a bundle whose own package holds copies of our modules."""

        def moved(names: frozenset[str]) -> frozenset[str]:
            return names | {f"{package}.{name}" for name in names if name.partition(".")[0] in OWN_PACKAGES}

        return replace(
            self,
            modules=moved(self.modules) | {"sys", package},
            calls=moved(self.calls),
            targets=moved(self.targets),
            package=package,
        )


def harmless_names() -> Names:
    """The lists above, and all of our own that the bundles of this distribution name."""
    modules, calls, targets = _own_names()
    return Names(MODULES | modules, CALLS | calls, VALUES, TARGETS | targets)


def texts(content: Any) -> Iterator[tuple[str, str]]:
    """Every ``_target_`` and every expression of a configuration, as ``(key, text)``."""
    if isinstance(content, dict):
        for key, value in content.items():
            if isinstance(value, str) and (key == "_target_" or value.startswith("$")):
                yield str(key), value
            yield from texts(value)
    elif isinstance(content, list):
        for value in content:
            if isinstance(value, str) and value.startswith("$"):
                yield "", value
            yield from texts(value)


@cache
def _own_names() -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    import yaml

    modules: set[str] = set()
    calls: set[str] = set()
    targets: set[str] = set()
    for bundle in list_bundles():
        for path in Path(bundle / "configs").rglob("*.yaml"):
            for key, text in texts(yaml.safe_load(path.read_text(encoding="utf-8"))):
                if key == "_target_" and text.partition(".")[0] in OWN_PACKAGES:
                    targets |= {text, home_of(text)}
                if text.startswith("$import "):
                    modules.add(text.removeprefix("$import "))
                elif text.startswith("$"):
                    calls |= _called(text[1:])
    own = frozenset(name for name in modules if name.partition(".")[0] in OWN_PACKAGES)
    return own, frozenset(calls), frozenset(targets)


def _called(expression: str) -> set[str]:
    """Our own functions that an expression of ours calls."""
    tree = ast.parse(expression.replace("@", "id_").replace("::", "_"), mode="eval")
    names = (ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call))
    return {name for name in names if name.partition(".")[0] in OWN_PACKAGES}
