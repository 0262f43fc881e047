"""The report of an evaluation: one HTML file with tables, plots and pictures, readable offline and on paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2
import numpy as np

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
from brats_pipeline.report import reliability, words
from brats_pipeline.report.budget import LARGEST_BYTES, PAGE_BYTES, ROW_BYTES, within_budget
from brats_pipeline.report.casepage import CasePage, embedded, view_of
from brats_pipeline.report.figures import CAPTIONS, drawn, written
from brats_pipeline.report.headline import PartRow, headline_rows, notable_cases, smallest_differences, too_few
from brats_pipeline.report.markdown import markdown_report
from brats_pipeline.report.viewer import Viewer, find_viewer


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
    told: Sequence[str] = (),
    title: str = "Segmentation report",
) -> list[str]:
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
        told: what was said of the predictions when they were made, a sentence each.
        title: heading.

    Returns:
        Names of the files, as seen from the folder of ``out_html``.

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

    plots = drawn(rules=rules, scores=scores, pages=pages, curves=curves or {}, calibration=calibration)
    figures = written(plots, out_html.parent / "figures")

    viewer = find_viewer() if any(page.volume for page in shown) else None
    able = isinstance(viewer, Viewer)
    taken = PAGE_BYTES + ROW_BYTES * len(scores) + sum(len(figure) for figure in figures.values())
    taken += len(viewer.script) if isinstance(viewer, Viewer) else 0
    shown = within_budget(shown, notable, room=LARGEST_BYTES - taken)
    views = {page.case_id: view_of(at, page.volume) for at, page in enumerate(shown) if able and page.volume}
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
    calibrated = None if calibration is None else reliability.section(calibration, rules.regions, by_case.keys())
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
        warnings=[*words.plain_warnings(missing, failed, unmatched), *told],
        heads=heads,
        left_out=pictures - len(shown),
        largest_mb=LARGEST_BYTES // 1_000_000,
        pages=[(page.case_id, embedded(page.overlay, "jpeg")) for page in shown if page.overlay is not None],
        pictured={page.case_id for page in shown},
        notable=notable,
        views=views,
        viewer=viewer if able else None,
        no_viewer=viewer if isinstance(viewer, str) else None,
        script=script,
        no_pictures=[(page.case_id, page.no_overlay) for page in pages if page.no_overlay],
        images=images,
        figures=figures,
        captions=CAPTIONS,
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
        warnings=[*words.plain_warnings(missing, failed, unmatched), *told],
        headline=headline,
        table=table,
        notes=[*([] if groups else [intervals]), *([few] if few else [])],
        parts=parts,
        cases=by_case,
        regions=rules.regions,
        figures={f"figures/{name}.png": CAPTIONS[name] for name in figures},
        calibrated=calibrated,
        sentences=sentences,
        versions=versions,
    )
    write_atomically(out_html.with_suffix(".md"), markdown)
    return [
        *(out_html.name, out_html.with_suffix(".md").name),
        *(f"figures/{name}.{ending}" for name in figures for ending in ("png", "svg")),
    ]
