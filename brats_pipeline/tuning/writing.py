"""What a tuning leaves behind: the overlay of the run, and the tables that say why it is there or is not."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from brats_pipeline.files import write_atomically
from brats_pipeline.inference.expected_dice import MIN_CASES, RegionFit
from brats_pipeline.metrics import lower_is_better
from brats_pipeline.metrics.comparison import mean_over_patients
from brats_pipeline.tuning.deciding import MEAN, ROW_COLUMNS, CaseRow, Verdict
from brats_pipeline.tuning.grid import Grid, RegionSettings, Settings

SCHEMA_VERSION = 1
NAMES = {"dice": "Dice", "lesionwise_dice": "lesion-wise Dice", "hd95_mm": "HD95 (mm)"}


@dataclass(frozen=True)
class Tuning:
    """What :func:`brats_pipeline.tuning.tune.tune` found and wrote.

    Args:
        run: the run.
        metric: the column that was tuned for.
        rules: name of the scoring rules.
        grid: what was tried.
        regions: of the network's channels, in their order.
        scored: the regions that are scored, in the order of tables.
        untuned: settings of the run's configuration without an overlay.
        settings: those that all cases choose.
        rows: one per case and region.
        verdict: of the cases that were left out in turn.
        folds: how many other runs of the recipe gave the probabilities, each for cases that it never saw; 0: the run.
        trained_on: cases left out because the run was trained on them.
        failed: case to the reason why it took no part.
        written: the overlay; None where none was written.
        stays: an overlay of earlier that was left as it is; None where there is none.
        expected: region to what validation says of the Dice to expect; empty where there are too few cases.
    """

    run: Path
    metric: str
    rules: str
    grid: Grid
    regions: tuple[str, ...]
    scored: tuple[str, ...]
    untuned: Settings
    settings: Settings
    rows: tuple[CaseRow, ...]
    verdict: Verdict
    folds: int
    trained_on: int
    failed: Mapping[str, str]
    written: Path | None
    stays: Path | None
    expected: Mapping[str, RegionFit] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        """Whether the settings are others than the untuned ones."""
        return dict(self.settings) != dict(self.untuned)

    def sentences(self) -> tuple[str, ...]:
        """What was found and what became of it, in words."""
        lines = list(self.verdict.sentences)
        if not self.changed:
            lines.append("No setting that was tried is better by more than its standard error: nothing to write.")
        elif self.written is None:
            lines.append("Nothing was written; --write-anyway writes the settings all the same.")
        else:
            lines.append(f"Written to {self.written.name}, which `brats-pipeline segment` obeys from now on.")
        if self.written is not None and not self.verdict.helps:
            lines.append("The settings were written because that was asked for, not because they are shown to help.")
        if self.stays is not None:
            lines.append(f"{self.stays.name} of earlier stays as it is; remove it to segment without it.")
        return tuple(lines)

    def expectations(self) -> tuple[str, ...]:
        """What can be expected of a new case, in words."""
        return tuple(
            f"{region}: the Dice that `segment --uncertainty` expects was off by {fit.mean_absolute_error:.3f} on "
            f"patients left out (n = {fit.n}); expecting the mean of all would be off by {fit.of_the_mean:.3f}"
            + ("." if fit.mean_absolute_error < fit.of_the_mean else ", so none will be told.")
            for region, fit in self.expected.items()
        ) or (f"No region has {MIN_CASES} cases with a mask, so no Dice can be expected of a new case.",)

    def table(self) -> list[list[str]]:
        """A header, one row per region, and the mean over the regions; all are means over patients."""
        unit = NAMES[self.metric]
        rows = [["region", f"{unit} untuned", "tuned, left out", "gain", "95 % interval", "in sample", "settings"]]
        digits = 2 if self.metric.endswith("_mm") else 4
        sign = -1 if lower_is_better(self.metric) else 1

        patients = {row.case_id: row.patient_id for row in self.rows}

        def mean(region: str, column: str) -> float:
            own: dict[str, list[float]] = {}
            for row in self.rows:
                if region in (row.region, MEAN):
                    own.setdefault(row.case_id, []).append(getattr(row, column))
            return mean_over_patients({case: float(np.mean(each)) for case, each in own.items()}, patients) or 0.0

        for region in (*self.scored, *([MEAN] if len(self.scored) > 1 else [])):
            interval = self.verdict.comparisons[region].interval_95
            ends = sorted(sign * end for end in interval) if interval else []
            before, after = mean(region, "untuned"), mean(region, "held_out")
            rows.append(
                [
                    region,
                    f"{before:.{digits}f}",
                    f"{after:.{digits}f}",
                    f"{sign * (after - before):+.{digits}f}",
                    " to ".join(f"{end:+.{digits}f}" for end in ends) or "-",
                    f"{mean(region, 'in_sample'):.{digits}f}",
                    "" if region == MEAN else self.settings[region].in_words(),
                ]
            )
        return rows


def overlay_text(tuning: Tuning) -> str:
    """The content of ``postprocessing.yaml``."""
    cases = {row.case_id for row in tuning.rows}
    chosen = [tuning.settings[region] for region in tuning.regions]

    def line(name: str) -> str:
        values = [getattr(one, name) for one in chosen]
        return f"{name}: {json.dumps(values if len(values) > 1 else values[0])}"

    comments = [
        f"What becomes of the probabilities: chosen by `brats-pipeline tune` for {NAMES[tuning.metric]} on "
        f"{len(cases)} cases; see ../tuning/tuning.md.",
        "`brats-pipeline segment` lays this file over inference.yaml; with MONAI name both:",
        "  --config_file \"['configs/inference.yaml','configs/postprocessing.yaml']\"",
        f"Lists give one value for each of {', '.join(tuning.regions)}; sizes are in voxels.",
    ]
    names = ("threshold", "fill_holes", "smallest_component", "keep_largest")
    lines = [*(f"# {comment}" for comment in comments), *map(line, names)]
    return "\n".join([*lines, f"smallest_et: {max(one.smallest_et for one in chosen)}"]) + "\n"


def _markdown(tuning: Tuning) -> str:
    header, *rows = tuning.table()
    table = [header, ["---"] * len(header), *rows]
    cases, patients = {row.case_id for row in tuning.rows}, {row.patient_id for row in tuning.rows}
    tried = tuning.grid
    lines = [
        f"# Post-processing of {tuning.run.name}",
        "",
        f"{len(cases)} cases of {len(patients)} patients that the network was not trained on"
        + (
            f" ({tuning.folds} networks of its recipe, each asked for the cases that it never saw)"
            if tuning.folds
            else ""
        )
        + "; metric: "
        f"{NAMES[tuning.metric]} by the rules {tuning.rules}. Research software, not a medical device.",
        "",
        *("| " + " | ".join(row) + " |" for row in table),
        "",
        *tuning.sentences(),
        "",
        *tuning.expectations(),
        "",
        "*Tuned, left out*: each patient in turn is left out, the settings are chosen by the others, and the patient's "
        "cases are scored with them. *In sample*: by the settings in the last column, which these cases chose "
        "themselves; it flatters. A gain above 0 is an improvement, also where a lower value is the better one. "
        "Intervals: BCa bootstrap over patients, too narrow below about 20 of them.",
        "",
        f"Tried: thresholds {', '.join(f'{value:g}' for value in tried.thresholds)}; smallest parts of "
        f"{', '.join(map(str, tried.smallest_components))} voxels; "
        f"smallest ET of {', '.join(map(str, tried.smallest_ets))} voxels; holes filled or not; largest part alone or "
        "not. A region is changed only where the mean gain exceeds its standard error; of equal settings the plainest "
        "is taken.",
    ]
    lines += ["", *(f"- {case}: took no part: {reason}" for case, reason in sorted(tuning.failed.items()))]
    return "\n".join(lines).rstrip() + "\n"


def _csv(rows: Sequence[CaseRow]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(ROW_COLUMNS)
    for row in rows:
        values = (getattr(row, column) for column in ROW_COLUMNS)
        writer.writerow([f"{value:.6f}" if isinstance(value, float) else value for value in values])
    return text.getvalue()


def _json(tuning: Tuning, hashes: Mapping[str, str]) -> dict[str, Any]:
    def plain(settings: Settings) -> dict[str, dict[str, Any]]:
        return {region: _of(region, settings[region]) for region in tuning.regions}

    return {
        "schema_version": SCHEMA_VERSION,
        "metric": tuning.metric,
        "rules": tuning.rules,
        **hashes,
        "cases": sorted({row.case_id for row in tuning.rows}),
        "patients": len({row.patient_id for row in tuning.rows}),
        "folds": tuning.folds,
        "trained_on": tuning.trained_on,
        "failed": dict(sorted(tuning.failed.items())),
        "grid": asdict(tuning.grid),
        "untuned": plain(tuning.untuned),
        "settings": plain(tuning.settings),
        "written": tuning.written is not None,
        "helps": tuning.verdict.helps,
        "in_words": list(tuning.sentences()),
        "cross_validation": "leave one patient out",
        "expected_dice": {region: asdict(fit) for region, fit in tuning.expected.items()},
        "comparisons": {region: asdict(found) for region, found in tuning.verdict.comparisons.items()},
    }


def _of(region: str, settings: RegionSettings) -> dict[str, Any]:
    content = asdict(settings)
    if region != "ET":
        del content["smallest_et"]
    return content


def write_overlay(tuning: Tuning) -> None:
    """Write ``postprocessing.yaml`` where there is to be one.

    Raises:
        PipelineError: the folder cannot be written.
    """
    if tuning.written is not None:
        write_atomically(tuning.written, overlay_text(tuning))


def write_tuning(tuning: Tuning, out: Path, hashes: Mapping[str, str]) -> None:
    """Write ``tuning.json``, ``tuning.md`` and ``tuning.csv``.

    Args:
        tuning: what was found.
        out: folder of the tables.
        hashes: of what the probabilities were made by.

    Raises:
        PipelineError: a folder cannot be written.
    """
    write_atomically(out / "tuning.csv", _csv(tuning.rows))
    write_atomically(out / "tuning.md", _markdown(tuning))
    write_atomically(out / "tuning.json", json.dumps(_json(tuning, hashes), indent=2) + "\n")
