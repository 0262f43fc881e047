"""Data sets between the datalist and the engines: seeded random patches for training, and whole cases beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import DataLoader
from monai.transforms import Compose
from torch import Tensor

from brats_pipeline.data.prepared import PreparedCases, naming
from brats_pipeline.errors import PipelineError


class PrefetchLoader(DataLoader):
    """A ``DataLoader`` that makes the next batch in a thread while the network works on this one.

    What goes wrong in the thread is raised here. (An error in the thread of MONAI's ``ThreadDataLoader`` looks like
    the end of the data: the epoch would end early, and nobody would know.)

    Args:
        dataset: whose items are collated.
        augmentation: random transforms of single patches, run in the thread after the batch is on the device. Each
            patch is drawn from the seed that :class:`PatchDataset` gave it as ``draw``.
        device: where the tensors of a batch go; by default they stay.
        arguments: of MONAI's ``DataLoader``. Workers are started anew for every epoch.
    """

    def __init__(
        self,
        dataset: Any,
        *,
        augmentation: Compose | None = None,
        device: torch.device | str | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(dataset, **arguments)
        self.augmentation = augmentation
        self.target = None if device is None else torch.device(device)

    def __iter__(self) -> Any:
        batches = super().__iter__()
        with ThreadPoolExecutor(1) as thread:
            coming = thread.submit(self._next, batches)
            while (batch := coming.result()) is not None:
                coming = thread.submit(self._next, batches)
                yield batch

    def _next(self, batches: Iterator[Any]) -> Any:
        batch = next(batches, None)
        if batch is None or not isinstance(batch, dict):
            return batch
        if self.target is not None:
            batch = {
                name: value.to(self.target, non_blocking=True) if isinstance(value, Tensor) else value
                for name, value in batch.items()
            }
        if self.augmentation is not None:
            draws = batch.pop("draw").tolist()
            names = [name for name, value in batch.items() if isinstance(value, Tensor)]
            patches = [
                self._augment({name: batch[name][number] for name in names}, draw) for number, draw in enumerate(draws)
            ]
            batch |= {name: torch.stack([patch[name] for patch in patches]) for name in names}
        return batch

    def _augment(self, patch: dict[str, Any], draw: int) -> Any:
        assert self.augmentation is not None
        self.augmentation.set_random_state(seed=draw)
        return self.augmentation(patch)


class CaseDataset(PreparedCases):
    """Whole cases for validation, prepared once; one that cannot be loaded is an error that names it.

    Args:
        data: datalist items.
        transform: the preprocessing.
        cache_dir: folder of a :class:`brats_pipeline.data.cache.CaseCache`; by default cases are kept in memory.
    """

    def __init__(self, data: Sequence[Any], transform: Compose, *, cache_dir: str | Path | None = None) -> None:
        super().__init__(data, transform, cache_dir)

    def _transform(self, index: int) -> Any:
        with naming(self.data[index]):
            return self.transform(self.prepared(index), start=self.prepared_by)


class PatchDataset(PreparedCases):
    """An epoch of random patches, each drawn from a seed of its own.

    Everything up to the first random transform is done once per case and kept. Patch ``i`` of epoch ``e`` depends on
    ``(seed, e, i)`` alone: not on the number of workers, nor on whether the run was interrupted. Every case is drawn
    equally often. Each patch carries ``draw``, a seed for what is done to it later.

    Args:
        data: datalist items.
        transform: preprocessing, then the random transforms that end in one patch.
        patches_per_epoch: length of the data set.
        seed: of the order and of every draw.
        cache_dir: folder of a :class:`brats_pipeline.data.cache.CaseCache`; by default cases are kept in memory.
    """

    def __init__(
        self,
        data: Sequence[Any],
        transform: Compose,
        *,
        patches_per_epoch: int,
        seed: int = 0,
        cache_dir: str | Path | None = None,
    ) -> None:
        if not data:
            raise PipelineError("there is no case to train on; check the datalist, its folds, and the chosen fold")
        if patches_per_epoch < 1:
            raise ValueError(f"patches_per_epoch is {patches_per_epoch}; it must be at least 1")
        super().__init__(data, transform, cache_dir)
        self.patches_per_epoch = patches_per_epoch
        self.seed = seed
        self.epoch = 1

    def __len__(self) -> int:
        return self.patches_per_epoch

    def set_epoch(self, epoch: int) -> None:
        """Choose whose patches :meth:`__getitem__` draws; epochs count from 1."""
        self.epoch = epoch

    def __getitem__(self, index: int | slice | Sequence[int]) -> Any:
        if not isinstance(index, int):
            raise TypeError("PatchDataset is indexed by one patch number at a time")
        if not 0 <= index < self.patches_per_epoch:
            raise IndexError(f"patch {index} of {self.patches_per_epoch}")
        cycle, turn = divmod((self.epoch - 1) * self.patches_per_epoch + index, len(self.data))
        case = int(np.random.default_rng((self.seed, cycle)).permutation(len(self.data))[turn])
        draw = np.random.default_rng((self.seed, self.epoch, index))
        self.transform.set_random_state(seed=int(draw.integers(2**32)))
        with naming(self.data[case]):
            patch = self.transform(self.prepared(case), start=self.prepared_by)
        return {**patch, "draw": int(draw.integers(2**32))}
