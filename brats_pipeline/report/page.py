"""The report of an evaluation: one HTML file with tables, plots and pictures, readable offline and on paper."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from brats_pipeline.files import write_atomically
from brats_pipeline.metrics import (
    PER_PATIENT,
    RegionScore,
    RegionSummary,
    Rules,
    SliceGroup,
    SliceScore,
    Spread,
    slice_headline,
)
from transforms.labels import CONVENTIONS

# Region to its colour, that of the pictures; the black edge keeps yellow legible on white paper.
_INK = {"WT": "#56B4E9", "TC": "#D55E00", "ET": "#F0E442"}
_OTHER_INK = "#CC79A7"


@dataclass(frozen=True)
class CasePage:
    """The picture of one case.

    Args:
        case_id: the case.
        overlay: a JPEG, or None.
        no_overlay: why there is none.
    """

    case_id: str
    overlay: bytes | None = None
    no_overlay: str | None = None


def _strip_plot(
    scores: Sequence[RegionScore], regions: Sequence[str], metric: str, label: str, *, ticks: Sequence[float] | None
) -> bytes:
    """One dot per case and region, with median and quartiles beside them; a PNG.

    Args:
        scores: all rows.
        regions: from left to right.
        metric: the column.
        label: of the axis, with its unit.
        ticks: marks of a logarithmic axis that starts at 0; None for an axis from 0 to 1.
    """
    figure = Figure(figsize=(4.6, 3.3), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    random = np.random.default_rng(0)
    names = []
    for place, region in enumerate(regions):
        values = np.array([getattr(row, metric) for row in scores if row.region == region], dtype=float)
        values = values[np.isfinite(values)]
        names.append(f"{region}\nn = {values.size}")
        if not values.size:
            continue
        aside = random.uniform(-0.15, 0.15, values.size) if values.size > 1 else np.zeros(1)
        colour = _INK.get(region, _OTHER_INK)
        axes.scatter(
            place + aside, values, s=26, color=colour, edgecolors="#333333", linewidths=0.6, zorder=3, clip_on=False
        )
        q1, median, q3 = np.quantile(values, (0.25, 0.5, 0.75))
        axes.vlines(place + 0.32, q1, q3, color="#333333", linewidth=1.4)
        axes.hlines(median, place + 0.25, place + 0.39, color="#333333", linewidth=2.4)
    axes.set_xticks(range(len(regions)), names)
    axes.set_xlim(-0.5, len(regions) - 0.4)
    axes.set_ylabel(label)
    if ticks is None:
        axes.set_ylim(0, 1)
    else:
        axes.set_yscale("symlog", linthresh=1, linscale=0.4)
        axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_ylim(0, ticks[-1])
    axes.grid(axis="y", color="#e3e3e3", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160, metadata={"Software": None})
    return buffer.getvalue()


def _distance_plot(scores: Sequence[RegionScore], rules: Rules) -> bytes | None:
    """HD95 of every case by region; None where distances are not measured."""
    penalty = rules.empties.one_hd95_mm
    if penalty is None:
        return None
    distances = [tick for tick in (0, 1, 2, 5, 10, 20, 50, 100, 200) if tick < penalty] + [penalty]
    return _strip_plot(scores, rules.regions, "hd95_mm", "HD95 (mm)", ticks=distances)


def _embedded(picture: bytes | None, kind: str) -> str | None:
    """A picture as a data address, so that the file needs no other."""
    return None if picture is None else f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def _decimal(value: float | None, digits: int) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def _mean_sd(spread: Spread | None, digits: int) -> str:
    return "-" if spread is None else f"{_decimal(spread.mean, digits)} ± {_decimal(spread.sd, digits)}"


def _median_quartiles(spread: Spread | None, digits: int) -> str:
    if spread is None:
        return "-"
    return f"{spread.median:.{digits}f} [{spread.q1:.{digits}f}, {spread.q3:.{digits}f}]"


def _meaning(name: str) -> str:
    return f"{name} ({', '.join(f'{value} {tissue}' for value, tissue in CONVENTIONS[name].tissues.items())})"


def _convention_sentences(conventions: Mapping[str, str]) -> list[str]:
    """What the labels of both sides were taken to mean."""
    return [
        f"Label maps: references and predictions follow {_meaning(reference)}."
        if reference == prediction
        else f"Label maps: references follow {_meaning(reference)}, their predictions {_meaning(prediction)}; "
        "each side was read by its own convention."
        for reference, prediction in sorted(conventions.items())
    ]


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
    title: str = "Segmentation report",
) -> None:
    """Write the report as one file that needs no other and no network.

    Args:
        out_html: where to write.
        rules: how it was scored.
        scores: one row per case and region.
        regions: the cohort in one summary per region.
        conventions: label convention of the references to that of their predictions.
        missing: cases without a prediction.
        failed: case to the reason why it could not be scored.
        unmatched: predictions without a reference.
        pages: pictures of the cases.
        images: whether pictures were wanted.
        versions: software name to version.
        slices: one row per slice, where the cases are slices.
        groups: slices in figures; with them the report is one of slices, without mm and ml.
        copied: patient to the modalities that are copies of FLAIR.
        title: heading.

    Raises:
        PipelineError: the file cannot be written.
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
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("brats_pipeline.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"decimal": _decimal, "mean_sd": _mean_sd, "median_quartiles": _median_quartiles}
    table = slice_headline(groups)[1:] if groups else []
    html = environment.get_template("slices.html.j2" if groups else "report.html.j2").render(
        title=title,
        noun="patient" if groups else "case",
        rules=rules,
        sentences=[*rules.sentences(), *_convention_sentences(conventions)],
        regions=regions,
        cases=by_case,
        missing=missing,
        failed=failed,
        unmatched=unmatched,
        pages=[(page.case_id, _embedded(page.overlay, "jpeg")) for page in shown],
        pictured={page.case_id for page in shown},
        no_pictures=[(page.case_id, page.no_overlay) for page in pages if page.no_overlay],
        images=images,
        dice_plot=_embedded(_strip_plot(scores, rules.regions, "dice", "Dice", ticks=None), "png"),
        hd95_plot=_embedded(_distance_plot(scores, rules), "png"),
        slices=by_patient,
        groups=groups,
        table=table,
        headline_name=PER_PATIENT,
        copied=copied or {},
        versions=versions,
    )
    write_atomically(out_html, html)
