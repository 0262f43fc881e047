"""Which cases of a call can be segmented, and why not the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from brats_pipeline.cases import Case, is_stack, missing_modalities
from brats_pipeline.data.datalist import case_items
from brats_pipeline.data.fingerprint import check_headers
from brats_pipeline.inference.result import LESS_SEEN, Segmentation
from transforms.labels import misfit

LACKING = "give the scan, or --allow-missing where the network was trained for it"
LONE_SLICE = "a lone slice: its intensities are normalised by itself, not over the volume of its patient"


def usable(
    cases: Sequence[Case], wanted: Sequence[str], regions: Sequence[str], allow_missing: bool, result: Segmentation
) -> list[dict[str, Any]]:
    """The cases that can be segmented, as items of a datalist; the others are noted with their reason."""
    items: list[dict[str, Any]] = []
    for case in cases:
        lacking = missing_modalities(case, wanted)
        missing = lacking if allow_missing else ()
        needed = [name for name in wanted if name not in missing] or wanted
        defects = check_headers(case, wanted=needed)
        if lacking and case.images and not allow_missing:
            defects.append(LACKING)
        if not defects and case.convention and (refusal := misfit(case.convention, regions)):
            defects = [refusal]
        if defects:
            result.failed[case.case_id] = "; ".join(defects)
            continue
        items += case_items([case], modalities=needed)
        if missing:
            result.missing[case.case_id] = missing
            result.note(case.case_id, f"segmented without {', '.join(missing)}, {LESS_SEEN}")
        sources = list(case.images.values())
        if is_stack(sources[0]) and len(sources[0].paths) == 1:
            result.note(case.case_id, LONE_SLICE)
    return items
