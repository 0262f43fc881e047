"""What lies in a folder of predictions and was not written by ``segment``: it is never removed or replaced."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from brats_pipeline.errors import CaseError, PipelineError
from brats_pipeline.inference.doubt import TABLE
from brats_pipeline.inference.extras import Extras, every_file
from brats_pipeline.inference.record import RECORD, vouched
from brats_pipeline.inference.volumes import read_volumes_file
from brats_pipeline.predictions import files_by_case, files_to_write


def refuse_foreign(
    out: Path,
    record: Mapping[str, Any],
    items: Sequence[Mapping[str, Any]],
    extras: Extras,
    *,
    probabilities: bool,
    uncertainty: bool,
) -> None:
    """Refuse to replace what no earlier call wrote: scans, reference label maps, a person's own files.

    Args:
        out: folder of the predictions.
        record: of that folder, see :func:`brats_pipeline.inference.record.recorded`.
        items: the cases about to be segmented, as items of a datalist.
        extras: what is asked for beside the label maps.
        probabilities: whether probabilities are.
        uncertainty: whether maps and figures of doubt are.

    Raises:
        CaseError: a file of a case would be replaced.
        PipelineError: a file about all cases would be.
    """
    read_volumes_file(out)
    if uncertainty and not record and os.path.lexists(out / TABLE):
        raise PipelineError(f"{out / TABLE}: no {RECORD} says that segment wrote it; choose another folder")
    cases: Mapping[str, Mapping[str, Any]] = record.get("cases", {})
    ours, there = vouched(cases), files_by_case(out)

    def unvouched(item: Mapping[str, Any]) -> Iterator[Path]:
        case_id = item["case_id"]
        if case_id not in ours:
            yield from files_to_write(out, item, probabilities=probabilities, uncertainty=uncertainty)
            yield from there.get(case_id, ())
        known = cases[case_id].get("beside", ()) if case_id in ours else ()
        files = every_file(out, case_id)
        yield from (files[option] for option in sorted(extras.written - set(known)))

    for item in items:
        scans = {Path(image).resolve() for image in item["image"]}
        for path in files_to_write(out, item):
            if path in scans:
                raise CaseError(item["case_id"], f"the prediction would replace the scan {path}; choose another folder")
        if taken := next(filter(os.path.lexists, unvouched(item)), None):
            raise CaseError(
                item["case_id"],
                f"{taken} is there already, and no {RECORD} in {out} says that segment wrote it; choose another folder",
            )
