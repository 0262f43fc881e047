"""Choose a run's post-processing on cases that it was not trained on, and say whether that helps on other cases."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from brats_pipeline.bundles import bundle_path, weights_path
from brats_pipeline.cases.stacks import is_stack
from brats_pipeline.errors import CaseError, PipelineError
from brats_pipeline.files import file_sha256
from brats_pipeline.metrics import Rules, lower_is_better, rules_named, usual_rules
from brats_pipeline.overlays import POST_PROCESSING, post_processing
from brats_pipeline.progress import growing_bar
from brats_pipeline.tuning.calibrating import calibrate
from brats_pipeline.tuning.deciding import CaseRow, choose, judge, left_out
from brats_pipeline.tuning.grid import Grid, settings_in_force
from brats_pipeline.tuning.predicting import cases_to_tune_on, first_asked, probabilities_of
from brats_pipeline.tuning.scoring import Table, Task, rules_for, score_table, score_together
from brats_pipeline.tuning.writing import Tuning, write_overlay, write_tuning

FOLDER = "tuning"
WORTH_SAYING_S = 60.0


def tune(
    run: str | Path,
    *,
    folds: Sequence[str | Path] = (),
    data: str | Path | None = None,
    datalist: str | Path | None = None,
    convention: str | None = None,
    metric: str = "dice",
    rules: str | None = None,
    grid: Grid | None = None,
    write_anyway: bool = False,
    device: str | None = None,
    workers: int = 1,
    quiet: bool = True,
    on_note: Callable[[str], None] | None = None,
) -> Tuning:
    """Search thresholds, sizes of parts, filling of holes and the smallest ET for the best mean of a metric.

    The cases also teach how good a label map of the run probably is: ``RUN/configs/expected_dice.json``, see
    :mod:`brats_pipeline.inference.expected_dice`.

    ``RUN/tuning`` gets ``tuning.json``, ``tuning.md`` and ``tuning.csv``; ``RUN/configs/postprocessing.yaml`` is
    written where the cases that were left out in turn show that it helps. Equal inputs give equal files.

    Args:
        run: folder of a run, or name or folder of a bundle with weights.
        folds: folders of runs of the same recipe that were trained on fewer cases. They are asked instead of ``run``,
            each for the cases that it never saw; so a run that was trained on all cases can be tuned on them. Of a case
            that several never saw the first is asked.
        data: folder of a cohort with label maps, instead of the validation fold.
        datalist: a datalist instead of the validation fold.
        convention: label convention of ``data``, where its layout and values leave it open.
        metric: ``dice``, ``lesionwise_dice`` or ``hd95_mm``; its mean over the regions and cases is improved.
        rules: name of the scoring rules; by default ``lgg`` for slices and ``brats2023-gli`` for volumes.
        grid: what is tried.
        write_anyway: write the settings also where they are not shown to help.
        device: of the network: ``cpu``, ``cuda`` or ``cuda:N``; by default the first GPU, else the CPU.
        workers: processes that score; the result does not depend on their number.
        quiet: no progress bars.
        on_note: told in words how long it will take, and what is left out.

    Raises:
        PipelineError: there is no case to tune on, or the run, the data or the request cannot be used.
        ValueError: the rules are unknown.
    """
    root = bundle_path(run)
    out = root / FOLDER
    say = on_note or (lambda sentence: None)
    regions, untuned, nesting = _configured(root)
    asked = [bundle_path(fold) for fold in folds] or [root]
    for fold in asked:
        if (held := _configured(fold)[0]) != regions:
            raise PipelineError(
                f"{fold} marks {', '.join(held)} and {root} {', '.join(regions)}; give runs of one recipe"
            )
    chosen = [cases_to_tune_on(fold, data=data, datalist=datalist, convention=convention) for fold in asked]
    turns = first_asked([one.cases for one in chosen])
    cases = [case for turn in turns for case in turn]
    trained_on = chosen[0].trained_on if not folds else 0
    slices = any(case.label is not None and is_stack(case.label) for case in cases)
    scoring = _rules(rules, slices=slices)
    needed = rules_for(scoring, metric, regions)
    if trained_on:
        say(f"{trained_on} cases are left out: the run was trained on them, or on scans of their patients")
    files: dict[str, Path] = {}
    failed: dict[str, str] = {}
    for number, (fold, turn) in enumerate(zip(asked, turns, strict=True)):
        place = out / f"fold{number}" if folds else out
        made, lacking = probabilities_of(fold, turn, place, device=device, quiet=quiet) if turn else ({}, {})
        files, failed = files | made, failed | dict(lacking)
    tasks = {
        case.case_id: Task(case, files[case.case_id], needed, metric, nesting)
        for case in cases
        if case.case_id in files
    }
    tried = grid or Grid()
    options = {region: tried.options(region, untuned[region]) for region in needed.regions}
    lower = lower_is_better(metric)
    tables: dict[str, Table] = {}
    with _pool(workers, len(tasks)) as run_all, growing_bar("score", quiet=quiet) as (on_start, on_case):
        on_start(2 * len(tasks))
        started = time.monotonic()
        for case_id, found in run_all(score_table, {name: (task, options) for name, task in tasks.items()}):
            if not tables and (left := (time.monotonic() - started) * (len(tasks) / max(workers, 1))) > WORTH_SAYING_S:
                say(f"scoring {len(tasks)} cases will take about {left / 60:.0f} min")
            if isinstance(found, CaseError):
                failed[case_id] = found.reason
            else:
                tables[case_id] = found
            on_case(case_id)
        if not tables:
            raise PipelineError(f"{root}: no case could be used: " + "; ".join(f"{k}: {v}" for k, v in failed.items()))
        tables = dict(sorted(tables.items()))
        patients = {case_id: tasks[case_id].case.patient_id for case_id in tables}
        settings = {**untuned, **choose(tables, patients, options, lower=lower)}
        others = left_out(tables, patients, options, lower=lower)
        jobs = {name: (tasks[name], [untuned, {**untuned, **others[name]}, settings]) for name in tables}
        together = {}
        for case_id, scores in run_all(score_together, jobs):
            together[case_id] = scores
            on_case(case_id)
    rows = []
    for case_id, (plain, held_out, in_sample) in sorted(together.items()):
        for region in needed.regions:
            values = plain[region], held_out[region], in_sample[region]
            words = others[case_id][region].in_words()
            rows.append(CaseRow(case_id, patients[case_id], region, *values, words))
    verdict = judge(rows, needed.regions, metric)
    changed = settings != untuned
    write = changed and (verdict.helps or write_anyway)
    earlier = post_processing(root)
    tuning = Tuning(
        run=root,
        metric=metric,
        rules=scoring.name,
        grid=tried,
        regions=regions,
        scored=needed.regions,
        untuned=untuned,
        settings=settings,
        rows=tuple(rows),
        verdict=verdict,
        folds=len(folds),
        trained_on=trained_on,
        failed=dict(failed),
        written=root / "configs" / POST_PROCESSING if write else None,
        stays=None if write else earlier,
    )
    hashes: dict[str, Any] = {
        "weights_sha256": file_sha256(weights_path(root)),
        "inference_sha256": file_sha256(root / "configs" / "inference.yaml"),
        "folds_weights_sha256": [file_sha256(weights_path(fold)) for fold in asked] if folds else [],
    }
    write_overlay(tuning)
    fitted = calibrate(root, _configuration(root), [tasks[case_id] for case_id in tables], regions)
    tuning = replace(tuning, expected=fitted.regions)
    write_tuning(tuning, out, hashes)
    return tuning


def _configured(root: Path) -> tuple[tuple[str, ...], dict[str, Any], str]:
    """The regions of a run's network, the settings of its configuration without an overlay, and its nesting."""
    content = _configuration(root)
    try:
        regions = tuple(content["regions"])
        return regions, settings_in_force(content, regions), str(content.get("nesting", "outward"))
    except (KeyError, TypeError, ValueError) as error:
        path = root / "configs" / "inference.yaml"
        raise PipelineError(f"{path}: does not say how label maps are made ({error}); restore the bundle") from error


def _configuration(root: Path) -> dict[str, Any]:
    """The ids of a run's ``inference.yaml``."""
    import yaml

    path = root / "configs" / "inference.yaml"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise PipelineError(f"{path}: cannot be read ({error}); restore the bundle") from error
    if not isinstance(content, dict):
        raise PipelineError(f"{path}: holds a {type(content).__name__}, ids with values are needed; restore the bundle")
    return content


def _rules(name: str | None, *, slices: bool) -> Rules:
    usual = usual_rules(slices=slices)
    rules = usual if name is None else rules_named(name)
    if rules.slices != slices:
        what = "slices without a voxel size" if slices else "volumes"
        raise PipelineError(f"the cases are {what}, and the rules {rules.name} are not made for them; use {usual.name}")
    return rules


Jobs = Mapping[str, tuple[Task, Any]]


@contextmanager
def _pool(workers: int, tasks: int) -> Iterator[Callable[[Callable[..., Any], Jobs], Iterator[tuple[str, Any]]]]:
    """A way to do one thing to every case, here or in other processes, in the order they finish."""
    if workers <= 1 or tasks <= 1:
        yield lambda work, jobs: ((case_id, work(*arguments)) for case_id, arguments in jobs.items())
        return
    # Fresh processes: a forked copy of one that runs threads may hang.
    pool = ProcessPoolExecutor(min(workers, tasks), mp_context=multiprocessing.get_context("spawn"))

    def spread(work: Callable[..., Any], jobs: Jobs) -> Iterator[tuple[str, Any]]:
        futures: dict[Future[Any], str] = {pool.submit(work, *job): case_id for case_id, job in jobs.items()}
        for future in as_completed(futures):
            yield futures[future], future.result()

    try:
        yield spread
    finally:
        pool.shutdown(cancel_futures=True)
