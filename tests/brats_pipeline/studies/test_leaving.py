"""Which modalities are left out: every choice that leaves one."""

from __future__ import annotations

import pytest

from brats_pipeline.studies.leaving import left_out, still_to_leave_out


@pytest.mark.parametrize(
    ("modalities", "at_once", "names"),
    [
        (["a", "b", "c"], 0, []),
        (["a", "b", "c"], 1, ["a", "b", "c"]),
        (["a", "b", "c"], 2, ["a", "b", "c", "a+b", "a+c", "b+c"]),
        (["a", "b"], 2, ["a", "b"]),
        (["a"], 2, []),
    ],
)
def test_every_choice_leaves_a_modality(modalities: list[str], at_once: int, names: list[str]) -> None:
    assert left_out(modalities, at_once) == names


@pytest.mark.parametrize(
    ("done", "at_once", "answer"),
    [
        (None, 0, False),
        (None, 1, True),
        (["a", "b", "c"], 1, False),
        (["a", "b", "c"], 2, True),
        (["a", "b", "c", "a+b", "a+c", "b+c"], 2, False),
        (["a", "b", "c", "a+b", "a+c", "b+c"], 1, False),
        (["a", "b"], 2, False),
        ([], 2, False),
    ],
)
def test_pairs_are_asked_for_where_only_single_ones_were_left_out(
    done: list[str] | None, at_once: int, answer: bool
) -> None:
    assert still_to_leave_out(done, at_once) == answer
