"""Score a folder of predictions against its references, and write tables and a report.

No case is dropped in silence: a prediction that is missing, unreadable or on another grid counts as a miss, and the
case is named. How numbers come about stands in :mod:`brats_pipeline.metrics`, how a case is read and scored in
:mod:`brats_pipeline.evaluation.scoring`; this file goes through the cohort and writes ``cases.csv``, ``lesions.csv``,
``summary.json`` and ``report.html``, for slices ``slices.csv`` too, and ``manifest.json``: what all of it came from.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from brats_pipeline.errors import PipelineError
from brats_pipeline.evaluation.cohort import case_pages, score_pairs, with_probabilities
from brats_pipeline.evaluation.manifest import relative, remove_stale, versions, write_manifest
from brats_pipeline.evaluation.pairs import Pair, find_pairs
from brats_pipeline.evaluation.result import Evaluation, summary_of
from brats_pipeline.evaluation.scoring import cohort_calibration
from brats_pipeline.evaluation.told import told_by_segment
from brats_pipeline.files import write_atomically
from brats_pipeline.metrics import (
    CALIBRATION_COLUMNS,
    SLICE_COLUMNS,
    case_columns,
    csv_text,
    lesion_columns,
    rules_named,
    summarise,
    summarise_slices,
)
from brats_pipeline.predictions import mask_files
from brats_pipeline.report import part_rows, write_report
from transforms.labels import MODALITIES

__all__ = ["Evaluation", "evaluate"]

TABLES = ("lesions.csv", "slices.csv", "calibration.csv")
"""Those that not every evaluation writes."""
CALIBRATION_FIGURES = ("figures/calibration.png", "figures/calibration.svg")


def evaluate(
    predictions: str | Path,
    references: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    rules: str | None = None,
    convention: str | None = None,
    prediction_convention: str | None = None,
    only: Collection[str] | None = None,
    probabilities: str | Path | Literal[False] | None = None,
    patients: str | Path | None = None,
    workers: int = 1,
    images: bool = True,
    on_case: Callable[[str], None] | None = None,
) -> Evaluation:
    """Score every case of a cohort and write ``cases.csv``, ``lesions.csv``, ``summary.json`` and ``report.html``.

    Patients whose scans are slices are scored by overlap alone, and ``slices.csv`` is written instead of
    ``lesions.csv``; the rules of 2020 score no single lesions either. Where probabilities were saved, their calibration
    is written too, with ``calibration.csv``.

    A case without a prediction is a miss: the rules' score for a region empty on one side, in every region, those that
    are empty in the reference included. The same holds for a prediction that cannot be used. A case whose reference
    cannot be used is not scored; it is named among the failed.

    Args:
        predictions: folder of ``CASE.nii.gz``; for slices also of ``CASE/SLICE_mask.tif``, a mask for every
            slice.
        references: a dataset or several, or a folder of label maps named as the predictions are.
        out: folder to write to; made where it does not exist.
        rules: name of the scoring rules; by default ``lgg`` for slices and ``brats2023-gli`` for volumes.
        convention: label convention of the references; by default their values decide.
        prediction_convention: label convention of the predictions; by default their values decide.
        only: case ids to score, such as a validation fold; None scores all.
        probabilities: folder of ``CASE.npz``; by default ``probabilities`` in that of the predictions, where there is
            one; False for none.
        patients: CSV of case_id,patient_id where names do not tell the patient; intervals draw whole patients.
        workers: processes; the results do not depend on their number.
        images: whether the report shows the scans; off where they must not travel.
        on_case: called with the id of each finished case.

    Raises:
        PipelineError: a folder is unusable, nothing matches, a label convention is uncertain, or ``out`` cannot be
            written.
        ValueError: the rules are unknown.
    """
    predictions, out = Path(predictions), Path(out)
    roots = [references] if isinstance(references, str | Path) else references
    pairing = find_pairs(
        predictions,
        [Path(root) for root in roots],
        rules=None if rules is None else rules_named(rules),
        convention=convention,
        prediction_convention=prediction_convention,
        only=only,
        patients=patients,
        workers=workers,
    )
    chosen = pairing.rules
    probable, pairs = with_probabilities(pairing.pairs, predictions, probabilities)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PipelineError(f"{out}: cannot be made ({error.strerror or error}); name another folder") from error
    outcomes = {}
    folders = [predictions, *roots, *([probable] if probable else [])]
    for case_id, outcome in score_pairs(pairs, rules=chosen, images=images, workers=workers):
        without = None if outcome.no_calibration is None else seen_from(outcome.no_calibration, folders)
        outcomes[case_id] = replace(outcome, no_calibration=without)
        if on_case:
            on_case(case_id)
    failures = {case_id: outcome.failure for case_id, outcome in outcomes.items() if outcome.failure is not None}
    failures |= {case_id: f"{reason}; not scored" for case_id, reason in pairing.refused.items()}
    failures = {case_id: seen_from(reason, folders) for case_id, reason in failures.items()}
    rows = tuple(row for case_id in sorted(outcomes) for row in outcomes[case_id].rows)
    slices = tuple(row for case_id in sorted(outcomes) for row in outcomes[case_id].slices)
    lesions = tuple(row for case_id in sorted(outcomes) for row in outcomes[case_id].lesions)
    copied = {case_id: outcome.copied for case_id, outcome in sorted(outcomes.items()) if outcome.copied}
    owners = {pair.case.case_id: pair.case.patient_id for pair in pairs}
    lacking = {pair.case.case_id: set(MODALITIES) - set(pair.case.images) for pair in pairs if pair.case.images}
    evaluation = Evaluation(
        rules=chosen,
        scores=rows,
        regions=tuple(summarise(rows, chosen.regions, patients=owners)),
        slices=slices,
        groups=tuple(summarise_slices(rows, slices, incomplete=copied, patients=owners)) if chosen.slices else (),
        copied=copied,
        patients=owners,
        parts=() if chosen.slices else tuple(part_rows(rows, chosen.regions, lacking=lacking, patients=owners)),
        lesions=lesions,
        conventions={pair.reference_convention: pair.prediction_convention for pair in pairing.pairs},
        missing=tuple(pair.case.case_id for pair in pairing.pairs if pair.prediction is None),
        failed=dict(sorted(failures.items())),
        unmatched=pairing.unmatched,
        out=out,
        calibration=None if probable is None else cohort_calibration(pairs, outcomes, chosen.regions),
    )
    used = versions()
    remove_stale(out, (*TABLES, *CALIBRATION_FIGURES))
    files = {"cases.csv": csv_text(rows, case_columns(chosen))}
    if chosen.lesions:
        files["lesions.csv"] = csv_text(lesions, lesion_columns(chosen.lesions))
    if chosen.slices:
        files["slices.csv"] = csv_text(slices, SLICE_COLUMNS)
    if evaluation.calibration is not None:
        files["calibration.csv"] = csv_text(evaluation.calibration.rows, CALIBRATION_COLUMNS)
    files["summary.json"] = json.dumps(summary_of(evaluation, used), indent=2) + "\n"
    for name, text in files.items():
        write_atomically(out / name, text)
    pages = write_report(
        out / "report.html",
        rules=chosen,
        scores=rows,
        regions=evaluation.regions,
        slices=slices,
        groups=evaluation.groups,
        copied=copied,
        conventions=evaluation.conventions,
        missing=evaluation.missing,
        failed=evaluation.failed,
        unmatched=evaluation.unmatched,
        pages=case_pages(outcomes, rows, pairing.pairs, rules=chosen),
        parts=evaluation.parts,
        patients=owners,
        images=images,
        versions=used,
        calibration=evaluation.calibration,
        told=told_by_segment(predictions, outcomes.keys()),
    )
    write_manifest(
        out,
        call={
            "command": "evaluate",
            "predictions": relative(predictions, out),
            "references": [relative(root, out) for root in roots],
            "rules": chosen.name,
            "convention": convention,
            "prediction_convention": prediction_convention,
            "only": None if only is None else sorted(only),
            "probabilities": False if probable is None else relative(probable, out),
            "patients": None if patients is None else relative(patients, out),
            "images": images,
        },
        predictions={pair.case.case_id: _prediction_files(pair) for pair in pairing.pairs},
        references={pair.case.case_id: pair.case.label.paths for pair in pairing.pairs if pair.case.label is not None},
        probabilities={pair.case.case_id: [pair.probabilities] for pair in pairs if pair.probabilities is not None},
        patients=None if patients is None else Path(patients),
        outputs=[*files, *pages],
        seeds={"bootstrap": 0},
    )
    return evaluation


def seen_from(reason: str, folders: Sequence[str | Path]) -> str:
    """A reason with its files named as they lie below one of these folders: all may lie elsewhere tomorrow."""
    for folder in folders:
        for place in (Path(folder).resolve(), Path(folder)):
            reason = re.sub(rf"(?<![\w./-]){re.escape(f'{place}{os.sep}')}", "", reason)
    return reason


def _prediction_files(pair: Pair) -> list[Path]:
    """The files of a prediction; none where there is none."""
    if pair.prediction is None:
        return []
    return sorted(mask_files(pair.prediction).values()) if pair.prediction.is_dir() else [pair.prediction]
