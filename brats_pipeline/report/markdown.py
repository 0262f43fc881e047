"""The report as Markdown, for places that show no HTML: the same figures, without scans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from brats_pipeline.metrics import RegionScore
from brats_pipeline.report.headline import HeadlineRow, PartRow
from brats_pipeline.report.reliability import Section
from brats_pipeline.report.words import decimal, mean_interval, median_quartiles


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table; the first column is text, the others are figures."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (header, rule, *rows)]


def markdown_report(
    *,
    title: str,
    lead: str,
    warnings: Sequence[str],
    headline: Sequence[HeadlineRow],
    table: Sequence[Sequence[str]],
    notes: Sequence[str],
    parts: Sequence[PartRow],
    cases: Mapping[str, Mapping[str, RegionScore]],
    regions: Sequence[str],
    figures: Mapping[str, str],
    sentences: Sequence[str],
    versions: Mapping[str, str],
    calibrated: Section | None = None,
) -> str:
    """Write the report in Markdown.

    Args:
        title: heading.
        lead: what was scored, by which rules.
        warnings: what a reader must know first.
        headline: figures of the cohort; empty for slices.
        table: figures of a cohort of slices, a header first; empty for volumes.
        notes: under the table.
        parts: Dice in parts of the cohort.
        cases: case to region to its row.
        regions: in the order of tables.
        figures: file of each picture beside the report to what it shows.
        sentences: how it was scored.
        versions: software name to version.
        calibrated: the figures of the probabilities; None where none were saved.
    """
    lines = [f"# {title}", "", lead, ""]
    if warnings:
        lines += ["**Read this first**", "", *(f"- {warning}" for warning in warnings), ""]
    lines += ["## Scores", ""]
    if headline:
        header = ["Region", "Cases", "Dice: mean [95 %]", "median [quartiles]"]
        header += ["HD95 (mm): mean [95 %]", "median [quartiles]", "Precision", "Recall"]
        rows = []
        for row in headline:
            dice, hd95 = row.figures["dice"], row.figures["hd95_mm"]
            cells = [row.name, str(row.n), mean_interval(dice, 3), median_quartiles(dice.spread, 3)]
            cells += [mean_interval(hd95, 1), median_quartiles(hd95.spread, 1)]
            for metric in ("precision", "recall"):
                spread = row.figures[metric].spread
                cells.append(decimal(None if spread is None else spread.mean, 3))
            rows.append(cells)
        lines += [*_table(header, rows), ""]
        if any(row.figures["lesionwise_dice"].spread for row in headline):
            header = ["Region", "Cases", "lesion-wise Dice: mean [95 %]", "lesion-wise HD95 (mm): mean [95 %]"]
            rows = [
                [
                    row.name,
                    str(row.n),
                    mean_interval(row.figures["lesionwise_dice"], 3),
                    mean_interval(row.figures["lesionwise_hd95_mm"], 1),
                ]
                for row in headline
            ]
            lines += [*_table(header, rows), ""]
    elif table:
        lines += [*_table(table[0], table[1:]), ""]
    lines += [f"{note}\n" for note in notes]
    if parts:
        header = ["Cases with", "Cases", *(f"{region} Dice: mean [95 %]" for region in regions)]
        rows = [
            [part.name, str(part.n), *(mean_interval(part.dice[region], 3) for region in regions)] for part in parts
        ]
        lines += ["## Parts of the cohort", "", *_table(header, rows), ""]
        lines += ["Parts overlap. A difference between them is described here, not tested.", ""]
    if calibrated is not None:
        lines += ["## Calibration", "", *(f"{sentence}\n" for sentence in calibrated.gaps)]
        lines += [*_table(calibrated.header, calibrated.rows), ""] if calibrated.rows else []
        lines += [f"{note}\n" for note in calibrated.notes]
    lines += ["## Figures", ""]
    lines += [f"![{what}]({path})\n" for path, what in figures.items()]
    lines += ["## Every case", ""]
    header = ["Case"]
    for region in regions:
        header += [f"{region} Dice", f"{region} HD95 (mm)"]
    body = []
    for case_id, by_region in cases.items():
        body.append([case_id])
        for region in regions:
            body[-1] += [decimal(by_region[region].dice, 3), decimal(by_region[region].hd95_mm, 1)]
    lines += [*_table(header, body), "", "## How it was scored", ""]
    lines += [f"- {sentence}" for sentence in sentences]
    lines += ["", "Research software, not a medical device; not for diagnosis or treatment.", ""]
    lines += [" · ".join(f"{name} {version}" for name, version in versions.items())]
    return "\n".join(lines) + "\n"
