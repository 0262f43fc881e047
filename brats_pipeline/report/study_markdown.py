"""The report of a study as Markdown: the same figures, without scans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from brats_pipeline.report.markdown import _table
from brats_pipeline.report.words import decimal, mean_interval, median_quartiles

if TYPE_CHECKING:
    from brats_pipeline.report.study import StudyPage


LOST = (
    "The same networks on the same cases, as if one modality, or both of a pair, had not been acquired: the mean "
    "without it and, in brackets, its difference to the whole case with the 95 % interval of that difference."
)


def study_markdown(
    page: StudyPage,
    *,
    names: Mapping[str, str],
    figures: Mapping[str, str],
    lost: Mapping[str, Sequence[Sequence[str]]],
) -> str:
    """Write the report in Markdown.

    Args:
        page: what the report says.
        names: column to its heading.
        figures: name of each figure to its caption.
        lost: column to the rows of what a missing modality costs, see :mod:`brats_pipeline.report.missing`.
    """
    budget = f"**{page.budget[:1].upper()}{page.budget[1:]}.**"
    lines = [f"# {page.title}", "", page.about, "", budget, ""]
    if page.warnings:
        lines += ["**Read this first**", "", *(f"- {warning}" for warning in page.warnings), ""]
    lines += [*(f"{note}\n" for note in page.notes)]
    lines += ["## Arms", "", budget, ""]
    for region in page.regions:
        rows = []
        for arm in page.arms:
            cells = [arm.name, str(arm.n)]
            for metric in page.metrics:
                figure = arm.figures[region, metric]
                digits = 1 if metric.endswith("_mm") else 3
                cells += [mean_interval(figure, digits), median_quartiles(figure.spread, digits)]
            rows.append(cells)
        header = [region, "n"]
        for metric in page.metrics:
            header += [f"{names.get(metric, metric)}: mean [95 %]", "median [quartiles]"]
        lines += [*_table(header, rows), ""]
    if page.compared:
        lines += [f"## Against {page.reference}", "", budget, "", *(f"- {each.sentence}" for each in page.compared), ""]
    if page.ranking is not None:
        count = len(page.ranking.runs)
        header = ["Arm", "rank", "mean rank", *(f"share of rank {rank}" for rank in range(1, count + 1))]
        rows = [
            [
                run.name,
                str(run.rank),
                decimal(run.mean_rank, 2),
                *(["-"] * count if run.shares is None else [f"{100 * share:.0f} %" for share in run.shares]),
            ]
            for run in page.ranking.runs
        ]
        lines += ["## Ranking", "", budget, "", *_table(header, rows), ""]
        lines += [f"- {sentence}" for sentence in page.ranking.sentences()]
        lines += [""]
    if lost:
        lines += ["## What a missing modality costs", "", budget, "", LOST, ""]
        for metric, told in lost.items():
            lines += [*_table([names.get(metric, metric), "without", *page.regions], told), ""]
    header = [
        "Arm",
        "network",
        "parameters",
        "trainings",
        "epochs",
        "training (min)",
        "segment (s a case)",
        "test loss",
    ]
    rows = [
        [
            arm.name,
            arm.network,
            "-" if arm.parameters is None else f"{arm.parameters:,}",
            f"{arm.units_done} of {arm.units}",
            ", ".join(map(str, arm.epochs)),
            decimal(arm.training_seconds / 60, 1),
            decimal(arm.segment_seconds, 2),
            decimal(arm.test_loss, 4),
        ]
        for arm in page.arms
    ]
    lines += ["## What it took", "", budget, "", *_table(header, rows), "", "## Figures", ""]
    lines += [f"![{caption}](figures/{name}.png)\n" for name, caption in figures.items()]
    lines += ["## How it was done", "", *(f"- {sentence}" for sentence in (*page.sentences, *page.rules.sentences()))]
    lines += ["", "Research software, not a medical device; not for diagnosis or treatment.", ""]
    lines += [" · ".join(f"{name} {version}" for name, version in page.versions.items())]
    return "\n".join(lines) + "\n"
