"""Score a folder of predictions against its references, and write tables and a report.

No case is dropped in silence: a prediction that is missing, unreadable or on another grid counts as a miss, and the
case is named. How numbers come about stands in :mod:`brats_pipeline.metrics`; this file finds the pairs, decides what
their labels mean, and writes ``cases.csv``, ``summary.json`` and ``report.html``.
"""

from __future__ import annotations

import json
import multiprocessing
import platform
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy.typing as npt

from brats_pipeline.cases import Case
from brats_pipeline.errors import CaseError, PipelineError
from brats_pipeline.files import write_atomically
from brats_pipeline.metrics import (
    RegionScore,
    RegionSummary,
    Rules,
    csv_text,
    headline,
    region_masks,
    rules_named,
    score_case,
    score_miss,
    summarise,
)
from brats_pipeline.overlay import overlay_figure
from brats_pipeline.pairs import Pair, find_pairs, read_labels
from brats_pipeline.report import CasePage, write_report
from transforms.labels import CONVENTIONS
from transforms.nifti import describe_grid, read_nifti, same_grid, spacing_mm, voxels

SCHEMA_VERSION = 1

Affine = npt.NDArray[Any]


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
    """

    rules: Rules
    scores: tuple[RegionScore, ...]
    regions: tuple[RegionSummary, ...]
    conventions: Mapping[str, str]
    missing: tuple[str, ...]
    failed: Mapping[str, str]
    unmatched: tuple[str, ...]
    out: Path

    @property
    def complete(self) -> bool:
        """Whether every case had a prediction that could be scored."""
        return not self.missing and not self.failed

    def table(self) -> list[list[str]]:
        """The headline figures for printing: a header, one row per region, and the mean over the regions."""
        return headline(self.regions)


@dataclass(frozen=True)
class _Outcome:
    """What came of a case: its rows, why it failed, its picture, or why there is none."""

    rows: list[RegionScore]
    failure: str | None = None
    overlay: bytes | None = None
    no_overlay: str | None = None


def _score(pair: Pair, rules: Rules, images: bool) -> _Outcome:
    """Score one case and draw its overlay."""
    case_id, label = pair.case.case_id, pair.case.label
    expected, predicted = CONVENTIONS[pair.reference_convention], CONVENTIONS[pair.prediction_convention]
    assert label is not None  # no pair is made without one
    try:
        reference, affine = read_labels(label.paths[0], case_id, "reference")
        spacing = spacing_mm(affine).tolist()
        rows = score_miss(reference, case_id=case_id, spacing_mm=spacing, reference_convention=expected, rules=rules)
    except CaseError as error:
        return _Outcome([], failure=f"{error.reason}; not scored")
    prediction, failure = None, None
    if pair.prediction is not None:
        try:
            prediction, other = read_labels(pair.prediction, case_id, "prediction")
            if not same_grid(reference.shape, affine, prediction.shape, other):
                raise CaseError(
                    case_id,
                    "the prediction lies on another grid than the reference: "
                    f"prediction {describe_grid(prediction.shape, other)}; "
                    f"reference {describe_grid(reference.shape, affine)}; resample the prediction to the reference",
                )
            rows = score_case(
                prediction,
                reference,
                case_id=case_id,
                spacing_mm=spacing,
                prediction_convention=predicted,
                reference_convention=expected,
                rules=rules,
            )
        except CaseError as error:
            prediction, failure = None, f"{error.reason}; counted as a miss"
    if not images:
        return _Outcome(rows, failure)
    try:
        scans = _overlay_images(pair.case, reference.shape, affine)
    except PipelineError as error:
        return _Outcome(rows, failure, no_overlay=str(error))
    overlay = overlay_figure(
        scans,
        region_masks(reference, expected, rules.regions),
        None if prediction is None else region_masks(prediction, predicted, rules.regions),
        affine=affine,
    )
    return _Outcome(rows, failure, overlay)


def _overlay_images(case: Case, shape: tuple[int, ...], affine: Affine) -> dict[str, npt.NDArray[Any]]:
    """FLAIR and T1c on the grid of the reference."""
    images = {}
    for modality in ("flair", "t1c"):
        source = case.images.get(modality)
        if source is None:
            continue
        image = read_nifti(source.paths[0])
        if not same_grid(shape, affine, image.shape[:3], image.affine):
            raise PipelineError(f"{modality} lies on another grid than the reference")
        images[modality] = voxels(image) if source.channel is None else voxels(image)[..., source.channel]
    if not images:
        raise PipelineError("no FLAIR or T1c beside the reference")
    return images


def _outcomes(pairs: Sequence[Pair], rules: Rules, images: bool, workers: int) -> Iterator[tuple[str, _Outcome]]:
    """Score the cases, here or in other processes, in the order they finish."""
    if workers <= 1 or len(pairs) <= 1:
        for pair in pairs:
            yield pair.case.case_id, _score(pair, rules, images)
        return
    # Fresh processes: a forked copy of one that runs threads may hang.
    pool = ProcessPoolExecutor(min(workers, len(pairs)), mp_context=multiprocessing.get_context("spawn"))
    try:
        futures = {pool.submit(_score, pair, rules, images): pair.case.case_id for pair in pairs}
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _versions() -> dict[str, str]:
    """Versions of what the numbers came from."""
    versions = {"python": platform.python_version()}
    for name in ("brats-pipeline", "numpy", "scipy", "nibabel"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def _summary(evaluation: Evaluation, versions: Mapping[str, str]) -> dict[str, Any]:
    return {
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
        "versions": dict(versions),
    }


def evaluate(
    predictions: str | Path,
    references: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    rules: str = "brats2023-gli",
    convention: str | None = None,
    prediction_convention: str | None = None,
    only: Collection[str] | None = None,
    workers: int = 1,
    images: bool = True,
    on_case: Callable[[str], None] | None = None,
) -> Evaluation:
    """Score every case of a cohort and write ``cases.csv``, ``summary.json`` and ``report.html``.

    A case without a prediction is a miss: the rules' score for a region empty on one side, in every region, those that
    are empty in the reference included. The same holds for a prediction that cannot be used. A case whose reference
    cannot be used is not scored; it is named among the failed.

    Args:
        predictions: folder of ``CASE.nii.gz``.
        references: a dataset or several, or a folder of label maps named as the predictions are.
        out: folder to write to; made where it does not exist.
        rules: name of the scoring rules.
        convention: label convention of the references; by default their values decide.
        prediction_convention: label convention of the predictions; by default their values decide.
        only: case ids to score, such as a validation fold; None scores all.
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
    chosen = rules_named(rules)
    pairing = find_pairs(
        predictions,
        [Path(root) for root in roots],
        rules=chosen,
        convention=convention,
        prediction_convention=prediction_convention,
        only=only,
        workers=workers,
    )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PipelineError(f"{out}: cannot be made ({error.strerror or error}); name another folder") from error
    outcomes = {}
    for case_id, outcome in _outcomes(pairing.pairs, chosen, images, workers):
        outcomes[case_id] = outcome
        if on_case:
            on_case(case_id)
    failures = {case_id: outcome.failure for case_id, outcome in outcomes.items() if outcome.failure is not None}
    failures |= {case_id: f"{reason}; not scored" for case_id, reason in pairing.refused.items()}
    rows = tuple(row for case_id in sorted(outcomes) for row in outcomes[case_id].rows)
    evaluation = Evaluation(
        rules=chosen,
        scores=rows,
        regions=tuple(summarise(rows, chosen.regions)),
        conventions={pair.reference_convention: pair.prediction_convention for pair in pairing.pairs},
        missing=tuple(pair.case.case_id for pair in pairing.pairs if pair.prediction is None),
        failed=dict(sorted(failures.items())),
        unmatched=pairing.unmatched,
        out=out,
    )
    versions = _versions()
    write_atomically(out / "cases.csv", csv_text(rows))
    write_atomically(out / "summary.json", json.dumps(_summary(evaluation, versions), indent=2) + "\n")
    write_report(
        out / "report.html",
        rules=chosen,
        scores=rows,
        regions=evaluation.regions,
        conventions=evaluation.conventions,
        missing=evaluation.missing,
        failed=evaluation.failed,
        unmatched=evaluation.unmatched,
        pages=[CasePage(case_id, outcome.overlay, outcome.no_overlay) for case_id, outcome in sorted(outcomes.items())],
        images=images,
        versions=versions,
    )
    return evaluation
