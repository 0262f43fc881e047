"""The report of a study: its arms side by side, in one HTML file that needs no other, and in Markdown."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from brats_pipeline.files import write_atomically
from brats_pipeline.metrics import Rules
from brats_pipeline.metrics.comparison import Comparison
from brats_pipeline.metrics.ranking import Ranking
from brats_pipeline.metrics.subgroups import GroupFigures
from brats_pipeline.report import charts, words
from brats_pipeline.report.headline import too_few
from brats_pipeline.report.missing import WithoutModality, missing_rows
from brats_pipeline.report.study_charts import arms_chart, curves_chart
from brats_pipeline.report.study_markdown import LOST, study_markdown

NAMES = {
    **{"dice": "Dice", "iou": "IoU", "precision": "Precision", "recall": "Recall", "specificity": "Specificity"},
    **{"hd95_mm": "HD95 (mm)", "assd_mm": "ASSD (mm)", "lesionwise_dice": "Lesion-wise Dice"},
    "lesionwise_hd95_mm": "Lesion-wise HD95 (mm)",
}
"""Headings of columns; a column that is not listed is called by its own name."""


@dataclass(frozen=True)
class ArmFigures:
    """One arm of a study in figures.

    Args:
        name: of the arm.
        title: what it is.
        network: its name in the family.
        n: cases.
        units_done: trainings that are finished.
        units: trainings that the study asks for.
        figures: region and metric to the figures.
        parameters: of the network; None where it is not known.
        epochs: numbers of epochs of its trainings, each once.
        training_seconds: of all its trainings together, validation included.
        segment_seconds: of one case, loading and saving included; None where it was not measured.
        test_loss: mean loss over the tested cases; None where it was not asked for.
        weights_sha256: of each finished training.
    """

    name: str
    title: str
    network: str
    n: int
    units_done: int
    units: int
    figures: Mapping[tuple[str, str], GroupFigures]
    parameters: int | None
    epochs: tuple[int, ...]
    training_seconds: float
    segment_seconds: float | None
    test_loss: float | None
    weights_sha256: tuple[str, ...] = ()


@dataclass(frozen=True)
class Compared:
    """An arm against the reference arm in one metric of one region.

    Args:
        arm: its name.
        reference: name of the reference arm.
        region: the region.
        metric: the column.
        comparison: differences are those of the arm less those of the reference.
        adjusted_p: p by Holm over all arms and regions of this metric.
        sentence: what may be said of it.
    """

    arm: str
    reference: str
    region: str
    metric: str
    comparison: Comparison
    adjusted_p: float | None
    sentence: str


@dataclass(frozen=True)
class Picture:
    """One case as every arm sees it.

    Args:
        case_id: the case.
        jpeg: image, reference and predictions beside each other.
        shows_head: whether skull and face were left in the scan.
    """

    case_id: str
    jpeg: bytes
    shows_head: bool


@dataclass(frozen=True)
class StudyPage:
    """What the report of a study says.

    Args:
        title: heading.
        about: what the study asks.
        notes: what a reader must know.
        budget: in words.
        reduced: whether the budget is not the full one.
        reference: name of the reference arm.
        rules: of scoring.
        noun: ``case`` or ``patient``.
        patients: to whom the cases of the tables belong.
        regions: in the order of tables.
        metrics: columns of the headline table.
        arms: those that have figures.
        warnings: what is missing, a sentence each.
        compared: paired comparisons.
        ranking: of the arms, or None.
        missing: what each arm loses without each modality; empty where that was not asked for.
        curves: arm to the columns of each of its trainings' ``curves.csv``.
        dice: case to arm to its mean Dice over the regions.
        pictures: of the cases named in ``notable``.
        notable: case to what it is, such as ``Worst case``.
        images: whether pictures were wanted.
        sentences: how the cohort was cut, how the arms were compared.
        versions: software name to version.
    """

    title: str
    about: str
    notes: tuple[str, ...]
    budget: str
    reduced: bool
    reference: str
    rules: Rules
    noun: str
    patients: int
    regions: tuple[str, ...]
    metrics: tuple[str, ...]
    arms: tuple[ArmFigures, ...]
    warnings: tuple[str, ...]
    compared: tuple[Compared, ...]
    ranking: Ranking | None
    missing: tuple[WithoutModality, ...]
    curves: Mapping[str, Sequence[Mapping[str, Sequence[float]]]]
    dice: Mapping[str, Mapping[str, float]]
    pictures: tuple[Picture, ...]
    notable: Mapping[str, str]
    images: bool
    sentences: tuple[str, ...]
    versions: Mapping[str, str]


CAPTIONS = {
    "dice": "Dice of every case, arm by arm",
    "curves": "Training loss, validation loss and validation Dice of every training",
}


def write_study_report(out: Path, page: StudyPage) -> None:
    """Write ``report.html``, ``report.md`` and ``figures/`` into a folder.

    Args:
        out: the folder.
        page: what the report says.

    Raises:
        PipelineError: a file cannot be written.
    """
    titles = {arm.name: arm.title for arm in page.arms}
    lost = {
        metric: list(missing_rows(page.missing, titles=titles, regions=page.regions, metric=metric))
        for metric in dict.fromkeys(each.metric for each in page.missing)
    }
    drawn = {"dice": arms_chart(page.dice, [arm.name for arm in page.arms]), "curves": curves_chart(page.curves)}
    figures = {}
    for name, figure in drawn.items():
        if figure is None:
            continue
        files = charts.rendered(figure)
        for ending, content in files.items():
            write_atomically(out / "figures" / f"{name}.{ending}", content)
        figures[name] = f"data:image/svg+xml;base64,{base64.b64encode(files['svg']).decode()}"
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("brats_pipeline.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "decimal": words.decimal,
        "p_value": words.p_value,
        "mean_interval": words.mean_interval,
        "median_quartiles": words.median_quartiles,
        "duration": duration,
    }
    cases = dict.fromkeys(page.dice)
    html = environment.get_template("study.html.j2").render(
        page=page,
        title=page.title,
        noun=page.noun,
        cases=cases,
        rules=page.rules,
        warnings=page.warnings,
        sentences=[*page.sentences, *page.rules.sentences()],
        images=page.images,
        pages=[
            (each.case_id, f"data:image/jpeg;base64,{base64.b64encode(each.jpeg).decode()}") for each in page.pictures
        ],
        notable=page.notable,
        missing=(),
        lost=lost,
        lost_note=LOST,
        views={},
        figures=figures,
        captions=CAPTIONS,
        names=NAMES,
        few=too_few(page.patients, noun="patient" if page.patients < len(cases) else page.noun),
        intervals=words.interval_note(len(cases), page.patients, page.noun),
        heads=[each.case_id for each in page.pictures if each.shows_head],
        versions=page.versions,
    )
    write_atomically(out / "report.html", html)
    captions = {name: CAPTIONS[name] for name in figures}
    write_atomically(out / "report.md", study_markdown(page, names=NAMES, figures=captions, lost=lost))


def duration(seconds: float | None) -> str:
    """A time in words, ``"1.5 h"``; a dash where it is not known."""
    if seconds is None:
        return "-"
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 90 else f"{seconds:.1f} s"
