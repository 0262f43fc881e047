"""Whole cases on their way to a network: one that cannot be loaded is told, and the next are loaded meanwhile."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from monai.data import DataLoader, Dataset

from brats_pipeline.data.looking import Observer
from brats_pipeline.errors import PipelineError, root_cause
from brats_pipeline.files import file_sha256

logger = logging.getLogger(__name__)
SEPARATOR = "\n"


class CohortDataset(Dataset):
    """Whole cases; one that cannot be loaded becomes ``{"case_id", "failure"}`` and the others go on.

    Two more entries come with a case: ``load_seconds``, and ``image_sha256``, the hashes of its image files, joined by
    line breaks. A third, ``unlike``, comes with a case that differs from what the training saw: one line for each
    difference.

    Args:
        data: datalist items; one with a ``defect`` is a failure already.
        transform: the preprocessing.
        fingerprint: path of what the training saw (:mod:`brats_pipeline.data.familiar`); without such a file no case
            is compared.

    Raises:
        PipelineError: the fingerprint is damaged.
    """

    def __init__(self, data: Any, transform: Any = None, *, fingerprint: str | Path | None = None) -> None:
        super().__init__(data, transform)
        self.observe = Observer(fingerprint)

    def _transform(self, index: int) -> Any:
        item = self.data[index]
        if "defect" in item:
            return {"case_id": item["case_id"], "failure": item["defect"]}
        started = time.perf_counter()
        try:
            case = super()._transform(index)
            hashes = [file_sha256(path) for path in item.get("image", ())]
        except Exception as error:
            cause = root_cause(error)
            if isinstance(cause, PipelineError):
                return {"case_id": item["case_id"], "failure": str(cause)}
            logger.debug("%s cannot be loaded", item["case_id"], exc_info=error)
            return {"case_id": item["case_id"], "failure": f"{type(cause).__name__}: {cause}"}
        unlike = self.observe(case)
        told = {"unlike": SEPARATOR.join(unlike)} if unlike else {}
        return {**case, **told, "image_sha256": SEPARATOR.join(hashes), "load_seconds": time.perf_counter() - started}


class CohortLoader(DataLoader):
    """Batches in their order, the next ones loaded in threads while the network works on this one.

    Args:
        dataset: whose items are collated; its transforms must not be random.
        ahead: batches that are loaded, or being loaded, before they are asked for.
        arguments: of MONAI's ``DataLoader``; with ``num_workers`` its processes load instead of threads.

    Raises:
        ValueError: ``ahead`` is below 1.
    """

    def __init__(self, dataset: Any, *, ahead: int = 1, **arguments: Any) -> None:
        if ahead < 1:
            raise ValueError(f"ahead is {ahead}; at least one case is loaded while the network works")
        super().__init__(dataset, **arguments)
        self.ahead = ahead

    def __iter__(self) -> Any:
        if self.num_workers:
            yield from super().__iter__()
            return
        coming: deque[Future[Any]] = deque()
        pool = ThreadPoolExecutor(self.ahead, thread_name_prefix="loading")
        try:
            for numbers in self.batch_sampler or ():
                coming.append(pool.submit(self._load, numbers))
                if len(coming) > self.ahead:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _load(self, numbers: Any) -> Any:
        return self.collate_fn([self.dataset[number] for number in numbers])


def raise_failures(failures: Mapping[str, str]) -> None:
    """End a run with an error where cases failed; made to be named in a bundle's YAML, behind the last case.

    Args:
        failures: case to reason, as :class:`brats_pipeline.inference.cohort.CohortEvaluator` collects them.

    Raises:
        PipelineError: there are any; the message names each case. Of several processes that share a cohort without a
            word between them none raises, since torchrun would end the others in the middle of theirs: it is logged.
    """
    if not failures:
        return
    reasons = "; ".join(f"{case_id}: {reason}" for case_id, reason in failures.items())
    told = f"{len(failures)} cases failed, the others are finished: {reasons}"
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.distributed.is_initialized():
        logger.error("%s", told)
        return
    raise PipelineError(told)
