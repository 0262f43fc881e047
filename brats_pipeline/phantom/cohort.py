"""Synthetic cohorts on disk: files and folders named as the public datasets name them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
from PIL import Image

from brats_pipeline.files import write_atomically
from brats_pipeline.phantom.anatomy import ED, ET, NCR
from brats_pipeline.phantom.synthesis import PhantomCase, PhantomSlices, make_case, make_slices
from transforms.labels import CONVENTIONS, REGIONS, Convention, convention
from transforms.nifti import write_nifti
from transforms.slices import CHANNELS, write_masks

TISSUE_REGION = {NCR: "TC", ED: "WT", ET: "ET"}
"""Value of :attr:`PhantomCase.tumour` to the innermost region that the tissue belongs to."""


def to_convention(tumour: npt.NDArray[np.uint8], name: str) -> npt.NDArray[np.uint8]:
    """Translate :attr:`PhantomCase.tumour` to the values of a label convention.

    Raises:
        ValueError: the convention is unknown, or has no WT, TC and ET.
    """
    table = _nested(name)
    values = np.zeros(max(TISSUE_REGION) + 1, dtype=np.uint8)
    for tissue, region in TISSUE_REGION.items():
        values[tissue] = table.written(region)
    translated: npt.NDArray[np.uint8] = values[tumour]
    return translated


def _nested(name: str) -> Convention:
    """The convention, if it can tell the three regions apart."""
    table = convention(name)
    if not set(REGIONS) <= set(table.regions):
        able = ", ".join(row.name for row in CONVENTIONS.values() if set(REGIONS) <= set(row.regions))
        raise ValueError(f"label convention {name!r} has no WT, TC and ET; a phantom can be written as {able}")
    return table


@dataclass(frozen=True)
class _Layout:
    """How a dataset names things.

    Args:
        convention: the label convention of the dataset.
        case: name of case ``{number}`` (from 1).
        file: name of a file of ``{case}``, with ``{kind}`` from ``kinds``.
        kinds: how the four modalities and the label map are called there.
        graded: cases lie in folders HGG and LGG.
        cyst: the label of a cyst, which the necrosis of an enhancing tumour is written as.
    """

    convention: str
    case: str
    file: str = ""
    kinds: Mapping[str, str] = field(default_factory=dict)
    graded: bool = False
    cyst: int | None = None


_T1CE = {"t1c": "t1ce", "t1": "t1", "t2": "t2", "flair": "flair", "label": "seg"}
_T1N = {"t1c": "t1c", "t1": "t1n", "t2": "t2w", "flair": "t2f", "label": "seg"}
_OWN = {"t1c": "t1c", "t1": "t1", "t2": "t2", "flair": "flair", "label": "seg"}


def _challenge(name: str, convention: str, time: str = "000", *, cyst: int | None = None) -> _Layout:
    """The naming of BraTS since 2023, for one of its challenges."""
    return _Layout(convention, f"BraTS-{name}-{{number:05}}-{time}", "{case}-{kind}.nii.gz", _T1N, cyst=cyst)


LAYOUTS: Mapping[str, _Layout] = {
    "brats2017": _Layout("brats2017", "Brats18_SYN01_{number}_1", "{case}_{kind}.nii.gz", _T1CE, graded=True),
    "brats2020": _Layout("brats2017", "BraTS20_Training_{number:03}", "{case}_{kind}.nii.gz", _T1CE),
    "brats2021": _Layout("brats2017", "BraTS2021_{number:05}", "{case}_{kind}.nii.gz", _T1CE),
    "brats2023": _challenge("GLI", "brats2023"),
    "brats2023-ssa": _challenge("SSA", "brats2023"),
    "brats2023-ped": _challenge("PED", "brats2023"),
    "brats2023-men": _challenge("MEN", "brats2023"),
    "brats2023-met": _challenge("MET", "brats2023"),
    "brats2024-gli": _challenge("GLI", "brats2024-gli", "100"),  # after treatment, examinations count from 100
    "brats2024-ped": _challenge("PED", "brats2024-ped", cyst=3),
    "brats2024-met": _challenge("MET", "brats2024-met"),
    "plain": _Layout("brats2017", "case_{index:03}", "{kind}.nii.gz", _OWN),
    "msd": _Layout("msd", "BRATS_{number:03}"),
    "lgg": _Layout("lgg", "TCGA_{site}_{patient}_{date}"),
}
"""Layout to its naming. ``msd`` is one 4-D file a case with a ``dataset.json``, ``lgg`` a folder of TIFF slices."""

_MSD_CHANNELS = {"FLAIR": "flair", "T1w": "t1", "t1gd": "t1c", "T2w": "t2"}
_SITES = ("ZA", "ZB", "ZA", "ZC", "ZA", "ZB")  # institutions that do not exist, of unequal size


def _nifti(voxels: npt.NDArray[np.generic], affine: npt.NDArray[np.float64], axes: str) -> nib.Nifti1Image:
    """Wrap LPS voxels as a NIfTI image whose array axes grow towards ``axes``; world space stays the same."""
    image = nib.Nifti1Image(voxels, affine)
    start, end = nib.io_orientation(affine), nib.orientations.axcodes2ornt(tuple(axes))
    turned: nib.Nifti1Image = image.as_reoriented(nib.orientations.ornt_transform(start, end))
    turned.set_qform(turned.affine, 1)
    turned.set_sform(turned.affine, 1)
    turned.header.set_xyzt_units("mm")
    return turned


def _labels(case: PhantomCase, layout: _Layout, convention: str) -> npt.NDArray[np.uint8]:
    """The label map of a case; a cyst stands for the necrosis where the layout knows one."""
    labels = to_convention(case.tumour, convention)
    if layout.cyst is not None and convention == layout.convention and (case.tumour == ET).any():
        labels[case.tumour == NCR] = layout.cyst
    return labels


def _write_files(
    out: Path, case: PhantomCase, index: int, layout: _Layout, *, convention: str, orientation: str, labels: bool
) -> Path:
    """Write one case as one file per modality; returns its folder."""
    name = layout.case.format(index=index, number=index + 1)
    folder = out / name
    if layout.graded and labels:
        folder = out / ("HGG" if (case.tumour == ET).any() else "LGG") / name
    arrays: dict[str, npt.NDArray[np.generic]] = dict(case.images)
    if labels:
        arrays["label"] = _labels(case, layout, convention)
    for key, voxels in arrays.items():
        path = folder / layout.file.format(case=name, kind=layout.kinds[key])
        write_nifti(path, _nifti(voxels, case.affine, orientation))
    return folder


def _write_stack(
    out: Path, case: PhantomCase, index: int, layout: _Layout, *, convention: str, orientation: str, labels: bool
) -> Path:
    """Write one case as one 4-D file; returns it."""
    name = f"{layout.case.format(number=index + 1)}.nii.gz"
    path = out / ("imagesTr" if labels else "imagesTs") / name
    stack = np.stack([case.images[modality] for modality in _MSD_CHANNELS.values()], axis=-1)
    write_nifti(path, _nifti(stack, case.affine, orientation))
    if labels:
        write_nifti(out / "labelsTr" / name, _nifti(_labels(case, layout, convention), case.affine, orientation))
    return path


def _write_decathlon(out: Path, images: Sequence[Path], *, convention: str, labels: bool) -> None:
    """Write the ``dataset.json`` of the Medical Segmentation Decathlon."""
    tissues = CONVENTIONS[convention].tissues
    training = [{"image": f"./imagesTr/{path.name}", "label": f"./labelsTr/{path.name}"} for path in images if labels]
    test = [f"./imagesTs/{path.name}" for path in images if not labels]
    description = {
        "name": "BRATS",
        "description": "Synthetic brains with synthetic gliomas",
        "reference": "none: no patient was scanned",
        "licence": "as the program that wrote it",
        "release": "1.0",
        "tensorImageSize": "4D",
        "modality": {str(channel): name for channel, name in enumerate(_MSD_CHANNELS)},
        "labels": {"0": "background"} | {str(value): tissue for value, tissue in tissues.items()},
        "numTraining": len(training),
        "numTest": len(test),
        "training": training,
        "test": test,
    }
    write_atomically(out / "dataset.json", json.dumps(description, indent=2) + "\n")


def _write_slices(out: Path, case: PhantomSlices, index: int, seed: int, *, labels: bool, missing: bool) -> Path:
    """Write one patient as a folder of slices with their masks; returns it."""
    generator = np.random.default_rng((seed, index, 1))
    year, month, day = (int(value) for value in generator.integers((1990, 1, 1), (2004, 13, 29)))
    name = LAYOUTS["lgg"].case.format(
        site=_SITES[index % len(_SITES)], patient=9001 + index, date=f"{year}{month:02}{day:02}"
    )
    images = dict(case.images)
    if missing and index % 5 == 3:
        absent = ("t1c",) if index % 10 == 3 else ("t1", "t1c")
        images |= dict.fromkeys(absent, images["flair"])
    stems = [f"{name}_{number + 1}" for number in range(case.tumour.shape[2])]
    order = sorted(CHANNELS, key=CHANNELS.__getitem__)
    for number, stem in enumerate(stems):
        picture = np.stack([images[modality][:, :, number].T for modality in order], axis=-1)
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, format="TIFF")
        write_atomically(out / name / f"{stem}.tif", buffer.getvalue())
    if labels:
        write_masks(out / name, stems, case.tumour.astype(np.uint8))
    return out / name


def _refuse(layout: str, cases: int, convention: str | None, orientation: str, spacing: bool) -> None:
    """Refuse what cannot be written."""
    if layout not in LAYOUTS:
        raise ValueError(f"unknown layout {layout!r}; a phantom can be written as {', '.join(LAYOUTS)}")
    if cases < 1:
        raise ValueError(f"a cohort needs at least one case, got {cases}")
    if len(orientation) != 3 or any(len(set(pair) & set(orientation)) != 1 for pair in ("LR", "PA", "IS")):
        raise ValueError(f"orientation must name one of L/R, P/A and I/S per axis, such as LPS, got {orientation!r}")
    if layout != "lgg":
        _nested(convention or LAYOUTS[layout].convention)
    elif convention not in (None, "lgg") or orientation != "LPS" or spacing:
        raise ValueError(
            "slices of layout lgg hold one binary mask and carry neither an orientation nor voxel sides; leave "
            "convention, orientation and spacing_mm as they are"
        )


def write_cohort(
    out: Path,
    *,
    cases: int = 8,
    layout: str = "brats2021",
    seed: int = 0,
    convention: str | None = None,
    orientation: str = "LPS",
    shape: tuple[int, int, int] | None = None,
    spacing_mm: float | Sequence[float] | None = None,
    labels: bool = True,
    missing_sequences: bool = True,
    on_case: Callable[[str], None] | None = None,
) -> list[Path]:
    """Write a synthetic cohort in the naming of a public dataset.

    Args:
        out: the cohort's folder; made where it does not exist.
        cases: how many; case ``i`` is the same in cohorts of any size.
        layout: a key of :data:`LAYOUTS`.
        seed: of the cohort.
        convention: label convention, by default the layout's own.
        orientation: direction in which each array axis grows, such as ``"LPS"`` (BraTS) or ``"RAS"``.
        shape: voxels along x, y and z, in LPS order; another orientation permutes them. By default 240x240x155; for
            slices 256 columns, 256 rows and 20 to 30 slices, and the whole head in the picture whatever the shape.
        spacing_mm: voxel sides, one for all axes or one each, in LPS order; by default 1 mm. Slices have none.
        labels: whether to write label maps.
        missing_sequences: in layout ``lgg``, the 4th, 9th, 14th ... patient lacks a sequence, in whose channel stands
            a copy of FLAIR, as in the real set: post-contrast T1, or (the 9th, 19th ...) both T1. False: none does.
        on_case: called with the id of each finished case.

    Returns:
        The case folders, in order; for layout ``msd`` the 4-D files.

    Raises:
        ValueError: a name is unknown, or the field of view cannot hold a head.
        PipelineError: ``out`` cannot be written.
    """
    _refuse(layout, cases, convention, orientation, spacing_mm is not None)
    out, scheme = Path(out), LAYOUTS[layout]
    written_as = convention or scheme.convention
    write_case = _write_stack if layout == "msd" else _write_files
    written = []
    for index in range(cases):
        if layout == "lgg":
            patient = make_slices((seed, index), shape=shape or (256, 256, None))
            path = _write_slices(out, patient, index, seed, labels=labels, missing=missing_sequences)
        else:
            sides = 1.0 if spacing_mm is None else spacing_mm
            case = make_case((seed, index), shape=shape or (240, 240, 155), spacing_mm=sides)
            path = write_case(out, case, index, scheme, convention=written_as, orientation=orientation, labels=labels)
        written.append(path)
        if on_case is not None:
            on_case(path.name.removesuffix(".nii.gz"))
    if layout == "msd":
        _write_decathlon(out, written, convention=written_as, labels=labels)
    return written
