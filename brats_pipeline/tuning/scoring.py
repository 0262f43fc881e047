"""One case under many settings: its parts are labelled once for each threshold, every different mask is scored once.

The masks of a region depend on the threshold, on whether holes are filled and on the parts that are kept; most sizes
keep the same parts. How a mask is scored stands in :mod:`brats_pipeline.metrics`, how a case is cleaned as a whole in
:mod:`transforms.cleaning`; nothing of either is done here a second time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brats_pipeline.cases import Case
from brats_pipeline.errors import CaseError, PipelineError
from brats_pipeline.evaluation.pairs import with_all_regions
from brats_pipeline.evaluation.scoring import read_reference
from brats_pipeline.metrics import Rules, measure_case
from brats_pipeline.tuning.grid import RegionSettings, Settings
from transforms.components import Mask, box_around, filled, find_components
from transforms.labels import convention
from transforms.nifti import same_grid, spacing_mm
from transforms.probabilities import read_probabilities

METRICS = ("dice", "lesionwise_dice", "hd95_mm")


@dataclass(frozen=True)
class Task:
    """A case that takes part.

    Args:
        case: with its label map and its label convention.
        probabilities: the file of its probabilities.
        rules: of scoring, for the regions that the network marks.
        metric: a column of ``cases.csv``, one of :data:`METRICS`.
        nesting: of the bundle.
    """

    case: Case
    probabilities: Path
    rules: Rules
    metric: str
    nesting: str


def rules_for(rules: Rules, metric: str, regions: Sequence[str]) -> Rules:
    """The rules for the regions of a network, without what the metric does not need.

    Raises:
        PipelineError: these rules do not define the metric, or score none of the regions.
    """
    if metric not in METRICS:
        raise PipelineError(f"unknown metric {metric!r}; known: {', '.join(METRICS)}")
    scored = tuple(region for region in rules.regions if region in regions)
    if not scored:
        theirs, ours = ", ".join(rules.regions), ", ".join(regions)
        raise PipelineError(f"the rules {rules.name} score {theirs}, the network marks {ours}; name other --rules")
    if metric == "lesionwise_dice" and rules.lesions is None:
        raise PipelineError(f"the rules {rules.name} score no single lesions; choose another --metric or --rules")
    if metric != "dice" and rules.slices:
        raise PipelineError(f"slices carry no voxel size, so {metric} is not defined for them; use --metric dice")
    return replace(rules, regions=scored, lesions=rules.lesions if metric == "lesionwise_dice" else None)


class OpenCase:
    """A case in memory: probabilities and reference in the box that holds all that can matter, and a way to score.

    Args:
        task: the case.
        lowest: the lowest threshold that will be asked for.

    Raises:
        CaseError: a file of the case cannot be used.
    """

    def __init__(self, task: Task, *, lowest: float) -> None:
        self.task = task
        case_id = task.case.case_id
        reference, affine = read_reference(task.case)
        try:
            found = read_probabilities(task.probabilities)
        except PipelineError as error:
            raise CaseError(case_id, str(error)) from error
        apart = False
        if affine is not None and found.affine is not None:
            apart = not same_grid(reference.shape, affine, found.values.shape[1:], found.affine)
        if found.values.shape[1:] != reference.shape or apart:
            raise CaseError(case_id, "its probabilities lie on another grid than its label map; segment it again")
        if absent := [region for region in task.rules.regions if region not in found.regions]:
            held = ", ".join(found.regions)
            raise CaseError(case_id, f"its probabilities are of {held}, without {', '.join(absent)}; segment it again")
        inner = box_around((found.values.max(axis=0) >= lowest) | (reference != 0))
        # One more on each side: a lone slice is filled as a picture, and a thin tumour in a volume is none.
        box = tuple(slice(max(0, side.start - 1), side.stop + 1) for side in inner)
        self.regions = found.regions
        self.values = found.values[:, *box].astype(np.float32)
        self.reference = np.ascontiguousarray(reference[box])
        self.spacing_mm = None if affine is None or task.metric == "dice" else spacing_mm(affine).tolist()
        # The penalty may be the diagonal of the array, which the box must not shorten.
        empties = replace(
            task.rules.empties, one_hd95_mm=task.rules.empties.penalty(reference.shape), one_is_diagonal=False
        )
        self.rules = replace(task.rules, empties=empties)
        self.convention = convention(with_all_regions(str(task.case.convention), task.rules))

    def _measure(self, labels: npt.NDArray[np.uint8], rules: Rules) -> dict[str, float]:
        score = measure_case(
            labels,
            self.reference,
            case_id=self.task.case.case_id,
            spacing_mm=self.spacing_mm,
            prediction_convention=self.convention,
            reference_convention=self.convention,
            rules=rules,
        )
        return {row.region: float(getattr(row, self.task.metric)) for row in score.regions}

    def _score_mask(self, region: str, mask: Mask) -> float:
        """The metric of one region whose mask is this."""
        labels = mask.astype(np.uint8) * np.uint8(self.convention.written(region))
        return self._measure(labels, replace(self.rules, regions=(region,)))[region]

    def score_options(self, region: str, options: Sequence[RegionSettings]) -> list[float]:
        """The metric of a region under each choice for it, the other regions aside."""
        values = self.values[self.regions.index(region)]
        known: dict[tuple[Any, ...], float] = {}

        def scored(key: tuple[Any, ...], mask: Mask) -> float:
            if key not in known:
                known[key] = self._score_mask(region, mask)
            return known[key]

        nothing = scored((), np.zeros(values.shape, bool)) if region == "ET" else 0.0
        results: dict[RegionSettings, float] = {}
        for threshold in sorted({option.threshold for option in options}):
            plain = values >= threshold
            whole = filled(plain) if any(option.fill_holes for option in options) else plain
            holes = bool((whole != plain).any())
            parts = {False: find_components(plain)}
            parts[True] = find_components(whole) if holes else parts[False]
            for option in (option for option in options if option.threshold == threshold):
                found = parts[option.fill_holes]
                kept = found.kept(smallest=option.smallest_component, largest=option.keep_largest)
                if found.sizes[kept].sum() < option.smallest_et:
                    results[option] = nothing
                    continue
                key = (threshold, option.fill_holes and holes, kept.tobytes())
                if key not in known:
                    scored(key, found.mask(kept))
                results[option] = known[key]
        return [results[option] for option in options]

    def score_settings(self, settings: Settings) -> dict[str, float]:
        """The metric of every region as ``evaluate`` would find it in the label map that ``segment`` would write."""
        import torch

        from transforms.cleaning import Cleaning
        from transforms.regions import to_labels

        chosen = [settings[region] for region in self.regions]
        cleaning = Cleaning(
            self.regions,
            self.task.nesting,
            tuple(one.fill_holes for one in chosen),
            tuple(one.smallest_component for one in chosen),
            tuple(one.keep_largest for one in chosen),
            max(one.smallest_et for one in chosen),
        )
        masks = cleaning([values >= one.threshold for values, one in zip(self.values, chosen, strict=True)])
        regions = torch.from_numpy(np.stack(masks).astype(np.uint8))
        labels: npt.NDArray[np.uint8] = to_labels(regions, self.convention, self.regions)[0].numpy()
        return self._measure(labels, self.rules)


Table = Mapping[str, tuple[float, ...]]
"""Region to the metric of one case under each of the region's options."""


def score_table(task: Task, options: Mapping[str, Sequence[RegionSettings]]) -> Table | CaseError:
    """The metric of a case under every option of every region; what goes wrong is told, not raised."""
    try:
        lowest = min(option.threshold for some in options.values() for option in some)
        case = OpenCase(task, lowest=lowest)
        return {region: tuple(case.score_options(region, some)) for region, some in options.items()}
    except CaseError as error:
        return error


def score_together(task: Task, settings: Sequence[Settings]) -> list[dict[str, float]]:
    """The metric of every region of a case under several settings of all regions together."""
    lowest = min(one.threshold for some in settings for one in some.values())
    case = OpenCase(task, lowest=lowest)
    known: list[tuple[Settings, dict[str, float]]] = []
    results = []
    for some in settings:
        found = next((scores for other, scores in known if other == some), None)
        if found is None:
            found = case.score_settings(some)
            known.append((some, found))
        results.append(found)
    return results
