"""Ensembles of bundles and runs: each segments in its own way, and the mean of their probabilities is the answer.

Members may differ in network, modalities, spacing, field of view and normalisation, so each runs its whole chain and
saves its probabilities on the grid of the scan, below ``OUT/members``. There the bundle's ``combine.yaml`` reads them;
threshold and clean-up are those of the first bundle. What a finished case needs no more is deleted.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brats_pipeline.bundles import bundle_path, wanted_modalities
from brats_pipeline.errors import PipelineError
from brats_pipeline.files import file_sha256
from brats_pipeline.inference.record import identity_of, recorded, remove_predictions
from brats_pipeline.inference.result import Segmentation
from transforms.labels import MODALITIES

FOLDER = "members"
COMBINE = "combine.yaml"
Weights = Sequence[float | Mapping[str, float]]


@dataclass(frozen=True)
class Ensemble:
    """What segments together.

    Args:
        roots: folders of the bundles; the first lends threshold, clean-up and the order of the regions.
        regions: of each of them, in the order of the first.
        weights: of each member, one number or one for each region in that order.
    """

    roots: tuple[Path, ...]
    regions: tuple[str, ...]
    weights: tuple[float | list[float], ...]

    def identity(self, convention: str | None, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """What two calls must share for their predictions to lie in one folder: every member, with its hashes."""
        each = [identity_of(root, convention, overrides) for root in self.roots]
        keys = ("weights_sha256", "configuration_sha256")
        members = [
            {"bundle": root.name, "weight": weight, **{key: identity[key] for key in keys}}
            for root, weight, identity in zip(self.roots, self.weights, each, strict=True)
        ]
        return {**each[0], "weights_sha256": [one["weights_sha256"] for one in each], "members": members}

    def modalities(self, overrides: Mapping[str, Any]) -> tuple[str, ...]:
        """What any of them is fed."""
        fed = {name for root in self.roots for name in wanted_modalities(root, overrides)}
        return tuple(name for name in MODALITIES if name in fed)

    def folders(self, out: Path) -> list[Path]:
        """Where each member leaves its predictions."""
        return [out / FOLDER / f"{number}_{root.name}" for number, root in enumerate(self.roots, start=1)]

    def run_members(
        self,
        segment: Callable[..., Any],
        inputs: Any,
        out: Path,
        *,
        fresh: bool,
        into: Segmentation | None = None,
        **arguments: Any,
    ) -> dict[str, str]:
        """Have each member segment; what a killed call has left is taken up again.

        Args:
            segment: the function behind ``brats-pipeline segment``.
            inputs: as given to it.
            out: folder of the ensemble's predictions.
            fresh: take nothing up.
            into: what the members find in the scans unlike their trainings is noted here.
            arguments: more of its arguments.

        Returns:
            Case to the reason why a member could not segment it.
        """
        if fresh:
            _clear(out / FOLDER)
        failed: dict[str, str] = {}
        for root, folder in zip(self.roots, self.folders(out), strict=True):
            # Shares are dealt already; the folder may be that of other processes too.
            result = segment(inputs, folder, bundle=root, save_probabilities=True, share="1/1", **arguments)
            failed |= {case_id: f"{root.name}: {reason}" for case_id, reason in result.failed.items()}
            if into is None:
                continue
            for case_id, sentences in result.unlike.items():
                known = into.unlike.setdefault(case_id, [])
                known += [sentence for sentence in sentences if sentence not in known]
        return failed

    def settings(self, out: Path, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """What ``combine.yaml`` needs to know."""
        return {
            "member_outputs": [str(folder) for folder in self.folders(out)],
            "member_weights": list(self.weights),
            "modalities": list(self.modalities(overrides)),
        }

    def tidy(self, out: Path, done: Collection[str], *, all_done: bool) -> None:
        """Delete what the members said of finished cases; with ``all_done`` their folders too."""
        for folder in self.folders(out):
            if folder.is_dir():
                remove_predictions(folder, done)
        if all_done:
            _clear(out / FOLDER)


def _clear(members: Path) -> None:
    """Delete the folders of members, and nothing that ``segment`` did not write."""
    for folder in members.glob("*"):
        with suppress(PipelineError):
            if recorded(folder):
                shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        members.rmdir()


def ensemble_of(
    bundles: Sequence[str | Path],
    regions_of: Callable[[Path], Sequence[str]],
    *,
    weights: Weights | None = None,
    overrides: Mapping[str, Any],
) -> Ensemble:
    """Several bundles or runs that can segment together.

    Args:
        bundles: names or folders, at least two.
        regions_of: tells the regions that a bundle's network marks.
        weights: of each, one number or region to number, where regions that are not named count 1; by default all
            count alike.
        overrides: configuration id to value, which hold for every member.

    Raises:
        PipelineError: they do not go together, or the weights are not theirs.
    """
    if len(bundles) < 2:
        raise PipelineError(
            f"weights are of several bundles, and there is {len(bundles) or 'none'}; name more, or no weight"
        )
    roots = tuple(map(bundle_path, bundles))
    if len({root.resolve() for root in roots}) < len(roots):
        raise PipelineError(
            f"a bundle is named twice ({', '.join(map(str, roots))}); name each once, and give it a weight"
        )
    if "ckpt_path" in overrides:
        raise PipelineError(
            "ckpt_path names weights for one bundle; give either several bundles or several checkpoints"
        )
    regions = tuple(regions_of(roots[0]))
    for root in roots:
        if set(theirs := regions_of(root)) != set(regions):
            raise PipelineError(
                f"{roots[0].name} marks {', '.join(regions)}, and {root.name} {', '.join(theirs)}; an ensemble needs "
                "bundles of the same regions"
            )
        if not (root / "configs" / COMBINE).is_file() and root == roots[0]:
            raise PipelineError(f"{root}: the bundle lacks configs/{COMBINE}; put a bundle of this version first")
    given = [1.0] * len(roots) if weights is None else list(weights)
    if len(given) != len(roots):
        raise PipelineError(f"{len(given)} weights for {len(roots)} bundles; give one for each, in their order")
    by_region = tuple(_by_region(weight, regions) for weight in given)
    for number, region in enumerate(regions):
        if not any(weight[number] if isinstance(weight, list) else weight for weight in by_region):
            raise PipelineError(f"every weight of {region} is 0; at least one bundle must have a say in each region")
    return Ensemble(roots, regions, by_region)


def _by_region(weight: float | Mapping[str, float], regions: Sequence[str]) -> float | list[float]:
    if not isinstance(weight, Mapping):
        each, found = [float(weight)], float(weight)
        result: float | list[float] = found
    else:
        if unknown := sorted(set(weight) - set(regions)):
            raise PipelineError(f"there is no region {', '.join(unknown)}; known: {', '.join(regions)}")
        each = [float(weight.get(region, 1.0)) for region in regions]
        result = each
    for one in each:
        if not (math.isfinite(one) and one >= 0):
            raise PipelineError(f"a weight is {one:g}; give a number of at least 0")
    return result


def parse_weight(text: str) -> float | dict[str, float]:
    """``2`` to 2.0, and ``TC=1,ET=0.5`` to ``{"TC": 1.0, "ET": 0.5}``.

    Raises:
        PipelineError: it is neither.
    """
    try:
        if "=" not in text:
            return float(text)
        pairs = [part.split("=") for part in text.split(",")]
        return {name.strip(): float(value) for name, value in pairs}
    except ValueError as error:
        raise PipelineError(f"--weight {text!r} is no number, nor REGION=NUMBER such as TC=1,ET=0.5") from error


def checkpoint_members(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The checkpoints that ``ckpt_path`` names in place of the bundle's own weights, with their hashes, for the record.

    Raises:
        PipelineError: one of them is not there.
    """
    if "ckpt_path" not in overrides:
        return {}
    given = overrides["ckpt_path"]
    listed = [str(path) for path in (given if isinstance(given, list) else [given])]
    if any("@" in path or path.startswith("$") for path in listed):
        return {}  # MONAI makes the path of it, and the record shows it as it was given
    paths = list(map(Path, listed))
    for path in paths:
        if not path.is_file():
            raise PipelineError(f"{path}: there is no such checkpoint; ckpt_path names files of weights")
    hashes = [file_sha256(path) for path in paths]
    told = [{"checkpoint": str(path), "weights_sha256": sha256} for path, sha256 in zip(paths, hashes, strict=True)]
    return {"weights_sha256": hashes, "members": json.loads(json.dumps(told))}
