"""Case by case through a network: the next case is loaded and the last one written while the network works."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from monai.engines import IterationEvents, SupervisedEvaluator
from monai.engines.utils import engine_apply_transform

from brats_pipeline.errors import CaseError, root_cause

logger = logging.getLogger(__name__)


class CohortEvaluator(SupervisedEvaluator):
    """A ``SupervisedEvaluator`` that one bad case does not stop, and that writes while the network works.

    A case that cannot be loaded arrives from :class:`brats_pipeline.data.cohort.CohortDataset` as
    ``{"case_id", "failure"}``; one that cannot be written raises a :class:`brats_pipeline.errors.CaseError`. Both are
    noted in ``failures`` and passed over. Any other error, such as a full disk, would meet the next case too, and ends
    the run. With any other data set this is MONAI's evaluator.

    The post-processing of a case runs in a thread, one case behind the network. Where a metric or a handler is given,
    which may want its result at once, it runs in place.

    Attributes:
        failures: case to the reason why it was passed over.
        seconds: case to what its stages took: ``load`` (where the data set says so), ``network``, and ``write``, which
            is all of the post-processing. Stages of different cases run at the same time.
        hashes: case to the SHA-256 of its image files.
        unlike: case to in what it differs from the training, a sentence each.
        watchers: functions that are called with the id of each case that is written or passed over.

    Raises:
        ValueError: the loader puts several cases into a batch; cases differ in size, and one of them could fail.
    """

    def __init__(self, **arguments: Any) -> None:
        batch_size = getattr(arguments.get("val_data_loader"), "batch_size", 1)
        if batch_size != 1:
            raise ValueError(f"batch_size is {batch_size}; whole cases run one by one, set dataloader::batch_size to 1")
        self.failures: dict[str, str] = {}
        self.seconds: dict[str, dict[str, float]] = {}
        self.hashes: dict[str, list[str]] = {}
        self.unlike: dict[str, list[str]] = {}
        self.watchers: list[Callable[[str], None]] = []
        at_once = ("key_val_metric", "additional_metrics", "val_handlers")
        self._behind = bool(arguments.get("postprocessing")) and not any(arguments.get(name) for name in at_once)
        self._pool: ThreadPoolExecutor | None = None
        self._pending: deque[Future[None]] = deque()
        self._case_id = ""
        self._started = 0.0
        super().__init__(**arguments)

    def run(self, global_epoch: int = 1) -> None:  # type: ignore[override]  # as in MONAI
        """Segment every case; an error that is not about one case is raised here, whichever thread met it."""
        with ThreadPoolExecutor(1, thread_name_prefix="writing") as self._pool:
            try:
                super().run(global_epoch)
                self._wait()
            finally:
                self._pool.shutdown(wait=False, cancel_futures=True)  # what is being written is finished nonetheless
                self._pending.clear()

    def _iteration(self, engine: SupervisedEvaluator, batchdata: dict[str, Any]) -> dict[str, Any]:
        (self._case_id,) = map(str, batchdata.get("case_id", ("",)))
        self.seconds[self._case_id] = {}
        if "load_seconds" in batchdata:
            self.seconds[self._case_id]["load"] = float(batchdata.pop("load_seconds")[0])
        if "image_sha256" in batchdata:
            self.hashes[self._case_id] = batchdata.pop("image_sha256")[0].splitlines()
        if "unlike" in batchdata:
            self.unlike[self._case_id] = batchdata.pop("unlike")[0].splitlines()
            for sentence in self.unlike[self._case_id]:
                logger.warning("%s: %s", self._case_id, sentence)
        if "failure" in batchdata:
            self._pass_over(self._case_id, batchdata["failure"][0])
            self._tell(self._case_id)
            return {}
        self._started = time.perf_counter()
        try:
            output: dict[str, Any] = super()._iteration(engine, batchdata)
        except Exception as error:
            self._note(error)
            output = {}
        if not self._behind:
            self._tell(self._case_id)
        return output

    def _register_postprocessing(self, posttrans: Callable[..., Any]) -> None:
        """Have the post-processing run behind the network, or in place."""
        if not self._behind:
            super()._register_postprocessing(posttrans)
            return

        @self.on(IterationEvents.MODEL_COMPLETED)
        def hand_over(engine: SupervisedEvaluator) -> None:
            device = torch.device(engine.state.device)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            self.seconds[self._case_id]["network"] = time.perf_counter() - self._started
            (batch,), (output,) = engine.state.batch, engine.state.output
            self._wait()
            assert self._pool is not None  # the engine runs within `run`
            self._pending.append(self._pool.submit(self._finish, self._case_id, batch, output, posttrans))
            engine.state.batch, engine.state.output = [], []  # the thread alone holds them now

    def _finish(self, case_id: str, batch: Any, output: Any, posttrans: Callable[..., Any]) -> None:
        """Post-process one case."""
        started = time.perf_counter()
        try:
            engine_apply_transform(batch, output, posttrans)
        except Exception as error:
            self._note(error)
        self.seconds[case_id]["write"] = time.perf_counter() - started
        self._tell(case_id)

    def _note(self, error: Exception) -> None:
        """Pass over the case that an error is about; any other error is raised again."""
        cause = root_cause(error)
        if not isinstance(cause, CaseError):
            raise error
        self._pass_over(cause.case_id, cause.reason)

    def _wait(self) -> None:
        """Until nothing is being written; an error of the thread is raised here."""
        while self._pending:
            self._pending.popleft().result()

    def _pass_over(self, case_id: str, reason: str) -> None:
        logger.warning("%s: %s", case_id, reason)
        self.failures[case_id] = reason

    def _tell(self, case_id: str) -> None:
        for watcher in self.watchers:
            watcher(case_id)
