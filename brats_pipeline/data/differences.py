"""How a scan differs from what a training saw, a sentence for each: what came, and what the training saw."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from brats_pipeline.data.familiar import FEWER_ZEROS, MORE_ZEROS, NO_BACKGROUND, SIDE, Familiar, Range
from brats_pipeline.data.looks import Look

NAMES = {"t1c": "T1c", "t1": "T1", "t2": "T2", "flair": "FLAIR"}


def differences(look: Look, seen: Familiar) -> list[str]:
    """What a reader of the prediction should know; nothing for a scan like those of the training."""
    return [
        *_spacing(look, seen),
        *_extent(look, seen),
        *_background(look, seen),
        *_registration(look, seen),
        *_exchanged(look, seen),
        *_grey_values(look, seen),
    ]


def _beyond(values: Sequence[float], seen: Range) -> bool:
    return any(
        value < low / SIDE or value > high * SIDE for value, low, high in zip(values, seen[0], seen[1], strict=True)
    )


def _sides(values: Sequence[float], digits: int) -> str:
    return "x".join(f"{round(value, digits):g}" for value in values)


def _told(seen: Range, digits: int) -> str:
    """``1x1x1``, or ``134x158x130 to 142x182x146``."""
    low, high = (_sides(part, digits) for part in seen)
    return low if low == high else f"{low} to {high}"


def _spacing(look: Look, seen: Familiar) -> list[str]:
    if not look.spacing_mm or not seen.spacing_mm[0] or not _beyond(look.spacing_mm, seen.spacing_mm):
        return []
    return [f"its voxels are {_sides(look.spacing_mm, 2)} mm, those of the training {_told(seen.spacing_mm, 2)} mm"]


def _extent(look: Look, seen: Familiar) -> list[str]:
    if not look.extent_mm or not seen.extent_mm[0] or not _beyond(look.extent_mm, seen.extent_mm):
        return []
    return [
        f"what is not background measures {_sides(look.extent_mm, 0)} mm (left-right, front-back, up-down), in the "
        f"training {_told(seen.extent_mm, 0)} mm"
    ]


def _background(look: Look, seen: Familiar) -> list[str]:
    least, most = seen.zeros
    if least > NO_BACKGROUND and look.zeros < FEWER_ZEROS * least:
        return [
            f"only {look.zeros:.0%} of the box around the head is exactly 0, in the training {least:.0%} or more: the "
            "skull was not taken out, or the background is not 0"
        ]
    if look.zeros > most + MORE_ZEROS:
        return [
            f"{look.zeros:.0%} of the box around the head is exactly 0, in the training {most:.0%} at most: more was "
            "taken out than there"
        ]
    return []


def _registration(look: Look, seen: Familiar) -> list[str]:
    apart = [name for name in look.moved if name in seen.moved and look.moved[name] > seen.limit_of_moved(name)]
    if not apart:
        return []
    worst = max(apart, key=lambda name: look.moved[name])
    names = [NAMES.get(name, name) for name in apart]
    listed = f"{names[0]} seems" if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]} seem"
    return [
        f"{listed} not to be co-registered: moved by some 9 mm, {NAMES.get(worst, worst)} would share "
        f"{look.moved[worst]:.1f} times as much information with the others, in the training {seen.moved[worst]:.1f} "
        "times at most"
    ]


def _exchanged(look: Look, seen: Familiar) -> list[str]:
    found = None if seen.usual is None else seen.usual.exchanged(look)
    if found is None or found[0] <= seen.limit_of_exchanged():
        return []
    one, other = (NAMES.get(name, name) for name in found[1])
    return [
        f"{one} and {other} seem to be exchanged: as each other they are {found[0]:.1f} times as like the training, "
        f"whose own cases come to {seen.exchanged:.1f} at most"
    ]


def _grey_values(look: Look, seen: Familiar) -> list[str]:
    sentences = []
    for name, values in look.quantiles.items():
        if name not in seen.grey:
            continue
        distance = float(np.abs(values - seen.grey[name]).mean())
        if distance > seen.limit_of_grey(name):
            sentences.append(
                f"the grey values of {NAMES.get(name, name)} are spread otherwise: {distance:.2f} standard deviations "
                f"from the training's on average, whose own cases are within {seen.grey_farthest[name]:.2f}"
            )
    return sentences
