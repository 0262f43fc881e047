"""What each tissue of a label map is called in DICOM.

Codes of PS3.16 where it has them: context group 7168 (brain lesion segmentation types with necrosis) takes edema and
necrosis from SNOMED CT, and the enhancing and the non-enhancing part, for which SNOMED CT has no code there, from the
NCI Thesaurus. Everything lies in the brain (SNOMED CT 12738006).
"""

from __future__ import annotations

from collections.abc import Mapping

Triple = tuple[str, str, str]
"""Code value, coding scheme, meaning."""

EDEMA: Triple = ("79654002", "SCT", "Edema")
NECROSIS: Triple = ("6574001", "SCT", "Necrosis")
ENHANCING: Triple = ("C113842", "NCIt", "Enhancing Lesion")
NON_ENHANCING: Triple = ("C81175", "NCIt", "Non-Enhancing Lesion")
CYST: Triple = ("367643001", "SCT", "Cyst")
LESION: Triple = ("52988006", "SCT", "Lesion")
NEOPLASM: Triple = ("108369006", "SCT", "Neoplasm")

BRAIN: Triple = ("12738006", "SCT", "Brain")
ABNORMAL: Triple = ("49755003", "SCT", "Morphologically Abnormal Structure")
LEARNED: Triple = ("123110", "DCM", "Artificial Intelligence")

TISSUE_CODES: Mapping[str, Triple] = {
    "NCR": NECROSIS,
    "NCR/NET": NECROSIS,
    "NETC": NON_ENHANCING,
    "NET": NON_ENHANCING,
    "ED": EDEMA,
    "SNFH": EDEMA,
    "ET": ENHANCING,
    "CC": CYST,
    "RC": LESION,
    "GTV": NEOPLASM,
    "FLAIR abnormality": LESION,
}
"""Tissue of a label convention to its type. A resection cavity has no code in PS3.16: its label says what it is."""

REGION_CODES: Mapping[str, Triple] = {"WT": LESION, "TC": NEOPLASM, "ET": ENHANCING, "GTV": NEOPLASM}
"""Region to its type."""

REGION_WORDS: Mapping[str, str] = {
    "WT": "whole tumour (WT)",
    "TC": "tumour core (TC)",
    "ET": "enhancing tumour (ET)",
    "GTV": "gross tumour volume (GTV)",
}
TISSUE_WORDS: Mapping[str, str] = {
    "NCR": "necrotic core (NCR)",
    "NCR/NET": "necrotic and non-enhancing core (NCR/NET)",
    "NETC": "non-enhancing core (NETC)",
    "NET": "non-enhancing tumour (NET)",
    "ED": "edema (ED)",
    "SNFH": "surrounding FLAIR hyperintensity (SNFH)",
    "ET": "enhancing tumour (ET)",
    "CC": "cyst (CC)",
    "RC": "resection cavity (RC)",
    "GTV": "gross tumour volume (GTV)",
    "FLAIR abnormality": "whole tumour (WT), the FLAIR abnormality",
}
"""What a viewer shows, at most 64 characters."""
