"""One series for each modality: the finest that fits, or the one that a person names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from brats_pipeline.dicom.finding import Folder, Series, find_series
from brats_pipeline.dicom.guessing import Guess, guess
from brats_pipeline.dicom.headers import text_of
from brats_pipeline.dicom.reading import read_only_series
from brats_pipeline.errors import PipelineError
from transforms.labels import MODALITIES

HEADER = ("series", "description", "images", "voxel mm", "taken for", "why")
ALIKE = 1.1
"""Voxels whose volumes differ by less than this factor are equally fine."""


@dataclass(frozen=True)
class Choice:
    """What was made of the series of a folder.

    Args:
        folder: what it holds.
        guesses: for each series, in order, what it looks like.
        chosen: modality to its series, T1c first.
    """

    folder: Folder
    guesses: tuple[Guess, ...]
    chosen: Mapping[str, Series]

    def rows(self) -> list[tuple[str, ...]]:
        """The table under :data:`HEADER`; what was chosen is in capitals."""
        taken = {id(series): name for name, series in self.chosen.items()}
        return [
            _row(series, told, taken.get(id(series)))
            for series, told in zip(self.folder.series, self.guesses, strict=True)
        ]

    @property
    def aside(self) -> str:
        """What was set aside, in words; empty where nothing was."""
        return ", ".join(f"{count} x {what}" for what, count in sorted(self.folder.aside.items()))


def choose_series(folder: Path, named: Mapping[str, str] | None = None) -> Choice:
    """Match the series of an exam to modalities.

    Args:
        folder: of the exam.
        named: modality to what a person chose: a series number as the table has it, a SeriesInstanceUID, a folder that
            holds just that series, or ``none`` to leave the modality out.

    Raises:
        PipelineError: the folder holds no MR series, several series fit a modality equally well, name and header of
            the best disagree, none fits any, or a named one is not there (the message holds the table), or the folder
            holds several exams.
    """
    found = find_series(folder)
    guesses = tuple(guess(series) for series in found.series)
    named = named or {}
    _refuse_studies(found, guesses, named)
    chosen: dict[str, Series] = {}
    open_ones: list[str] = []
    for modality in MODALITIES:
        if modality in named:
            if named[modality].lower() != "none":
                chosen[modality] = _named_series(found, guesses, modality, named[modality])
            continue
        fitting = [
            (series, told) for series, told in zip(found.series, guesses, strict=True) if told.modality == modality
        ]
        fitting = [(series, told) for series, told in fitting if series not in chosen.values()]
        best = _best(fitting)
        if len(best) == 1 and not best[0][1].disputed:
            chosen[modality] = best[0][0]
        elif best:
            open_ones.append(f"{modality} may be series {' or '.join(series.number for series, _ in best)}")
    if open_ones:
        option = open_ones[0].split()[0]
        raise PipelineError(
            f"{folder}: {'; '.join(open_ones)}. Say which, as in --{option} NUMBER (or --{option} none)\n"
            + _listed(found, guesses)
        )
    if not chosen:
        raise PipelineError(
            f"{folder}: no series looks like {', '.join(MODALITIES)}. Say which is which, as in --t1c NUMBER\n"
            + _listed(found, guesses)
        )
    return Choice(found, guesses, chosen)


def _refuse_studies(found: Folder, guesses: tuple[Guess, ...], named: Mapping[str, str]) -> None:
    """Scans of two exams, or of two patients, must not be put together by chance."""
    studies: dict[str, list[Series]] = {}
    for series, told in zip(found.series, guesses, strict=True):
        if told.modality is not None and told.modality not in named:
            studies.setdefault(text_of(series.header, "StudyInstanceUID"), []).append(series)
    if len(studies) > 1:
        lines = [f"  {', '.join(each.number for each in own)} in {own[0].folder}" for own in studies.values()]
        raise PipelineError(
            "\n".join([f"{found.root}: holds series of {len(studies)} exams; give the folder of one. Series:", *lines])
        )


def _best(fitting: list[tuple[Series, Guess]]) -> list[tuple[Series, Guess]]:
    """The series that are better than all others: original before computed, 3D before 2D, finer before coarser.

    Several where they are equally good, or where one that only its header makes a T1c would go before one so named.
    """
    if not fitting:
        return []
    ranked = sorted(fitting, key=_rank)
    first = _rank(ranked[0])
    alike = [pair for pair in ranked if _rank(pair)[:2] == first[:2] and _rank(pair)[2] < first[2] * ALIKE]
    named = [pair for pair in ranked if pair[1].sure]
    if len(alike) == 1 and not alike[0][1].sure and named:
        alike.append(named[0])
    return alike


def _rank(pair: tuple[Series, Guess]) -> tuple[bool, bool, float]:
    """The lower, the better."""
    series, _ = pair
    types = text_of(series.header, "ImageType").upper().split("\\")
    three = text_of(series.header, "MRAcquisitionType").upper() == "3D"
    sides = series.spacing_mm
    return "ORIGINAL" not in types, not three, float("inf") if sides is None else float(np.prod(sides))


def _named_series(found: Folder, guesses: tuple[Guess, ...], modality: str, told: str) -> Series:
    """The series that a person named."""
    if Path(told).is_dir():
        return read_only_series(Path(told))
    fitting = [series for series in found.series if told in (series.number, series.uid)]
    if len(fitting) == 1:
        return fitting[0]
    uids = ", ".join(series.uid for series in fitting)
    what = f"{len(fitting)} series are {told} ({uids})" if fitting else f"no series is {told}"
    raise PipelineError(
        f"{found.root}: {what} (--{modality}); give a number of the table, a SeriesInstanceUID, or a folder\n"
        + _listed(found, guesses)
    )


def _row(series: Series, told: Guess, taken: str | None) -> tuple[str, ...]:
    sides = series.spacing_mm
    voxel = "" if sides is None else " x ".join(f"{side:.3g}" for side in sides)
    return (
        series.number,
        series.description,
        str(len(series.instances)),
        voxel,
        taken.upper() if taken else f"({told.modality})" if told.modality else "",
        told.why if taken in (None, told.modality) else f"as told; {told.why}",
    )


def _listed(found: Folder, guesses: tuple[Guess, ...]) -> str:
    """The table as plain text."""
    rows = [HEADER, *(_row(series, told, None) for series, told in zip(found.series, guesses, strict=True))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
