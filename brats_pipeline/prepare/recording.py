"""What ``prepare.json`` says: enough to trust a prepared case, to make it again, and to find the way back."""

from __future__ import annotations

import base64
import hashlib
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk

import brats_pipeline
from brats_pipeline.dicom.reading import slices_in_order
from brats_pipeline.files import file_sha256
from brats_pipeline.prepare.exam import Scan
from brats_pipeline.prepare.grids import Grid
from brats_pipeline.prepare.matching import Match
from brats_pipeline.prepare.native import SCHEMA_VERSION
from transforms.scans import read_scan_header


def match_record(name: str, found: Match) -> dict[str, Any]:
    """How one scan was brought to another, and the file of its transform."""
    return {
        "transform": f"transforms/{name}.tfm",
        "mutual_information_before": found.before.information,
        "mutual_information_after": found.after.information,
        "covered_before": found.before.covered,
        "covered_after": found.after.covered,
        "moved_mm": found.moved_mm,
        "rotated_degrees": found.rotated_degrees,
        "headers_kept": found.kept,
    }


def header_of(path: Scan, image: sitk.Image) -> str:
    """The NIfTI header of the reference, to the bit, as base64; one made from its grid where it is no NIfTI file."""
    header = (
        read_scan_header(path).header
        if isinstance(path, Path)
        else nib.Nifti1Image(np.zeros(image.GetSize(), np.uint8), Grid.of(image).affine).header
    )
    return base64.b64encode(header.binaryblock).decode("ascii")


def origin_of(scan: Scan) -> dict[str, Any]:
    """Where a scan came from and a hash: of its file, or of the hashes of a series' files, first slice to last."""
    if isinstance(scan, Path):
        return {"path": str(scan.absolute()), "sha256": file_sha256(scan)}
    files = slices_in_order(scan)
    return {
        "path": str(scan.folder.absolute()),
        "sha256": hashlib.sha256("".join(map(file_sha256, files)).encode()).hexdigest(),
        "dicom": {
            "series_instance_uid": scan.uid,
            "series_number": scan.number,
            "description": scan.description,
            "files": [str(path.relative_to(scan.folder)) for path in files],
        },
    }


def record_of(
    case_id: str,
    files: Mapping[str, Scan],
    grids: Mapping[str, Grid],
    *,
    grid: Grid,
    header: str,
    settings: Mapping[str, Any],
    matches: Mapping[str, Match],
) -> dict[str, Any]:
    """What went in and how it was matched.

    Args:
        case_id: of the prepared case.
        files: modality to its scan, the reference first.
        grids: modality to its grid as it came.
        grid: of the prepared case.
        header: of the reference, by :func:`header_of`.
        settings: what was asked for.
        matches: modality to how it was brought to the reference.
    """
    reference = next(iter(files))
    return {
        "schema_version": SCHEMA_VERSION,
        "case_id": case_id,
        "reference": reference,
        "versions": {
            "brats_pipeline": brats_pipeline.__version__,
            "SimpleITK": sitk.Version.VersionString(),
            "python": platform.python_version(),
        },
        "settings": dict(settings),
        "inputs": {name: {**origin_of(scan), "grid": grids[name].to_json()} for name, scan in files.items()},
        "grid": grid.to_json(),
        "native": {"grid": grids[reference].to_json(), "header": header},
        "registration": {name: match_record(name, each) for name, each in matches.items()},
    }
