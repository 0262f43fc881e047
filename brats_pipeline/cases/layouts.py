"""Layouts: how the files of a case are named. A table of patterns; standard library and the names of modalities only.

The BraTS names are those of the challenges of 2017-2024 (Bakas et al. 2018; Baid et al. 2021, arXiv:2107.02314;
Adewole et al., Kazerooni et al., LaBella et al. 2023; de Verdier et al. 2024); slices are named as in the LGG MRI
Segmentation set (Buda et al. 2019).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from transforms.labels import MODALITIES

WORDS: Mapping[str, tuple[str, ...]] = {
    "t1c": ("t1ce", "t1c", "t1gd"),
    "t1": ("t1n", "t1"),
    "t2": ("t2w", "t2"),
    "flair": ("flair", "t2f"),
    "label": ("seg", "label", "mask", "gtv"),
}
"""What each image of a case is called in file names, in upper or lower case."""

_KIND = {word: kind for kind, words in WORDS.items() for word in words}


@dataclass(frozen=True)
class Layout:
    """One naming scheme.

    Args:
        name: as in :attr:`Case.layout`.
        example: shown to a person whose files are not recognised.
        file: matches a file name without its suffix; group ``what`` is the image, group ``case`` the case id (absent
            where the folder names the case).
        patient: matches a case id; group 1 is the patient. Where it does not match, the case is the patient.
    """

    name: str
    example: str
    file: re.Pattern[str]
    patient: re.Pattern[str]

    def parse(self, stem: str) -> tuple[str | None, str] | None:
        """Read a file name: case id (None: ask the folder) and ``t1c``, ``t1``, ``t2``, ``flair`` or ``label``."""
        match = self.file.fullmatch(stem)
        return match and (match.groupdict().get("case"), _KIND[match["what"].lower()])


def _layout(name: str, example: str, case: str, *, patient: str = r"(.+)") -> Layout:
    """Build a row; ``case`` is the pattern of a case id, empty where the folder names the case."""
    start = f"(?P<case>{case})[-_]" if case else ""
    what = f"(?P<what>{'|'.join(_KIND)})"
    return Layout(name, example, re.compile(start + what, re.IGNORECASE), re.compile(patient, re.IGNORECASE))


FAMILIES: tuple[tuple[Layout, ...], ...] = (
    (
        _layout(
            "brats2017", "Brats18_2013_2_1_t1ce.nii.gz", r"brats1[789](?:_\w+)+?_\d+", patient=r"brats\d+_(.+)_\d+"
        ),
        _layout("brats2020", "BraTS20_Training_001_t1ce.nii.gz", r"brats20_[a-z]+_\d+"),
        _layout("brats2021", "BraTS2021_00006_t1ce.nii.gz", r"brats2021_\d+"),
        _layout(
            "brats2023",
            "BraTS-GLI-00002-000-t1c.nii.gz",
            r"brats-[a-z]+(?:-rt)?-\d+(?:-\d+)?",
            patient=r"brats-[a-z-]+-(\d+)(?:-\d+)?",
        ),
    ),
    (_layout("plain", "case7/t1c.nii.gz, t1.nii.gz, t2.nii.gz, flair.nii.gz", ""),),
    (_layout("plain", "case7_t1c.nii.gz, case7_t1.nii.gz, ...", r".+"),),
)
"""Layouts told by file names, one line each. Within one folder the first family that matches anything is used alone,
so that derived files beside the scans do not become cases of their own."""

LAYOUTS: tuple[Layout, ...] = tuple(row for family in FAMILIES for row in family)

EXAMPLES: tuple[str, ...] = (
    *(f"{row.name}: {row.example}" for row in LAYOUTS),
    "msd: dataset.json of the Medical Segmentation Decathlon beside imagesTr, labelsTr and imagesTs",
    "lgg: TCGA_CS_4942_19970222/TCGA_CS_4942_19970222_1.tif and TCGA_CS_4942_19970222_1_mask.tif, ...",
)
"""Every layout with names as they occur, shown to a person whose files are not recognised."""

_SLICE = re.compile(r"(?P<case>.+)_(?P<number>\d+)(?P<mask>_mask)?", re.IGNORECASE)
_BARCODE = re.compile(r"(TCGA)[-_](\w\w)[-_](\w{4})(?:[-_]\d+)?", re.IGNORECASE)


def parse_slice(stem: str) -> tuple[str, int, bool] | None:
    """Read the name of a slice without its suffix: the case, the slice's number, and whether it is a mask."""
    match = _SLICE.fullmatch(stem)
    return match and (match["case"], int(match["number"]), match["mask"] is not None)


def institution_of(patient_id: str) -> str | None:
    """The institution in a barcode of The Cancer Genome Atlas, ``"TCGA_CS_4942"`` to ``"CS"``; None in other names."""
    match = _BARCODE.fullmatch(patient_id)
    return match and match[2].upper()


def modalities_of(layout: str) -> tuple[str, ...]:
    """The modalities that a complete case of a layout has; LGG slices come without T2."""
    return tuple(modality for modality in MODALITIES if layout != "lgg" or modality != "t2")


def patient_of(case_id: str, layout: str) -> str:
    """The patient that a case belongs to, as far as its name tells: ``"Brats18_2013_2_1"`` to ``"2013_2"``.

    A barcode of The Cancer Genome Atlas is spelt with underscores, so that a patient of two collections has one name.
    """
    barcode = _BARCODE.fullmatch(case_id)
    if barcode and layout in ("plain", "lgg"):
        return "_".join(barcode.groups()).upper()
    for row in LAYOUTS:
        if row.name == layout and (found := row.patient.fullmatch(case_id)):
            return found[1]
    return case_id


def patient_named(case_id: str) -> str:
    """The patient that a case belongs to by its name alone, whatever its layout; the case where no naming fits."""
    if is_barcode(case_id):
        return patient_of(case_id, "plain")
    found = (patient_of(case_id, row.name) for row in LAYOUTS)
    return next((patient for patient in found if patient != case_id), case_id)


def is_barcode(case_id: str) -> bool:
    """Whether a case is named by a barcode of The Cancer Genome Atlas, with or without a date."""
    return _BARCODE.fullmatch(case_id) is not None
