"""Cases that are prepared once and kept, in memory or on disk: the part that patches and whole cases share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from monai.data import Dataset
from monai.transforms import Compose, RandomizableTrait

from brats_pipeline.data.cache import CaseCache, in_gib, recipe_of, sample_bytes
from brats_pipeline.errors import CaseError, PipelineError, root_cause
from transforms.room import free_bytes

logger = logging.getLogger(__name__)


@contextmanager
def naming(item: Mapping[str, Any]) -> Iterator[None]:
    """Say which case an error is about."""
    try:
        yield
    except Exception as error:
        cause = root_cause(error)
        if isinstance(cause, PipelineError):
            raise CaseError(str(item["case_id"]), str(cause)) from error
        raise


def _is_random(transform: Any) -> bool:
    return isinstance(transform, RandomizableTrait)


class PreparedCases(Dataset):
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

    def narrow(self, count: int) -> None:
        """Forget all but the first so many cases."""
        self.data, self._kept = self.data[:count], self._kept[:count]

    def kept(self) -> list[dict[str, Any]]:
        """The cases that are prepared by now."""
        return [sample for sample in self._kept if sample is not None]

    def _announce(self, first: int, count: int, on_size: Callable[[str], None]) -> None:
        """Measure one case, then say what all will take and refuse what does not fit."""
        with naming(self.data[first]):
            sample = self._prepare(first)
        needed = count * sample_bytes(sample)
        if self.cache is not None:
            self.cache.refuse_too_much(needed)
            on_size(f"preparing {count} cases takes about {in_gib(needed)} in {self.cache.folder}")
            return
        free = free_bytes()
        if free is not None and needed > free:
            raise PipelineError(
                f"{count} prepared cases need about {in_gib(needed)} of memory, {in_gib(free)} are free; keep them on "
                "disk with --cache-dir FOLDER (cache_dir in the configuration)"
            )
        logger.info("preparing %d cases takes about %s of memory", count, in_gib(needed))
        self._kept[first] = sample

    def _find(self, case: int) -> bool:
        assert self.cache is not None
        with naming(self.data[case]):
            self._kept[case] = self.cache.find(self.data[case])
        return self._kept[case] is not None

    def _keep(self, case: int) -> None:
        if self._kept[case] is not None:
            return
        with naming(self.data[case]):
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

    def prepared(self, case: int) -> dict[str, Any]:
        """A copy of what is kept of a case; prepared now, where that was not done yet."""
        self._keep(case)
        return dict(self._kept[case])

    def __getstate__(self) -> dict[str, Any]:
        """Cases that lie on disk are not sent to a worker process; it maps them itself."""
        kept = self._kept if self.cache is None else [None] * len(self.data)
        return {**self.__dict__, "_kept": kept}
