"""What a training saw: its own cases never surprise it, and others are told by the number that differs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from brats_pipeline.data.differences import differences
from brats_pipeline.data.familiar import Familiar, read_familiar
from brats_pipeline.data.looks import QUANTILES, Look
from brats_pipeline.errors import PipelineError

MODALITIES = ("t1c", "t1", "t2", "flair")
SKEW = {"t1c": 0.9, "t1": -0.5, "t2": 1.6, "flair": 0.1}
BITS = {("t1c", "t1"): 0.7, ("t1c", "t2"): 0.2, ("t1c", "flair"): 0.3, ("t1", "t2"): 0.25, ("t1", "flair"): 0.4}


def drawn(seed: int) -> Look:
    """A case as a scanner might give it: each number around its mean."""
    random = np.random.default_rng(seed)
    line = np.linspace(-2, 2, len(QUANTILES))
    return Look(
        spacing_mm=(1.0, 1.0, 1.0),
        extent_mm=tuple(np.array([140.0, 175.0, 138.0]) * random.uniform(0.95, 1.05, 3)),
        zeros=random.uniform(0.5, 0.58),
        quantiles={name: line + SKEW[name] * random.uniform(0.85, 1.15) * (line**2 - 1.4) / 3 for name in MODALITIES},
        information={pair: bits * random.uniform(0.8, 1.25) for pair, bits in {**BITS, ("t2", "flair"): 0.9}.items()},
        moved={name: random.uniform(0.25, 0.65) for name in MODALITIES},
    )


LOOKS = [drawn(seed) for seed in range(12)]
SEEN = Familiar.of(LOOKS, MODALITIES)


def exchanged(look: Look, one: str, other: str) -> Look:
    names = {one: other, other: one}

    def pair(first: str, second: str) -> tuple[str, str]:
        swapped = [names.get(first, first), names.get(second, second)]
        a, b = sorted(swapped, key=MODALITIES.index)
        return a, b

    return replace(
        look,
        quantiles={names.get(name, name): values for name, values in look.quantiles.items()},
        information={pair(*key): bits for key, bits in look.information.items()},
    )


@pytest.mark.parametrize("left_out", range(len(LOOKS)))
def test_a_training_does_not_warn_of_its_own_cases_even_when_they_are_left_out(left_out: int) -> None:
    others = [look for number, look in enumerate(LOOKS) if number != left_out]
    assert differences(LOOKS[left_out], Familiar.of(others, MODALITIES)) == []
    assert differences(LOOKS[left_out], SEEN) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"spacing_mm": (1.0, 1.0, 5.0)}, ["1x1x5 mm", "1x1x1 mm"]),
        ({"extent_mm": (230.0, 205.0, 144.0)}, ["230x205x144 mm", "in the training"]),
        ({"zeros": 0.02}, ["only 2%", "skull was not taken out"]),
        ({"zeros": 0.95}, ["95%", "more was taken out"]),
        (
            {"moved": {"t1c": 0.5, "t1": 0.5, "t2": 1.6, "flair": 0.6}},
            ["T2 seems not to be co-registered", "1.6 times"],
        ),
        ({"moved": {"t1c": 1.2, "t1": 0.5, "t2": 1.6, "flair": 0.6}}, ["T1c and T2 seem not to be co-registered"]),
        ({"quantiles": {"t1": np.full(len(QUANTILES), 2.0)}}, ["grey values of T1", "standard deviations"]),
    ],
)
def test_each_difference_is_named_in_one_sentence_with_what_came(change: dict[str, object], told: list[str]) -> None:
    (sentence,) = differences(replace(LOOKS[0], **change), SEEN)  # type: ignore[arg-type]
    for part in told:
        assert part in sentence


def test_exchanged_modalities_are_named() -> None:
    sentences = differences(exchanged(LOOKS[0], "t1c", "flair"), SEEN)
    assert any("T1c and FLAIR seem to be exchanged" in sentence for sentence in sentences)


def test_a_missing_modality_is_nobodys_difference() -> None:
    without = replace(
        LOOKS[0],
        quantiles={name: LOOKS[0].quantiles[name] for name in ("t1c", "t1", "t2")},
        information={pair: bits for pair, bits in LOOKS[0].information.items() if "flair" not in pair},
        moved={name: LOOKS[0].moved[name] for name in ("t1c", "t1", "t2")},
    )
    assert differences(without, SEEN) == []


def test_a_training_with_skulls_does_not_miss_the_background() -> None:
    heads = Familiar.of([replace(look, zeros=0.01 * n) for n, look in enumerate(LOOKS)], MODALITIES)
    assert differences(replace(LOOKS[0], zeros=0.0), heads) == []


def test_slices_without_voxel_size_are_compared_by_what_they_have() -> None:
    flat = [replace(look, spacing_mm=(), extent_mm=()) for look in LOOKS]
    seen = Familiar.of(flat, MODALITIES)
    assert differences(flat[3], seen) == []
    assert differences(LOOKS[3], seen) == []


def test_a_lone_case_is_enough_and_is_not_unlike_itself() -> None:
    assert differences(LOOKS[0], Familiar.of(LOOKS[:1], MODALITIES)) == []


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    path = tmp_path / "fingerprint.json"
    path.write_text(SEEN.to_json(), encoding="utf-8")
    again = read_familiar(path)
    assert again is not None
    assert again.to_json() == SEEN.to_json()
    for look in (replace(LOOKS[0], zeros=0.02), exchanged(LOOKS[1], "t1", "t2")):
        assert differences(look, again) == differences(look, SEEN) != []


def test_no_file_says_nothing_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "fingerprint.json"
    assert read_familiar(path) is None
    for text in ("{", "[]", '{"schema_version": 99}', SEEN.to_json().replace('"grey"', '"gray"')):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(PipelineError, match="cannot be used"):
            read_familiar(path)
