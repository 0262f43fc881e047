"""What a score is when a region is empty, where its formula says 0/0 or infinity."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class EmptyRule:
    """Scores of a region that is empty in the prediction, in the reference, or in both.

    Args:
        name: the preset's name, printed in every report.
        both_overlap: Dice, IoU, precision, recall and NSD when both are empty.
        both_hd95_mm: HD95 and ASSD when both are empty; None where distances are not measured.
        one_overlap: Dice, IoU, precision, recall and NSD when exactly one is empty.
        one_hd95_mm: HD95 and ASSD when exactly one is empty, and of a case without a prediction; None where distances
            are not measured, and where ``one_is_diagonal``.
        one_is_diagonal: whether that distance is the diagonal of the array, counted in voxels.
    """

    name: str
    both_overlap: float
    both_hd95_mm: float | None
    one_overlap: float
    one_hd95_mm: float | None
    one_is_diagonal: bool = False

    def penalty(self, shape: Sequence[int]) -> float:
        """The distance of a surface to one that is not there, for an image of this shape; NaN where none is measured.

        With ``one_is_diagonal`` it is a number of voxels and stands among millimetres as it does in the official
        script; the two are one where voxels measure 1 mm.
        """
        if self.one_is_diagonal:
            return math.hypot(*shape)
        return math.nan if self.one_hd95_mm is None else self.one_hd95_mm

    def sentences(self) -> tuple[str, ...]:
        """The rule in words, for reports."""
        measured = self.both_hd95_mm is not None
        overlap = "Dice, IoU, precision and recall" if not measured else "Dice, IoU, precision, recall and NSD"
        both, one = f"{overlap} {self.both_overlap:g}", f"{overlap} {self.one_overlap:g}"
        if measured:
            both += f", HD95 and ASSD {self.both_hd95_mm:g} mm"
            distance = (
                f"{self.one_hd95_mm:g} mm" if self.one_hd95_mm is not None else "the diagonal of the array in voxels"
            )
            one += f", HD95 and ASSD {distance}"
        return (
            f"Region empty in reference and prediction: {both}.",
            f"Region empty in one of the two: {one}.",
            f"Case without a usable prediction: every region {one}, regions that are empty in the reference included.",
        )


def _measured(name: str, *, one_hd95_mm: float | None) -> EmptyRule:
    return EmptyRule(name, 1.0, 0.0, 0.0, one_hd95_mm, one_is_diagonal=one_hd95_mm is None)


EMPTY_RULES: Mapping[str, EmptyRule] = {
    rule.name: rule
    for rule in (
        # 374 is what the official script of BraTS 2023 writes for an infinite distance.
        _measured("brats2023", one_hd95_mm=374.0),
        # That of the post-treatment gliomas of 2024 writes 337.
        _measured("brats2024-gli", one_hd95_mm=337.0),
        # Those of the metastases and the radiotherapy meningiomas of 2024 take the diagonal of the array in voxels.
        _measured("voxel-diagonal", one_hd95_mm=None),
        # The diagonal of 240 x 240 x 155 voxels of 1 mm, as the ranking of 2020 has it.
        _measured("brats2020", one_hd95_mm=373.12866),
        EmptyRule("overlap", both_overlap=1.0, both_hd95_mm=None, one_overlap=0.0, one_hd95_mm=None),
    )
}
