"""What a person may want beside label maps: other grids and formats, volumes, pictures, pages.

All of it is made from the label maps and the scans on disk, after segmenting, so that a second call makes only what is
missing, and what cannot be made costs no label map.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from brats_pipeline.cases import Case
from brats_pipeline.errors import PipelineError
from brats_pipeline.inference import making
from brats_pipeline.inference.result import Segmentation
from brats_pipeline.inference.volumes import has_spread, read_volumes_file, update_volumes, volumes_of

logger = logging.getLogger(__name__)

NIFTI, NRRD, DICOM = FORMATS = ("nifti", "nrrd", "dicom-seg")
NATIVE = "native"
"""Folder of label maps on the grids of the original scans: beside the others they would be taken for other cases."""


@dataclass(frozen=True)
class Extras:
    """What to make beside the label maps in NIfTI, which are always there.

    Args:
        formats: of :data:`FORMATS`.
        native: label maps on the grid of the original T1c, of cases that ``prepare`` made.
        volumes: ``volumes.json``.
        preview: a picture of each case.
        viewer: a page of each case.
        dicom_series: folder of the series for ``dicom-seg``; of several cases, a folder for each by its id in it.
        deidentify: a DICOM segmentation without what names the patient.

    Raises:
        PipelineError: an unknown format, or a setting of DICOM without that format.
    """

    formats: tuple[str, ...] = ()
    native: bool = False
    volumes: bool = False
    preview: bool = False
    viewer: bool = False
    dicom_series: Path | None = None
    deidentify: bool = False

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.formats) - set(FORMATS)):
            raise PipelineError(f"--format {unknown[0]}: there is no such format; known: {', '.join(FORMATS)}")
        if DICOM not in self.formats and (self.deidentify or self.dicom_series is not None):
            raise PipelineError("--dicom-series and --deidentify go with --format dicom-seg; name that format too")

    @property
    def asked(self) -> set[str]:
        """The options that are asked for and make a file of each case."""
        options = {
            "--native": self.native,
            "--format nrrd": NRRD in self.formats,
            "--format dicom-seg": DICOM in self.formats,
            "--preview": self.preview,
            "--viewer": self.viewer,
        }
        return {name for name, on in options.items() if on}

    @property
    def written(self) -> set[str]:
        """The options whose files may come to be: DICOM may need the label map on the original grid."""
        return self.asked | ({"--native"} if DICOM in self.formats else set())

    def files(self, out: Path, case_id: str) -> dict[str, Path]:
        """What is asked for of a case, by option, and where it goes."""
        return {name: path for name, path in every_file(out, case_id).items() if name in self.asked}

    def serves(self, name: str, path: Path) -> bool:
        """Whether a file is there and is what is asked for: a DICOM segmentation names the patient, or does not."""
        if not path.is_file() or name != "--format dicom-seg":
            return path.is_file()
        from brats_pipeline.dicom.segmentation import names_nobody

        return names_nobody(path) == self.deidentify

    def refuse_early(self, cases: Sequence[Case]) -> None:
        """Refuse before anything is segmented what no case can have.

        Raises:
            PipelineError: says which.
        """
        prepared = [case for case in cases if making.prepared_folder(case) is not None]
        if self.native and cases and not prepared:
            names = ", ".join(case.case_id for case in cases[:3])
            raise PipelineError(
                f"--native carries label maps of prepared cases back to their original scans, and none of these was "
                f"made by `brats-pipeline prepare` ({names}); leave it out, or prepare the exam first"
            )
        if DICOM in self.formats:
            if self.dicom_series is not None and not self.dicom_series.is_dir():
                raise PipelineError(f"--dicom-series {self.dicom_series}: there is no such folder")
            if self.dicom_series is None and cases and not prepared:
                raise PipelineError(
                    "--format dicom-seg refers to the series that the scans came from; name it with --dicom-series "
                    "FOLDER"
                )

    def series_of(self, case_id: str, *, alone: bool) -> Path | None:
        """The series of a case: the folder itself for a lone case, else the folder of its id within it."""
        if self.dicom_series is None:
            return None
        own = self.dicom_series / case_id
        if own.is_dir():
            return own
        if alone:
            return self.dicom_series
        raise PipelineError(f"{own}: there is no such folder; of several cases each needs its series there")


def every_file(out: Path, case_id: str) -> dict[str, Path]:
    """What there may be of a case beside its label map, by the option that makes it."""
    return {
        "--native": out / NATIVE / f"{case_id}.nii.gz",
        "--format nrrd": out / f"{case_id}.seg.nrrd",
        "--format dicom-seg": out / f"{case_id}.dcm",
        "--preview": out / f"{case_id}_preview.png",
        "--viewer": out / f"{case_id}_viewer.html",
    }


def remove_extras(out: Path, cases: Mapping[str, Mapping[str, Any]], *, shared: bool = False) -> None:
    """Delete what was made of label maps that are gone or about to be replaced.

    Args:
        out: folder of the predictions.
        cases: case to what the record says of it; only the files that it names there (``beside``) are ours.
        shared: other processes work at other cases in this folder.
    """
    for case_id, state in cases.items():
        for option, path in every_file(out, case_id).items():
            if option in state.get("beside", ()) and path.is_file():
                path.unlink()
    if cases and read_volumes_file(out).keys() & cases.keys():
        update_volumes(out, {}, without=cases.keys(), shared=shared)


def make_extras(
    cases: Sequence[Case],
    result: Segmentation,
    extras: Extras,
    *,
    on_start: Callable[[int], None] | None = None,
    on_case: Callable[[str], None] | None = None,
    shared: bool = False,
) -> None:
    """Make what is asked for and not there yet, of every case with a label map; what fails is noted in ``result``.

    Args:
        cases: of this call.
        result: what became of them.
        extras: what to make.
        on_start: called with the number of cases that something is made of.
        on_case: called with the id of each of them.
        shared: other processes work at other cases in this folder.
    """
    out = result.out
    known = read_volumes_file(out)
    there = {*result.done, *result.skipped}
    waiting = []
    for case in (case for case in cases if case.case_id in there):
        absent = [name for name, path in extras.files(out, case.case_id).items() if not extras.serves(name, path)]
        entry = known.get(case.case_id)
        doubt = result.doubt.get(case.case_id)
        spread = doubt is not None and has_spread(doubt)
        measure = extras.volumes and (entry is None or ("intervals" in entry) != spread)
        if absent or measure:
            waiting.append((case, absent, measure))
    if waiting and on_start is not None:
        on_start(len(waiting))
    for case, absent, measure in waiting:
        _make(case, absent, result, extras, measure=measure, alone=len(cases) == 1, shared=shared)
        if on_case is not None:
            on_case(case.case_id)
    for case_id, options in result.beside.items():
        files = every_file(out, case_id)
        result.beside[case_id] = [option for option in options if files[option].is_file()]


def _make(
    case: Case,
    absent: Sequence[str],
    result: Segmentation,
    extras: Extras,
    *,
    measure: bool,
    alone: bool,
    shared: bool,
) -> None:
    """Make what is absent of one case."""
    out, case_id = result.out, case.case_id
    files = every_file(out, case_id)
    made = making.Made(case, making.label_map_of(out, case), str(case.convention))
    told = result.told(case_id)

    def volumes() -> dict[str, object]:
        labels, affine = made.labels()
        return volumes_of(
            labels,
            affine,
            convention_name=made.convention,
            doubt=result.doubt.get(case_id),
            missing=result.missing.get(case_id, ()),
            unlike=result.unlike.get(case_id, ()),
        )

    def dicom(path: Path) -> None:
        series = extras.series_of(case_id, alone=alone)
        making.make_dicom(made, path, native=files["--native"], series=series, deidentify=extras.deidentify)

    def viewer(path: Path) -> None:
        making.make_viewer(made, path, told=told, volumes=volumes(), bundle=result.bundle.name)

    makers: Mapping[str, Callable[[Path], None]] = {
        "--native": partial(making.make_native, made),
        "--format nrrd": partial(making.make_nrrd, made),
        "--format dicom-seg": dicom,
        "--preview": partial(making.make_preview, made, told=told),
        "--viewer": viewer,
    }
    steps: dict[str, Callable[[], None]] = {name: partial(makers[name], files[name]) for name in absent}
    if measure:
        steps["--volumes"] = lambda: update_volumes(out, {case_id: volumes()}, shared=shared)
    for name, step in steps.items():
        try:
            step()
        except Exception as error:
            if not isinstance(error, PipelineError | ValueError):
                logger.exception("%s: %s failed", case_id, name)
            reason = str(error) or type(error).__name__
            result.without.setdefault(case_id, {})[name] = reason
