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
        both_hd95_mm: HD95 when both are empty; None where distances are not measured.
        one_overlap: Dice, IoU, precision and recall when exactly one is empty.
        one_hd95_mm: HD95 when exactly one is empty, and of a case without a prediction; None as above.
    """

    name: str
    both_overlap: float
    both_hd95_mm: float | None
    one_overlap: float
    one_hd95_mm: float | None

    def sentences(self) -> tuple[str, ...]:
        """The rule in words, for reports."""

        def scores(overlap: float, hd95_mm: float | None) -> str:
            distance = "" if hd95_mm is None else f", HD95 {hd95_mm:g} mm"
            return f"Dice, IoU, precision and recall {overlap:g}{distance}"

        one = scores(self.one_overlap, self.one_hd95_mm)
        return (
            f"Region empty in reference and prediction: {scores(self.both_overlap, self.both_hd95_mm)}.",
            f"Region empty in one of the two: {one}.",
            f"Case without a usable prediction: every region {one}, regions that are empty in the reference included.",
        )


EMPTY_RULES: Mapping[str, EmptyRule] = {
    rule.name: rule
    for rule in (
        # 374 is what the official script of BraTS 2023 writes for an infinite distance.
        EmptyRule("brats2023", both_overlap=1.0, both_hd95_mm=0.0, one_overlap=0.0, one_hd95_mm=374.0),
        EmptyRule("overlap", both_overlap=1.0, both_hd95_mm=None, one_overlap=0.0, one_hd95_mm=None),
    )
}
