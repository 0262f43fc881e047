"""Data sets between the datalist and the engines: seeded random patches for training, and whole cases beside them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import DataLoader, Dataset
from monai.transforms import Compose, RandomizableTrait
from torch import Tensor

from brats_pipeline.data.cache import CaseCache, free_memory, in_gib, recipe_of, sample_bytes
from brats_pipeline.errors import CaseError, PipelineError, root_cause

logger = logging.getLogger(__name__)


@contextmanager
def _naming(item: Mapping[str, Any]) -> Iterator[None]:
    """Say which case an error is about."""
    try:
        yield
    except Exception as error:
        cause = root_cause(error)
        if isinstance(cause, PipelineError):
            raise CaseError(str(item["case_id"]), str(cause)) from error
        raise


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


class _CachedCases(Dataset):
    """Cases that are prepared once and kept: in memory, or on disk where a folder is given.

    Prepared means: after every transform before the first random one.
    """

    def __init__(self, data: Sequence[Any], transform: Compose, cache_dir: str | Path | None) -> None:
        super().__init__(data, transform)
        first = transform.get_index_of_first(_is_random)
        self.prepared_by = len(transform) if first is None else int(first)
        self.cache: CaseCache | None = None
        if cache_dir is not None:
            self.cache = CaseCache(cache_dir, recipe_of(transform.flatten().transforms[: self.prepared_by]))
        self._kept: list[Any] = [None] * len(data)

    def load(
        self,
        *,
        workers: int = 2,
        on_size: Callable[[str], None] = logger.info,
        on_case: Callable[[str], None] | None = None,
    ) -> None:
        """Prepare every case that is not kept yet, so that one which cannot be loaded is known at once.

        Args:
            workers: threads.
            on_size: told in words what the cases will take on disk, before the first of them is written.
            on_case: told the id of each case that is ready.

        Raises:
            CaseError: a case cannot be loaded; the first of them is named.
            PipelineError: the cases do not fit into memory, or onto the disk of the cache.
        """
        if self.cache is not None:
            self.cache.sweep()
        waiting = [case for case in range(len(self.data)) if self._kept[case] is None]
        pool = ThreadPoolExecutor(workers)
        try:
            if self.cache is not None:
                found = pool.map(self._find, waiting)
                waiting = [case for case, there in zip(waiting, found, strict=True) if not there]
            if waiting:
                self._announce(waiting[0], len(waiting), on_size)
            for case, _ in zip(waiting, pool.map(self._keep, waiting), strict=True):
                if on_case is not None:
                    on_case(str(self.data[case].get("case_id", case)))
        finally:
            pool.shutdown(cancel_futures=True)

    def kept(self) -> list[dict[str, Any]]:
        """The cases that are prepared by now."""
        return [sample for sample in self._kept if sample is not None]

    def _announce(self, first: int, count: int, on_size: Callable[[str], None]) -> None:
        """Measure one case, then say what all will take and refuse what does not fit."""
        with _naming(self.data[first]):
            sample = self._prepare(first)
        needed = count * sample_bytes(sample)
        if self.cache is not None:
            self.cache.refuse_too_much(needed)
            on_size(f"preparing {count} cases takes about {in_gib(needed)} in {self.cache.folder}")
            return
        free = free_memory()
        if free is not None and needed > free:
            raise PipelineError(
                f"{count} prepared cases need about {in_gib(needed)} of memory, {in_gib(free)} are free; keep them on "
                "disk with --cache-dir FOLDER (cache_dir in the configuration)"
            )
        logger.info("preparing %d cases takes about %s of memory", count, in_gib(needed))
        self._kept[first] = sample

    def _find(self, case: int) -> bool:
        assert self.cache is not None
        with _naming(self.data[case]):
            self._kept[case] = self.cache.find(self.data[case])
        return self._kept[case] is not None

    def _keep(self, case: int) -> None:
        if self._kept[case] is not None:
            return
        with _naming(self.data[case]):
            if self.cache is None:
                self._kept[case] = self._prepare(case)
                return
            key = self.cache.key(self.data[case])
            self._kept[case] = self.cache.find(self.data[case], key)
            if self._kept[case] is None:
                self.cache.write(key, self._prepare(case))
                self._kept[case] = self.cache.find(self.data[case], key)
                if self._kept[case] is None:
                    raise PipelineError(
                        f"{self.cache.folder}: what was just kept cannot be read; choose another folder"
                    )

    def _prepare(self, case: int) -> Any:
        return self.transform(dict(self.data[case]), end=self.prepared_by)

    def _prepared(self, case: int) -> dict[str, Any]:
        self._keep(case)
        return dict(self._kept[case])

    def __getstate__(self) -> dict[str, Any]:
        """Cases that lie on disk are not sent to a worker process; it maps them itself."""
        kept = self._kept if self.cache is None else [None] * len(self.data)
        return {**self.__dict__, "_kept": kept}


class CaseDataset(_CachedCases):
    """Whole cases for validation, prepared once; one that cannot be loaded is an error that names it.

    Args:
        data: datalist items.
        transform: the preprocessing.
        cache_dir: folder of a :class:`brats_pipeline.data.cache.CaseCache`; by default cases are kept in memory.
    """

    def __init__(self, data: Sequence[Any], transform: Compose, *, cache_dir: str | Path | None = None) -> None:
        super().__init__(data, transform, cache_dir)

    def _transform(self, index: int) -> Any:
        with _naming(self.data[index]):
            return self.transform(self._prepared(index), start=self.prepared_by)


class PatchDataset(_CachedCases):
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
        with _naming(self.data[case]):
            patch = self.transform(self._prepared(case), start=self.prepared_by)
        return {**patch, "draw": int(draw.integers(2**32))}


def _is_random(transform: Any) -> bool:
    return isinstance(transform, RandomizableTrait)
