"""How good a label map of the run probably is, learned from the same cases that its post-processing was chosen on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from brats_pipeline.bundles import weights_path
from brats_pipeline.evaluation.scoring import read_reference
from brats_pipeline.inference.expected_dice import FILE, ExpectedDice, fit_expected_dice, makers, write_expected_dice
from brats_pipeline.overlays import post_processing, read_post_processing
from brats_pipeline.tuning.grid import settings_in_force
from brats_pipeline.tuning.scoring import Task
from transforms.labels import convention
from transforms.probabilities import read_probabilities


def calibrate(
    run: Path, configuration: Mapping[str, Any], tasks: Sequence[Task], regions: tuple[str, ...]
) -> ExpectedDice:
    """Fit the expected Dice of each region, and write ``configs/expected_dice.json`` where there are cases enough.

    The masks are those that ``segment`` writes from now on: behind the overlay that lies in the run, if one does. Its
    settings may have been chosen by the same cases, which makes the expectation a little too good. Of a region where
    patients left out show that the mean of the others would do as well, nothing is written.

    Args:
        run: the run; its overlay, if any, is in place.
        configuration: the ids of its ``inference.yaml``.
        tasks: the cases that could be scored.
        regions: of the network's channels.

    Raises:
        PipelineError: the file cannot be written.
    """
    from transforms.cleaning import Cleaning

    overlay = post_processing(run)
    content = {**configuration, **(read_post_processing(overlay) if overlay is not None else {})}
    chosen = [settings_in_force(content, regions)[region] for region in regions]
    cleaning = Cleaning(
        regions,
        str(content.get("nesting", "outward")),
        tuple(one.fill_holes for one in chosen),
        tuple(one.smallest_component for one in chosen),
        tuple(one.keep_largest for one in chosen),
        max(one.smallest_et for one in chosen),
    )

    def probabilities() -> Iterator[Any]:
        for task in tasks:
            found = read_probabilities(task.probabilities)
            yield found.values[[found.regions.index(region) for region in regions]].astype(np.float32)

    def masks() -> Iterator[Any]:
        for values in probabilities():
            yield np.stack(cleaning([one >= each.threshold for one, each in zip(values, chosen, strict=True)]))

    def references() -> Iterator[Any]:
        for task in tasks:
            labels, _ = read_reference(task.case)
            rule = convention(str(task.case.convention))
            yield np.stack([np.isin(labels, sorted(rule.regions[region])) for region in regions])

    fitted = fit_expected_dice(
        probabilities(),
        references(),
        masks=masks(),
        regions=regions,
        patients=[task.case.patient_id for task in tasks],
        made_by=makers(weights_path(run), tta=configuration.get("tta", ())),
    )
    path = run / "configs" / FILE
    if useful := {name: fit for name, fit in fitted.regions.items() if fit.mean_absolute_error < fit.of_the_mean}:
        write_expected_dice(path, replace(fitted, regions=useful))
    else:
        path.unlink(missing_ok=True)  # one of earlier was made for other weights or cases
    return fitted
