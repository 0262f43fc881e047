"""The report of an evaluation: one HTML file with tables, plots and pictures, readable offline and on paper."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from matplotlib.figure import Figure

from brats_pipeline.files import write_atomically
from brats_pipeline.metrics import (
    PER_PATIENT,
    Calibration,
    RegionScore,
    RegionSummary,
    Rules,
    SliceGroup,
    SliceScore,
    slice_headline,
)
from brats_pipeline.report import charts, reliability, words
from brats_pipeline.report.budget import LARGEST_BYTES, PAGE_BYTES, ROW_BYTES, encoded, within_budget
from brats_pipeline.report.confusion import Shares, joined
from brats_pipeline.report.headline import PartRow, headline_rows, notable_cases, smallest_differences, too_few
from brats_pipeline.report.markdown import markdown_report
from brats_pipeline.report.overlay import COLOURS, MODALITIES, OTHER_COLOUR
from brats_pipeline.report.viewer import Viewer, find_viewer
from brats_pipeline.report.volumes import CaseVolume

PLACE_BYTES = 1200
"""What surrounds a picture or a volume in the page, controls included."""
_FIGURES = {
    "dice": "Dice of every case by region",
    "hd95": "HD95 of every case by region",
    "dice_by_volume": "Dice against the volume in the reference",
    "volumes": "Predicted minus reference volume against their mean",
    "confusion": "Tissues of the reference against those of the prediction",
    "calibration": "Reliability diagram of every region",
    "training": "Training loss and validation Dice by epoch",
}


@dataclass(frozen=True)
class CasePage:
    """What a report shows of one case beside its scores.

    Args:
        case_id: the case.
        overlay: a JPEG, or None.
        no_overlay: why there is none.
        volume: what can be scrolled; None without.
        shows_head: whether skull and face were left in the scan.
        confusion: tissue of the reference and of the prediction to their common volume in ml.
    """

    case_id: str
    overlay: bytes | None = None
    no_overlay: str | None = None
    volume: CaseVolume | None = None
    shows_head: bool = False
    confusion: Shares | None = None

    @property
    def size(self) -> int:
        """Bytes that picture and volumes take in the report."""
        layers = (self.volume.image, self.volume.labels) if self.volume else ()
        return sum(encoded(len(each)) + PLACE_BYTES for each in (self.overlay or b"", *layers))


def _embedded(picture: bytes | None, kind: str) -> str | None:
    """A picture as a data address, so that the file needs no other."""
    return None if picture is None else f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def _drawn(
    rules: Rules,
    scores: Sequence[RegionScore],
    pages: Sequence[CasePage],
    curves: Mapping[str, Mapping[str, Sequence[float]]],
    calibration: Calibration | None,
) -> dict[str, Figure]:
    """The figures that these data give, by the name of their files."""
    regions = rules.regions
    figures: dict[str, Figure | None] = {"dice": charts.strip_chart(scores, regions, "dice", "Dice", ticks=None)}
    if not rules.slices:
        # Without a fixed penalty the axis ends where the largest distance does.
        end = rules.empties.one_hd95_mm or max([row.hd95_mm for row in scores if np.isfinite(row.hd95_mm)] or [1.0])
        ticks = [tick for tick in (0, 1, 2, 5, 10, 20, 50, 100, 200, 500) if tick < end] + [round(end, 1)]
        figures["hd95"] = charts.strip_chart(scores, regions, "hd95_mm", "HD95 (mm)", ticks=ticks)
        figures["dice_by_volume"] = charts.dice_by_volume(scores, regions)
        figures["volumes"] = charts.volume_agreement(scores, regions)
    confusion = joined([page.confusion for page in pages if page.confusion is not None])
    figures["confusion"] = None if confusion is None else charts.confusion_chart(confusion)
    figures["training"] = charts.training_chart(curves)
    figures["calibration"] = None if calibration is None else reliability.reliability_chart(calibration)
    return {name: figure for name, figure in figures.items() if figure is not None}


def _view(number: int, volume: CaseVolume) -> dict[str, Any]:
    """A case's volumes as the page holds them."""
    colours = [COLOURS.get(region, OTHER_COLOUR) for region in volume.regions]
    return {
        "id": f"scan{number}",
        "image": base64.b64encode(volume.image).decode(),
        "labels": base64.b64encode(volume.labels).decode(),
        "place": json.dumps(volume.place),
        "colours": json.dumps(colours),
        "key": list(zip(volume.regions, colours, strict=True)),
        "mm": f"{volume.mm:g}",
        "modality": MODALITIES.get(volume.modality, volume.modality),
        "predicted": volume.predicted,
    }


def write_report(
    out_html: Path,
    *,
    rules: Rules,
    scores: Sequence[RegionScore],
    regions: Sequence[RegionSummary],
    conventions: Mapping[str, str],
    missing: Sequence[str],
    failed: Mapping[str, str],
    unmatched: Sequence[str],
    pages: Sequence[CasePage],
    images: bool,
    versions: Mapping[str, str],
    slices: Sequence[SliceScore] = (),
    groups: Sequence[SliceGroup] = (),
    copied: Mapping[str, Sequence[str]] | None = None,
    parts: Sequence[PartRow] = (),
    patients: Mapping[str, str] | None = None,
    curves: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
    calibration: Calibration | None = None,
    title: str = "Segmentation report",
) -> None:
    """Write the report as one HTML file that needs no other and no network, and beside it ``.md`` and ``figures/``.

    Args:
        out_html: where to write.
        rules: how it was scored.
        scores: one row per case and region.
        regions: the cohort in one summary per region.
        conventions: label convention of the references to that of their predictions.
        missing: cases without a prediction.
        failed: case to the reason why it could not be scored.
        unmatched: predictions without a reference.
        pages: pictures and volumes of the cases.
        images: whether pictures were wanted.
        versions: software name to version.
        slices: one row per slice, where the cases are slices.
        groups: slices in figures; with them the report is one of slices, without mm and ml.
        copied: patient to the modalities whose channel is a copy of another.
        parts: Dice in parts of the cohort.
        patients: case id to patient; None where every case is another patient.
        curves: name of a training run to the columns of its ``curves.csv``.
        calibration: of the probabilities; None where none were saved.
        title: heading.

    Raises:
        PipelineError: a file cannot be written.
    """
    by_case: dict[str, dict[str, RegionScore]] = {}
    for row in scores:
        by_case.setdefault(row.case_id, {})[row.region] = row
    by_patient: dict[str, list[SliceScore]] = {case_id: [] for case_id in by_case}
    for each in slices:
        by_patient[each.case_id].append(each)
    pages = sorted(
        pages,
        key=lambda page: (np.mean([row.dice for row in by_case.get(page.case_id, {}).values()] or [0]), page.case_id),
    )
    shown = [page for page in pages if page.overlay is not None]
    pictures = len(shown)
    notable = notable_cases(scores, {page.case_id for page in shown})

    figures = {}
    for name, figure in _drawn(rules, scores, pages, curves or {}, calibration).items():
        files = charts.rendered(figure)
        for ending, content in files.items():
            write_atomically(out_html.parent / "figures" / f"{name}.{ending}", content)
        figures[name] = _embedded(files["svg"], "svg+xml")

    viewer = find_viewer() if any(page.volume for page in shown) else None
    able = isinstance(viewer, Viewer)
    taken = PAGE_BYTES + ROW_BYTES * len(scores) + sum(len(figure or "") for figure in figures.values())
    taken += len(viewer.script) if isinstance(viewer, Viewer) else 0
    shown = within_budget(shown, notable, room=LARGEST_BYTES - taken)
    views = {page.case_id: _view(at, page.volume) for at, page in enumerate(shown) if able and page.volume}
    noun = "patient" if groups else "case"
    sentences = [*rules.sentences(), *words.convention_sentences(conventions)]
    heads = [page.case_id for page in shown if page.shows_head]
    headline = [] if groups else headline_rows(scores, rules.regions, patients=patients)
    table = slice_headline(groups) if groups else []
    owners = {(patients or {}).get(case_id, case_id) for case_id in by_case}
    intervals = words.interval_note(len(by_case), len(owners))
    few = too_few(
        len(owners),
        noun="patient" if len(owners) < len(by_case) else noun,
        differences=smallest_differences(scores, rules.regions, patients=patients),
    )
    calibrated = None if calibration is None else reliability.section(calibration, rules.regions, len(by_case))
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("brats_pipeline.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "decimal": words.decimal,
        "mean_interval": words.mean_interval,
        "median_quartiles": words.median_quartiles,
    }
    script, _, _ = environment.loader.get_source(environment, "viewer.js") if environment.loader else ("", None, None)
    html = environment.get_template("slices.html.j2" if groups else "report.html.j2").render(
        title=title,
        noun=noun,
        rules=rules,
        sentences=sentences,
        headline=headline,
        parts=parts,
        few=few,
        intervals=intervals,
        meanings=words.meanings(rules.regions),
        regions=regions,
        cases=by_case,
        missing=missing,
        warnings=words.plain_warnings(missing, failed, unmatched),
        heads=heads,
        left_out=pictures - len(shown),
        largest_mb=LARGEST_BYTES // 1_000_000,
        pages=[(page.case_id, _embedded(page.overlay, "jpeg")) for page in shown],
        pictured={page.case_id for page in shown},
        notable=notable,
        views=views,
        viewer=viewer if able else None,
        no_viewer=viewer if isinstance(viewer, str) else None,
        script=script,
        no_pictures=[(page.case_id, page.no_overlay) for page in pages if page.no_overlay],
        images=images,
        figures=figures,
        captions=_FIGURES,
        slices=by_patient,
        groups=groups,
        table=table[1:],
        headline_name=PER_PATIENT,
        copied=copied or {},
        calibrated=calibrated,
        versions={**versions, **({"ipyniivue": viewer.version} if isinstance(viewer, Viewer) else {})},
    )
    write_atomically(out_html, html)
    count = f"{len(by_case)} {noun}{'' if len(by_case) == 1 else 's'}"
    markdown = markdown_report(
        title=title,
        lead=f"{count} scored by the rules **{rules.name}**. Research software, not a medical device.",
        warnings=words.plain_warnings(missing, failed, unmatched),
        headline=headline,
        table=table,
        notes=[*([] if groups else [intervals]), *([few] if few else [])],
        parts=parts,
        cases=by_case,
        regions=rules.regions,
        figures={f"figures/{name}.png": _FIGURES[name] for name in figures},
        calibrated=calibrated,
        sentences=sentences,
        versions=versions,
    )
    write_atomically(out_html.with_suffix(".md"), markdown)
