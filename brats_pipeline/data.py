"""Data sets between the datalist and the engines: whole cases for inference, seeded random patches for training."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
from monai.data import CacheDataset, DataLoader, Dataset
from monai.transforms import Compose, RandomizableTrait

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
    """

    def __iter__(self) -> Any:
        batches = super().__iter__()
        end = object()
        with ThreadPoolExecutor(1) as thread:
            coming = thread.submit(next, batches, end)
            while (batch := coming.result()) is not end:
                coming = thread.submit(next, batches, end)
                yield batch


class CohortDataset(Dataset):
    """Whole cases; one that cannot be loaded becomes ``{"case_id", "failure"}`` and the others go on.

    Args:
        data: datalist items; one with a ``defect`` is a failure already.
        transform: the preprocessing.
    """

    def _transform(self, index: int) -> Any:
        item = self.data[index]
        if "defect" in item:
            return {"case_id": item["case_id"], "failure": item["defect"]}
        try:
            return super()._transform(index)
        except Exception as error:
            cause = root_cause(error)
            if isinstance(cause, PipelineError):
                return {"case_id": item["case_id"], "failure": str(cause)}
            logger.debug("%s cannot be loaded", item["case_id"], exc_info=error)
            return {"case_id": item["case_id"], "failure": f"{type(cause).__name__}: {cause}"}


def raise_failures(failures: Mapping[str, str]) -> None:
    """End a run with an error where cases failed; made to be named in a bundle's YAML, behind the last case.

    Args:
        failures: case to reason, as :class:`brats_pipeline.inference.CohortEvaluator` collects them.

    Raises:
        PipelineError: there are any; the message names each case.
    """
    if failures:
        reasons = "; ".join(f"{case_id}: {reason}" for case_id, reason in failures.items())
        raise PipelineError(f"{len(failures)} cases failed, the others are finished: {reasons}")


class _CachedCases(CacheDataset):
    """Cases that are loaded once and kept in memory."""

    def load(self, *, workers: int = 2) -> None:
        """Load every case that is not in memory yet, so that one which cannot be loaded is known at once.

        Args:
            workers: threads.

        Raises:
            CaseError: a case cannot be loaded; the first of them is named.
        """
        waiting = [case for case in range(len(self.data)) if self._cache[case] is None]
        pool = ThreadPoolExecutor(workers)
        try:
            for done, _ in enumerate(pool.map(self._keep, waiting), start=1):
                logger.debug("%d of %d cases are loaded", done, len(waiting))
        finally:
            pool.shutdown(cancel_futures=True)

    def _keep(self, case: int) -> None:
        with _naming(self.data[case]):
            self._cache[case] = self._load_cache_item(case)


class CaseDataset(_CachedCases):
    """Whole cases, each loaded once and kept in memory; for validation, where a case that cannot be loaded is an error.

    Args:
        data: datalist items.
        transform: the preprocessing.
    """

    def __init__(self, data: Sequence[Any], transform: Compose) -> None:
        super().__init__(data, transform, progress=False, runtime_cache=True)

    def _transform(self, index: int) -> Any:
        with _naming(self.data[index]):
            return super()._transform(index)


class PatchDataset(_CachedCases):
    """An epoch of random patches, each drawn from a seed of its own.

    Loading and everything up to the first random transform is done once per case and kept in memory. Patch ``i`` of
    epoch ``e`` depends on ``(seed, e, i)`` alone: not on the number of workers, nor on whether the run was interrupted.
    Every case is drawn equally often.

    Args:
        data: datalist items.
        transform: preprocessing, then the random transforms that end in one patch.
        patches_per_epoch: length of the data set.
        seed: of the order and of every draw.
    """

    def __init__(self, data: Sequence[Any], transform: Compose, *, patches_per_epoch: int, seed: int = 0) -> None:
        if not data:
            raise PipelineError("there is no case to train on; check the datalist, its folds, and the chosen fold")
        if patches_per_epoch < 1:
            raise ValueError(f"patches_per_epoch is {patches_per_epoch}; it must be at least 1")
        # as_contiguous would undo what the preprocessing says about the layout in memory.
        super().__init__(data, transform, progress=False, copy_cache=False, as_contiguous=False, runtime_cache=True)
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
            return self._cached(case)

    def _cached(self, case: int) -> Any:
        if self._cache[case] is None:
            self._cache[case] = self._load_cache_item(case)
        return self.transform(dict(self._cache[case]), start=self._first_random)

    @property
    def _first_random(self) -> int:
        first: int | None = self.transform.get_index_of_first(_is_random)
        return len(self.transform) if first is None else first


def _is_random(transform: Any) -> bool:
    return isinstance(transform, RandomizableTrait)
