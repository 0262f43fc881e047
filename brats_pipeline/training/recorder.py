"""What a training run leaves on disk: the best and the last checkpoint, and its curves."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from ignite.engine import Engine, Events
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LambdaLR

from brats_pipeline.errors import PipelineError
from brats_pipeline.files import write_atomically
from brats_pipeline.training.curves import as_csv, as_png
from brats_pipeline.training.distributed import rank, sum_over_processes
from brats_pipeline.training.ema import WeightAverage
from brats_pipeline.training.failures import explained, kept
from brats_pipeline.weights import misfits, read_checkpoint, write_checkpoint

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1
BEST_BY = {"dice": ("val_dice", 1.0), "loss": ("val_loss", -1.0)}
"""What decides which epoch is the best: a column of the curves, and its sign where high is good."""
SCHEDULE_SHAPE = ("base_lrs", "t_total", "warmup_steps", "T_max", "total_iters")
"""What the configuration says of a learning-rate schedule: a resumed run may ask for more epochs than before."""


class RunRecorder:
    """A MONAI handler that writes a run after every epoch; attach it last, behind validation and schedule.

    ``models/model.pt`` holds the bare state dict of the best epoch (the last epoch while nothing was validated).
    ``models/last.pt`` holds what :meth:`resume` needs. ``curves.csv`` and ``curves.png`` grow with the epochs. Each
    epoch starts from a random seed of its own, so that a resumed run repeats an uninterrupted one. Before the first
    epoch, data sets with ``load`` load every case. An error that ends the training is told in words that say what to
    do. Under several processes all keep the same history, and rank 0 alone writes.

    Args:
        run_dir: folder of the run.
        network: its state dict is saved as ``model.pt``.
        trained_network: what the trainer runs, where that is more than ``network``, such as
            :class:`networks.DeepSupervision` around it.
        average: of ``network``; it is saved as ``model.pt`` instead.
        optimizer: of the trainer.
        lr_scheduler: of the trainer.
        evaluator: MONAI's, or None; it validates in between and after the last epoch. Its key metric is the mean Dice,
            its ``metric_details`` give one value per region, and its metric ``val_loss`` the loss.
        patches: a data set with ``set_epoch``, told each epoch's number.
        regions: names of the columns in ``metric_details``.
        best_by: ``dice``: the epoch of the highest mean validation Dice is the best; ``loss``: of the lowest
            validation loss.
        early_stopping: end after this many validations in a row without a better one; None: never.
        seed: of dropout and whatever else draws from torch's generator.

    Raises:
        ValueError: unknown ``best_by``, or ``early_stopping`` below 1.
    """

    def __init__(
        self,
        run_dir: str | Path,
        *,
        network: nn.Module,
        trained_network: nn.Module | None = None,
        average: WeightAverage | None = None,
        optimizer: torch.optim.Optimizer,
        lr_scheduler: Any,
        evaluator: Any = None,
        patches: Any = None,
        regions: Sequence[str] = (),
        best_by: str = "dice",
        early_stopping: int | None = None,
        seed: int = 0,
    ) -> None:
        if best_by not in BEST_BY:
            raise ValueError(f"best_by is {best_by!r}; known: {', '.join(BEST_BY)}")
        if early_stopping is not None and early_stopping < 1:
            raise ValueError(f"early_stopping is {early_stopping}; give a number of validations, or null for never")
        self.run_dir = Path(run_dir)
        self.network = network
        self.trained_network = network if trained_network is None else trained_network
        self.average = average
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.evaluator = evaluator
        self.patches = patches
        self.regions = tuple(regions)
        self.best_by = best_by
        self.early_stopping = early_stopping
        self.seed = seed
        self.history: list[dict[str, float]] = []
        self.trainer: Engine | None = None
        self._validated = False
        self._losses: list[float] = []
        self._started = 0.0

    @property
    def last_path(self) -> Path:
        """Where the checkpoint to resume from lies."""
        return self.run_dir / "models" / "last.pt"

    @property
    def best_path(self) -> Path:
        """Where the best weights lie."""
        return self.run_dir / "models" / "model.pt"

    @property
    def scores(self) -> list[float]:
        """What decided at each validation so far; high is good, and what is no number is worse than all others."""
        column, sign = BEST_BY[self.best_by]
        values = [sign * row[column] for row in self.history if column in row]
        return [value if math.isfinite(value) else -math.inf for value in values]

    @property
    def best_dice(self) -> float | None:
        """Highest mean validation Dice so far, None where nothing was validated."""
        validated = (row["val_dice"] for row in self.history if "val_dice" in row)
        return max(filter(math.isfinite, validated), default=None)

    @property
    def exhausted(self) -> bool:
        """Whether as many validations as ``early_stopping`` says have brought nothing better."""
        scores = self.scores
        waited = len(scores) - 1 - scores.index(max(scores)) if scores else 0
        return self.early_stopping is not None and waited >= self.early_stopping

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""
        self.trainer = engine
        if self.average is not None:
            self.average.attach(engine)
        engine.add_event_handler(Events.STARTED, self.started)
        engine.add_event_handler(Events.STARTED, self.load_cases)
        engine.add_event_handler(Events.EPOCH_STARTED, self.epoch_started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.iteration_completed)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.epoch_completed)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self.exception_raised)
        if self.evaluator is not None:
            self.evaluator.add_event_handler(Events.COMPLETED, self.validation_completed)

    def resume(self) -> None:
        """Continue from ``models/last.pt``; without it, from the start.

        Raises:
            PipelineError: the checkpoint is damaged or belongs to another network.
        """
        if self.trainer is None or not self.last_path.is_file():
            return
        checkpoint = read_checkpoint(self.last_path)
        try:
            if differing := misfits(_bare(self.trained_network), checkpoint["network"]):
                raise ValueError(f"of the network, {differing}")
            _bare(self.trained_network).load_state_dict(checkpoint["network"])
            if self.average is not None:
                self.average.load_state_dict(checkpoint["average"])
            self._resume_optimizer(checkpoint)
            self.history = checkpoint["history"]
            epoch = int(checkpoint["epoch"])
        except (KeyError, RuntimeError, ValueError) as error:
            reason = f"it holds no {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
            raise PipelineError(
                f"{self.last_path}: cannot be continued by this configuration ({reason}); "
                "resume with the run's own configuration, or train into a new folder"
            ) from error
        self.trainer.state.epoch = epoch
        self.trainer.state.iteration = epoch * int(self.trainer.state.epoch_length or 0)
        if self.history and rank() == 0:
            self._write_curves()  # the checkpoint may be one epoch ahead of them
        logger.info("continue after epoch %d", epoch)

    def _resume_optimizer(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the moments and the place in the schedule of a checkpoint, and with the settings of today."""
        ours = type(self.optimizer).__name__
        if (theirs := checkpoint.get("optimizer_class", ours)) != ours:
            raise ValueError(f"optimizer_name asks for {ours}, the run was begun with {theirs}")
        settings = [{**group} for group in self.optimizer.param_groups]
        for group in settings:
            del group["params"]
        self.optimizer.load_state_dict(checkpoint["optimizer"])
        reached = [group["lr"] for group in self.optimizer.param_groups]
        configured = self.lr_scheduler.state_dict()
        shape = {name: configured[name] for name in SCHEDULE_SHAPE if name in configured}
        self.lr_scheduler.load_state_dict({**checkpoint["lr_scheduler"], **shape})
        if isinstance(self.lr_scheduler, LambdaLR):  # of the schedules only these tell their rate at any step
            bases, factors = self.lr_scheduler.base_lrs, self.lr_scheduler.lr_lambdas
            steps = self.lr_scheduler.last_epoch
            reached = [base * factor(steps) for base, factor in zip(bases, factors, strict=True)]
        for group, wanted, rate in zip(self.optimizer.param_groups, settings, reached, strict=True):
            group.update(wanted, lr=rate)

    def started(self, engine: Engine) -> None:
        """End at once where the run that is resumed was ended by early stopping."""
        if self.exhausted:
            engine.terminate()

    def load_cases(self, engine: Engine) -> None:
        """Load the cases of training and validation: a bad one ends the run now, not when it is first drawn."""
        if self.exhausted:
            return
        validation = getattr(self.evaluator, "data_loader", None)
        for data in (self.patches, getattr(validation, "dataset", None)):
            load = getattr(data, "load", None)
            if load is not None:
                load()

    def validation_completed(self, engine: Engine) -> None:
        # The engine keeps one dictionary of metrics for all its runs, so it cannot be told from the metrics.
        self._validated = True

    def epoch_started(self, engine: Engine) -> None:
        torch.manual_seed(self.seed + engine.state.epoch + 1_000_003 * rank())
        if self.patches is not None:
            self.patches.set_epoch(engine.state.epoch)
        self._losses = []
        self._started = time.monotonic()

    def iteration_completed(self, engine: Engine) -> None:
        output: Any = engine.state.output
        loss = float(output[0]["loss"])
        if not math.isfinite(loss):
            self._diverged(f"the loss became {loss}")
        self._losses.append(loss)

    def _diverged(self, what: str) -> NoReturn:
        epoch = "" if self.trainer is None else f" in epoch {self.trainer.state.epoch}"
        raise PipelineError(
            f"{what}{epoch}; {kept(self.last_path)}. Lower the learning rate, set clip_norm, or set precision to "
            "float32"
        )

    def exception_raised(self, engine: Engine, error: BaseException) -> None:
        """Raise what ended the training in words that say what to do."""
        better = explained(error, epoch=int(engine.state.epoch), last=self.last_path)
        if better is error:
            raise error
        raise better from error

    def epoch_completed(self, engine: Engine) -> None:
        epoch = int(engine.state.epoch)
        losses = sum_over_processes(torch.tensor([sum(self._losses), len(self._losses)], dtype=torch.float64))
        row: dict[str, float] = {
            "epoch": epoch,
            "iteration": int(engine.state.iteration),
            "loss": float(losses[0] / losses[1].clamp(min=1)),
            "learning_rate": float(self.optimizer.param_groups[0]["lr"]),
            "seconds": time.monotonic() - self._started,
        }
        if "train_mean_dice" in engine.state.metrics:
            row["train_dice"] = float(engine.state.metrics["train_mean_dice"])
        if self.evaluator is not None and not self._validated and epoch == engine.state.max_epochs:
            self.evaluator.run(epoch)  # the interval of validation need not divide the number of epochs
        before = self.scores
        self._validation(epoch, row)
        if not math.isfinite(row.get("val_loss", 0.0)):
            self._diverged(f"the validation loss became {row['val_loss']}")
        if name := _not_finite(_bare(self.trained_network)):
            self._diverged(f"a weight of {name} is no finite number any more")
        self.history.append(row)
        # Until the first validation, every epoch is the best so far.
        improved = self.scores[-1] > max(before, default=-math.inf) if len(self.scores) > len(before) else not before
        if rank() == 0:
            self._write(epoch, improved)
        if self.exhausted:
            logger.info("stopped after epoch %d: %d validations without a better one", epoch, self.early_stopping)
            engine.terminate()

    def _write(self, epoch: int, improved: bool) -> None:
        if improved or not self.best_path.is_file():
            kept_network = self.network if self.average is None else self.average.module
            write_checkpoint(self.best_path, kept_network.state_dict())
        content = {
            "schema_version": SCHEMA_VERSION,
            "network": _bare(self.trained_network).state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "optimizer_class": type(self.optimizer).__name__,
            "lr_scheduler": self.lr_scheduler.state_dict(),
            "history": self.history,
            "best": max(self.scores, default=-math.inf),
            "epoch": epoch,
        }
        if self.average is not None:
            content["average"] = self.average.state_dict()
        write_checkpoint(self.last_path, content)
        self._write_curves()

    def _validation(self, epoch: int, row: dict[str, float]) -> None:
        """Add the metrics to ``row`` where this epoch was validated."""
        state: Any = self.evaluator.state if self.evaluator is not None else None
        if state is None or not state.metrics or not self._validated:
            return
        self._validated = False
        name = state.key_metric_name
        if "val_loss" in state.metrics:
            row["val_loss"] = float(state.metrics["val_loss"])
        row["val_dice"] = float(state.metrics[name])
        details = state.metric_details.get(name)
        if details is not None:
            for region, column in zip(self.regions, torch.as_tensor(details).nanmean(dim=0).tolist(), strict=True):
                row[f"val_dice_{region}"] = column
        logger.info("epoch %d: loss %.4f, validation Dice %.4f", epoch, row["loss"], row["val_dice"])

    def _write_curves(self) -> None:
        write_atomically(self.run_dir / "curves.csv", as_csv(self.history))
        write_atomically(self.run_dir / "curves.png", as_png(self.history, self.regions))


def _bare(network: nn.Module) -> nn.Module:
    """The network itself where it is shared between processes."""
    return network.module if isinstance(network, DistributedDataParallel) else network


def _not_finite(network: nn.Module) -> str | None:
    """The first layer of a network with a weight or statistic that is infinite or no number."""
    for name, tensor in network.state_dict().items():
        if not tensor.isfinite().all():
            return name
    return None
