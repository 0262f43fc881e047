"""Making one thing beside a label map: the same on another grid or in another format, a picture, a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import brats_pipeline
from brats_pipeline.cases import Case, is_stack
from brats_pipeline.cases.volumes import read_volumes
from brats_pipeline.errors import PipelineError
from brats_pipeline.files import write_atomically
from brats_pipeline.predictions import mask_files, read_labels
from transforms.labels import convention
from transforms.nifti import is_nifti_name
from transforms.slices import read_mask

SHOWN = ("t1c", "flair")
"""Modalities in the picture, in their order; others where a case has neither."""


@dataclass(frozen=True)
class Made:
    """A case whose label map lies on disk.

    Args:
        case: its scans.
        label_map: a NIfTI file, or the folder of the masks of slices.
        convention: name of the label convention of the map.
    """

    case: Case
    label_map: Path
    convention: str

    @property
    def is_slices(self) -> bool:
        """Whether voxels have no size and no place in space."""
        return any(is_stack(source) for source in self.case.images.values())

    def labels(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[Any] | None]:
        """The label map ``(x, y, z)`` and its affine; None for slices."""
        if self.is_slices:
            return read_mask([path for _, path in sorted(mask_files(self.label_map).items())]), None
        return read_labels(self.label_map, self.case.case_id, "prediction")


def needs_grid(made: Made, what: str) -> None:
    """Refuse slices, which carry no voxel size and no place in space.

    Raises:
        PipelineError: the case is one of slices.
    """
    if made.is_slices:
        raise PipelineError(f"slices carry no voxel size and no place in space, which {what} needs")


def prepared_folder(case: Case) -> Path | None:
    """The folder of a case that ``prepare`` made; None for any other."""
    from brats_pipeline.prepare import is_prepared

    folders = {path.parent for source in case.images.values() for path in source.paths}
    return next((folder for folder in folders if len(folders) == 1 and is_prepared(folder)), None)


def make_native(made: Made, out: Path) -> None:
    """Carry a label map back to the grid of the original T1c.

    Raises:
        PipelineError: the case was not made by ``prepare``.
    """
    from brats_pipeline.prepare import to_native

    needs_grid(made, "--native")
    folder = prepared_folder(made.case)
    if folder is None:
        first = next(iter(made.case.images.values())).paths[0]
        raise PipelineError(
            f"{first.parent} was not made by `brats-pipeline prepare`, so there is no original grid to go back to: its "
            "label map lies on the grid of its own scans already; leave out --native"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    to_native(made.label_map, folder, out)


def make_nrrd(made: Made, out: Path) -> None:
    """Write a segmentation for 3D Slicer, named and coloured."""
    from transforms.slicer import write_segmentation

    needs_grid(made, "--format nrrd")
    write_segmentation(made.label_map, out, made.convention)


def make_dicom(made: Made, out: Path, *, native: Path, series: Path | None, deidentify: bool) -> None:
    """Write a DICOM segmentation of the series that the scans came from.

    Args:
        made: the case.
        out: the ``.dcm``.
        native: the label map of a prepared case on the grid of its original T1c; made where it is not there.
        series: folder of the source series; None: the one that a prepared case names.
        deidentify: without what names the patient.

    Raises:
        PipelineError: no series is known, or the label map does not lie on its grid.
    """
    from brats_pipeline.dicom.segmentation import write_dicom_seg
    from brats_pipeline.prepare import source_series

    needs_grid(made, "--format dicom-seg")
    folder, label_map = prepared_folder(made.case), made.label_map
    files: Path | Sequence[Path] | None = series
    if folder is not None:
        if not native.is_file():
            make_native(made, native)
        label_map = native
        files = series or source_series(folder)
    if files is None:
        raise PipelineError("a DICOM segmentation belongs to a series; name its folder with --dicom-series FOLDER")
    write_dicom_seg(label_map, files, out, convention=made.convention, deidentify=deidentify)


def _scans(made: Made) -> dict[str, npt.NDArray[Any]]:
    names = [name for name in SHOWN if name in made.case.images] or list(made.case.images)[:1]
    scans = {}
    for name, volume in read_volumes(made.case, names):
        if isinstance(volume, PipelineError):
            raise volume
        scans[name] = volume.values
    return scans


def _masks(made: Made) -> tuple[dict[str, npt.NDArray[np.bool_]], npt.NDArray[Any]]:
    labels, affine = made.labels()
    assert affine is not None  # slices were refused
    rule = convention(made.convention)
    return {name: np.isin(labels, list(rule.regions[name])) for name in rule.widest_first()}, affine


def make_preview(made: Made, out: Path, *, told: Sequence[str]) -> None:
    """Draw the regions as contours on T1c and FLAIR, in three planes."""
    from brats_pipeline.report.prediction import preview_figure

    needs_grid(made, "--preview")
    masks, affine = _masks(made)
    picture = preview_figure(_scans(made), masks, affine=affine, case_id=made.case.case_id, warnings=told)
    write_atomically(out, picture)


def make_viewer(made: Made, out: Path, *, told: Sequence[str], volumes: Mapping[str, Any], bundle: str) -> None:
    """Write a page with volumes, a picture and slices to scroll through."""
    from brats_pipeline.report.prediction import prediction_page

    needs_grid(made, "--viewer")
    masks, affine = _masks(made)
    intervals = volumes.get("intervals", {})
    table = [["Region", volumes["unit"], *(["from", "to"] if intervals else [])]]
    for name, size in volumes["regions"].items():
        table.append([name, f"{size:.1f}", *(f"{end:.1f}" for end in intervals.get(name, ()))])
    page = prediction_page(
        _scans(made),
        masks,
        affine=affine,
        case_id=made.case.case_id,
        bundle=bundle,
        table=table,
        warnings=told,
        versions={"brats-pipeline": brats_pipeline.__version__},
    )
    write_atomically(out, page)


def label_map_of(out: Path, case: Case) -> Path:
    """Where the prediction of a case lies."""
    stack = any(is_stack(source) for source in case.images.values())
    path = out / case.case_id if stack else out / f"{case.case_id}.nii.gz"
    assert stack or is_nifti_name(path.name)
    return path
