"""The model card and metadata of an exported bundle: what was measured, and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brats_pipeline.errors import PipelineError

CARD_METRICS = {"dice": "Dice", "hd95_mm": "HD95 (mm)", "lesionwise_dice": "lesion-wise Dice"}
NOTHING_MEASURED = (
    "Nothing was measured with these weights when the bundle was made, so there is no figure to give. "
    "`brats-pipeline evaluate PREDICTIONS REFERENCES -o REPORT` measures, and `bundle export --report REPORT` tells."
)


TENSORS = {"in": "image", "out": "pred"}
"""What goes into a network and comes out of it, by their names in the metadata."""
PERFORMANCE = re.compile(r"^## Performance\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)


def performance_told(card: str) -> str | None:
    """What a model card says of performance; None where it has no such section."""
    found = PERFORMANCE.search(card)
    return found[1].strip() if found is not None else None


def unmeasured(card: str) -> str:
    """A model card for weights that are not there yet: what was measured with others says nothing of them."""
    return PERFORMANCE.sub(f"## Performance\n{NOTHING_MEASURED}\n\n", card)


@dataclass(frozen=True)
class Measured:
    """What a report says of the weights that are exported.

    Args:
        protocol: how it was measured, in sentences; the rule for empty regions among them.
        regions: region to metric to ``{"n": ..., "mean": ..., "interval": [low, high]}``.
    """

    protocol: Sequence[str]
    regions: Mapping[str, Mapping[str, Mapping[str, Any]]]

    @property
    def eval_metrics(self) -> dict[str, Any]:
        """Mean Dice by region, as the metadata tells it."""
        return {f"{region}_dice": round(told["dice"]["mean"], 4) for region, told in self.regions.items()}


def read_report(report: Path, weights_sha256: str) -> Measured:
    """The figures of a report, where its predictions were made by these very weights.

    Args:
        report: folder that ``brats-pipeline evaluate`` wrote.
        weights_sha256: of the exported ``model.pt``.

    Raises:
        PipelineError: there is no report, or it is of other weights or does not tell which.
    """
    try:
        summary = json.loads((report / "summary.json").read_text(encoding="utf-8"))
        manifest = json.loads((report / "manifest.json").read_text(encoding="utf-8"))
        predictions = (report / manifest["call"]["predictions"]).resolve()
        rules, told = summary["rules"], summary["regions"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PipelineError(
            f"{report}: cannot be read as a report ({error}); give a folder that `brats-pipeline evaluate` wrote"
        ) from error
    try:
        record = json.loads((predictions / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PipelineError(
            f"{report}: whether its predictions ({predictions}) are of these weights cannot be told, their run.json is "
            "missing; segment and evaluate again, or export without --report"
        ) from error
    if record.get("weights_sha256") != weights_sha256:
        raise PipelineError(
            f"{report}: its predictions are of other weights (sha256 {record.get('weights_sha256')}, not "
            f"{weights_sha256}); segment and evaluate with these, or export without --report"
        )
    regions = {
        region: {
            name: {"n": values["n"], "mean": values["mean"], "interval": values.get("mean_interval_95")}
            for name, values in one["metrics"].items()
            if name in CARD_METRICS and values.get("mean") is not None
        }
        for region, one in told.items()
    }
    settings = record.get("overrides") or {}
    changed = f"Settings changed for it: {json.dumps(settings)}." if settings else "With the settings of this bundle."
    return Measured([f"Rules {rules['name']}, measured {manifest['made'][:10]}.", changed, *rules["in_words"]], regions)


def performance(measured: Measured | None) -> str:
    """The section on performance of a model card."""
    if measured is None:
        return NOTHING_MEASURED
    rows = ["| region | metric | n | mean | 95 % interval of the mean |", "| --- | --- | --- | --- | --- |"]
    for region, metrics in measured.regions.items():
        for name, values in metrics.items():
            interval = values["interval"]
            between = "" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"
            rows.append(f"| {region} | {CARD_METRICS[name]} | {values['n']} | {values['mean']:.3f} | {between} |")
    return "\n".join([*rows, "", *(f"- {sentence}" for sentence in measured.protocol)])


def card_text(
    *,
    metadata: Mapping[str, Any],
    network: Mapping[str, Any],
    training: Sequence[str],
    usage: str,
    measured: str,
    weights_sha256: str,
    licence: str | None,
    extras: Sequence[str],
) -> str:
    """The model card, in the order of the model zoo's template.

    Args:
        metadata: of the exported bundle.
        network: its ``network_def``.
        training: sentences on how the weights came to be.
        usage: the command that runs it.
        measured: the section on performance.
        weights_sha256: of ``models/model.pt``.
        licence: of the weights, where the bundle tells of one.
        extras: sentences on further files of the network.
    """
    formats = metadata["network_data_format"]
    channels = ", ".join(formats["inputs"]["image"]["channel_def"].values())
    regions = ", ".join(formats["outputs"]["pred"]["channel_def"].values())
    numbers = {f"{way}_channels": formats[f"{way}puts"][name]["num_channels"] for way, name in TENSORS.items()}
    known = {str(key): value for key, value in network.items() if not str(key).startswith("_")}
    settings = ", ".join(f"{key} {numbers.get(key, value)}" for key, value in known.items())
    needed = " ".join(metadata["required_packages_version"])
    limitations = metadata.get("intended_use", "Research only; not to be used for diagnostic purposes.")
    if licence is not None:
        limitations += f" The weights are not under the licence of the program: {licence}."
    sections = {
        "Authors": metadata.get("authors", "Not told."),
        "Tags": "Segmentation, MRI, brain",
        "Model Description": f"{metadata['description']}\n\nNetwork: {network['_target_']} ({settings}). "
        f"Weights: `models/model.pt`, SHA-256 `{weights_sha256}`. " + " ".join(training),
        "Data": metadata.get("data_source", "Not told."),
        "Preprocessing": f"As `configs/inference.yaml` says. Channels in: {channels}. Channels out: {regions}.",
        "Performance": measured,
        "Additional Usage Steps": usage + "".join(f"\n\n{sentence}" for sentence in extras),
        "System Configuration": f"Python 3.11 or newer; `pip install monai torch {needed}`. A CPU or one GPU. The "
        "bundle holds all else that it needs in a package of its own.",
        "Limitations": limitations,
        "Citation": "\n".join(f"- {reference}" for reference in metadata.get("references", [])) or "None.",
    }
    return f"# {metadata['name']}\n\n" + "\n\n".join(f"## {title}\n{text}" for title, text in sections.items()) + "\n"
