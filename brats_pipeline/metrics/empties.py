"""What a score is when a region is empty, where its formula says 0/0 or infinity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class EmptyRule:
    """Scores of a region that is empty in the prediction, in the reference, or in both.

    Args:
        name: the preset's name, printed in every report.
        both_overlap: Dice, IoU, precision and recall when both are empty.
        both_hd95_mm: HD95 when both are empty.
        one_overlap: Dice, IoU, precision and recall when exactly one is empty.
        one_hd95_mm: HD95 when exactly one is empty; also that of a case without a prediction.
    """

    name: str
    both_overlap: float
    both_hd95_mm: float
    one_overlap: float
    one_hd95_mm: float

    def sentences(self) -> tuple[str, ...]:
        """The rule in words, for reports."""
        return (
            f"Region empty in reference and prediction: Dice, IoU, precision and recall {self.both_overlap:g}, "
            f"HD95 {self.both_hd95_mm:g} mm.",
            f"Region empty in one of the two: Dice, IoU, precision and recall {self.one_overlap:g}, "
            f"HD95 {self.one_hd95_mm:g} mm.",
            f"Case without a usable prediction: every region Dice, IoU, precision and recall {self.one_overlap:g}, "
            f"HD95 {self.one_hd95_mm:g} mm, regions that are empty in the reference included.",
        )


EMPTY_RULES: Mapping[str, EmptyRule] = {
    rule.name: rule
    for rule in (
        # 374 is what the official script of BraTS 2023 writes for an infinite distance.
        EmptyRule("brats2023", both_overlap=1.0, both_hd95_mm=0.0, one_overlap=0.0, one_hd95_mm=374.0),
    )
}
