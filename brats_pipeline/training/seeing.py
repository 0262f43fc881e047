"""What a training saw, measured on its cases as they go to the network, and kept in the run for those who use it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from brats_pipeline.data.familiar import FINGERPRINT, Familiar
from brats_pipeline.data.looking import look_of
from brats_pipeline.data.looks import Look
from brats_pipeline.files import write_atomically

MOST = 200
"""Cases that are looked at, evenly spread over the list: more would tell no more, and each is prepared once for it."""


def write_familiar(
    run: Path,
    items: Sequence[Mapping[str, Any]],
    prepare: Callable[[dict[str, Any]], Mapping[str, Any]],
    modalities: Sequence[str],
    *,
    workers: int = 2,
) -> None:
    """Write ``configs/fingerprint.json`` of a run; one that is there from before an interruption stays.

    Args:
        run: its folder.
        items: the training's cases, as items of a datalist.
        prepare: the preprocessing of ``inference.yaml``, without anything random.
        modalities: of the channels.
        workers: threads.
    """
    path = run / "configs" / FINGERPRINT
    if path.is_file():
        return
    chosen = [items[int(place)] for place in np.linspace(0, len(items) - 1, min(MOST, len(items))).round()]

    def look(item: Mapping[str, Any]) -> Look | None:
        case = prepare({key: value for key, value in item.items() if key != "label"})
        return look_of(case["image"], modalities, sized=item.get("layout") != "lgg")

    with ThreadPoolExecutor(workers) as pool:
        looks = [each for each in pool.map(look, chosen) if each is not None]
    if looks:
        write_atomically(path, Familiar.of(looks, modalities).to_json())
