"""Segment cases with a bundle: a label map for each, in the space of its own first modality."""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from brats_pipeline.bundles import bundle_for, bundle_path, open_workflow, plain_errors, wanted_modalities
from brats_pipeline.cases import (
    Case,
    Source,
    decide_conventions,
    find_cases,
    is_stack,
    missing_modalities,
    without_labels,
)
from brats_pipeline.data.datalist import case_items
from brats_pipeline.data.fingerprint import check_headers
from brats_pipeline.errors import PipelineError
from brats_pipeline.inference.doubt import read_cases, reviews, write_table
from brats_pipeline.inference.ensembles import COMBINE, Weights, checkpoint_members, ensemble_of
from brats_pipeline.inference.inputs import chosen, inputs_of, refuse_untrained, without_modalities
from brats_pipeline.inference.record import RECORD, earlier_cases, identity_of, remove_predictions, write_record
from brats_pipeline.inference.sharing import Share, share_of
from brats_pipeline.predictions import files_to_write, probability_file, uncertainty_files
from transforms.labels import MODALITIES, misfit
from transforms.nifti import strip_suffix

SAVE_PROBABILITIES = "save_probabilities"
UNCERTAINTY = "uncertainty"
WHERE_AND_HOW = ("max_memory", "backend_cache")
"""Ids that ask for the same answer in another way: predictions made with another value of them are kept."""
ALLOW_MISSING = "allow_missing"
LESS_SEEN = "which may cost accuracy: compare with cases that have every modality"
LONE_SLICE = "a lone slice: its intensities are normalised by itself, not over the volume of its patient"


@dataclass
class Segmentation:
    """What became of each case.

    Args:
        out: folder of the predictions.
        bundle: what segmented them.
        done: cases segmented by this call.
        skipped: cases whose prediction from the same files by the same weights was there already.
        failed: case to the reason why it has no prediction.
        notes: case to what a reader of its prediction should know.
        missing: case to the modalities that it was segmented without.
        doubt: case to intervals of its volumes and the Dice to expect, where they were asked for.
    """

    out: Path
    bundle: Path
    done: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, dict[str, float]] = field(default_factory=dict)
    hashes: dict[str, list[str]] = field(default_factory=dict)
    missing: dict[str, tuple[str, ...]] = field(default_factory=dict)
    doubt: dict[str, dict[str, Any]] = field(default_factory=dict)


def case_from_files(images: Mapping[str, str | Path], *, case_id: str | None = None) -> Case:
    """A case made of one file per modality.

    Args:
        images: modality to file.
        case_id: names the prediction; by default what the file names begin with, else their folder.

    Raises:
        PipelineError: a file does not exist, or is given for two modalities.
    """
    paths = {name: Path(images[name]).resolve() for name in MODALITIES if name in images}
    for name, path in paths.items():
        if not path.is_file():
            raise PipelineError(f"--{name} {path}: there is no such file; give the path of a .nii or .nii.gz file")
        twins = [other for other in paths if other != name and paths[other] == path]
        if twins:
            raise PipelineError(f"{path} is given for {name} and for {twins[0]}; give one file for each modality")
    if case_id is None:
        common = os.path.commonprefix([strip_suffix(path.name) for path in paths.values()])  # noqa: RUF071 -- letters are meant
        named = re.fullmatch(r"(.*\w)[-_. ]+\w*", common)  # up to the last separator: t1 and t2 share a letter
        case_id = named[1] if named else next(iter(paths.values())).parent.name
    sources = {name: Source(paths=(path,)) for name, path in paths.items()}
    return Case(case_id=case_id, patient_id=case_id, images=sources, label=None, layout="plain")


def segment(
    inputs: Sequence[str | Path] | Mapping[str, str | Path],
    out: str | Path,
    *,
    bundle: str | Path | Sequence[str | Path] | None = None,
    weights: Weights | None = None,
    convention: str | None = None,
    device: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    save_probabilities: bool = False,
    uncertainty: bool = False,
    allow_missing: bool = False,
    without: Collection[str] = (),
    only: Collection[str] | None = None,
    share: str | None = None,
    on_start: Callable[[int], None] | None = None,
    on_case: Callable[[str], None] | None = None,
) -> Segmentation:
    """Write ``OUT/<case_id>.nii.gz`` for every case of ``inputs``, and ``OUT/probabilities/<case_id>.npz`` on demand.

    A case that cannot be used is passed over with its reason. Predictions that stand in ``out`` from the same files and
    weights are kept, so that a second call does only what is missing or whose scan was replaced.

    Args:
        inputs: case folders or cohort folders; or one file per modality as ``{"t1c": ..., "t1": ..., ...}``.
        out: folder of the predictions.
        bundle: name or folder of a bundle or run; by default the bundle with weights for the layout. Several of them
            segment as an ensemble (:mod:`brats_pipeline.inference.ensembles`).
        weights: of several bundles, one number each, or region to number.
        convention: label convention to write; by default that of each input's layout.
        device: ``cpu``, ``cuda`` or ``cuda:N``; by default the first GPU, else the CPU.
        overrides: configuration id to value.
        overwrite: segment again what is there already.
        save_probabilities: also write the probability of every region; a case that lacks its file is segmented again.
        uncertainty: also write maps of doubt, intervals of volumes and the Dice to expect, see
            :mod:`brats_pipeline.inference.uncertainty`; a case that lacks its files is segmented again.
        allow_missing: segment a case that lacks modalities without them, by a network that was trained for it.
        without: modalities that are left out of every case as if they were missing, whatever the network was trained
            for: to see what they are worth.
        only: ids of the cases to segment; by default all that are found.
        share: ``"3/16"`` for the third of sixteen equal shares of the cases, so that as many processes can work into
            one folder; by default that of this process under torchrun, else every case.
        on_start: called with the number of cases about to be segmented.
        on_case: called after each case, segmented or failed, with its id.

    Raises:
        PipelineError: nothing can be segmented, or predictions by other weights, settings or conventions, or of
            another case of the same id, lie in ``out``; nothing is written then.
    """
    given = (case_from_files(inputs),) if isinstance(inputs, Mapping) else find_cases(*map(Path, inputs))
    cases = decide_conventions(without_labels(given), convention)
    layouts = sorted({case.layout for case in cases})
    names = [bundle] if bundle is None or isinstance(bundle, str | Path) else list(bundle)
    root = bundle_path(names[0]) if names and names[0] is not None else bundle_for(layouts)
    out = Path(out).resolve()
    result = Segmentation(out=out, bundle=root)
    # Label maps are the same with and without them, so they say nothing about what may lie in one folder.
    overrides = dict(overrides or {})
    save_probabilities = bool(overrides.pop(SAVE_PROBABILITIES, False)) or save_probabilities
    uncertainty = bool(overrides.pop(UNCERTAINTY, False)) or uncertainty
    allow_missing = bool(overrides.pop(ALLOW_MISSING, False)) or allow_missing
    unsaid = {name: overrides.pop(name) for name in WHERE_AND_HOW if name in overrides}

    ensemble = None
    if len(names) > 1 or weights is not None:
        given_bundles = [name for name in names if name is not None]
        ensemble = ensemble_of(
            given_bundles, partial(_regions_written, overrides=overrides), weights=weights, overrides=overrides
        )
    wanted = wanted_modalities(root, overrides) if ensemble is None else ensemble.modalities(overrides)
    member_missing = allow_missing
    if allow_missing:
        for one in [root] if ensemble is None else ensemble.roots:
            refuse_untrained(one)
    allow_missing = allow_missing or bool(without)
    part = share_of(share)
    cases = [without_modalities(case, without) for case in (part or Share()).of(chosen(cases, only))]
    regions = _regions_written(root, overrides)
    if convention is not None and (refusal := misfit(convention, regions)):
        raise PipelineError(refusal)
    items: list[dict[str, Any]] = []
    for case in cases:
        missing = missing_modalities(case, wanted) if allow_missing else ()
        needed = [name for name in wanted if name not in missing] or wanted
        defects = check_headers(case, wanted=needed)
        if not defects and case.convention and (refusal := misfit(case.convention, regions)):
            defects = [refusal]
        if defects:
            result.failed[case.case_id] = "; ".join(defects)
        else:
            items += case_items([case], modalities=needed)
            if missing:
                result.missing[case.case_id] = missing
                result.notes[case.case_id] = f"segmented without {', '.join(missing)}, {LESS_SEEN}"
            sources = list(case.images.values())
            if is_stack(sources[0]) and len(sources[0].paths) == 1:
                result.notes[case.case_id] = "; ".join(filter(None, (result.notes.get(case.case_id), LONE_SLICE)))
    inputs_now = {case.case_id: inputs_of(case, wanted) for case in cases}
    if ensemble is None:
        identity = {**identity_of(root, convention, overrides), **checkpoint_members(overrides)}
    else:
        identity = ensemble.identity(convention, overrides)
    earlier = earlier_cases(out, identity, items, inputs_now, overwrite=overwrite)
    changed = {name for name, told in inputs_now.items() if name in earlier and earlier[name].get("inputs") != told}
    if not overwrite:
        result.skipped = [
            item["case_id"]
            for item in items
            if item["case_id"] in earlier.keys() - changed
            and all(
                path.is_file()
                for path in files_to_write(out, item, probabilities=save_probabilities, uncertainty=uncertainty)
            )
        ]
        items = [item for item in items if item["case_id"] not in result.skipped]
    started = time.monotonic()

    def record(pending: Sequence[str] = ()) -> None:
        write_record(
            out,
            identity,
            earlier,
            _states(result, inputs_now, pending),
            bundle=root.name,
            seconds=time.monotonic() - started,
            shared=part is not None,
        )

    def begin() -> None:
        """Remove what stands for scans that are gone, then vouch for what is about to be written."""
        remove_predictions(out, changed)
        for item in items:
            stale = [] if save_probabilities else [probability_file(out, item["case_id"])]
            for path in stale if uncertainty else [*stale, *uncertainty_files(out, item["case_id"])]:
                path.unlink(missing_ok=True)
        record([str(item["case_id"]) for item in items])

    try:
        if items:
            if on_start is not None:
                on_start(len(items) * (1 if ensemble is None else 1 + len(ensemble.roots)))
            if ensemble is not None:
                refused = ensemble.run_members(
                    segment,
                    inputs,
                    out,
                    fresh=overwrite and part is None,
                    only=[str(item["case_id"]) for item in items],
                    convention=convention,
                    device=device,
                    overrides={**overrides, **unsaid},
                    allow_missing=member_missing,
                    without=without,
                    on_case=on_case,
                )
                result.failed |= refused
                items = [item for item in items if item["case_id"] not in refused]
            switches = {
                SAVE_PROBABILITIES: save_probabilities,
                ALLOW_MISSING: allow_missing,
                UNCERTAINTY: uncertainty,
            }
            switched = {name: True for name, on in switches.items() if on}
            settings = {**overrides, **unsaid, **switched}
            combining = {} if ensemble is None else ensemble.settings(out, overrides)
            if items:
                _run(root, items, device, settings, result, begin, on_case, combining)
        if ensemble is not None:
            ensemble.tidy(out, result.done, all_done=part is None and not result.failed)
        remove_predictions(out, earlier.keys() & result.failed.keys())
        if uncertainty or (out / UNCERTAINTY).is_dir():
            _note_doubt(out, result)
    finally:
        if result.done or result.skipped or result.failed:
            record()
        elif not earlier and out.is_dir() and [path.name for path in out.iterdir()] == [RECORD]:
            (out / RECORD).unlink()
            out.rmdir()
    return result


def _note_doubt(out: Path, result: Segmentation) -> None:
    """Gather what was told of the cases' doubt, and note which of them should be looked at."""
    write_table(out)
    told = read_cases(out)
    for name in told.keys() & {*result.skipped, *result.done}:
        result.doubt[name] = told[name]
        if review := reviews(told[name]):
            result.notes[name] = "; ".join(filter(None, (result.notes.get(name), review)))


def _states(
    result: Segmentation, inputs_now: Mapping[str, Mapping[str, Any]], pending: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """What this call says about its cases, for ``run.json``."""
    states: dict[str, dict[str, Any]] = {name: {"status": "pending"} for name in pending}
    states |= {name: {"status": "done"} for name in (*result.skipped, *result.done)}
    states |= {name: {"status": "failed", "reason": reason} for name, reason in result.failed.items()}
    for name, state in states.items():
        state["inputs"] = inputs_now[name]
        if name in result.hashes:
            state["image_sha256"] = result.hashes[name]
        if name in result.seconds:
            state["seconds"] = {stage: round(spent, 3) for stage, spent in result.seconds[name].items()}
        if name in result.doubt:
            state["uncertainty"] = result.doubt[name]
        if name in result.notes:
            state["note"] = result.notes[name]
        if name in result.missing:
            state["missing"] = list(result.missing[name])
    return states


def _regions_written(root: Path, overrides: Mapping[str, Any]) -> tuple[str, ...]:
    """The regions that a bundle's network marks.

    Raises:
        PipelineError: the configuration does not say.
    """
    import yaml

    path = root / "configs" / "inference.yaml"
    try:
        names = overrides.get("regions", yaml.safe_load(path.read_text(encoding="utf-8"))["regions"])
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise PipelineError(f"{path}: does not list the regions ({error}); restore the bundle") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise PipelineError(f"regions are {names!r}; give a list of names such as [TC, WT, ET]")
    return tuple(names)


def _run(
    root: Path,
    items: Sequence[Mapping[str, Any]],
    device: str | None,
    overrides: Mapping[str, Any],
    result: Segmentation,
    begin: Callable[[], None],
    on_case: Callable[[str], None] | None,
    combining: Mapping[str, Any],
) -> None:
    """Hand the cases to the bundle's inference configuration; ``begin`` is called before the first of them."""
    from ignite.engine import Events

    with tempfile.TemporaryDirectory(prefix="brats-pipeline-") as folder:
        listing = Path(folder) / "datalist.json"
        listing.write_text(json.dumps({"testing": list(items)}), encoding="utf-8")
        own = {"data_list_file_path": str(listing), "output_dir": str(result.out), "share": "1/1"}
        runtime: dict[str, Any] = {**overrides, **combining, **own}
        configs = ["inference.yaml", COMBINE] if combining else ["inference.yaml"]
        if device is not None:
            runtime["device"] = f"$torch.device('{device}')"
        workflow = open_workflow(root, configs, workflow_type="infer", overrides=runtime, changed=overrides)
        with plain_errors(overrides):
            evaluator = workflow.parser.get_parsed_content("evaluator")

        def finished(case_id: str) -> None:
            if case_id not in evaluator.failures:
                result.done.append(case_id)
            if on_case is not None:
                on_case(case_id)

        evaluator.add_event_handler(Events.STARTED, begin)
        evaluator.watchers.append(finished)
        try:
            with plain_errors(overrides):
                workflow.run()
                workflow.finalize()
        finally:
            result.failed |= evaluator.failures
            result.seconds |= evaluator.seconds
            result.hashes |= evaluator.hashes
