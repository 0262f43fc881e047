"""What became of the cases of a cohort."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LESS_SEEN = "which may cost accuracy: compare with cases that have every modality"


@dataclass
class Segmentation:
    """What became of each case.

    Args:
        out: folder of the predictions.
        bundle: what segmented them.
        done: cases segmented by this call.
        skipped: cases whose prediction from the same files by the same weights was there already.
        failed: case to the reason why it has no prediction.
        notes: case to what a reader of its prediction should know.
        seconds: case to what each of its stages took; stages of different cases run at the same time.
        hashes: case to the SHA-256 of its image files, in the order of the modalities.
        missing: case to the modalities that it was segmented without.
        doubt: case to intervals of its volumes and the Dice to expect, where they were asked for.
        review: case to why it should be looked at, where the Dice to expect is low.
        unlike: case to in what its scan differs from what the training saw, a sentence each.
        without: case to what was asked for beside its label map and could not be made, with the reason.
        beside: case to the options whose files it has beside its label map, or is about to have.
    """

    out: Path
    bundle: Path
    done: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, dict[str, float]] = field(default_factory=dict)
    hashes: dict[str, list[str]] = field(default_factory=dict)
    missing: dict[str, tuple[str, ...]] = field(default_factory=dict)
    doubt: dict[str, dict[str, Any]] = field(default_factory=dict)
    review: dict[str, str] = field(default_factory=dict)
    unlike: dict[str, list[str]] = field(default_factory=dict)
    without: dict[str, dict[str, str]] = field(default_factory=dict)
    beside: dict[str, list[str]] = field(default_factory=dict)

    def note(self, case_id: str, sentence: str) -> None:
        """Add to what a reader of a prediction should know."""
        self.notes[case_id] = "; ".join(filter(None, (self.notes.get(case_id), sentence)))

    def told(self, case_id: str) -> list[str]:
        """What stands beside a prediction wherever it is shown: why to look at it, what was missing, how it differs."""
        review = self.review.get(case_id)
        missing = self.missing.get(case_id)
        lacking = [f"segmented without {', '.join(missing)}, {LESS_SEEN}"] if missing else []
        unlike = [f"unlike the training: {sentence}" for sentence in self.unlike.get(case_id, ())]
        return [*([review] if review else []), *lacking, *unlike]

    def states(
        self,
        inputs_now: Mapping[str, Mapping[str, Any]],
        earlier: Mapping[str, Mapping[str, Any]],
        pending: Collection[str] = (),
        standing: Collection[str] = (),
    ) -> dict[str, dict[str, Any]]:
        """What this call says about its cases, for ``run.json``.

        Args:
            inputs_now: case to what it is made from.
            earlier: what earlier calls said; of a case that is skipped they know more.
            pending: cases about to be segmented.
            standing: cases that cannot be segmented as this call asks, whose earlier prediction is as good as it was:
                nothing is said of them.
        """
        states: dict[str, dict[str, Any]] = {name: {"status": "pending"} for name in pending}
        states |= {name: {**earlier[name], "status": "done"} for name in self.skipped}
        states |= {name: {"status": "done"} for name in self.done}
        states |= {
            name: {"status": "failed", "reason": reason} for name, reason in self.failed.items() if name not in standing
        }
        beside = {name: options for name, options in self.beside.items() if name not in self.failed}
        for name, state in states.items():
            state["inputs"] = inputs_now[name]
            if name in self.hashes:
                state["image_sha256"] = self.hashes[name]
            if name in self.seconds:
                state["seconds"] = {stage: round(spent, 3) for stage, spent in self.seconds[name].items()}
            if name in self.doubt:
                state["uncertainty"] = self.doubt[name]
            if name in self.notes:
                state["note"] = self.notes[name]
            if name in self.missing:
                state["missing"] = list(self.missing[name])
            if name in self.unlike:
                state["unlike"] = self.unlike[name]
            for key, told in (("without", self.without), ("beside", beside)):
                state.pop(key, None)  # of a call that asked for something else
                if told.get(name):
                    state[key] = told[name]
        return states
