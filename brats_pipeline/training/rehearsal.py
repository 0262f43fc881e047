"""A training in small: a few steps of the very configuration, to tell what the whole of it will take."""

from __future__ import annotations

import logging
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from brats_pipeline.bundles import freeze_bundle, open_workflow, plain_errors
from brats_pipeline.data.cache import in_gib, sample_bytes
from brats_pipeline.data.datalist import write_datalist

logger = logging.getLogger(__name__)

WARM_UP = 1
FEW = 3


@dataclass(frozen=True)
class Rehearsal:
    """What a training will take, from a few steps of it.

    Args:
        device: where the steps ran.
        parameters: of the network.
        steps_per_second: training steps, loading and augmentation included.
        steps_per_epoch: batches.
        epochs: of the configuration.
        validation_seconds: one pass over the validation cases; 0 where nothing is validated.
        validations: how often that happens.
        cases: that train and validate.
        case_bytes: of all of them when prepared, kept in ``cache_dir``, or in memory where that is None.
        cache_dir: see there.
        peak_bytes: most memory during the steps: of the process, or of the GPU where one was used.
    """

    device: str
    parameters: int
    steps_per_second: float
    steps_per_epoch: int
    epochs: int
    validation_seconds: float
    validations: int
    cases: int
    case_bytes: int
    cache_dir: str | None
    peak_bytes: int

    @property
    def seconds(self) -> float:
        """Of the whole training, validation included, preparation of the cases not."""
        steps = self.epochs * self.steps_per_epoch / self.steps_per_second
        return steps + self.validations * self.validation_seconds

    def epochs_within(self, minutes: float) -> int:
        """How many epochs fit into a wall time, with validation as often in an epoch as configured; at least 1."""
        validating = self.validation_seconds * self.validations / self.epochs
        return max(1, math.floor(60 * minutes / (self.steps_per_epoch / self.steps_per_second + validating)))

    def within(self, minutes: float) -> Rehearsal:
        """The same, for as many epochs as fit into a wall time."""
        epochs = self.epochs_within(minutes)
        return replace(self, epochs=epochs, validations=math.ceil(epochs * self.validations / self.epochs))

    def lines(self) -> list[str]:
        """The estimate, for people."""
        kept = f"in {self.cache_dir}" if self.cache_dir else "of memory"
        where = "GPU memory" if self.device.startswith("cuda") else "memory"
        return [
            f"network     {self.parameters / 1e6:.2f} M parameters on {self.device}",
            f"steps       {self.steps_per_second:.2f} a second, {self.steps_per_epoch} an epoch, {self.epochs} epochs",
            f"validation  {self.validation_seconds:.0f} s, {self.validations} times",
            f"cases       {self.cases}, prepared {in_gib(self.case_bytes)} {kept}",
            f"peak        {in_gib(self.peak_bytes)} of {where} during the steps",
            f"time        {self.seconds / 3600:.2f} h",
        ]


def rehearse(
    source: Path,
    listing: Mapping[str, Any],
    changes: Mapping[str, Any],
    *,
    device: str | None = None,
    steps: int = 3,
) -> Rehearsal:
    """Run a few steps of a bundle's training in a temporary folder; nothing of it stays but the estimate.

    Args:
        source: the bundle.
        listing: a datalist.
        changes: configuration id to value.
        device: see :func:`brats_pipeline.train`.
        steps: to measure, after one that warms up.

    Raises:
        PipelineError: a case or the configuration cannot be used.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / source.name
        freeze_bundle(source, run, changes)
        write_datalist(listing, run / "datalist.json")
        runtime: dict[str, Any] = {"data_list_file_path": str(run / "datalist.json")}
        if device is not None:
            runtime["device"] = f"$torch.device('{device}')"
        workflow = open_workflow(run, ["train.yaml"], workflow_type="train", overrides=runtime, changed=list(changes))
        with plain_errors(list(changes)):
            return _measure(workflow.parser.get_parsed_content, steps)


def _measure(parsed: Any, steps: int) -> Rehearsal:
    import torch

    trainer, dataset, device = parsed("train::trainer"), parsed("train::dataset"), parsed("device")
    on_gpu = device.type == "cuda"
    training_cases = len(dataset.data)
    dataset.narrow(FEW)
    dataset.load()  # now, so that their preparation is not a step's time
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    seconds = []
    with closing(endless_batches(parsed("train::dataloader"), dataset)) as batches:
        for _ in range(WARM_UP + steps):
            started = time.perf_counter()
            trainer._iteration(trainer, next(batches))
            if on_gpu:
                torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - started)
    validated = parsed("fold") is not None
    validation = parsed("validate::dataset") if validated else ()
    cases = training_cases + len(validation)
    interval, epochs = int(parsed("val_interval")), int(trainer.state.max_epochs)
    return Rehearsal(
        device=str(device),
        parameters=sum(weight.numel() for weight in parsed("network").parameters()),
        steps_per_second=1 / statistics.median(seconds[WARM_UP:]),
        steps_per_epoch=len(parsed("train::dataloader")),
        epochs=epochs,
        validation_seconds=_validation_seconds(parsed, validation) if validated else 0.0,
        validations=-(-epochs // interval) if validated else 0,
        cases=cases,
        case_bytes=cases * max(sample_bytes(sample) for sample in dataset.kept()),
        cache_dir=None if parsed("cache_dir") is None else str(Path(parsed("cache_dir")).expanduser().resolve()),
        peak_bytes=torch.cuda.max_memory_allocated(device) if on_gpu else _peak_of_process(),
    )


def _validation_seconds(parsed: Any, validation: Any) -> float:
    """One validation case, as often as there are cases."""
    import torch

    device = parsed("device")
    image = validation[0]["image"][None].to(device)
    network, inferer = parsed("network").eval(), parsed("validate::inferer")
    seconds = []
    with torch.no_grad():
        for _ in range(WARM_UP + 1):
            started = time.perf_counter()
            inferer(image, network)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - started)
    return len(validation) * seconds[-1]


def endless_batches(loader: Any, dataset: Any) -> Generator[Any]:
    """Batches of epoch after epoch; where epochs are short, a few steps need several."""
    epoch = 0
    while True:
        epoch += 1
        dataset.set_epoch(epoch)
        yield from loader


def _peak_of_process() -> int:
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
