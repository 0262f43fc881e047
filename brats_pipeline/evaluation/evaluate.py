"""Score a folder of predictions against its references, and write tables and a report.

No case is dropped in silence: a prediction that is missing, unreadable or on another grid counts as a miss, and the
case is named. How numbers come about stands in :mod:`brats_pipeline.metrics`, how a case is read and scored in
:mod:`brats_pipeline.evaluation.scoring`; this file goes through the cohort and writes ``cases.csv``, ``lesions.csv``,
``summary.json`` and ``report.html``, for slices ``slices.csv`` too, and ``manifest.json``: what all of it came from.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from brats_pipeline.errors import PipelineError
from brats_pipeline.evaluation.manifest import relative, versions, write_manifest
from brats_pipeline.evaluation.pairs import Pair, find_pairs
from brats_pipeline.evaluation.scoring import Outcome, cohort_calibration, score_pair, sharp_volume
from brats_pipeline.files import write_atomically
from brats_pipeline.metrics import (
    CALIBRATION_COLUMNS,
    PER_PATIENT,
    RESAMPLES,
    SLICE_COLUMNS,
    Calibration,
    LesionScore,
    RegionScore,
    RegionSummary,
    Rules,
    SliceGroup,
    SliceScore,
    case_columns,
    csv_text,
    enhancing_twice,
    headline,
    lesion_columns,
    rules_named,
    slice_headline,
    summarise,
    summarise_slices,
)
from brats_pipeline.metrics.calibration import VOXELS_IN_WORDS
from brats_pipeline.predictions import PROBABILITIES, mask_files, probability_files
from brats_pipeline.report import CasePage, PartRow, notable_cases, part_rows, write_report
from transforms.labels import MODALITIES

SCHEMA_VERSION = 2
"""2: ``slices.copied_channels`` instead of ``copies_of_flair``; ``intervals``, ``parts`` and ``et_twice`` are new."""
CALIBRATION_FIGURES = ("figures/calibration.png", "figures/calibration.svg")


@dataclass(frozen=True)
class Evaluation:
    """What :func:`evaluate` found and wrote.

    Args:
        rules: how it was scored.
        scores: one row per case and region, by case id and then in the order of the rules.
        regions: the cohort in one summary per region.
        conventions: label convention of the references to that of the predictions scored against them.
        missing: cases without a prediction; each counts as a miss.
        failed: case to the reason why it could not be scored; counted as a miss where its reference is usable.
        unmatched: predictions without a reference, not scored.
        out: folder of ``cases.csv``, ``summary.json`` and ``report.html``.
        slices: one row per slice, by case id and then from the bottom up; empty for volumes.
        groups: slices in figures, for all patients and for those that lack no sequence; empty for volumes.
        copied: patient to the modalities whose channel is a copy of another; those that have none are left out.
        patients: case to the patient it belongs to.
        parts: Dice in parts of the cohort, such as cases without ET; empty for slices.
        lesions: one row per lesion, by case id and then by region; empty where the rules score none.
        calibration: whether probabilities mean what they say; None where none were saved.
    """

    rules: Rules
    scores: tuple[RegionScore, ...]
    regions: tuple[RegionSummary, ...]
    conventions: Mapping[str, str]
    missing: tuple[str, ...]
    failed: Mapping[str, str]
    unmatched: tuple[str, ...]
    out: Path
    slices: tuple[SliceScore, ...] = ()
    groups: tuple[SliceGroup, ...] = ()
    copied: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    patients: Mapping[str, str] = field(default_factory=dict)
    parts: tuple[PartRow, ...] = ()
    lesions: tuple[LesionScore, ...] = ()
    calibration: Calibration | None = None

    @property
    def complete(self) -> bool:
        """Whether every case had a prediction that could be scored."""
        return not self.missing and not self.failed

    def table(self) -> list[list[str]]:
        """The headline figures for printing: a header, and one row per region or per way to average slices."""
        return slice_headline(self.groups) if self.groups else headline(self.regions)


def _outcomes(pairs: Sequence[Pair], rules: Rules, images: bool, workers: int) -> Iterator[tuple[str, Outcome]]:
    """Score the cases, here or in other processes, in the order they finish."""
    if workers <= 1 or len(pairs) <= 1:
        for pair in pairs:
            yield pair.case.case_id, score_pair(pair, rules=rules, images=images)
        return
    # Fresh processes: a forked copy of one that runs threads may hang.
    pool = ProcessPoolExecutor(min(workers, len(pairs)), mp_context=multiprocessing.get_context("spawn"))
    try:
        futures = {pool.submit(score_pair, pair, rules=rules, images=images): pair.case.case_id for pair in pairs}
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _pages(
    outcomes: Mapping[str, Outcome], rows: Sequence[RegionScore], pairs: Sequence[Pair], rules: Rules
) -> list[CasePage]:
    """What the report shows of each case; the worst, the median and the best one with finer volumes."""
    pages = {case_id: outcome.page for case_id, outcome in sorted(outcomes.items()) if outcome.page is not None}
    notable = notable_cases(rows, {case_id for case_id, page in pages.items() if page.overlay is not None})
    for pair in pairs:
        page = pages.get(pair.case.case_id)
        if page is None or page.volume is None or page.case_id not in notable:
            continue
        if sharp := sharp_volume(pair, rules=rules, predicted=page.volume.predicted):
            pages[page.case_id] = replace(page, volume=sharp)
    return list(pages.values())


def _interval_facts(evaluation: Evaluation) -> dict[str, Any]:
    """How the intervals came about: what was drawn, how often, from which seed."""
    cases = {row.case_id for row in evaluation.scores}
    patients = {evaluation.patients.get(case_id, case_id) for case_id in cases}
    unit = "patient" if len(patients) < len(cases) else "case"
    facts = {"of": "mean", "confidence": 0.95, "method": "BCa bootstrap", "resamples": RESAMPLES, "seed": 0}
    return facts | {"drawn": unit, "cases": len(cases), "patients": len(patients)}


def _summary(evaluation: Evaluation, used: Mapping[str, str]) -> dict[str, Any]:
    summary = {
        "schema_version": SCHEMA_VERSION,
        "rules": asdict(evaluation.rules) | {"in_words": list(evaluation.rules.sentences())},
        "conventions": [
            {"references": reference, "predictions": prediction}
            for reference, prediction in sorted(evaluation.conventions.items())
        ],
        "regions": {region.region: asdict(region) for region in evaluation.regions},
        "missing": list(evaluation.missing),
        "failed": dict(evaluation.failed),
        "unmatched": list(evaluation.unmatched),
        "intervals": _interval_facts(evaluation),
        "parts": [asdict(part) for part in evaluation.parts],
        "versions": dict(used),
    }
    if "ET" in evaluation.rules.regions:
        twice = enhancing_twice(evaluation.scores, patients=evaluation.patients)
        summary["et_twice"] = [asdict(figures) for figures in twice]
    if evaluation.groups:
        copied = {case_id: list(modalities) for case_id, modalities in evaluation.copied.items()}
        summary["slices"] = {
            "copied_channels": copied,
            "headline": PER_PATIENT,
            "groups": [asdict(group) for group in evaluation.groups],
        }
    if (calibration := evaluation.calibration) is not None:
        summary["calibration"] = {
            "in_words": VOXELS_IN_WORDS,
            "without": dict(calibration.without),
            "regions": {region: asdict(found) for region, found in calibration.regions.items()},
        }
    return summary


def _probabilities(
    pairs: Sequence[Pair], predictions: Path, folder: str | Path | Literal[False] | None
) -> tuple[Path | None, tuple[Pair, ...]]:
    """The folder of probabilities and the pairs with their files; no folder where none belongs to a case."""
    if folder is False:
        return None, tuple(pairs)
    root = predictions / PROBABILITIES if folder is None else Path(folder)
    files = probability_files(root)
    if not any(pair.case.case_id in files for pair in pairs):
        if folder is None:
            return None, tuple(pairs)
        held = ", ".join(path.name for path in list(files.values())[:3])
        raise PipelineError(
            f"{root}: no probabilities belong to a case that is scored; they are named by case, such as "
            f"{pairs[0].case.case_id}.npz, and the folder holds {held or 'none'}"
        )
    return root, tuple(replace(pair, probabilities=files.get(pair.case.case_id)) for pair in pairs)


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
        workers=workers,
    )
    chosen = pairing.rules
    probable, pairs = _probabilities(pairing.pairs, predictions, probabilities)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PipelineError(f"{out}: cannot be made ({error.strerror or error}); name another folder") from error
    outcomes = {}
    for case_id, outcome in _outcomes(pairs, chosen, images, workers):
        outcomes[case_id] = outcome
        if on_case:
            on_case(case_id)
    failures = {case_id: outcome.failure for case_id, outcome in outcomes.items() if outcome.failure is not None}
    failures |= {case_id: f"{reason}; not scored" for case_id, reason in pairing.refused.items()}
    rows = tuple(row for case_id in sorted(outcomes) for row in outcomes[case_id].rows)
    slices = tuple(row for case_id in sorted(outcomes) for row in outcomes[case_id].slices)
    lesions = tuple(row for case_id in sorted(outcomes) for row in outcomes[case_id].lesions)
    copied = {case_id: outcome.copied for case_id, outcome in sorted(outcomes.items()) if outcome.copied}
    patients = {pair.case.case_id: pair.case.patient_id for pair in pairs}
    lacking = {pair.case.case_id: set(MODALITIES) - set(pair.case.images) for pair in pairs if pair.case.images}
    evaluation = Evaluation(
        rules=chosen,
        scores=rows,
        regions=tuple(summarise(rows, chosen.regions, patients=patients)),
        slices=slices,
        groups=tuple(summarise_slices(rows, slices, incomplete=copied)) if chosen.slices else (),
        copied=copied,
        patients=patients,
        parts=() if chosen.slices else tuple(part_rows(rows, chosen.regions, lacking=lacking, patients=patients)),
        lesions=lesions,
        conventions={pair.reference_convention: pair.prediction_convention for pair in pairing.pairs},
        missing=tuple(pair.case.case_id for pair in pairing.pairs if pair.prediction is None),
        failed=dict(sorted(failures.items())),
        unmatched=pairing.unmatched,
        out=out,
        calibration=None if probable is None else cohort_calibration(pairs, outcomes, chosen.regions),
    )
    used = versions()
    write_atomically(out / "cases.csv", csv_text(rows, case_columns(chosen)))
    if chosen.lesions:
        write_atomically(out / "lesions.csv", csv_text(lesions, lesion_columns(chosen.lesions)))
    if chosen.slices:
        write_atomically(out / "slices.csv", csv_text(slices, SLICE_COLUMNS))
    if evaluation.calibration is not None:
        write_atomically(out / "calibration.csv", csv_text(evaluation.calibration.rows, CALIBRATION_COLUMNS))
    for name, written in (
        ("lesions.csv", chosen.lesions),
        ("slices.csv", chosen.slices),
        ("calibration.csv", probable),
    ):
        if not written:
            (out / name).unlink(missing_ok=True)  # of an earlier evaluation by other rules
    for name in CALIBRATION_FIGURES:
        (out / name).unlink(missing_ok=True)  # the report draws them again, where there is something to draw
    write_atomically(out / "summary.json", json.dumps(_summary(evaluation, used), indent=2) + "\n")
    write_report(
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
        pages=_pages(outcomes, rows, pairing.pairs, chosen),
        parts=evaluation.parts,
        patients=patients,
        images=images,
        versions=used,
        calibration=evaluation.calibration,
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
            "images": images,
        },
        predictions={pair.case.case_id: _prediction_files(pair) for pair in pairing.pairs},
        references={pair.case.case_id: pair.case.label.paths for pair in pairing.pairs if pair.case.label is not None},
        probabilities={pair.case.case_id: [pair.probabilities] for pair in pairs if pair.probabilities is not None},
        outputs=_outputs(out),
        seeds={"bootstrap": 0},
    )
    return evaluation


def _prediction_files(pair: Pair) -> list[Path]:
    """The files of a prediction; none where there is none."""
    if pair.prediction is None:
        return []
    return sorted(mask_files(pair.prediction).values()) if pair.prediction.is_dir() else [pair.prediction]


def _outputs(out: Path) -> list[str]:
    """What an evaluation writes beside its manifest."""
    names = ("cases.csv", "lesions.csv", "slices.csv", "calibration.csv", "summary.json", "report.html", "report.md")
    figures = sorted(path.relative_to(out).as_posix() for path in (out / "figures").glob("*"))
    return [name for name in (*names, *figures) if (out / name).is_file()]
