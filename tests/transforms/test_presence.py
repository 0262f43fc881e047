"""Which modalities are there: flags, and modalities left out at random."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from transforms.presence import FlagPresenced, RandDropModalitiesd, flag_presence


def test_a_missing_sequence_is_zeroed_and_flagged() -> None:
    image = torch.tensor([[5.0, 7.0], [3.0, 4.0]])
    flagged = flag_presence(image, torch.tensor([1.0, 0.0]))
    assert flagged.tolist() == [[5, 7], [0, 0], [1, 1], [0, 0]]


def test_the_slices_of_a_missing_sequence_are_all_zeroed_and_flagged_once() -> None:
    image = torch.arange(1.0, 7)[:, None]
    flagged = flag_presence(image, torch.tensor([0.0, 1.0]))
    assert flagged[:, 0].tolist() == [0, 2, 0, 4, 0, 6, 0, 1]


def test_channels_that_are_no_multiple_of_the_flags_are_refused() -> None:
    for image, present in ((torch.zeros(3, 2, 2), torch.ones(2)), (torch.zeros(1, 2), torch.ones(2))):
        with pytest.raises(ValueError, match="one flag per modality"):
            flag_presence(image, present)


def test_flags_follow_the_image_in_a_dictionary() -> None:
    item = {"image": torch.ones(2, 3, 3), "present": torch.tensor([0.0, 1.0])}
    flagged = FlagPresenced("image")(item)["image"]
    assert flagged.flatten(1).unique(dim=1).tolist() == [[0], [1], [0], [1]]
    assert item["image"].all()


def dropped(present: list[float], prob: float, count: int = 900) -> Counter[tuple[float, ...]]:
    """How often which flags are left, where the image is checked to agree with them."""
    draw = RandDropModalitiesd("image", prob=prob).set_random_state(seed=0)
    seen: Counter[tuple[float, ...]] = Counter()
    flags = torch.tensor(present)
    for _ in range(count):
        made = draw({"image": torch.ones(2 * len(present), 2) * flags.repeat(2)[:, None], "present": flags})
        assert torch.equal(made["image"], made["present"].repeat(2)[:, None].expand(-1, 2))
        seen[tuple(made["present"].tolist())] += 1
    assert flags.tolist() == present
    return seen


def test_the_given_share_loses_one_to_all_but_one_modality_with_even_chances() -> None:
    seen = dropped([1.0, 1.0, 1.0, 1.0], prob=0.6)
    share = {left: sum(n for flags, n in seen.items() if sum(flags) == left) / 900 for left in range(5)}
    assert share[0] == 0
    assert share[4] == pytest.approx(0.4, abs=0.05)
    assert all(share[left] == pytest.approx(0.2, abs=0.05) for left in (1, 2, 3))
    assert len(seen) == 2**4 - 1
    assert all(n / 900 == pytest.approx(0.05, abs=0.03) for flags, n in seen.items() if sum(flags) in (1, 3))


def test_a_missing_modality_stays_missing_and_the_last_one_stays() -> None:
    seen = dropped([0.0, 1.0, 1.0], prob=1)
    assert set(seen) == {(0, 1, 0), (0, 0, 1)}
    assert set(dropped([0.0, 1.0, 0.0], prob=1)) == {(0, 1, 0)}
    assert set(dropped([1.0, 1.0], prob=0)) == {(1, 1)}
