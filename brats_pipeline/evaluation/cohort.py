"""From the pairs of a cohort to what came of each case: in several processes, with probabilities and pictures."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Literal

from brats_pipeline.errors import PipelineError
from brats_pipeline.evaluation.pairs import Pair
from brats_pipeline.evaluation.scoring import Outcome, score_pair, sharp_volume
from brats_pipeline.metrics import RegionScore, Rules
from brats_pipeline.predictions import PROBABILITIES, probability_files
from brats_pipeline.report import CasePage, notable_cases


def with_probabilities(
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


def score_pairs(pairs: Sequence[Pair], *, rules: Rules, images: bool, workers: int) -> Iterator[tuple[str, Outcome]]:
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


def case_pages(
    outcomes: Mapping[str, Outcome], rows: Sequence[RegionScore], pairs: Sequence[Pair], *, rules: Rules
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
