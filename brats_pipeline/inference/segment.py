"""Segment cases with a bundle: a label map for each, in the space of its own first modality."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from brats_pipeline.bundles import bundle_for, bundle_path, wanted_modalities, written_regions
from brats_pipeline.cases import decide_conventions, without_labels
from brats_pipeline.cases.volumes import file_notes
from brats_pipeline.errors import PipelineError
from brats_pipeline.inference.doubt import note_doubt
from brats_pipeline.inference.ensembles import Weights, checkpoint_members, ensemble_of
from brats_pipeline.inference.extras import Extras, make_extras, remove_extras
from brats_pipeline.inference.foreign import refuse_foreign
from brats_pipeline.inference.inputs import cases_given, chosen, inputs_of, refuse_untrained, without_modalities
from brats_pipeline.inference.record import (
    RECORD,
    earlier_cases,
    identity_of,
    recorded,
    remove_predictions,
    sparingly,
    vouched,
    write_record,
)
from brats_pipeline.inference.result import Segmentation
from brats_pipeline.inference.running import run_bundle
from brats_pipeline.inference.sharing import Share, share_of
from brats_pipeline.inference.usable import usable
from brats_pipeline.predictions import files_by_case, files_to_write, probability_file, uncertainty_files
from brats_pipeline.values import refuse_ids, switched
from transforms.labels import misfit

SAVE_PROBABILITIES = "save_probabilities"
UNCERTAINTY = "uncertainty"
WHERE_AND_HOW = ("max_memory", "backend_cache")
"""Ids that ask for the same answer in another way: predictions made with another value of them are kept."""
ALLOW_MISSING = "allow_missing"
BY_OTHER_MEANS = {
    "bundle_root": "give --bundle",
    "data_list_file_path": "name the cases",
    "dataset_dir": "name the folder of the cases",
    "device": "give --device",
    "output_dir": "give -o",
    "raise_failures": "cases that fail are listed, and the others segmented",
    "share": "give --shard",
}
"""Ids that belong to something else than ``--set``, and what to do."""


def segment(
    inputs: Sequence[str | Path] | Mapping[str, str | Path],
    out: str | Path,
    *,
    bundle: str | Path | Sequence[str | Path] | None = None,
    weights: Weights | None = None,
    convention: str | None = None,
    channels: str | None = None,
    device: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    save_probabilities: bool = False,
    uncertainty: bool = False,
    allow_missing: bool = False,
    extras: Extras | None = None,
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
        inputs: case folders, cohort folders or 4-D files; or one file per modality as ``{"t1c": ..., "t1": ..., ...}``.
        out: folder of the predictions.
        bundle: name or folder of a bundle or run; by default the bundle with weights for the layout. Several of them
            segment as an ensemble (:mod:`brats_pipeline.inference.ensembles`).
        weights: of several bundles, one number each, or region to number.
        convention: label convention to write; by default that of each input's layout.
        channels: what the channels of 4-D files are, as ``"flair,t1,t1c,t2"``; by default their dataset.json tells.
        device: ``cpu``, ``cuda`` or ``cuda:N``; by default the first GPU, else the CPU.
        overrides: configuration id to value.
        overwrite: segment again what is there already.
        save_probabilities: also write the probability of every region; a case that lacks its file is segmented again.
        uncertainty: also write maps of doubt, intervals of volumes and the Dice to expect, see
            :mod:`brats_pipeline.inference.uncertainty`; a case that lacks its files is segmented again.
        allow_missing: segment a case that lacks modalities without them, by a network that was trained for it.
        extras: what to make beside the label maps, see :class:`brats_pipeline.inference.extras.Extras`. A case that has
            its label map already is not segmented again for it.
        without: modalities that are left out of every case as if they were missing, whatever the network was trained
            for: to see what they are worth.
        only: ids of the cases to segment; by default all that are found.
        share: ``"3/16"`` for the third of sixteen equal shares of the cases, so that as many processes can work into
            one folder; by default that of this process under torchrun, else every case.
        on_start: called with the number of cases about to be segmented.
        on_case: called after each case, segmented or failed, with its id.

    Raises:
        PipelineError: nothing can be segmented; predictions by other weights, settings or conventions, or of another
            case of the same id, lie in ``out``; or a file that no earlier call wrote would be replaced, which
            ``overwrite`` does not change. Nothing is written then.
    """
    given = cases_given(inputs, channels=channels)
    cases = decide_conventions(without_labels(given), convention)
    layouts = sorted({case.layout for case in cases})
    names = [bundle] if bundle is None or isinstance(bundle, str | Path) else list(bundle)
    root = bundle_path(names[0]) if names and names[0] is not None else bundle_for(layouts)
    out = Path(out).resolve()
    result = Segmentation(out=out, bundle=root)
    # Label maps are the same with and without them, so they say nothing about what may lie in one folder.
    overrides = dict(overrides or {})
    refuse_ids(overrides, BY_OTHER_MEANS, "segmenting")
    save_probabilities |= switched(SAVE_PROBABILITIES, overrides.pop(SAVE_PROBABILITIES, False))
    uncertainty |= switched(UNCERTAINTY, overrides.pop(UNCERTAINTY, False))
    allow_missing |= switched(ALLOW_MISSING, overrides.pop(ALLOW_MISSING, False))
    unsaid = {name: overrides.pop(name) for name in WHERE_AND_HOW if name in overrides}

    ensemble = None
    if len(names) > 1 or weights is not None:
        given_bundles = [name for name in names if name is not None]
        ensemble = ensemble_of(
            given_bundles, partial(written_regions, overrides=overrides), weights=weights, overrides=overrides
        )
    wanted = wanted_modalities(root, overrides) if ensemble is None else ensemble.modalities(overrides)
    member_missing = allow_missing
    if allow_missing:
        for one in [root] if ensemble is None else ensemble.roots:
            refuse_untrained(one)
    allow_missing = allow_missing or bool(without)
    part = share_of(share)
    cases = [without_modalities(case, without) for case in (part or Share()).of(chosen(cases, only))]
    regions = written_regions(root, overrides)
    if convention is not None and (refusal := misfit(convention, regions)):
        raise PipelineError(refusal)
    items = usable(cases, wanted, regions, allow_missing, result)
    for case in cases:
        for sentence in file_notes(case, wanted) if case.case_id not in result.failed else ():
            result.note(case.case_id, sentence)
    extras = extras or Extras()
    extras.refuse_early(cases)
    inputs_now = {case.case_id: inputs_of(case, wanted) for case in cases}
    if ensemble is None:
        identity = {**identity_of(root, convention, overrides), **checkpoint_members(overrides)}
    else:
        identity = ensemble.identity(convention, overrides)
    shared = part is not None
    there = recorded(out)
    refuse_foreign(out, there, items, extras, probabilities=save_probabilities, uncertainty=uncertainty)
    earlier = earlier_cases(out, there, identity, inputs_now, overwrite=overwrite)
    replaced = inputs_now.keys() & there.get("cases", {}).keys() - earlier.keys()
    remove_extras(out, {name: there["cases"][name] for name in replaced}, shared=shared)
    ours = vouched(earlier)
    changed = {name for name, told in inputs_now.items() if name in ours and earlier[name].get("inputs") != told}
    if not overwrite:
        result.skipped = [
            item["case_id"]
            for item in items
            if item["case_id"] in ours - changed
            and earlier[item["case_id"]].get("status") == "done"
            and all(
                path.is_file()
                for path in files_to_write(out, item, probabilities=save_probabilities, uncertainty=uncertainty)
            )
        ]
        items = [item for item in items if item["case_id"] not in result.skipped]
        result.unlike |= {name: earlier[name]["unlike"] for name in result.skipped if "unlike" in earlier[name]}
    ids = [str(item["case_id"]) for item in items]
    result.beside = {name: sorted(extras.written) for name in ids}
    result.beside |= {name: sorted({*earlier[name].get("beside", ()), *extras.written}) for name in result.skipped}
    begun: set[str] = set()
    started = time.monotonic()

    def standing() -> set[str]:
        """Cases that failed before anything was done to the prediction that they have."""
        untouched = result.failed.keys() & (ours - changed - begun)
        return untouched & files_by_case(out).keys() if untouched else untouched

    def record(pending: Collection[str]) -> None:
        write_record(
            out,
            identity,
            earlier,
            result.states(inputs_now, earlier, pending, standing()),
            bundle=root.name,
            seconds=time.monotonic() - started,
            shared=shared,
        )

    def begin() -> None:
        """Remove what stands for scans that are gone, then vouch for what is about to be written."""
        begun.update(str(item["case_id"]) for item in items)
        remove_predictions(out, changed)
        remove_extras(out, {name: earlier.get(name, {}) for name in changed | begun}, shared=shared)
        for name in begun & ours:
            stale = [] if save_probabilities else [probability_file(out, name)]
            for path in stale if uncertainty else [*stale, *uncertainty_files(out, name)]:
                path.unlink(missing_ok=True)
        record(begun)

    note = sparingly(lambda: record(begun))

    def finished(case_id: str) -> None:
        note()
        if on_case is not None:
            on_case(case_id)

    try:
        if items:
            if on_start is not None:
                on_start(len(items) * (1 if ensemble is None else 1 + len(ensemble.roots)))
            if ensemble is not None:
                refused = ensemble.run_members(
                    segment,
                    inputs,
                    out,
                    fresh=overwrite and not shared,
                    only=ids,
                    convention=convention,
                    channels=channels,
                    device=device,
                    overrides={**overrides, **unsaid},
                    allow_missing=member_missing,
                    without=without,
                    on_case=on_case,
                    into=result,
                )
                result.failed |= refused
                items = [item for item in items if item["case_id"] not in refused]
            switches = {
                SAVE_PROBABILITIES: save_probabilities,
                ALLOW_MISSING: allow_missing,
                UNCERTAINTY: uncertainty,
            }
            settings = {**overrides, **unsaid, **{name: True for name, on in switches.items() if on}}
            combining = {} if ensemble is None else ensemble.settings(out, overrides)
            if items:
                run_bundle(root, items, device, settings, result, begin, finished, combining)
        if ensemble is not None:
            ensemble.tidy(out, result.done, all_done=not shared and not result.failed)
        gone = result.failed.keys() & (changed | begun)
        remove_predictions(out, gone)
        remove_extras(out, {name: earlier.get(name, {}) for name in gone}, shared=shared)
        if uncertainty or (out / UNCERTAINTY).is_dir():
            note_doubt(out, result)
        if any(result.beside.values()):
            record(())  # vouch for what is about to be made
        make_extras(cases, result, extras, on_start=on_start, on_case=on_case, shared=shared)
    finally:
        if result.done or result.skipped or result.failed:
            record(begun & files_by_case(out).keys())  # what was cut off may have left a part of its files
        elif not earlier and out.is_dir() and [path.name for path in out.iterdir()] == [RECORD]:
            (out / RECORD).unlink()
            out.rmdir()
    return result
